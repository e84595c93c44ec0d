//! What other implementations got wrong, and long streams.

use portcullis_breaker::{Admission, BreakerConfig, Changes, Engine, Handle, Mode, Open, Window};
use portcullis_core::{FaultKind, Outcome, Reason, Rejection, Replay, State, clock};
use portcullis_testkit::{Readiness, TestError, call, poll_k, ready};
use tokio::time::{advance, timeout};
use tower_layer::Layer;
use tower_service::Service;

use crate::{SECOND, Streams, builder, inner, open, service, trip};

#[tokio::test(start_paused = true)]
async fn an_outer_timeout_layers_timeouts_are_counted() {
    // 200 timeouts, and a breaker that had seen none of them.
    let rules = builder().consecutive_failures(None).window(Window::Count(200));
    let (mut service, handle) = service(rules.minimum_calls(200).failure_rate(1.0));
    for _ in 0..200 {
        timeout(SECOND, call(&mut service, "hang")).await.unwrap_err();
    }
    assert_eq!(handle.state(), State::Open);
}

#[test]
fn a_count_window_slides() {
    // 100 000 successes, and then 100 000 failures until it opened.
    let rules = builder().consecutive_failures(None).window(Window::Count(100));
    let layer = rules.minimum_calls(100).build().unwrap();
    let handle = layer.handle();
    for _ in 0..100_000 {
        handle.admit().unwrap().settle(Outcome::Success);
    }
    for failures in 1..=50 {
        assert_eq!(handle.state(), State::Closed, "after {failures} failures");
        handle.admit().unwrap().settle(Outcome::timeout());
    }
    assert_eq!(handle.state(), State::Open);
}

#[test]
fn a_count_window_of_a_million_calls_slides_as_exactly_as_a_short_one() {
    const CALLS: u32 = 1_000_000;
    let mut config = BreakerConfig::default();
    (config.window, config.minimum_calls) = (Window::Count(CALLS), CALLS);
    config.consecutive_failures = None;
    let now = clock::now();
    let engine = Engine::new(config, now).unwrap();
    let mut changes = Changes::default();
    let mut call = |outcome| {
        let Admission::Admitted(permit) = engine.admit(now, &mut changes) else {
            panic!("it is closed");
        };
        engine.record(permit, outcome, false, now, &mut changes);
    };
    (0..CALLS).for_each(|_| call(Outcome::Success));
    (0..CALLS / 2 - 1).for_each(|_| call(Outcome::timeout()));
    // The oldest failures are far away yet: what leaves is as good as what comes.
    (0..CALLS / 4).for_each(|_| call(Outcome::Success));
    let counts = engine.counts(now);
    assert_eq!((counts.total, counts.failures), (u64::from(CALLS), u64::from(CALLS / 2 - 1)));
    assert_eq!(engine.state(), State::Closed);
    call(Outcome::timeout());
    assert_eq!(engine.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_hung_probe_does_not_wedge_half_open() {
    let (mut service, handle) = service(builder().probes(1, 2).max_wait(5 * SECOND));
    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;
    ready(&mut service).await.unwrap();
    let mut hung = std::pin::pin!(service.call("hang"));
    assert!(poll_k(hung.as_mut(), 1).await.is_none());
    let error = call(&mut service, "ok").await.unwrap_err();
    assert_eq!(open(&error).reason(), Reason::ProbesBusy { limit: 1 });
    // The slot may be free in no time: nobody is told to stay away until the probe is overdue.
    assert_eq!(open(&error).retry_after(), None);

    advance(5 * SECOND).await;
    let error = call(&mut service, "ok").await.unwrap_err();
    assert_eq!(open(&error).reason(), Reason::ProbeTimedOut { max_wait: 5 * SECOND });
    assert_eq!(open(&error).retry_after(), Some(10 * SECOND));

    // Nobody came for so long that the second open time is over too: the next call is a probe.
    advance(10 * SECOND).await;
    call(&mut service, "ok").await.unwrap();
    assert_eq!(handle.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn probe_successes_do_not_age_out() {
    let rules = builder().window(Window::Time(SECOND)).open_time(SECOND, SECOND);
    let (mut service, handle) = service(rules);
    trip(&mut service, &handle).await;
    advance(SECOND).await;
    call(&mut service, "ok").await.unwrap();
    advance(3_600 * SECOND).await;
    call(&mut service, "ok").await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_late_result_of_an_earlier_generation_changes_nothing() {
    for late in [Outcome::Success, Outcome::timeout()] {
        let (mut service, handle) = service(builder().probes(1, 1));
        let before_the_trip = [handle.admit().unwrap(), handle.admit().unwrap()];
        trip(&mut service, &handle).await;
        advance(10 * SECOND).await;
        let probe = handle.admit().unwrap();
        for call in before_the_trip {
            call.settle(late);
        }
        assert_eq!((handle.state(), handle.snapshot().probes), (State::HalfOpen, 1));
        probe.settle(Outcome::Success);
        assert_eq!(handle.state(), State::Closed);
        assert_eq!(handle.snapshot().counts.total, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn reset_starts_over_in_every_state() {
    let (mut service, handle) = service(builder());
    let expect_fresh = |before: u64| {
        let snapshot = handle.snapshot();
        assert_eq!((snapshot.state, snapshot.mode), (State::Closed, Mode::Automatic));
        assert_eq!((snapshot.counts.total, snapshot.failures_in_a_row), (0, 0));
        assert_eq!((snapshot.backoff, snapshot.probes), (0, 0));
        assert!(snapshot.generation > before);
    };
    let generation = || handle.snapshot().generation;

    // In closed, where doing nothing would be easy to miss.
    let still_out = handle.admit().unwrap();
    call(&mut service, "fail").await.unwrap_err();
    let before = generation();
    handle.reset();
    expect_fresh(before);
    still_out.settle(Outcome::timeout());
    call(&mut service, "fail").await.unwrap_err();
    assert_eq!(handle.state(), State::Closed, "one of the three failures counts");

    handle.reset();
    trip(&mut service, &handle).await;
    let before = generation();
    handle.reset();
    expect_fresh(before);

    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;
    let _probe = handle.admit().unwrap();
    let before = generation();
    handle.reset();
    expect_fresh(before);

    for order in [Handle::force_open, Handle::force_closed, Handle::disable] {
        order(&handle);
        let before = generation();
        handle.reset();
        expect_fresh(before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_counts_once_and_is_returned() {
    let (mut service, handle) = service(builder());
    let readiness: Readiness = service.get_ref().readiness();
    for failures in 1..=2 {
        readiness.fail_next(TestError("gone"));
        let error = ready(&mut service).await.unwrap_err();
        assert!(error.is::<TestError>());
        let snapshot = handle.snapshot();
        assert_eq!(snapshot.generation, failures, "and the second one trips");
        assert_eq!(snapshot.counts.failures, 2 - failures);
    }
    assert_eq!(handle.state(), State::Open);

    // While half-open it is a failed probe.
    advance(10 * SECOND).await;
    readiness.fail_next(TestError("gone"));
    ready(&mut service).await.unwrap_err();
    assert_eq!(handle.state(), State::Open);
    assert_eq!(handle.snapshot().backoff, 2);
}

#[tokio::test(start_paused = true)]
async fn a_layer_applied_anew_for_each_request_keeps_its_state() {
    let layer = builder().build().unwrap();
    for _ in 0..2 {
        call(&mut layer.layer(inner()), "fail").await.unwrap_err();
    }
    let error = call(&mut layer.clone().layer(inner()), "ok").await.unwrap_err();
    assert!(error.is::<Open>());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_does_not_close() {
    let (mut service, handle) = service(builder().probes(1, 1));
    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;
    for _ in 0..10 {
        assert!(poll_k(call(&mut service, "hang"), 2).await.is_none());
        assert_eq!((handle.state(), handle.snapshot().probes), (State::HalfOpen, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_neither_holds_a_slot_nor_reopens_and_its_end_counts_in_its_generation() {
    let layer = builder().probes(1, 1).max_wait(5 * SECOND).classify(Streams).build().unwrap();
    let (mut service, handle) = (layer.layer(inner()), layer.handle());
    for _ in 0..2 {
        call(&mut service, "fail").await.unwrap_err();
    }
    advance(10 * SECOND).await;
    let (_, body) = call(&mut service, "ok").await.unwrap();
    assert_eq!(handle.snapshot().probes, 1);
    assert_eq!(handle.state(), State::HalfOpen, "it may yet fail");

    advance(5 * SECOND).await;
    assert_eq!(handle.snapshot().state, State::Closed);
    body.settle(Outcome::failure(FaultKind::Body, Replay::Forbidden));
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.state, snapshot.counts.failures), (State::Closed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_before_max_wait_is_a_failed_probe() {
    let layer = builder().probes(1, 1).classify(Streams).build().unwrap();
    let (mut service, handle) = (layer.layer(inner()), layer.handle());
    for _ in 0..2 {
        call(&mut service, "fail").await.unwrap_err();
    }
    advance(10 * SECOND).await;
    let (_, body) = call(&mut service, "ok").await.unwrap();
    body.settle(Outcome::failure(FaultKind::Body, Replay::Forbidden));
    assert_eq!(handle.state(), State::Open);
}
