//! The budget alone.

use std::time::Duration;

use portcullis_core::clock;
use portcullis_retry::{Budget, BudgetConfig, Withdrawal};
use proptest::prelude::*;

use crate::{cases, reference::Bucket};

/// One thing that happens to a budget.
#[derive(Clone, Debug)]
enum Happens {
    Pass(Duration),
    First,
    Withdraw,
    Send(usize),
    Cancel(usize),
    /// Everything that waits is sent at one moment, as a hint that many were given has it.
    SendAll,
    CancelAll,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0..3_000_000u64).prop_map(|nanos| Happens::Pass(Duration::from_nanos(nanos))),
        1 => (0..60_000u64).prop_map(|ms| Happens::Pass(Duration::from_millis(ms))),
        6 => Just(Happens::First),
        6 => Just(Happens::Withdraw),
        4 => any::<usize>().prop_map(Happens::Send),
        2 => any::<usize>().prop_map(Happens::Cancel),
        1 => Just(Happens::SendAll),
        1 => Just(Happens::CancelAll),
    ]
}

/// The same, and now and then nothing for days: the sum of the reserve wraps.
fn happens_over_years() -> impl Strategy<Value = Happens> {
    let days = (0..40_000_000u64).prop_map(|secs| Happens::Pass(Duration::from_secs(secs)));
    prop_oneof![20 => happens(), 1 => days]
}

pub(crate) fn settings() -> impl Strategy<Value = (u32, u32, u32)> {
    (
        prop_oneof![1..5u32, 1..=BudgetConfig::MAX_CAPACITY],
        prop_oneof![1 => Just(0), 9 => 0..=1_000u32],
        prop_oneof![Just(0), 1..5_000u32, 1..=100_000u32],
    )
}

pub(crate) fn config((capacity, ratio, reserve): (u32, u32, u32)) -> BudgetConfig {
    let mut config = BudgetConfig::default();
    config.capacity = capacity;
    config.ratio = f64::from(ratio) / 1_000.0;
    config.reserve = f64::from(reserve) / 1_000.0;
    config
}

proptest! {
    #![proptest_config(cases(32, 2_000, 1, "proptest-regressions/budget.txt"))]

    #[test]
    fn every_answer_and_every_count_is_the_naive_ones_and_the_bound_holds_in_every_interval(
        settings in settings(),
        history in prop::collection::vec(happens_over_years(), 1..3_000),
    ) {
        let (capacity, ratio, reserve) = settings;
        let budget = Budget::new(config(settings)).unwrap();
        let mut naive = Bucket::full(capacity, ratio, reserve);
        let epoch = clock::now();
        prop_assert_eq!(budget.balance(epoch), f64::from(capacity));

        let mut at = Duration::ZERO;
        let mut waiting: Vec<Withdrawal> = Vec::new();
        // When each retry was sent, and how many first attempts there had been.
        let (mut sent, mut firsts) = (Vec::new(), 0);
        for happens in history {
            let now = epoch + at;
            match happens {
                Happens::Pass(time) => at += time,
                Happens::First => {
                    budget.deposit();
                    naive.first(at);
                    firsts += 1;
                }
                Happens::Withdraw => match budget.withdraw(now) {
                    Ok(withdrawal) => {
                        prop_assert_eq!(naive.withdraw(at), Ok(()));
                        waiting.push(withdrawal);
                    }
                    Err(reason) => prop_assert_eq!(naive.withdraw(at), Err(reason)),
                },
                Happens::Send(which) if !waiting.is_empty() => {
                    waiting.swap_remove(which % waiting.len()).spend(now);
                    naive.spend(at);
                    sent.push((at, firsts));
                }
                Happens::Cancel(which) if !waiting.is_empty() => {
                    drop(waiting.swap_remove(which % waiting.len()));
                    naive.refund();
                }
                Happens::SendAll => for withdrawal in waiting.drain(..) {
                    withdrawal.spend(now);
                    naive.spend(at);
                    sent.push((at, firsts));
                },
                Happens::CancelAll => for withdrawal in waiting.drain(..) {
                    drop(withdrawal);
                    naive.refund();
                },
                Happens::Send(_) | Happens::Cancel(_) => {}
            }
            naive.flow(at);
            prop_assert_eq!(budget.balance(epoch + at), naive.balance());
            prop_assert_eq!(budget.waiting(), naive.waiting());
        }

        // An interval is the tightest where it begins and ends with a retry.
        for (i, &(from, before)) in sent.iter().enumerate() {
            for (j, &(to, until)) in sent.iter().enumerate().skip(i) {
                let retries = (j - i + 1) as u128 * 1_000;
                prop_assert!(retries <= naive.bound(to - from, until - before), "{i} to {j}");
            }
        }
    }

    #[test]
    fn threads_that_read_the_clock_early_and_come_late_break_no_bound(
        settings in settings(),
        history in prop::collection::vec((happens(), 0..500u64), 1..1_500),
    ) {
        const LATEST: Duration = Duration::from_millis(500);
        let (capacity, ratio, reserve) = settings;
        let budget = Budget::new(config(settings)).unwrap();
        let naive = Bucket::full(capacity, ratio, reserve);
        let epoch = clock::now();
        prop_assert_eq!(budget.balance(epoch), f64::from(capacity));

        let mut at = Duration::ZERO;
        let mut waiting: Vec<Withdrawal> = Vec::new();
        let (mut sent, mut firsts) = (Vec::new(), 0);
        for (happens, late) in history {
            let now = epoch + at.saturating_sub(Duration::from_millis(late));
            match happens {
                Happens::Pass(time) => at += time,
                Happens::First => {
                    budget.deposit();
                    firsts += 1;
                }
                Happens::Withdraw => waiting.extend(budget.withdraw(now)),
                Happens::Cancel(_) => drop(waiting.pop()),
                Happens::CancelAll => waiting.clear(),
                Happens::Send(_) => if let Some(withdrawal) = waiting.pop() {
                    withdrawal.spend(now);
                    sent.push((at, firsts));
                },
                Happens::SendAll => for withdrawal in waiting.drain(..) {
                    withdrawal.spend(now);
                    sent.push((at, firsts));
                },
            }
            prop_assert!((0.0..=f64::from(capacity)).contains(&budget.balance(now)));
            prop_assert_eq!(budget.waiting() as usize, waiting.len());
        }

        // Some clock is late by so much that an interval is as if it had begun that much earlier.
        for (i, &(from, before)) in sent.iter().enumerate() {
            for (j, &(to, until)) in sent.iter().enumerate().skip(i) {
                let retries = (j - i + 1) as u128 * 1_000;
                let span = to - from + LATEST;
                prop_assert!(retries <= naive.bound(span, until - before), "{i} to {j}");
            }
        }
    }
}
