//! The budget's word, and the throttling's, under every interleaving of two or three threads.
//!
//! ```sh
//! RUSTFLAGS="--cfg portcullis_loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --release --target-dir target/loom -p portcullis-retry --test loom
//! ```

#![cfg(portcullis_loom)]

use std::time::{Duration, Instant};

use loom::thread::{self, JoinHandle};
use portcullis_core::{Reason, clock};
use portcullis_retry::{Budget, BudgetConfig, Throttling, ThrottlingConfig};

const SECOND: Duration = Duration::from_secs(1);

/// A bucket of so many tokens, full at `start` and with nothing taken.
fn full(start: Instant, capacity: u32, ratio: f64, reserve: f64) -> Budget {
    let mut config = BudgetConfig::default();
    (config.capacity, config.ratio, config.reserve) = (capacity, ratio, reserve);
    let budget = Budget::new(config).unwrap();
    assert_eq!(budget.balance(start), f64::from(capacity));
    budget
}

/// The same, empty since `start`.
fn empty(start: Instant, capacity: u32, ratio: f64, reserve: f64) -> Budget {
    let budget = full(start, capacity, ratio, reserve);
    for _ in 0..capacity {
        budget.withdraw(start).unwrap().spend(start);
    }
    budget
}

fn spawn<T: 'static>(budget: &Budget, f: impl FnOnce(&Budget) -> T + 'static) -> JoinHandle<T> {
    let budget = budget.clone();
    thread::spawn(move || f(&budget))
}

/// A retry that is sent at once, if the budget allows it: how many were.
fn send(budget: &Budget, at: Instant) -> u64 {
    budget.withdraw(at).map_or(0, |withdrawal| {
        withdrawal.spend(at);
        1
    })
}

#[test]
fn racing_withdrawals_take_exactly_the_tokens_there_are() {
    let start = clock::now();
    for tokens in [1, 2] {
        loom::model(move || {
            let budget = full(start, tokens, 0.0, 0.0);
            let others: Vec<_> =
                (0..2).map(|_| spawn(&budget, move |budget| budget.withdraw(start))).collect();
            let mut taken = vec![budget.withdraw(start)];
            taken.extend(others.into_iter().map(|other| other.join().unwrap()));
            assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), tokens as usize);
            assert_eq!((budget.waiting(), budget.balance(start)), (tokens, 0.0));
        });
    }
}

#[test]
fn payments_refunds_and_retries_that_race_lose_and_create_nothing() {
    let start = clock::now();
    loom::model(move || {
        // One token of three is gone, so that no payment runs over.
        let budget = full(start, 3, 0.25, 0.0);
        assert_eq!(send(&budget, start), 1);
        let pays_in = spawn(&budget, |budget| {
            budget.deposit();
            budget.deposit();
        });
        let gives_back = spawn(&budget, move |budget| drop(budget.withdraw(start).unwrap()));
        assert_eq!(send(&budget, start), 1);
        pays_in.join().unwrap();
        gives_back.join().unwrap();
        assert_eq!((budget.waiting(), budget.balance(start)), (0, 1.5));
    });
}

#[test]
fn what_the_reserve_pays_in_is_paid_in_once() {
    let start = clock::now();
    loom::model(move || {
        let budget = empty(start, 2, 0.0, 1.0);
        let later = start + SECOND;
        let other = spawn(&budget, move |budget| send(budget, later));
        let ours = send(&budget, later);
        assert_eq!(ours + other.join().unwrap(), 1);
        assert_eq!((budget.waiting(), budget.balance(later)), (0, 0.0));
    });
}

#[test]
fn whoever_comes_late_to_the_word_finds_all_that_flowed_in() {
    let start = clock::now();
    loom::model(move || {
        let budget = empty(start, 2, 0.0, 1.0);
        let (one, two) = (start + SECOND, start + SECOND * 2);
        let other = spawn(&budget, move |budget| send(budget, one));
        // Two tokens have flowed in by now, and there is one thread besides us to take one.
        assert_eq!(send(&budget, two), 1);
        let theirs = other.join().unwrap();
        assert_eq!(theirs, 1);
        assert_eq!(budget.balance(two), 0.0);
    });
}

#[test]
fn whoever_sees_that_a_retry_was_sent_sees_what_has_flowed_in_since() {
    let start = clock::now();
    loom::model(move || {
        let budget = full(start, 1, 0.0, 1.0);
        let waiting = budget.withdraw(start).unwrap();
        let (one, two) = (start + SECOND, start + SECOND * 2);
        let other = thread::spawn(move || waiting.spend(one));
        let was_sent = budget.waiting() == 0;
        let ours = budget.withdraw(two);
        assert!(ours.is_ok() || !was_sent);
        other.join().unwrap();
    });
}

#[test]
fn after_the_sum_of_the_reserve_has_wrapped_no_more_is_there_than_the_bucket_holds() {
    let start = clock::now();
    // 2³⁴ thousandths at 100 tokens per second: before, right after and long after the sum wraps.
    let wrap = Duration::from_nanos(171_798_691_850_000);
    for gap in [wrap - SECOND, wrap, wrap * 3] {
        loom::model(move || {
            let budget = empty(start, 1, 0.0, 100.0);
            let later = start + gap;
            let other = spawn(&budget, move |budget| send(budget, later));
            let ours = send(&budget, later);
            assert_eq!(ours + other.join().unwrap(), 1);
            assert_eq!(budget.balance(later + SECOND), 1.0);
        });
    }
}

#[test]
fn what_ran_over_while_a_retry_waited_is_not_found_again_in_the_room_it_leaves() {
    let start = clock::now();
    loom::model(move || {
        let budget = full(start, 1, 0.0, 1.0);
        let waiting = budget.withdraw(start).unwrap();
        let later = start + SECOND * 10;
        let other = spawn(&budget, move |budget| send(budget, later));
        waiting.spend(later);
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!((budget.waiting(), budget.balance(later)), (0, 0.0));
    });
}

#[test]
fn the_bound_holds_whoever_sends_pays_in_and_gives_back() {
    let start = clock::now();
    loom::model(move || {
        let budget = full(start, 1, 0.5, 1.0);
        let later = start + SECOND;
        let one = spawn(&budget, move |budget| {
            budget.deposit();
            send(budget, start)
        });
        let two = spawn(&budget, move |budget| {
            budget.deposit();
            let waiting = budget.withdraw(later);
            let sent = send(budget, later);
            drop(waiting);
            sent
        });
        let sent = send(&budget, later) + one.join().unwrap() + two.join().unwrap();
        // capacity + ratio · 2 + reserve · 1 s
        assert!(sent <= 3, "{sent}");
        let balance = budget.balance(later);
        assert!(balance <= 1.0 && sent as f64 + balance <= 3.0, "{sent} sent, {balance} left");
        assert_eq!(budget.waiting(), 0);
    });
}

/// What is left, in thousandths, when a retry was refused.
fn refused_at(failed: Result<(), Reason>) -> Option<u64> {
    match failed {
        Err(Reason::RetriesThrottled { tokens_milli, .. }) => Some(tokens_milli),
        _ => None,
    }
}

#[test]
fn failures_that_race_take_a_token_each_and_each_sees_what_it_left() {
    loom::model(|| {
        // Retries end where two of four are left.
        let throttling = Throttling::new(ThrottlingConfig::new(4, 0.5)).unwrap();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let throttling = throttling.clone();
                thread::spawn(move || throttling.failed())
            })
            .collect();
        let mut answers = vec![refused_at(throttling.failed())];
        answers.extend(others.into_iter().map(|other| refused_at(other.join().unwrap())));
        answers.sort_unstable();
        assert_eq!(answers, [None, Some(1_000), Some(2_000)]);
        assert_eq!((throttling.tokens(), throttling.allows()), (1.0, false));
    });
}

#[test]
fn successes_and_failures_that_race_lose_and_create_nothing() {
    loom::model(|| {
        let throttling = Throttling::new(ThrottlingConfig::new(4, 0.25)).unwrap();
        throttling.failed().unwrap();
        let succeeds = throttling.clone();
        let succeeds = thread::spawn(move || {
            succeeds.succeeded();
            succeeds.succeeded();
        });
        let fails = throttling.clone();
        let fails = thread::spawn(move || refused_at(fails.failed()));
        throttling.succeeded();
        succeeds.join().unwrap();
        // 3 at first, and a success or more may have come before the failure.
        let left = fails.join().unwrap();
        assert!(left.is_none() || left == Some(2_000), "{left:?}");
        assert_eq!(throttling.tokens(), 2.75);
    });
}

#[test]
fn however_many_fail_or_succeed_the_count_keeps_its_bounds() {
    loom::model(|| {
        let throttling = Throttling::new(ThrottlingConfig::new(1, 5.0)).unwrap();
        let fails = throttling.clone();
        let fails = thread::spawn(move || {
            let _ = fails.failed();
            let _ = fails.failed();
        });
        throttling.succeeded();
        let between = throttling.tokens();
        assert!(between == 0.0 || between == 1.0, "{between}");
        fails.join().unwrap();
        throttling.succeeded();
        assert_eq!(throttling.tokens(), 1.0);
    });
}
