//! Whole operations against a naive model: at what moments it is asked, and how it ends.

use std::time::Duration;

use portcullis_core::{Backoff, Hint, Jitter, call, clock};
use portcullis_poll::{PollLayer, Unfinished};
use portcullis_testkit::{ScriptedService, call as send, effort};
use proptest::prelude::*;
use tokio::time::Instant;
use tower_layer::Layer;

use crate::fakes::{hinting, to_the_end};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An operation: how long each answer takes and what it advises. The one after the last is that it is
/// done.
#[derive(Clone, Debug)]
struct Case {
    answers: Vec<(u64, Hint)>,
    initial: u64,
    max: u64,
    max_polls: u32,
    limit: u64,
    deadline: Option<u64>,
}

/// What is seen of it: when it was asked, in milliseconds, and when it ended, done or not.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    asked: Vec<u64>,
    ended: u64,
    done: bool,
}

fn hint() -> impl Strategy<Value = Hint> {
    prop_oneof![
        4 => Just(Hint::None),
        2 => (0..3_000_u64).prop_map(|wait| Hint::After(millis(wait))),
        2 => (0..3_000_u64).prop_map(|wait| Hint::Exactly(millis(wait))),
        1 => Just(Hint::Never),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let answers = prop::collection::vec((0..2_000_u64, hint()), 0..8);
    let deadline = prop::option::of(1..20_000_u64);
    (answers, 1..500_u64, 1..4_000_u64, 1..6_u32, 1..20_000_u64, deadline).prop_map(
        |(answers, initial, more, max_polls, limit, deadline)| Case {
            answers,
            initial,
            max: initial + more,
            max_polls,
            limit,
            deadline,
        },
    )
}

/// As one would do it with a list and a pencil.
fn naive(case: &Case) -> Seen {
    let (mut now, mut asked, mut grown) = (0, Vec::new(), case.initial);
    let over = case.limit.min(case.deadline.unwrap_or(u64::MAX));
    for (polls, answer) in case.answers.iter().map(Some).chain([None]).enumerate() {
        asked.push(now);
        let took = answer.map_or(0, |(took, _)| *took);
        // What is there at the very moment is not taken away.
        if now + took > case.limit {
            return Seen { asked, ended: case.limit, done: false };
        }
        now += took;
        let Some((_, hint)) = answer else { return Seen { asked, ended: now, done: true } };
        if polls as u32 >= case.max_polls {
            return Seen { asked, ended: now, done: false };
        }
        let wait = match hint {
            Hint::Never => return Seen { asked, ended: now, done: false },
            Hint::None => grown,
            Hint::After(wait) | Hint::Exactly(wait) => wait.as_millis() as u64,
        };
        grown = match hint {
            Hint::Exactly(_) => case.initial,
            _ => (grown * 2).min(case.max),
        };
        if now + wait >= over {
            return Seen { asked, ended: now, done: false };
        }
        now += wait;
    }
    unreachable!("the last one is done")
}

async fn real(case: &Case) -> Seen {
    let answers = case.answers.clone();
    let inner = ScriptedService::respond_with(move |_: &'static str, number| {
        let answer = answers.get(number as usize);
        let (took, hint) = answer.copied().unwrap_or((0, Hint::None));
        let percent = if answer.is_some() { 10 } else { 100 };
        hinting(percent, hint).after(millis(took))
    });
    let journal = inner.journal();
    let layer = PollLayer::builder("render", to_the_end())
        .backoff(Backoff::exponential(millis(case.initial), millis(case.max)))
        .jitter(Jitter::None)
        .max_polls(case.max_polls)
        .limit(millis(case.limit));
    let mut service = layer.build().unwrap().layer(inner);
    let start = Instant::now();
    let answer = match case.deadline {
        Some(deadline) => {
            let at = clock::now() + millis(deadline);
            call::with().deadline(at).run(send(&mut service, "start")).await
        }
        None => send(&mut service, "start").await,
    };
    let asked: Vec<u64> = journal
        .called_at()
        .into_iter()
        .map(|at| at.duration_since(start).as_millis() as u64)
        .collect();
    if let Err(error) = &answer {
        let unfinished = error.find::<Unfinished>().unwrap();
        assert_eq!(unfinished.polls() as usize + 1, asked.len());
        assert_eq!(unfinished.elapsed(), start.elapsed());
    }
    Seen { asked, ended: start.elapsed().as_millis() as u64, done: answer.is_ok() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(effort(256, 20_000)))]

    #[test]
    fn an_operation_is_asked_about_when_it_should_be_and_ends_as_it_should(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        prop_assert_eq!(runtime.block_on(real(&case)), naive(&case));
    }
}
