//! The decision as a whole: many calls at once, through one policy.

use std::{cell::Cell, time::Duration};

use portcullis_core::{
    Call, Fault, FaultKind, Hint, Outcome, Reason, Replay, Throttle, call::Overrides, clock,
};
use portcullis_retry::{Attempt, Decision, Progress, Withdrawal};
use proptest::prelude::*;

use crate::{
    budget, cases,
    reference::{Bucket, Case, Rules, Says, opinion},
    waits::{policy, same, waits},
};

const CALLS: usize = 8;

/// One thing that happens to a client.
#[derive(Clone, Debug)]
enum Happens {
    Pass(Duration),
    /// A call begins in this place; what was there is dropped.
    Begin {
        place: usize,
        within: Option<Duration>,
        idempotent: bool,
        said_idempotent: Option<bool>,
        said_attempts: Option<u32>,
    },
    Answer {
        place: usize,
        outcome: Outcome,
        again: bool,
        word: u64,
    },
    Send(usize),
    Cancel(usize),
}

/// A call that is not over.
struct Live {
    call: Call,
    deadline: Option<Duration>,
    attempt: u32,
    idempotent: bool,
    said_idempotent: Option<bool>,
    said_attempts: Option<u32>,
    progress: Progress,
    /// Which attempt is to come, and its token.
    waits: Option<(u32, Option<Withdrawal>)>,
}

/// Less than `most` milliseconds, in whole units of so many.
fn millis(most: u64, unit: u64) -> impl Strategy<Value = Duration> {
    (0..most.div_ceil(unit)).prop_map(move |n| Duration::from_millis(n * unit))
}

fn outcome(unit: u64) -> impl Strategy<Value = Outcome> {
    let kind = prop_oneof![
        Just(FaultKind::Connect),
        Just(FaultKind::Timeout),
        Just(FaultKind::Rejected),
        Just(FaultKind::Other),
        (500..503u16).prop_map(FaultKind::Status),
    ];
    let replay = prop_oneof![
        1 => Just(Replay::Unsent),
        1 => Just(Replay::Unprocessed),
        2 => Just(Replay::Safe),
        2 => Just(Replay::IfIdempotent),
        1 => Just(Replay::Forbidden),
    ];
    let hint = prop_oneof![
        4 => Just(Hint::None),
        3 => prop_oneof![millis(90_000, unit), millis(8_000, unit)].prop_map(Hint::After),
        3 => prop_oneof![millis(90_000, unit), millis(8_000, unit)].prop_map(Hint::Exactly),
        1 => Just(Hint::Never),
    ];
    let fault = (kind, replay, hint, any::<bool>()).prop_map(|(kind, replay, hint, throttled)| {
        if throttled {
            Outcome::Throttled(Throttle { kind, replay, hint, unhealthy: false })
        } else {
            Outcome::Failure(Fault { kind, replay, hint })
        }
    });
    prop_oneof![
        8 => fault,
        1 => prop_oneof![Just(Outcome::Success), Just(Outcome::Ignored), Just(Outcome::Cancelled)],
    ]
}

/// With times in whole units of so many milliseconds: in seconds, a wait often ends right at the
/// deadline.
fn happens(unit: u64) -> impl Strategy<Value = Happens> {
    let begin = (
        0..CALLS,
        prop::option::weighted(0.4, prop_oneof![millis(120_000, unit), millis(8_000, unit)]),
        any::<bool>(),
        prop::option::weighted(0.2, any::<bool>()),
        prop::option::weighted(0.2, prop_oneof![0..4u32, Just(u32::MAX)]),
    )
        .prop_map(|(place, within, idempotent, said_idempotent, said_attempts)| {
            Happens::Begin { place, within, idempotent, said_idempotent, said_attempts }
        });
    let word = prop_oneof![2 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)];
    let answer = (0..CALLS, outcome(unit), prop::bool::weighted(0.9), word)
        .prop_map(|(place, outcome, again, word)| Happens::Answer { place, outcome, again, word });
    let seconds = millis(4_000, unit).prop_map(Happens::Pass);
    let days = (0..4_000_000u64).prop_map(|secs| Happens::Pass(Duration::from_secs(secs)));
    prop_oneof![
        80 => begin,
        160 => answer,
        100 => (0..CALLS).prop_map(Happens::Send),
        20 => (0..CALLS).prop_map(Happens::Cancel),
        40 => seconds,
        1 => days,
    ]
}

fn history() -> impl Strategy<Value = Vec<Happens>> {
    prop_oneof![Just(1), Just(1_000)]
        .prop_flat_map(|unit| prop::collection::vec(happens(unit), 1..3_000))
}

fn settings() -> impl Strategy<Value = (Rules, Option<(u32, u32, u32)>)> {
    let max_attempts = prop_oneof![4 => 1..6u32, 1 => Just(u32::MAX)];
    let max_hint = (0..80_000u64).prop_map(Duration::from_millis);
    let budget = prop::option::weighted(0.9, budget::settings());
    (max_attempts, waits(), max_hint, budget).prop_map(|(max_attempts, waits, max_hint, budget)| {
        let bucket = budget.map(|(c, ratio, reserve)| Bucket::full(c, ratio, reserve));
        (Rules { max_attempts, waits, max_hint, bucket }, budget)
    })
}

proptest! {
    #![proptest_config(cases(64, 4_000, 3, "proptest-regressions/decide.txt"))]

    #[test]
    fn every_decision_with_its_reason_and_every_count_is_as_the_rules_say(
        (mut rules, budget) in settings(),
        history in history(),
    ) {
        let policy = policy(&rules, budget.map(budget::config));
        let epoch = clock::now();
        policy.budget().map(|budget| budget.balance(epoch));
        let mut calls: [Option<Live>; CALLS] = Default::default();
        let mut at = Duration::ZERO;

        for happens in history {
            let now = epoch + at;
            match happens {
                Happens::Pass(time) => at += time,
                Happens::Begin { place, within, idempotent, said_idempotent, said_attempts } => {
                    end(&mut calls[place], &mut rules);
                    policy.first();
                    rules.bucket.iter_mut().for_each(|bucket| bucket.first(at));
                    let mut said = Overrides::default();
                    (said.idempotent, said.max_attempts) = (said_idempotent, said_attempts);
                    calls[place] = Some(Live {
                        call: Call::new()
                            .with_overrides(said)
                            .with_deadline(within.map(|within| now + within)),
                        deadline: within.map(|within| at + within),
                        attempt: 1,
                        idempotent,
                        said_idempotent,
                        said_attempts,
                        progress: Progress::default(),
                        waits: None,
                    });
                }
                Happens::Answer { place, outcome, again, word } => {
                    let Some(live) = calls[place].as_mut().filter(|live| live.waits.is_none())
                    else {
                        continue;
                    };
                    let said = rules.decide(&live.case(outcome, again, word, at), at);
                    let (asked, drawn) = (Cell::new(0), Cell::new(0));
                    let idempotent = live.said_idempotent.unwrap_or(live.idempotent);
                    let decision = policy.decide(
                        &Attempt::new(live.attempt, outcome).idempotent(idempotent),
                        &live.call,
                        now,
                        live.progress,
                        |number| {
                            asked.set(asked.get() + 1);
                            again.then_some(number)
                        },
                        || {
                            drawn.set(drawn.get() + 1);
                            word
                        },
                    );
                    // The request is the last to be asked.
                    let last = matches!(
                        said,
                        Says::Retry { .. }
                            | Says::Resend { .. }
                            | Says::GiveUp(Reason::NotReplayable)
                    );
                    prop_assert_eq!(asked.get(), u32::from(last));
                    prop_assert!(drawn.get() <= 1);
                    match (decision, said) {
                        (
                            Decision::Retry(plan),
                            Says::Retry { delay, reason, previous, restarted_after },
                        ) => {
                            prop_assert!(same(plan.delay, delay, rules.waits.jitter));
                            prop_assert_eq!(plan.reason, reason);
                            let computed = plan.progress.reached.computed;
                            prop_assert_eq!(computed.is_some(), previous.is_some());
                            if let Some((ours, naive)) = computed.zip(previous) {
                                prop_assert!(same(ours, naive, rules.waits.jitter));
                            }
                            prop_assert_eq!(plan.progress.reached.restarted_after, restarted_after);
                            prop_assert_eq!(plan.attempt, live.attempt + 1);
                            prop_assert_eq!(plan.request, plan.attempt);
                            prop_assert_eq!(plan.withdrawal.is_some(), budget.is_some());
                            live.progress = plan.progress;
                            live.waits = Some((plan.attempt, plan.withdrawal));
                        }
                        (Decision::Retry(plan), Says::Resend { delay, reason }) => {
                            prop_assert!(same(plan.delay, delay, rules.waits.jitter));
                            prop_assert_eq!(plan.reason, reason);
                            // The backoff is where it was, and nothing was paid.
                            let mut progress = live.progress;
                            progress.unprocessed |= reason == Reason::Unprocessed;
                            progress.unsent += u32::from(reason != Reason::Unprocessed);
                            prop_assert_eq!(plan.progress, progress);
                            prop_assert_eq!((plan.attempt, plan.request), (live.attempt, live.attempt));
                            prop_assert!(plan.withdrawal.is_none());
                            live.progress = progress;
                            live.waits = Some((plan.attempt, None));
                        }
                        (Decision::GiveUp(ours), Says::GiveUp(naive)) => {
                            prop_assert!(same_reason(ours, naive, &rules), "{ours:?}, {naive:?}");
                            calls[place] = None;
                        }
                        (Decision::Done, Says::Done) => calls[place] = None,
                        (ours, naive) => prop_assert!(false, "{ours:?} is not {naive:?}"),
                    }
                }
                Happens::Send(place) => {
                    if let Some(live) = &mut calls[place]
                        && let Some((attempt, withdrawal)) = live.waits.take()
                    {
                        withdrawal.into_iter().for_each(|withdrawal| withdrawal.spend(now));
                        if attempt > live.attempt {
                            rules.bucket.iter_mut().for_each(|bucket| bucket.spend(at));
                        }
                        live.attempt = attempt;
                    }
                }
                Happens::Cancel(place) => end(&mut calls[place], &mut rules),
            }
            if let (Some(budget), Some(bucket)) = (policy.budget(), &mut rules.bucket) {
                bucket.flow(at);
                prop_assert_eq!(budget.balance(epoch + at), bucket.balance());
                prop_assert_eq!(budget.waiting(), bucket.waiting());
            }
        }
    }
}

// ===== impl Live =====

impl Live {
    fn case(&self, outcome: Outcome, again: bool, word: u64, at: Duration) -> Case {
        Case {
            attempt: self.attempt,
            outcome,
            opinion: opinion(outcome),
            idempotent: self.idempotent,
            said_idempotent: self.said_idempotent,
            said_attempts: self.said_attempts,
            left: self.deadline.map(|deadline| deadline.saturating_sub(at)),
            previous: self.progress.reached.computed,
            restarted_after: self.progress.reached.restarted_after,
            unprocessed: self.progress.unprocessed,
            unsent: self.progress.unsent,
            again,
            word,
        }
    }
}

/// The caller drops the call, whatever it is about.
fn end(place: &mut Option<Live>, rules: &mut Rules) {
    let paid = |live: &Live| live.waits.as_ref().is_some_and(|(next, _)| *next > live.attempt);
    if place.take().is_some_and(|live| paid(&live)) {
        rules.bucket.iter_mut().for_each(Bucket::refund);
    }
}

/// A reason that is the same, but for how a wait in it was rounded.
fn same_reason(ours: Reason, naive: Reason, rules: &Rules) -> bool {
    match (ours, naive) {
        (
            Reason::DeadlineTooClose { left: l, needed: n },
            Reason::DeadlineTooClose { left, needed },
        ) => l == left && same(n, needed, rules.waits.jitter),
        _ => ours == naive,
    }
}
