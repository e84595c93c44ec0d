//! What is told, and what a trace shows of it.

use std::time::Duration;

use portcullis_core::{Course, Outcome, Reason, call};
use portcullis_testkit::{Step, TestError, call as send};
use portcullis_trace::{Query, Recorder, TraceLayer};
use tower_layer::Layer;

use crate::fakes::{Ear, SECOND, answering, at, builder, to_the_end};

#[tokio::test(start_paused = true)]
async fn each_wait_is_told_with_its_reason_and_the_end_with_its_verdict() {
    let ear = Ear::default();
    let inner = answering([at(10), at(20), at(100), at(10), Step::Err(TestError("reset"))]);
    let layer = builder(to_the_end()).observe(ear.clone()).build().unwrap();
    let mut service = layer.layer(inner);
    send(&mut service, "start").await.unwrap();
    let wait = |poll: u32, delay| Course::Pending { delay, reason: Reason::PollBackoff { poll } };
    assert_eq!(
        ear.heard(),
        [
            (0, Duration::ZERO, wait(1, SECOND)),
            (1, SECOND, wait(2, SECOND * 2)),
            (2, SECOND * 3, Course::Ended { outcome: Outcome::Success }),
        ]
    );
    let error = send(&mut service, "start").await.unwrap_err();
    let outcome = error.outcome();
    assert_eq!(ear.heard().last(), Some(&(1, SECOND, Course::Ended { outcome })));
}

#[tokio::test(start_paused = true)]
async fn of_what_is_over_at_once_nothing_is_told() {
    let ear = Ear::default();
    let inner = answering([at(100), at(999), Step::Err(TestError("reset"))]);
    let mut service = builder(to_the_end()).observe(ear.clone()).build().unwrap().layer(inner);
    let _ = send(&mut service, "start").await;
    let _ = send(&mut service, "start").await;
    let _ = send(&mut service, "start").await;
    assert_eq!(ear.heard(), []);
}

#[tokio::test(start_paused = true)]
async fn the_caller_may_listen() {
    let ear = Ear::default();
    let mut service = builder(to_the_end()).build().unwrap().layer(answering([at(10), at(100)]));
    call::with().observe(ear.clone()).run(send(&mut service, "start")).await.unwrap();
    assert_eq!(ear.heard().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_trace_shows_the_waits_as_waits_and_says_why() {
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let trace = TraceLayer::builder("render").recorder(&recorder).build().unwrap();
    let slow = |percent| at(percent).after(SECOND);
    let inner = answering([slow(10), slow(20), slow(100)]);
    let mut service = trace.layer(builder(to_the_end()).build().unwrap().layer(inner));
    send(&mut service, "start").await.unwrap();
    recorder.shutdown().await;
    let page = recorder.store().query(&Query::new()).unwrap();
    let story = &page.traces[0];

    let waits: Vec<_> =
        story.calls[0].events.iter().map(|event| (event.wait, &*event.why)).collect();
    assert_eq!(
        waits,
        [
            (Some(SECOND), "not done after 1.0s; asked about in 1.0s: backoff before poll 1"),
            (Some(SECOND * 2), "poll 1: not done after 3.0s; next in 2.0s: backoff before poll 2"),
            (None, "poll 2: success after 6.0s"),
        ]
    );
    let picture = story.to_string();
    // 34 cells for 6 s: asked for one, waited one, asked one, waited two, asked one.
    let bar = "██████░░░░░░██████░░░░░░░░░░░██████";
    let row = picture.lines().find(|line| line.starts_with("render  ")).unwrap();
    let drawn: String = row.chars().filter(|c| "█░".contains(*c)).collect();
    let shape = |bar: &str| {
        let mut shape: Vec<char> = bar.chars().collect();
        shape.dedup();
        shape.into_iter().collect::<String>()
    };
    assert_eq!(shape(&drawn), shape(bar), "{picture}");
    let hatched = drawn.chars().filter(|c| *c == '░').count();
    let half = drawn.chars().count() / 2;
    assert!(hatched.abs_diff(half) <= 2, "{picture}");
}
