//! Backoff, jitter and hints.

use std::time::Duration;

use portcullis_core::{ByClone, Call, Fault, FaultKind, Hint, Outcome, Reason, Replay, clock};
use portcullis_retry::{Attempt, Decision, Jitter, Policy, Progress, RetryConfig, RetryLayer};
use proptest::prelude::*;

use crate::{
    cases,
    reference::{Delay, Rules, Waits, opinion},
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A policy by these rules, but for its budget.
pub(crate) fn policy(rules: &Rules, budget: Option<portcullis_retry::BudgetConfig>) -> Policy {
    let mut config = RetryConfig::default();
    config.max_attempts = rules.max_attempts;
    config.max_hint = rules.max_hint;
    config.jitter = rules.waits.jitter;
    config.backoff = rules.waits.backoff.settings().unwrap_or_default();
    config.budget = budget;
    let builder = RetryLayer::builder("model", ByClone::idempotent())
        .config(config)
        .retry_if(|attempt| opinion(attempt.outcome));
    let builder = match rules.waits.backoff {
        Delay::Custom { cap, step } => {
            builder.backoff_fn(cap, move |retry| Delay::custom(step, retry))
        }
        _ => builder,
    };
    builder.build().unwrap().policy().clone()
}

/// Two waits that are one, but for how a fraction was rounded.
pub(crate) fn same(one: Duration, other: Duration, jitter: Jitter) -> bool {
    let rounding = match jitter {
        Jitter::Fraction(_) | Jitter::Around(_) => Duration::from_nanos(2),
        _ => Duration::ZERO,
    };
    one.abs_diff(other) <= rounding
}

/// From a nanosecond to a day.
fn duration() -> impl Strategy<Value = Duration> {
    let secs = (1..=86_400u64).prop_map(Duration::from_secs);
    let micros = (1..10_000_000u64).prop_map(Duration::from_micros);
    prop_oneof![secs, micros, (1..5_000u64).prop_map(Duration::from_nanos)]
}

pub(crate) fn waits() -> impl Strategy<Value = Waits> {
    let delay = (duration(), duration(), 1..=100u32, 0..4).prop_map(|(one, other, by, which)| {
        let (initial, max) = (one.min(other), one.max(other));
        match which {
            0 => Delay::Exponential { initial, multiplier: by.min(10), max },
            1 => Delay::Decorrelated { initial, max },
            2 => Delay::Custom { cap: max, step: initial },
            _ => Delay::Exponential { initial, multiplier: by, max },
        }
    });
    let fixed = (0..=86_400_000u64).prop_map(|ms| Delay::Fixed(Duration::from_millis(ms)));
    let jitter = prop_oneof![
        Just(Jitter::Full),
        Just(Jitter::Equal),
        Just(Jitter::None),
        (0.0..=1.0).prop_map(Jitter::Fraction),
        (0.0..=1.0).prop_map(Jitter::Around),
    ];
    (prop_oneof![4 => delay, 1 => fixed], jitter)
        .prop_map(|(backoff, jitter)| Waits { backoff, jitter })
}

fn attempts() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1..60u32, 1 => u32::MAX - 3..=u32::MAX]
}

/// The wait that is decided on, and what the next decision is told; or why there is none.
fn decide(
    policy: &Policy,
    attempt: u32,
    hint: Hint,
    previous: Option<Duration>,
    word: u64,
) -> Result<(Duration, Progress), Reason> {
    let fault = Fault::new(FaultKind::Connect, Replay::Safe).with_hint(hint);
    let attempt = Attempt::new(attempt, Outcome::Failure(fault));
    let call = Call::new();
    let mut progress = Progress::default();
    progress.reached.computed = previous;
    match policy.decide(&attempt, &call, clock::now(), progress, |_| Some(()), || word) {
        Decision::Retry(plan) => Ok((plan.delay, plan.progress)),
        Decision::GiveUp(reason) => Err(reason),
        Decision::Done => panic!("a failure is a reason for another attempt"),
    }
}

proptest! {
    #![proptest_config(cases(2_000, 400_000, 2, "proptest-regressions/waits.txt"))]

    #[test]
    fn a_wait_is_the_naive_one_from_its_shortest_to_its_longest(
        waits in waits(),
        attempt in attempts(),
        earlier in prop::option::of(0.0..=1.0),
        hint in prop::option::of(prop_oneof![0..100_000u64, Just(86_400_000)]),
        exact: bool,
        word: u64,
    ) {
        let jitter = waits.jitter;
        let rules = Rules { max_attempts: u32::MAX, waits, max_hint: DAY, bucket: None };
        let policy = policy(&rules, None);
        let previous = match rules.waits.backoff {
            Delay::Decorrelated { initial, max } => earlier.map(|part: f64| {
                initial + (max - initial).mul_f64(part)
            }),
            _ => earlier.map(|part: f64| DAY.mul_f64(part)),
        };
        let hint = hint.map(Duration::from_millis);
        let advice = match hint {
            None => Hint::None,
            Some(hint) if exact => Hint::Exactly(hint),
            Some(hint) => Hint::After(hint),
        };
        let decided = |word| decide(&policy, attempt, advice, previous, word);
        if attempt == u32::MAX {
            prop_assert_eq!(decided(word), Err(Reason::AttemptsUsed { max: u32::MAX }));
            return Ok(());
        }

        let range = rules.waits.before(attempt, previous);
        for word in [0, word, u64::MAX] {
            let (delay, progress) = decided(word).unwrap();
            let (computed, restarted_after) = (progress.reached.computed, progress.reached.restarted_after);
            prop_assert_eq!(restarted_after, if advice.wait().is_some() && exact { attempt } else { 0 });
            match hint {
                // Nothing is added to it, and what was computed before is forgotten.
                Some(hint) if exact => prop_assert_eq!((delay, computed), (hint, None)),
                Some(hint) => {
                    let naive = range.hinted(hint, word);
                    prop_assert!(same(delay, naive, jitter), "{delay:?} for {naive:?}");
                    // A hint is a floor, may exceed the cap, and is not remembered.
                    prop_assert!(delay >= hint && delay - hint <= range.cap);
                    prop_assert_eq!(computed, previous);
                }
                None => {
                    let naive = range.computed(word);
                    prop_assert!(same(delay, naive, jitter), "{delay:?} for {naive:?}");
                    prop_assert!(delay <= range.cap);
                    prop_assert_eq!(computed, Some(delay));
                }
            }
        }
    }

    #[test]
    fn the_random_part_reaches_both_ends_and_every_word_falls_between_its_neighbours(
        width in 0..DAY.as_nanos() as u64,
        words: (u64, u64),
    ) {
        let width = Duration::from_nanos(width);
        let waits = Waits { backoff: Delay::Fixed(width), jitter: Jitter::Full };
        let rules = Rules { max_attempts: 3, waits, max_hint: DAY, bucket: None };
        let policy = policy(&rules, None);
        let drawn = |word| decide(&policy, 1, Hint::None, None, word).unwrap().0;
        prop_assert_eq!(drawn(0), Duration::ZERO);
        prop_assert_eq!(drawn(u64::MAX), width);
        let (low, high) = (words.0.min(words.1), words.0.max(words.1));
        prop_assert!(drawn(low) <= drawn(high));
        // Each part of the words is as wide as the others: a half of them is below the middle.
        prop_assert!(drawn(u64::MAX / 2).abs_diff(width / 2) <= Duration::from_nanos(1));
    }
}
