//! The budget under real threads; `tests/loom.rs` goes through the interleavings one by one.

use std::{sync::Barrier, thread, time::Instant};

use portcullis_core::clock;
use portcullis_retry::{Budget, BudgetConfig};
use portcullis_testkit::{Seed, effort};

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
    let steps = effort(20_000, 2_000_000);
    let now = clock::now();
    let mut config = BudgetConfig::default();
    (config.capacity, config.ratio, config.reserve) = (7, 0.25, 0.0);
    let budget = Budget::new(config).unwrap();

    let run = |seed: u64, now: Instant| {
        let mut seed = Seed::new(seed);
        let (mut firsts, mut sent) = (0_u64, 0_u64);
        let mut waiting = Vec::new();
        for _ in 0..steps {
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
