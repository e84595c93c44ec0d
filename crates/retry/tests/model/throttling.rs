//! gRPC's throttling alone, and in the decision.

use portcullis_core::{Call, Fault, FaultKind, Hint, Outcome, Reason, Replay, clock};
use portcullis_retry::{
    Attempt, Decision, Policy, Progress, RetryConfig, Throttling, ThrottlingConfig,
};
use proptest::prelude::*;

use crate::cases;

fn settings() -> impl Strategy<Value = (u32, u32)> {
    let tokens = prop_oneof![1..12u32, 1..=ThrottlingConfig::MAX_TOKENS];
    (tokens, prop_oneof![1..=1_000u32, 1..5_000u32])
}

fn config((tokens, ratio): (u32, u32)) -> ThrottlingConfig {
    ThrottlingConfig::new(tokens, f64::from(ratio) / 1_000.0)
}

/// The rules of gRFC A6, in thousandths.
struct Naive {
    max: i64,
    ratio: i64,
    count: i64,
}

impl Naive {
    fn new((tokens, ratio): (u32, u32)) -> Self {
        let max = i64::from(tokens) * 1_000;
        Self { max, ratio: ratio.into(), count: max }
    }

    fn succeeded(&mut self) {
        self.count = (self.count + self.ratio).min(self.max);
    }

    fn failed(&mut self) -> Result<(), Reason> {
        self.count = (self.count - 1_000).max(0);
        if 2 * self.count > self.max {
            return Ok(());
        }
        let (tokens_milli, threshold_milli) = (self.count as u64, (self.max / 2) as u64);
        Err(Reason::RetriesThrottled { tokens_milli, threshold_milli })
    }
}

/// How an attempt ended, and whether that takes a token, gives back part of one, or neither.
fn ended() -> impl Strategy<Value = (Outcome, i32)> {
    let fault = |kind, replay, hint| Outcome::Failure(Fault::new(kind, replay).with_hint(hint));
    let of = move |replay, hint| fault(FaultKind::Grpc(14), replay, hint);
    prop_oneof![
        10 => Just((Outcome::Success, 1)),
        10 => Just((of(Replay::Safe, Hint::None), -1)),
        1 => Just((of(Replay::IfIdempotent, Hint::None), -1)),
        1 => Just((of(Replay::Safe, Hint::Exactly(Default::default())), -1)),
        1 => Just((of(Replay::Forbidden, Hint::Never), -1)),
        1 => Just((of(Replay::Forbidden, Hint::None), 0)),
        1 => Just((of(Replay::Unprocessed, Hint::None), 0)),
        1 => Just((of(Replay::Unsent, Hint::None), 0)),
        1 => Just((fault(FaultKind::Rejected, Replay::Safe, Hint::After(Default::default())), 0)),
        1 => Just((Outcome::Ignored, 0)),
        1 => Just((Outcome::Cancelled, 0)),
    ]
}

proptest! {
    #![proptest_config(cases(64, 10_000, 5, "proptest-regressions/throttling.txt"))]

    #[test]
    fn every_count_and_every_answer_is_the_naive_ones(
        settings in settings(),
        history in prop::collection::vec(any::<bool>(), 1..3_000),
    ) {
        let throttling = Throttling::new(config(settings)).unwrap();
        let mut naive = Naive::new(settings);
        for well in history {
            if well {
                throttling.succeeded();
                naive.succeeded();
            } else {
                prop_assert_eq!(throttling.failed(), naive.failed());
            }
            prop_assert_eq!(throttling.tokens(), naive.count as f64 / 1_000.0);
            prop_assert_eq!(throttling.allows(), 2 * naive.count > naive.max);
        }
    }

    #[test]
    fn it_is_told_of_every_attempt_that_counts_and_of_no_other(
        settings in settings(),
        history in prop::collection::vec(ended(), 1..500),
    ) {
        let mut rules = RetryConfig::default();
        rules.throttling = Some(config(settings));
        let policy = Policy::new(&rules).unwrap();
        prop_assert!(policy.budget().is_none());
        let throttling = policy.throttling().unwrap();
        let (mut naive, call, now) = (Naive::new(settings), Call::new(), clock::now());
        for (outcome, counts) in history {
            policy.first();
            if outcome.is_success() {
                policy.succeeded();
            }
            let attempt = Attempt::new(1, outcome).idempotent(true);
            let decision =
                policy.decide(&attempt, &call, now, Progress::default(), |_| Some(()), || 0);
            let throttled = match counts {
                1 => {
                    naive.succeeded();
                    Ok(())
                }
                0 => Ok(()),
                _ => naive.failed(),
            };
            match (outcome.replay(), decision) {
                (None, decision) => prop_assert!(matches!(decision, Decision::Done)),
                (Some(Replay::Forbidden), Decision::GiveUp(why)) => {
                    prop_assert_eq!(why, Reason::NotRetryable);
                }
                (Some(_), Decision::GiveUp(why)) => prop_assert_eq!(Err(why), throttled),
                (Some(replay), Decision::Retry(plan)) => {
                    prop_assert_eq!(throttled, Ok(()));
                    let same = matches!(replay, Replay::Unsent | Replay::Unprocessed);
                    prop_assert_eq!(plan.attempt, if same { 1 } else { 2 });
                    prop_assert!(plan.withdrawal.is_none());
                }
                (_, decision) => prop_assert!(false, "{decision:?}"),
            }
            prop_assert_eq!(throttling.tokens(), naive.count as f64 / 1_000.0);
        }
    }
}
