//! Callers that give up, at every stage.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
    time::Duration,
};

use portcullis_core::{Course, Outcome, call, clock, follow_async};
use portcullis_testkit::{Leave, ScriptedService, Step, call as send, give_up};
use portcullis_timeout::TimeoutLayer;
use tokio::time::sleep;
use tower_layer::Layer;

use crate::fakes::{Answer, Ear, SECOND, answering, at, builder};

#[tokio::test(start_paused = true)]
async fn dropping_the_call_at_any_moment_frees_everything_and_is_told_once() {
    for leave in [Leave::AtOnce, Leave::Woken] {
        let mut ended = false;
        for polls in 0..64 {
            let ear = Ear::default();
            let slow = |percent| at(percent).pending_once().after(SECOND / 10);
            let inner = answering([slow(10), slow(20), slow(30), slow(100)]);
            let (journal, readiness) = (inner.journal(), inner.readiness());
            let read = follow_async(|answer: Answer| async move {
                sleep(Duration::from_millis(5)).await;
                use portcullis_core::{Next, Progress};
                Ok(match answer.percent {
                    100 => Progress::Done(()),
                    _ => Progress::Pending(Next::new("look")),
                })
            });
            let layer = builder(read).observe(ear.clone()).build().unwrap();
            let mut service = layer.layer(inner);
            let unready = tokio::spawn(async move {
                sleep(SECOND).await;
                readiness.hold();
                sleep(SECOND).await;
                readiness.release();
            });
            let answer = give_up(send(&mut service, "start"), polls, leave).await;
            assert_eq!((journal.in_flight(), journal.instances()), (0, 1), "after {polls} polls");

            let heard = ear.heard();
            let takes_long =
                heard.iter().any(|(.., course)| matches!(course, Course::Pending { .. }));
            let ends: Vec<_> = heard
                .iter()
                .filter_map(|&(.., course)| match course {
                    Course::Ended { outcome } | Course::Left { outcome } => Some(outcome),
                    _ => None,
                })
                .collect();
            let expected = match &answer {
                Some(Ok(())) => vec![Outcome::Success],
                Some(Err(error)) => panic!("{error}"),
                None if takes_long => vec![Outcome::Cancelled],
                None => vec![],
            };
            assert_eq!(ends, expected, "after {polls} polls, {leave:?}: {heard:?}");
            unready.abort();
            if answer.is_some() {
                assert!(polls > 8, "there was something to wait for");
                ended = true;
                break;
            }
        }
        assert!(ended);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_when_its_time_was_up_it_timed_out_whoever_ends_it() {
    let ear = Ear::default();
    let layer = || builder(crate::fakes::to_the_end()).observe(ear.clone()).build().unwrap();
    let (inner, timed_out) = (answering([at(10), Step::Hang]), Outcome::timeout());
    let mut service = layer().layer(inner);
    let deadline = clock::now() + SECOND * 3;
    let call = call::with().deadline(deadline).run(send(&mut service, "start"));
    assert!(tokio::time::timeout(SECOND * 4, call).await.is_err());
    assert_eq!(ear.heard().last(), Some(&(1, SECOND * 4, Course::Ended { outcome: timed_out })));

    let attempt = TimeoutLayer::builder("render").attempt(SECOND * 3).build().unwrap();
    let mut service = attempt.layer(layer().layer(answering([at(10), Step::Hang])));
    send(&mut service, "start").await.unwrap_err();
    assert_eq!(ear.heard().last(), Some(&(1, SECOND * 3, Course::Ended { outcome: timed_out })));
}

#[tokio::test(start_paused = true)]
async fn dropped_while_it_waits_it_was_left_and_dropped_while_it_asks_it_ended() {
    for (after, polls, left) in [(SECOND / 2, 0, true), (SECOND * 3 / 2, 1, false)] {
        let ear = Ear::default();
        let inner = answering([at(10), Step::Hang]);
        let layer = builder(crate::fakes::to_the_end()).observe(ear.clone()).build().unwrap();
        let mut service = layer.layer(inner);
        assert!(tokio::time::timeout(after, send(&mut service, "start")).await.is_err());
        let outcome = Outcome::Cancelled;
        let course = if left { Course::Left { outcome } } else { Course::Ended { outcome } };
        assert_eq!(ear.heard().last(), Some(&(polls, after, course)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_panics_when_it_is_asked_on_ends_the_operation() {
    let ear = Ear::default();
    let inner = ScriptedService::respond_with(|_: &'static str, number| {
        assert_eq!(number, 0, "the client is broken");
        at(10)
    });
    let layer = builder(crate::fakes::to_the_end()).observe(ear.clone()).build().unwrap();
    let mut service = layer.layer(inner);
    let mut call = Box::pin(send(&mut service, "start"));
    let panicked = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx).is_pending()));
        if matches!(polled, Ok(true)) { Poll::Pending } else { Poll::Ready(polled.is_err()) }
    });
    assert!(panicked.await);
    drop(call);
    let outcome = Outcome::Cancelled;
    assert_eq!(ear.heard()[1..], [(1, SECOND, Course::Ended { outcome })]);
}
