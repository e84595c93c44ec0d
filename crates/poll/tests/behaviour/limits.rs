//! Where it ends: polls, the limit, the deadline.

use portcullis_core::{
    Course, Error, FaultKind, Hint, Outcome, Phase, Reason, RejectionKind, Replay, call, clock,
    follow_async,
};
use portcullis_poll::Unfinished;
use portcullis_testkit::{Step, TestError, call as send};
use portcullis_timeout::TimeoutLayer;
use tokio::time::{Instant, advance};
use tower_layer::Layer;

use crate::fakes::{Answer, Ear, SECOND, answering, at, builder, hinting, to_the_end};

fn reason(error: &Error) -> Reason {
    error.rejection().unwrap().reason()
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_cannot_end_in_time_is_not_begun() {
    let ear = Ear::default();
    let inner = answering([at(10), at(20), hinting(30, Hint::After(SECOND * 20))]);
    let journal = inner.journal();
    let layer = builder(to_the_end()).limit(SECOND * 10).observe(ear.clone());
    let mut service = layer.build().unwrap().layer(inner);

    let start = Instant::now();
    let error = send(&mut service, "start").await.unwrap_err();
    assert_eq!((start.elapsed(), journal.calls()), (SECOND * 3, 3));
    let too_long = Reason::DeadlineTooClose { left: SECOND * 7, needed: SECOND * 20 };
    assert_eq!(reason(&error), too_long);
    assert_eq!(
        error.to_string(),
        "render: not done after 2 polls in 3.0s, last seen: 30 %: 20s to wait, 7s left until the deadline"
    );
    let unfinished = error.find::<Unfinished>().unwrap();
    assert_eq!((unfinished.polls(), unfinished.elapsed()), (2, SECOND * 3));
    assert_eq!(unfinished.last_seen(), Some("30 %"));
    let rejection = error.rejection().unwrap();
    assert_eq!(rejection.name(), "render");
    assert_eq!((rejection.kind(), rejection.retry_after()), (RejectionKind::Unfinished, None));
    assert_eq!(error.outcome(), Outcome::failure(FaultKind::Timeout, Replay::Forbidden));
    let told = (2, SECOND * 3, Course::GaveUp { reason: too_long });
    assert_eq!(ear.heard().last(), Some(&told));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_call_is_kept_as_the_limit_is() {
    let inner = answering([at(10), at(20)]);
    let poll = builder(to_the_end()).build().unwrap();
    let timeout = TimeoutLayer::builder("render").total(SECOND * 3).build().unwrap();
    let mut service = timeout.layer(poll.layer(inner));
    let start = Instant::now();
    let error = send(&mut service, "start").await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    let too_long = Reason::DeadlineTooClose { left: SECOND * 2, needed: SECOND * 2 };
    assert_eq!(reason(&error), too_long);
}

#[tokio::test(start_paused = true)]
async fn no_more_polls_than_it_may_make() {
    let inner = answering([at(10), at(20), at(30)]);
    let mut service = builder(to_the_end()).max_polls(2).build().unwrap().layer(inner);
    let error = send(&mut service, "start").await.unwrap_err();
    assert_eq!(reason(&error), Reason::PollsUsed { max: 2 });
    assert_eq!(error.find::<Unfinished>().unwrap().polls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_ends_a_request_that_hangs() {
    for (steps, polls, seen) in
        [(vec![Step::Hang], 0, None), (vec![at(10), Step::Hang], 1, Some("10 %"))]
    {
        let ear = Ear::default();
        let inner = answering(steps);
        let journal = inner.journal();
        let layer = builder(to_the_end()).limit(SECOND * 5).observe(ear.clone());
        let mut service = layer.build().unwrap().layer(inner);
        let start = Instant::now();
        let error = send(&mut service, "start").await.unwrap_err();
        assert_eq!((start.elapsed(), journal.in_flight()), (SECOND * 5, 0));
        assert_eq!(reason(&error), Reason::Elapsed { phase: Phase::Total, limit: SECOND * 5 });
        let unfinished = error.find::<Unfinished>().unwrap();
        assert_eq!((unfinished.polls(), unfinished.last_seen()), (polls, seen));
        let told = (polls, SECOND * 5, Course::Ended { outcome: Outcome::timeout() });
        assert_eq!(ear.heard().last(), Some(&told));
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_ends_a_look_that_hangs() {
    let hangs =
        follow_async(|_: Answer| std::future::pending::<portcullis_core::Look<&'static str, ()>>());
    let mut service = builder(hangs).limit(SECOND).build().unwrap().layer(answering([at(0)]));
    let start = Instant::now();
    let error = send(&mut service, "start").await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(reason(&error), Reason::Elapsed { phase: Phase::Total, limit: SECOND });
}

#[tokio::test(start_paused = true)]
async fn the_callers_timeout_takes_the_place_of_the_limit() {
    let mut service =
        builder(to_the_end()).limit(SECOND).build().unwrap().layer(answering([at(10), at(100)]));
    let patient = call::with().timeout(SECOND * 60).run(send(&mut service, "start"));
    assert_eq!(patient.await.unwrap(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_kept_inside_as_well_is_told_in_one_way() {
    let inner = answering([at(10), Step::Hang]);
    let attempts = TimeoutLayer::builder("render").total(SECOND * 60).build().unwrap();
    let poll = builder(to_the_end()).limit(SECOND * 5).build().unwrap();
    let mut service = poll.layer(attempts.layer(inner));
    let error = send(&mut service, "start").await.unwrap_err();
    assert!(error.is::<Unfinished>() && error.is::<portcullis_core::Elapsed>(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for_until_the_deadline() {
    let ear = Ear::default();
    let inner = answering([at(10), at(20), at(100)]);
    let readiness = inner.readiness();
    let layer = builder(to_the_end()).limit(SECOND * 5).observe(ear.clone());
    let mut service = layer.build().unwrap().layer(inner);
    let start = Instant::now();
    let (answer, ()) = tokio::join!(send(&mut service, "start"), async {
        advance(SECOND / 2).await;
        readiness.hold();
        tokio::time::sleep(SECOND * 2).await;
        readiness.release();
        tokio::time::sleep(SECOND / 4).await;
        readiness.hold();
    });
    assert_eq!(start.elapsed(), SECOND * 5);
    let limit = SECOND / 2;
    assert_eq!(reason(&answer.unwrap_err()), Reason::Elapsed { phase: Phase::Readiness, limit });
    let told = (1, SECOND * 5, Course::Left { outcome: Outcome::timeout() });
    assert_eq!(ear.heard().last(), Some(&told));
}

#[tokio::test(start_paused = true)]
async fn readiness_without_a_wait_before_it_is_waited_for_until_the_deadline_too() {
    // The request that was under way was bounded by the limit, which is later than the deadline.
    let inner = answering([hinting(10, Hint::Exactly(std::time::Duration::ZERO)).after(SECOND)]);
    let readiness = inner.readiness();
    let mut service = builder(to_the_end()).limit(SECOND * 60).build().unwrap().layer(inner);
    let start = Instant::now();
    let deadline = clock::now() + SECOND * 3;
    let call = call::with().deadline(deadline).run(send(&mut service, "start"));
    let (answer, ()) = tokio::join!(call, async {
        tokio::time::sleep(SECOND / 2).await;
        readiness.hold();
    });
    assert_eq!(start.elapsed(), SECOND * 3);
    let limit = SECOND * 2;
    assert_eq!(reason(&answer.unwrap_err()), Reason::Elapsed { phase: Phase::Readiness, limit });
}

#[tokio::test(start_paused = true)]
async fn readiness_that_comes_after_the_deadline_comes_too_late() {
    let inner = answering([at(10)]);
    let (journal, readiness) = (inner.journal(), inner.readiness());
    let mut service = builder(to_the_end()).limit(SECOND * 5).build().unwrap().layer(inner);
    let (answer, ()) = tokio::join!(send(&mut service, "start"), async {
        tokio::time::sleep(SECOND / 2).await;
        readiness.hold();
        tokio::time::sleep(SECOND).await;
        // Both before anybody looks.
        readiness.release();
        advance(SECOND * 30).await;
    });
    assert_eq!(journal.calls(), 1);
    let late = Reason::Elapsed { phase: Phase::Readiness, limit: SECOND * 4 };
    assert_eq!(reason(&answer.unwrap_err()), late);
}

#[tokio::test(start_paused = true)]
async fn readiness_that_fails_is_its_own_error() {
    let inner = answering([at(10)]);
    let readiness = inner.readiness();
    let mut service = builder(to_the_end()).build().unwrap().layer(inner);
    let (answer, ()) = tokio::join!(send(&mut service, "start"), async {
        tokio::time::sleep(SECOND / 2).await;
        readiness.fail_next(TestError("gone"));
    });
    assert!(answer.unwrap_err().is::<TestError>());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_wakes_after_the_deadline_asks_no_more() {
    let inner = answering([at(10)]);
    let journal = inner.journal();
    let mut service = builder(to_the_end()).limit(SECOND * 2).build().unwrap().layer(inner);
    let (answer, ()) = tokio::join!(send(&mut service, "start"), async {
        tokio::task::yield_now().await;
        // The whole runtime stood still.
        advance(SECOND * 30).await;
    });
    assert_eq!(journal.calls(), 1);
    let late = Reason::DeadlineTooClose { left: std::time::Duration::ZERO, needed: SECOND };
    assert_eq!(reason(&answer.unwrap_err()), late);
}
