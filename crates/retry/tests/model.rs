//! The engine against naive references, over random histories.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use portcullis_core::{Call, Fault, FaultKind, Hint, Outcome, Reason, Replay, clock};
use portcullis_retry::{
    Attempt, Backoff, Budget, BudgetConfig, Decision, Jitter, Policy, RetryConfig, Withdrawal,
};
use portcullis_testkit::Seed;
use proptest::prelude::*;

/// One thing that happens to a budget.
#[derive(Clone, Debug)]
enum Happens {
    Pass(u64),
    First,
    Decide,
    Send(usize),
    Cancel(usize),
}

/// The bucket as one would write it down: whole numbers, no packing, no modulus.
struct Naive {
    capacity: u64,
    ratio: u64,
    reserve: u64,
    paid_in: u64,
    held: u64,
    waiting: u64,
}

impl Naive {
    fn flow(&mut self, at: Duration) {
        let paid_in =
            u64::try_from(at.as_nanos() * u128::from(self.reserve) / 1_000_000_000).unwrap();
        self.held = self.capacity.min(self.held + paid_in - self.paid_in);
        self.paid_in = paid_in;
    }

    fn first(&mut self, at: Duration) {
        self.flow(at);
        self.held = self.capacity.min(self.held + self.ratio);
    }

    fn free(&self) -> u64 {
        self.held - 1_000 * self.waiting
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0..3_000_000u64).prop_map(Happens::Pass),
        1 => (0..60_000_000_000u64).prop_map(Happens::Pass),
        6 => Just(Happens::First),
        6 => Just(Happens::Decide),
        4 => any::<usize>().prop_map(Happens::Send),
        2 => any::<usize>().prop_map(Happens::Cancel),
    ]
}

fn settings() -> impl Strategy<Value = (u32, u64, u64)> {
    (
        prop_oneof![1..5u32, 1..=BudgetConfig::MAX_CAPACITY],
        0..=1_000u64,
        prop_oneof![Just(0), 1..5_000u64, 1..=100_000u64],
    )
}

fn budget_config((capacity, ratio, reserve): (u32, u64, u64)) -> BudgetConfig {
    let mut config = BudgetConfig::default();
    config.capacity = capacity;
    config.ratio = ratio as f64 / 1_000.0;
    config.reserve = reserve as f64 / 1_000.0;
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_budget_is_as_the_naive_one_and_its_bound_holds_in_every_interval(
        settings in settings(),
        history in prop::collection::vec(happens(), 1..160),
    ) {
        let budget = Budget::new(budget_config(settings)).unwrap();
        let (capacity, ratio, reserve) = settings;
        let capacity = u64::from(capacity) * 1_000;
        let mut naive = Naive { capacity, ratio, reserve, paid_in: 0, held: capacity, waiting: 0 };
        let epoch = clock::now();
        prop_assert_eq!(budget.balance(epoch), f64::from(settings.0));

        let mut at = Duration::ZERO;
        let mut waiting: Vec<Withdrawal> = Vec::new();
        // What was sent: when, and whether it was a retry.
        let mut sent: Vec<(Duration, bool)> = Vec::new();
        for happens in history {
            let now = epoch + at;
            match happens {
                Happens::Pass(nanos) => at += Duration::from_nanos(nanos),
                Happens::First => {
                    budget.deposit();
                    naive.first(at);
                    sent.push((at, false));
                }
                Happens::Decide => {
                    naive.flow(at);
                    match budget.withdraw(now) {
                        Ok(withdrawal) => {
                            prop_assert!(naive.free() >= 1_000);
                            naive.waiting += 1;
                            waiting.push(withdrawal);
                        }
                        Err(reason) => {
                            prop_assert!(naive.free() < 1_000);
                            let balance_milli = naive.free();
                            prop_assert_eq!(reason, Reason::BudgetSpent { balance_milli });
                        }
                    }
                }
                Happens::Send(which) if !waiting.is_empty() => {
                    waiting.swap_remove(which % waiting.len()).spend(now);
                    naive.flow(at);
                    naive.waiting -= 1;
                    naive.held -= 1_000;
                    sent.push((at, true));
                }
                Happens::Cancel(which) if !waiting.is_empty() => {
                    drop(waiting.swap_remove(which % waiting.len()));
                    naive.waiting -= 1;
                }
                Happens::Send(_) | Happens::Cancel(_) => {}
            }
            naive.flow(at);
            prop_assert_eq!(budget.balance(epoch + at), naive.free() as f64 / 1_000.0);
            prop_assert_eq!(u64::from(budget.waiting()), naive.waiting);
        }

        for (i, &(from, _)) in sent.iter().enumerate() {
            let (mut firsts, mut retries) = (0, 0);
            for &(to, retry) in &sent[i..] {
                *(if retry { &mut retries } else { &mut firsts }) += 1_u64;
                let flowed = (to - from).as_nanos() * u128::from(reserve) / 1_000_000_000;
                // One thousandth more: the reserve is counted in whole ones.
                let bound = u128::from(capacity + ratio * firsts) + flowed + 1;
                prop_assert!(u128::from(retries * 1_000) <= bound);
            }
        }
    }

    #[test]
    fn a_wait_is_within_the_cap_at_least_the_hint_and_over_before_the_deadline(
        attempt in 1..40u32,
        initial in 1..5_000u64,
        longer in 0..100_000u64,
        previous in prop::option::of(0..100_000u64),
        hint in prop::option::of(0..70_000u64),
        left in prop::option::of(0..100_000u64),
        jitter in prop_oneof![
            Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::None),
            (0.0..=1.0).prop_map(Jitter::Fraction),
        ],
        decorrelated: bool,
        word: u64,
    ) {
        let (initial, cap) = (ms(initial), ms(initial + longer));
        let mut config = RetryConfig::default();
        config.max_attempts = 50;
        config.backoff = if decorrelated {
            Backoff::decorrelated(initial, cap)
        } else {
            Backoff::exponential(initial, cap)
        };
        config.jitter = jitter;
        let policy = Policy::new(&config).unwrap();

        let now = clock::now();
        let call = left.map_or(Call::new(), |left| Call::new().with_deadline(now + ms(left)));
        let advice = hint.map_or(Hint::None, |hint| Hint::After(ms(hint)));
        let fault = Fault::new(FaultKind::Connect, Replay::Safe).with_hint(advice);
        let attempt = Attempt::new(attempt, Outcome::Failure(fault));
        let decision = policy.decide(&attempt, &call, now, previous.map(ms), || Some(()), || word);

        match decision {
            Decision::Retry(plan) => {
                prop_assert!(left.is_none_or(|left| plan.delay < ms(left)));
                match hint {
                    Some(hint) => {
                        prop_assert!(plan.delay >= ms(hint) && plan.delay <= ms(hint) + cap);
                        prop_assert_eq!(plan.computed, None);
                    }
                    None => {
                        prop_assert!(plan.delay <= cap);
                        prop_assert!(!decorrelated || plan.delay >= initial);
                        prop_assert_eq!(plan.computed, Some(plan.delay));
                    }
                }
            }
            Decision::GiveUp(Reason::HintTooLong { .. }) => prop_assert!(hint.unwrap() > 60_000),
            Decision::GiveUp(Reason::DeadlineTooClose { left: l, needed }) => {
                prop_assert_eq!(l, ms(left.unwrap()));
                prop_assert!(needed >= l);
                prop_assert_eq!(policy.budget().unwrap().waiting(), 0);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_balance_of_one_is_never_spent_twice() {
    const THREADS: usize = 4;
    let now = clock::now();
    let mut last_one = BudgetConfig::default();
    (last_one.capacity, last_one.ratio, last_one.reserve) = (1, 0.0, 0.0);

    let rounds: Vec<_> = (0..2_000).map(|_| Budget::new(last_one).unwrap()).collect();
    let together = Barrier::new(THREADS);
    let taken = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let race = |budget: &Budget| {
                        together.wait();
                        budget.withdraw(now).ok()
                    };
                    rounds.iter().map(race).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for round in 0..rounds.len() {
        let takers = taken.iter().filter(|taken| taken[round].is_some());
        assert_eq!(takers.count(), 1);
    }
}

#[test]
fn threads_that_send_cancel_and_pay_in_never_overdraw() {
    const THREADS: u64 = 4;
    const STEPS: u64 = 20_000;
    let now = clock::now();
    let mut config = BudgetConfig::default();
    (config.capacity, config.ratio, config.reserve) = (7, 0.25, 0.0);
    let budget = Budget::new(config).unwrap();

    let run = |seed: u64, now: Instant| {
        let mut seed = Seed::new(seed);
        let (mut firsts, mut sent) = (0_u64, 0_u64);
        let mut waiting = Vec::new();
        for _ in 0..STEPS {
            match seed.within(0..4) {
                0 => {
                    budget.deposit();
                    firsts += 1;
                }
                1 => waiting.extend(budget.withdraw(now)),
                2 => drop(waiting.pop()),
                _ => {
                    if let Some(withdrawal) = waiting.pop() {
                        withdrawal.spend(now);
                        sent += 1;
                    }
                }
            }
        }
        (firsts, sent)
    };
    let (firsts, sent) = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|seed| scope.spawn(move || run(seed, now))).collect();
        threads.into_iter().fold((0, 0), |sum, thread| {
            let (firsts, sent) = thread.join().unwrap();
            (sum.0 + firsts, sum.1 + sent)
        })
    });

    assert!(sent > 1_000, "the race hardly took place: {sent}");
    assert!(sent * 1_000 <= 7_000 + 250 * firsts);
    assert_eq!(budget.waiting(), 0);
    let balance = budget.balance(now);
    assert!((0.0..=7.0).contains(&balance), "{balance}");
}
