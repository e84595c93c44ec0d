//! The limits beside a reference that is written to be obviously right: plain numbers and lists, one
//! step after the other. Over long random histories every decision, every time to try again and every
//! count has to be the same.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use portcullis_core::{Rejection, clock};
use portcullis_ratelimit::{
    Bucket, Charge, KeyedLimiter, Limiter, LimiterBuilder, Limits, Quota, RateLimitConfig, Receipt,
    Refusal, Reservation, Several,
};
use portcullis_testkit::effort;
use proptest::{prelude::*, sample::Index, test_runner::RngSeed};

/// The unit of the reference is a nanosecond, that of the histories a millisecond.
const MS: i64 = 1_000_000;
const T: i64 = 10 * MS;
const DAY: i64 = 86_400_000 * MS;

/// A limit: what passed and has not drained reaches from now to `tat`.
#[derive(Clone, Debug)]
struct Reference {
    burst: i64,
    tat: i64,
    /// Of each charge ever made: up to where its piece of the backlog reaches. What is given back moves
    /// all of them towards now, those before it too.
    ends: HashMap<u64, i64>,
    /// All who ever had to wait, given up or not: where their piece ended when it was taken.
    waited: HashMap<u64, i64>,
    /// To where a hint moved `tat`, and until when it holds.
    hint: Option<(i64, i64)>,
    highest: i64,
}

impl Reference {
    fn new(burst: u32) -> Self {
        let (ends, waited) = Default::default();
        Self { burst: burst.into(), tat: 0, ends, waited, hint: None, highest: 0 }
    }

    fn tolerance(&self) -> i64 {
        T * (self.burst - 1)
    }

    /// When a call may pass whose piece ends there.
    fn ready(&self, end: i64) -> i64 {
        end - T - self.tolerance()
    }

    /// When a call may pass, at `now` or later; never if it costs more than the burst.
    fn earliest(&self, cost: u32, now: i64) -> Option<i64> {
        let end = self.tat.max(now) + T * i64::from(cost.max(1));
        (i64::from(cost) <= self.burst).then(|| self.ready(end).max(now))
    }

    /// Takes the place of a call that may pass by `latest`.
    fn reserve(&mut self, id: u64, cost: u32, now: i64, latest: i64) -> Result<i64, Option<i64>> {
        let at = self.earliest(cost, now).ok_or(None)?;
        if at > latest.max(now) {
            return Err(Some(at));
        }
        self.tat = self.tat.max(now) + T * i64::from(cost.max(1));
        if at > now {
            self.waited.insert(id, self.tat);
        }
        self.ends.insert(id, self.tat);
        Ok(at)
    }

    /// What may not be given back: it lies before somebody's turn that has not come, or a hint did it.
    fn floor(&self, now: i64) -> i64 {
        let turns = self.waited.values().copied().filter(|&end| self.ready(end) > now);
        turns.chain(self.hint.map(|(tat, _)| tat)).max().unwrap_or(i64::MIN)
    }

    fn settle(&mut self, id: u64, taken: u32, actual: u32, now: i64) {
        // What the key was charged before it was forgotten has drained.
        let end = self.ends.remove(&id).unwrap_or(i64::MIN / 2);
        let more = T * (i64::from(actual) - i64::from(taken));
        if more > 0 {
            self.tat = (self.tat.max(now) + more).min(self.tat.max(now + DAY));
            return;
        }
        let back = (-more).min(end - now).max(0);
        if back == 0 {
            return;
        }
        self.ends.values_mut().for_each(|end| *end -= back);
        self.highest = self.highest.max(self.tat);
        self.tat = (self.tat - back).max(self.floor(now).min(self.tat));
    }

    fn cancel(&mut self, id: u64, cost: u32, now: i64) {
        let end = self.waited[&id];
        if now >= self.ready(end) {
            return self.settle(id, cost, 0, now);
        }
        self.ends.remove(&id);
        // Nobody is behind it.
        if self.tat == end {
            let hint = self.hint.map_or(i64::MIN, |(tat, _)| tat.min(end));
            self.tat = (end - T * i64::from(cost)).max(hint);
        }
    }

    fn hold(&mut self, wait: i64, now: i64) {
        if self.hint.is_some_and(|(_, until)| until >= now + wait) {
            return;
        }
        self.hint = Some((now + wait + self.tolerance(), now + wait));
        // By a nanosecond at least, whatever it was.
        self.tat = (self.tat + 1).max(now + wait + self.tolerance());
        // It takes the place of what was taken before: of that nothing is left to give back.
        let backlog = self.tat - now;
        self.ends.values_mut().for_each(|end| *end -= backlog);
    }

    fn is_held(&self, now: i64) -> bool {
        self.hint.is_some_and(|(_, until)| until > now)
    }

    fn left(&self, now: i64) -> u32 {
        let left = (now + T * self.burst - self.tat.max(now)).div_euclid(T);
        u32::try_from(left.clamp(0, self.burst)).unwrap()
    }

    fn is_idle(&self, now: i64) -> bool {
        self.tat.max(self.highest) <= now
    }
}

fn config(burst: u32) -> RateLimitConfig {
    let mut config = RateLimitConfig::default();
    (config.limit, config.per, config.burst) = (1, nanos(T), burst);
    config
}

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap())
}

/// What a caller does, to one of those that are out where it needs one.
#[derive(Clone, Debug)]
enum Op {
    Take(u32),
    Reserve(u32, i64),
    Cancel(Index),
    /// Goes, if its turn has come.
    Arrive(Index),
    Settle(Index, u32),
    Hold(i64),
}

/// So much later, or earlier.
fn step(back: bool) -> BoxedStrategy<i64> {
    let forward = prop_oneof![4 => 0..4_i64, 3 => 0..40_i64, 1 => 0..400_i64];
    if back { prop_oneof![9 => forward, 1 => -60..0_i64].boxed() } else { forward.boxed() }
}

fn op(debts: bool) -> impl Strategy<Value = Op> {
    let actual = if debts { 0..9_u32 } else { 0..2_u32 };
    prop_oneof![
        6 => (0..7_u32).prop_map(Op::Take),
        4 => (0..7_u32, 0..200_i64).prop_map(|(cost, wait)| Op::Reserve(cost, wait)),
        2 => any::<Index>().prop_map(Op::Cancel),
        3 => any::<Index>().prop_map(Op::Arrive),
        4 => (any::<Index>(), actual).prop_map(|(which, actual)| Op::Settle(which, actual)),
        1 => (1..150_i64).prop_map(Op::Hold),
    ]
}

fn cases(bounded: u32, long: u32, seed: u64) -> ProptestConfig {
    ProptestConfig {
        cases: effort(bounded, long),
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// A bucket and the reference, told the same.
struct Pair {
    epoch: Instant,
    quota: Quota,
    bucket: Bucket,
    reference: Reference,
    charges: Vec<(u64, Charge)>,
    waiting: Vec<(u64, u32, Reservation)>,
    /// When each call passed, or will, and what it cost as settled.
    passed: HashMap<u64, (i64, u32)>,
}

impl Pair {
    fn new(burst: u32) -> Self {
        let epoch = clock::now();
        let quota = Quota::new(&config(burst), epoch).unwrap();
        let (bucket, reference) = (Bucket::new(), Reference::new(burst));
        let (charges, waiting, passed) = Default::default();
        Self { epoch, quota, bucket, reference, charges, waiting, passed }
    }

    fn at(&self, now: i64) -> Instant {
        self.epoch + nanos(now)
    }

    fn nanos(&self, at: Instant) -> i64 {
        i64::try_from((at - self.epoch).as_nanos()).unwrap()
    }

    /// What the engine answers, as the reference does: when the call passes, or when it could.
    fn answer(&self, answer: Result<Instant, Refusal>) -> Result<i64, Option<i64>> {
        answer.map(|at| self.nanos(at)).map_err(|refusal| refusal.at().map(|at| self.nanos(at)))
    }

    fn run(&mut self, id: u64, now: i64, op: &Op) {
        let at = self.at(now);
        match *op {
            Op::Take(cost) => {
                let taken = self.bucket.take(&self.quota, cost, at);
                let answer = self.answer(taken.as_ref().map(|_| at).map_err(|&refusal| refusal));
                assert_eq!(answer, self.reference.reserve(id, cost, now, now));
                if let Ok(charge) = taken {
                    self.passed.insert(id, (now, charge.cost()));
                    self.charges.push((id, charge));
                }
            }
            Op::Reserve(cost, wait) => {
                let place = self.bucket.reserve(&self.quota, cost, at, self.at(now + wait * MS));
                let answer =
                    self.answer(place.as_ref().map(Reservation::at).map_err(|&refusal| refusal));
                assert_eq!(answer, self.reference.reserve(id, cost, now, now + wait * MS));
                let Ok(place) = place else { return };
                self.passed.insert(id, (self.nanos(place.at()), cost.max(1)));
                if place.at() > at {
                    self.waiting.push((id, cost.max(1), place));
                } else {
                    self.charges.push((id, place.into_charge()));
                }
            }
            Op::Cancel(which) if !self.waiting.is_empty() => {
                let (id, cost, place) = self.waiting.swap_remove(which.index(self.waiting.len()));
                self.passed.remove(&id);
                self.bucket.cancel(&self.quota, place, at);
                self.reference.cancel(id, cost, now);
            }
            Op::Arrive(which) if !self.waiting.is_empty() => {
                let which = which.index(self.waiting.len());
                if self.waiting[which].2.at() <= at {
                    let (id, _, place) = self.waiting.swap_remove(which);
                    self.charges.push((id, place.into_charge()));
                }
            }
            Op::Settle(which, actual) if !self.charges.is_empty() => {
                let (id, charge) = self.charges.swap_remove(which.index(self.charges.len()));
                if let Some((_, cost)) = self.passed.get_mut(&id) {
                    *cost = actual;
                }
                self.reference.settle(id, charge.cost(), actual, now);
                self.bucket.settle(&self.quota, charge, actual, at);
            }
            Op::Hold(wait) => {
                self.bucket.hold(&self.quota, nanos(wait * MS), at);
                self.reference.hold(wait * MS, now);
            }
            _ => {}
        }
    }

    /// Everything that can be seen.
    fn compare(&self, now: i64) {
        let (bucket, quota, at) = (&self.bucket, &self.quota, self.at(now));
        for cost in 1..=quota.burst() + 1 {
            let checked = self.answer(bucket.check(quota, cost, at).map(|()| at));
            let expected = self.reference.earliest(cost, now);
            assert_eq!(checked, expected.filter(|&at| at <= now).ok_or(expected));
        }
        assert_eq!(bucket.left(quota, at), self.reference.left(now));
        assert_eq!(bucket.is_held(quota, at), self.reference.is_held(now));
        assert_eq!(bucket.is_idle(quota, at), self.reference.is_idle(now));
    }

    /// In no interval has more passed than the burst and what the rate lets pass in it.
    fn assert_bound(&self) {
        let mut passed: Vec<_> = self.passed.values().copied().collect();
        passed.sort_unstable();
        for first in 0..passed.len() {
            let mut sum = 0;
            for &(at, cost) in &passed[first..] {
                sum += T * i64::from(cost);
                let most = T * i64::from(self.quota.burst()) + at - passed[first].0;
                assert!(sum <= most, "{:?} to {at}: {sum} above {most}", passed[first]);
            }
        }
    }
}

fn run(burst: u32, history: &[(i64, Op)]) -> Pair {
    let mut pair = Pair::new(burst);
    let mut now = 0;
    for (id, (step, op)) in (0..).zip(history) {
        now = (now + step * MS).max(0);
        pair.run(id, now, op);
        pair.compare(now);
    }
    pair
}

proptest! {
    #![proptest_config(cases(16, 2_000, 0x6c_6f67))]

    #[test]
    fn each_answer_is_that_of_the_reference_and_the_bound_is_kept_as_settled(
        history in proptest::collection::vec((step(false), op(false)), 1..2_000),
        burst in 1..7_u32,
    ) {
        run(burst, &history).assert_bound();
    }

    #[test]
    fn each_answer_is_that_of_the_reference_with_debts_and_a_clock_that_jumps_back(
        history in proptest::collection::vec((step(true), op(true)), 1..2_000),
        burst in 1..7_u32,
    ) {
        run(burst, &history);
    }
}

/// What a caller does with keys.
#[derive(Clone, Debug)]
enum KeyOp {
    Take(u32),
    /// Through the key's limit, held in hand for one call.
    Handle(u32),
    /// With a limit for everybody.
    Both(u32),
    Settle(Index, u32),
    Hint(i64),
}

fn key_op() -> impl Strategy<Value = KeyOp> {
    prop_oneof![
        8 => (0..5_u32).prop_map(KeyOp::Take),
        1 => (0..5_u32).prop_map(KeyOp::Handle),
        2 => (0..5_u32).prop_map(KeyOp::Both),
        3 => (any::<Index>(), 0..7_u32).prop_map(|(which, actual)| KeyOp::Settle(which, actual)),
        1 => (1..60_i64).prop_map(KeyOp::Hint),
    ]
}

const BURST: u32 = 4;

/// The limits of keys, some of them forgotten as others come, beside a reference that forgets none.
struct Keys {
    limiters: KeyedLimiter,
    everybody: Limiter,
    own: HashMap<String, Reference>,
    overflow: Reference,
    all: Reference,
    charges: VecDeque<(u64, String, Taken)>,
    forgotten: usize,
    shared: usize,
}

enum Taken {
    One(Charge),
    /// Whether the key's own limit has taken it, or the one that keys share, and how much.
    Both(Receipt<Several>, bool, u32),
}

impl Keys {
    fn new(room: usize) -> Self {
        let limiter = |name| Limiter::builder(name).config(config(BURST)).max_keys(room);
        Self {
            limiters: LimiterBuilder::build_keyed(limiter("keys")).unwrap(),
            everybody: limiter("everybody").rate(1, nanos(T)).burst(2 * BURST).build().unwrap(),
            own: HashMap::new(),
            overflow: Reference::new(BURST),
            all: Reference::new(2 * BURST),
            charges: VecDeque::new(),
            forgotten: 0,
            shared: 0,
        }
    }

    /// The reference for a key, once the limits have decided whether there is room for it. What was
    /// forgotten must have been as good as new.
    fn reference(&mut self, key: &str, now: i64) -> &mut Reference {
        let Self { limiters, own, overflow, forgotten, shared, .. } = self;
        own.retain(|key, reference| {
            let kept = limiters.snapshot(key).is_some();
            assert!(kept || reference.is_idle(now), "{key} was forgotten too early");
            *forgotten += usize::from(!kept);
            kept
        });
        if limiters.snapshot(key).is_none() {
            *shared += 1;
            return overflow;
        }
        let new = || if overflow.is_idle(now) { Reference::new(BURST) } else { overflow.clone() };
        own.entry(key.into()).or_insert_with(new)
    }

    fn run(&mut self, id: u64, key: &str, op: &KeyOp, now: i64) {
        match *op {
            KeyOp::Take(cost) | KeyOp::Handle(cost) => {
                let taken = match op {
                    KeyOp::Take(_) => self.limiters.try_acquire_n(key, cost),
                    _ => self.limiters.limiter(key).try_acquire_n(cost),
                };
                let retry = taken.as_ref().err().map(Rejection::retry_after);
                let expected = self.reference(key, now).reserve(id, cost, now, now);
                assert_eq!(retry, expected.err().map(|at| at.map(|at| nanos(at - now))));
                self.charges.extend(taken.ok().map(|taken| (id, key.into(), Taken::One(taken))));
            }
            KeyOp::Both(cost) => {
                let both = [self.limiters.limiter(key), self.everybody.clone()];
                let taken = Limits::all(both).unwrap().try_acquire_n(cost);
                let retry = taken.as_ref().err().map(Rejection::retry_after);
                let one = self.reference(key, now).earliest(cost, now);
                let all = self.all.earliest(cost, now);
                // Whoever lets it pass last says when.
                let at = one.zip(all).map(|(one, all)| one.max(all));
                let expected = at.filter(|&at| at <= now).ok_or(at);
                assert_eq!(retry, expected.err().map(|at| at.map(|at| nanos(at - now))));
                if let Ok(taken) = taken {
                    self.reference(key, now).reserve(id, cost, now, now).unwrap();
                    self.all.reserve(id, cost, now, now).unwrap();
                    let own = self.own.contains_key(key);
                    self.charges.push_back((id, key.into(), Taken::Both(taken, own, cost.max(1))));
                }
            }
            KeyOp::Settle(which, actual) if !self.charges.is_empty() => {
                let which = which.index(self.charges.len());
                let Some((id, key, taken)) = self.charges.remove(which) else { return };
                match taken {
                    Taken::One(charge) => {
                        let cost = charge.cost();
                        self.limiters.settle(&key, charge, actual);
                        self.reference(&key, now).settle(id, cost, actual, now);
                    }
                    // It has the limits in hand: none of them was forgotten.
                    Taken::Both(receipt, own, cost) => {
                        receipt.settle(actual);
                        let one =
                            if own { self.own.get_mut(&key) } else { Some(&mut self.overflow) };
                        one.unwrap().settle(id, cost, actual, now);
                        self.all.settle(id, cost, actual, now);
                    }
                }
            }
            KeyOp::Hint(wait) => {
                self.limiters.hint(key, nanos(wait * MS));
                self.reference(key, now).hold(wait * MS, now);
            }
            KeyOp::Settle(..) => {}
        }
    }

    fn compare(&self, now: i64) {
        for (key, reference) in &self.own {
            let Some(seen) = self.limiters.snapshot(key) else { continue };
            let wait = reference.earliest(1, now).unwrap() - now;
            assert_eq!((seen.left, seen.wait), (reference.left(now), nanos(wait)), "{key}");
            assert_eq!(seen.held, reference.is_held(now));
        }
        assert_eq!(self.limiters.overflow().snapshot().left, self.overflow.left(now));
        assert_eq!(self.everybody.snapshot().left, self.all.left(now));
    }
}

proptest! {
    #![proptest_config(cases(16, 1_000, 0x6b_6579))]

    #[test]
    fn each_answer_for_a_key_is_that_of_the_reference_though_keys_are_forgotten_and_share(
        history in proptest::collection::vec((step(false), 0..9_u32, key_op()), 1..1_500),
        room in 1..7_usize,
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let mut keys = Keys::new(room);
            let mut now = 0;
            for (id, (step, key, op)) in (0..).zip(&history) {
                tokio::time::advance(nanos(step * MS)).await;
                now += step * MS;
                keys.run(id, &format!("key {key}"), op, now);
                keys.compare(now);
                // What is not settled soon stands, and lets go of the limits.
                keys.charges.drain(..keys.charges.len().saturating_sub(10));
                assert!(keys.limiters.len() <= room);
            }
            assert!(history.len() < 1_000 || keys.forgotten > 0 && keys.shared > 0);
        });
    }
}
