//! The engine against a naive reference: a list of what passed, looked through over all intervals.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use portcullis_core::clock;
use portcullis_ratelimit::{
    Bucket, Charge, KeyedLimiter, Limiter, Limits, Quota, RateLimitConfig, Refusal, Reservation,
};
use portcullis_testkit::effort;
use proptest::{prelude::*, test_runner::RngSeed};

/// T, in milliseconds: small beside the times in the histories, so that much drains in between.
const SPACING: u64 = 10;

fn config(burst: u32) -> RateLimitConfig {
    let mut config = RateLimitConfig::default();
    (config.limit, config.per) = (1, Duration::from_millis(SPACING));
    (config.burst, config.max_wait) = (burst, Duration::from_millis(300));
    config
}

/// What passed: when, in milliseconds, and at what cost.
#[derive(Clone, Debug, Default)]
struct Passed(Vec<(u64, u64)>);

impl Passed {
    /// The most by which the costs in any interval exceed the rate: the bound says `burst`.
    ///
    /// In units times the spacing, so that no division rounds.
    fn excess(&self) -> i64 {
        let mut all = self.0.clone();
        all.sort_unstable();
        let mut worst = i64::MIN;
        for first in 0..all.len() {
            let mut sum = 0;
            for last in first..all.len() {
                sum += all[last].1 * SPACING;
                worst = worst.max(sum as i64 - (all[last].0 - all[first].0) as i64);
            }
        }
        worst
    }

    fn assert_bound(&self, burst: u32) {
        assert!(self.excess() <= i64::from(burst) * SPACING as i64, "burst {burst}: {:?}", self.0);
    }

    /// Whether so much more may pass at a time that is not before any in the list.
    fn has_room(&self, at: u64, cost: u64, burst: u32) -> bool {
        let mut sum = cost * SPACING;
        let most = u64::from(burst) * SPACING;
        sum <= most
            && self.0.iter().rev().all(|(then, cost)| {
                sum += cost * SPACING;
                sum <= most + (at - then)
            })
    }
}

struct Clocked {
    quota: Quota,
    bucket: Bucket,
    epoch: Instant,
}

impl Clocked {
    fn new(burst: u32) -> Self {
        let epoch = clock::now();
        let quota = Quota::new(&config(burst), epoch).unwrap();
        Self { quota, bucket: Bucket::new(), epoch }
    }

    fn at(&self, ms: u64) -> Instant {
        self.epoch + Duration::from_millis(ms)
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from((at - self.epoch).as_nanos().div_ceil(1_000_000)).unwrap()
    }

    fn take(&self, cost: u32, ms: u64) -> Result<Charge, Refusal> {
        self.bucket.take(&self.quota, cost, self.at(ms))
    }

    fn reserve(&self, cost: u32, ms: u64, latest: u64) -> Result<Reservation, Refusal> {
        self.bucket.reserve(&self.quota, cost, self.at(ms), self.at(latest))
    }
}

/// Steps of a history: the time since the one before, and a cost.
fn steps() -> impl Strategy<Value = Vec<(u64, u32)>> {
    proptest::collection::vec(
        (prop_oneof![2 => 0..3_u64, 2 => 0..40_u64, 1 => 0..300_u64], 1..6_u32),
        1..60,
    )
}

#[derive(Clone, Debug)]
enum Op {
    Take(u32),
    Reserve(u32, u64),
    /// Drops one of those that wait.
    Cancel(usize),
    /// Settles one of those that passed.
    Settle(usize, u32),
    Hold(u64),
}

fn ops(hints: bool, debts: bool) -> impl Strategy<Value = Vec<(u64, Op)>> {
    let actual = if debts { 0..9_u32 } else { 0..2_u32 };
    let hold = if hints { 0..150_u64 } else { 0..1_u64 };
    let op = prop_oneof![
        4 => (1..6_u32).prop_map(Op::Take),
        4 => (1..6_u32, 0..200_u64).prop_map(|(cost, wait)| Op::Reserve(cost, wait)),
        2 => any::<usize>().prop_map(Op::Cancel),
        4 => (any::<usize>(), actual).prop_map(|(which, actual)| Op::Settle(which, actual)),
        1 => hold.prop_map(Op::Hold),
    ];
    proptest::collection::vec((prop_oneof![3 => 0..4_u64, 2 => 0..40_u64], op), 1..80)
}

/// A call that waits, and whoever sends it when its turn comes.
struct Waiting {
    at: u64,
    cost: u32,
    latest: u64,
    reservation: Reservation,
}

#[derive(Default)]
struct History {
    waiting: Vec<Waiting>,
    /// Of those that passed: where in the list, and the charge until it is settled.
    out: Vec<(usize, Option<Charge>)>,
    passed: Passed,
    held_until: u64,
}

impl History {
    fn pass(&mut self, ms: u64, charge: Charge) {
        assert!(ms >= self.held_until, "passed at {ms}, held until {}", self.held_until);
        self.out.push((self.passed.0.len(), Some(charge)));
    }

    /// Sends those whose turn has come by `ms`.
    fn wake(&mut self, clocked: &Clocked, ms: u64) {
        while let Some(next) = (0..self.waiting.len()).min_by_key(|&i| (self.waiting[i].at, i)) {
            if self.waiting[next].at > ms {
                break;
            }
            let Waiting { at, cost, latest, reservation } = self.waiting.remove(next);
            let now = clocked.at(at);
            if clocked.bucket.is_held(&clocked.quota, now) {
                clocked.bucket.cancel(&clocked.quota, reservation, now);
                self.reserve(clocked, cost, at, latest);
            } else {
                self.pass(at, reservation.into_charge());
                self.passed.0.push((at, cost.into()));
            }
        }
    }

    fn reserve(&mut self, clocked: &Clocked, cost: u32, ms: u64, latest: u64) {
        let Ok(reservation) = clocked.reserve(cost, ms, latest) else { return };
        let at = clocked.ms(reservation.at());
        assert!(at <= latest.max(ms));
        self.waiting.push(Waiting { at, cost, latest, reservation });
        self.wake(clocked, ms);
    }

    fn run(&mut self, clocked: &Clocked, ms: u64, op: &Op) {
        let (bucket, quota, now) = (&clocked.bucket, &clocked.quota, clocked.at(ms));
        match *op {
            Op::Take(cost) => {
                if let Ok(charge) = clocked.take(cost, ms) {
                    self.pass(ms, charge);
                    self.passed.0.push((ms, cost.into()));
                }
            }
            Op::Reserve(cost, wait) => self.reserve(clocked, cost, ms, ms + wait),
            Op::Cancel(which) if !self.waiting.is_empty() => {
                let waiting = self.waiting.remove(which % self.waiting.len());
                bucket.cancel(quota, waiting.reservation, now);
            }
            Op::Settle(which, actual) if !self.out.is_empty() => {
                let which = which % self.out.len();
                let (index, charge) = &mut self.out[which];
                let Some(charge) = charge.take() else { return };
                let cost = charge.cost();
                if actual < cost {
                    self.passed.0[*index].1 = actual.into();
                } else if actual > cost {
                    // A debt: from now on it weighs as if it had passed now.
                    self.passed.0.push((ms, u64::from(actual - cost)));
                }
                bucket.settle(quota, charge, actual, now);
            }
            Op::Hold(wait) if wait > 0 => {
                bucket.hold(quota, Duration::from_millis(wait), now);
                self.held_until = self.held_until.max(ms + wait);
            }
            _ => {}
        }
    }
}

fn run(burst: u32, ops: &[(u64, Op)]) -> History {
    let clocked = Clocked::new(burst);
    let mut history = History::default();
    let mut ms = 0;
    for (step, op) in ops {
        ms += step;
        history.wake(&clocked, ms);
        history.run(&clocked, ms, op);
    }
    history.wake(&clocked, u64::MAX);
    history
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: effort(200, 10_000),
        rng_seed: RngSeed::Fixed(0x6763_7261),
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_lets_pass_exactly_what_the_bound_allows(steps in steps(), burst in 1..8_u32) {
        let clocked = Clocked::new(burst);
        let mut passed = Passed::default();
        let mut ms = 0;
        for (step, cost) in steps {
            ms += step;
            let expected = passed.has_room(ms, cost.into(), burst);
            prop_assert_eq!(clocked.bucket.check(&clocked.quota, cost, clocked.at(ms)).is_ok(), expected);
            match clocked.take(cost, ms) {
                Ok(charge) => {
                    prop_assert!(expected);
                    prop_assert_eq!(charge.cost(), cost);
                    passed.0.push((ms, cost.into()));
                }
                Err(refusal) => {
                    prop_assert!(!expected);
                    prop_assert_eq!(refusal.at().is_none(), cost > burst);
                    if let Some(at) = refusal.at() {
                        // It would pass then, and not a millisecond earlier.
                        let at = clocked.ms(at);
                        prop_assert!(passed.has_room(at, cost.into(), burst));
                        prop_assert!(!passed.has_room(at - 1, cost.into(), burst));
                    }
                }
            }
        }
        passed.assert_bound(burst);
    }

    #[test]
    fn clocks_that_jump_or_stand_still_let_no_more_pass(
        instants in proptest::collection::vec((0..500_u64, 1..4_u32, 1..20_u64), 1..80),
        burst in 1..8_u32,
    ) {
        let clocked = Clocked::new(burst);
        let mut passed = Passed::default();
        for (ms, cost, coarse) in instants {
            let ms = ms / coarse * coarse;
            if clocked.take(cost, ms).is_ok() {
                passed.0.push((ms, cost.into()));
            }
        }
        passed.assert_bound(burst);
    }

    #[test]
    fn who_waits_is_served_in_order_and_as_early_as_the_bound_allows(
        steps in steps(),
        burst in 1..8_u32,
    ) {
        let clocked = Clocked::new(burst);
        let mut passed = Passed::default();
        let (mut ms, mut last) = (0, 0);
        for (step, cost) in steps {
            ms += step;
            if cost > burst {
                prop_assert_eq!(clocked.reserve(cost, ms, ms + 1_000), Err(Refusal::Never));
                continue;
            }
            let mut earliest = ms.max(last);
            while !passed.has_room(earliest, cost.into(), burst) {
                earliest += 1;
            }
            let at = match clocked.reserve(cost, ms, ms + 120) {
                Ok(reservation) => clocked.ms(reservation.at()),
                Err(refusal) => {
                    prop_assert!(clocked.ms(refusal.at().unwrap()) > ms + 120);
                    prop_assert_eq!(clocked.ms(refusal.at().unwrap()), earliest);
                    continue;
                }
            };
            // One that costs less may pass at once behind one that costs more and passed at once.
            prop_assert!(at <= earliest && (at == earliest || at == ms), "{at} {earliest}");
            prop_assert!(at >= last || at == ms);
            last = last.max(at);
            passed.0.push((at, cost.into()));
        }
        passed.assert_bound(burst);
    }

    #[test]
    fn cancelled_settled_and_waiting_calls_keep_the_bound(
        ops in ops(false, false),
        burst in 1..8_u32,
    ) {
        run(burst, &ops).passed.assert_bound(burst);
    }

    #[test]
    fn after_a_hint_one_passes_and_then_no_more_than_the_rate(
        ops in ops(true, false),
        burst in 1..8_u32,
    ) {
        // With those that wait: they pass neither before the hold is over nor beyond the bound.
        run(burst, &ops).passed.assert_bound(burst);
        // Who waits already for a turn after it keeps that. Without such, nothing of the burst is left
        // when the hold is over.
        let ops: Vec<_> =
            ops.into_iter().filter(|(_, op)| !matches!(op, Op::Reserve(..))).collect();
        let history = run(burst, &ops);
        let since = history.held_until;
        let mut after = history.passed.0;
        after.retain(|&(at, _)| since > 0 && at >= since);
        after.sort_unstable();
        let mut sum = 0;
        for (at, cost) in after {
            sum += cost;
            prop_assert!(sum <= 1 + (at - since) / SPACING);
        }
    }

    #[test]
    fn debts_are_paid_by_later_calls(ops in ops(true, true), burst in 1..8_u32) {
        // What passes finds room beside all that passed before, as settled in the end, debts included.
        // Who waits already when a debt is made has been told its turn.
        let ops: Vec<_> =
            ops.into_iter().filter(|(_, op)| !matches!(op, Op::Reserve(..))).collect();
        let history = run(burst, &ops);
        let debts = |index: usize| !history.out.iter().any(|(at, _)| *at == index);
        let mut before = Passed::default();
        let mut all: Vec<_> = history.passed.0.iter().copied().enumerate().collect();
        all.sort_by_key(|&(index, (at, _))| (at, index));
        for (index, (at, cost)) in all {
            if !debts(index) {
                prop_assert!(before.has_room(at, cost, burst));
            }
            before.0.push((at, cost));
        }
    }

    #[test]
    fn several_at_once_pass_where_each_would_and_charge_none_where_one_refuses(
        steps in proptest::collection::vec((0..30_u64, 1..4_u32, 0..8_usize), 1..60),
    ) {
        paused(async move {
            let bursts = [3, 5, 7];
            let limiters = bursts.map(|burst| {
                Limiter::builder("l").config(config(burst)).build().unwrap()
            });
            let mut passed = [const { Passed(Vec::new()) }; 3];
            let mut ms = 0;
            for (step, cost, which) in steps {
                tokio::time::advance(Duration::from_millis(step)).await;
                ms += step;
                let chosen: Vec<_> = (0..3).filter(|i| which >> i & 1 == 1).collect();
                let Ok(limits) = Limits::all(chosen.iter().map(|&i| limiters[i].clone())) else {
                    continue;
                };
                let expected =
                    chosen.iter().all(|&i| passed[i].has_room(ms, cost.into(), bursts[i]));
                assert_eq!(limits.try_acquire_n(cost).is_ok(), expected);
                if expected {
                    chosen.iter().for_each(|&i| passed[i].0.push((ms, cost.into())));
                }
                for (i, limiter) in limiters.iter().enumerate() {
                    let left = limiter.snapshot().left;
                    assert!(left == 0 || passed[i].has_room(ms, left.into(), bursts[i]));
                    assert!(!passed[i].has_room(ms, u64::from(left) + 1, bursts[i]));
                }
            }
        });
    }

    #[test]
    fn several_that_wait_keep_the_bound_of_each(
        calls in proptest::collection::vec((0..60_u64, 1..4_u32, 0..8_usize, 0..100_u64), 1..40),
    ) {
        paused(async move {
            let bursts = [3, 5, 7];
            let limiters = bursts.map(|burst| {
                Limiter::builder("l").config(config(burst)).build().unwrap()
            });
            let start = clock::now();
            let mut tasks = tokio::task::JoinSet::new();
            for (step, cost, which, patience) in calls {
                tokio::time::sleep(Duration::from_millis(step)).await;
                let chosen = limiters.iter().enumerate().filter(|(i, _)| which >> i & 1 == 1);
                let Ok(limits) = Limits::all(chosen.map(|(_, limiter)| limiter.clone())) else {
                    continue;
                };
                tasks.spawn(async move {
                    let patience = Duration::from_millis(patience);
                    // Some are dropped while they wait.
                    match tokio::time::timeout(patience, limits.until_ready_n(cost)).await {
                        Ok(Ok(_)) => Some((which, clock::now() - start, cost)),
                        _ => None,
                    }
                });
            }
            let mut passed = [const { Passed(Vec::new()) }; 3];
            while let Some(done) = tasks.join_next().await {
                let Some((which, at, cost)) = done.unwrap() else { continue };
                let at = u64::try_from(at.as_millis()).unwrap();
                (0..3).filter(|i| which >> i & 1 == 1).for_each(|i| passed[i].0.push((at, cost.into())));
            }
            for (passed, burst) in passed.iter().zip(bursts) {
                passed.assert_bound(burst);
            }
        });
    }

    #[test]
    fn each_key_keeps_the_bound_though_keys_are_forgotten_and_share(
        steps in proptest::collection::vec((0..40_u64, 0..7_u32, 1..3_u32), 1..120),
        room in 1..5_usize,
    ) {
        paused(async move {
            let mut config = config(4);
            config.max_keys = room;
            let limiters = KeyedLimiter::builder("keys").config(config).build_keyed().unwrap();
            let mut passed: HashMap<u32, Passed> = HashMap::new();
            let mut ms = 0;
            for (step, key, cost) in steps {
                tokio::time::advance(Duration::from_millis(step)).await;
                ms += step;
                if limiters.try_acquire_n(&key.to_string(), cost).is_ok() {
                    passed.entry(key).or_default().0.push((ms, cost.into()));
                }
                assert!(limiters.len() <= room);
            }
            passed.values().for_each(|passed| passed.assert_bound(4));
        });
    }
}

fn paused(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
}
