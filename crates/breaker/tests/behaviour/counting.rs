//! What counts, and as what.

use std::time::Duration;

use portcullis_breaker::{
    Abandoned, Admission, Breaker, BreakerBuilder, BreakerConfig, BreakerLayer, Changes, Engine,
    Mode, SlowPhase, Window,
};
use portcullis_core::{
    Error, FaultKind, Outcome, Reason, Rejection, Replay, State, Throttle, call as overrides,
    classify_fn, clock,
};
use portcullis_testkit::{call, poll_k};
use tokio::time::{advance, timeout};
use tower_layer::Layer;

use crate::{Inner, SECOND, Streams, builder, inner, open, service, trip};

#[tokio::test(start_paused = true)]
async fn a_rate_trips_once_there_are_enough_calls() {
    let rules = builder().consecutive_failures(None).failure_rate(0.5).minimum_calls(4);
    let (mut service, handle) = service(rules);
    for req in ["fail", "fail", "fail"] {
        call(&mut service, req).await.unwrap_err();
    }
    assert_eq!(handle.state(), State::Closed);
    call(&mut service, "ok").await.unwrap();
    let tripped = Reason::FailureRate { failures: 3, total: 4, threshold: 0.5 };
    assert_eq!(handle.snapshot().tripped_by, Some(tripped));
}

#[tokio::test(start_paused = true)]
async fn slow_calls_trip_and_a_slow_probe_fails() {
    let rules = builder().consecutive_failures(None).minimum_calls(2);
    let (mut service, handle) = service(rules.slow_rate(1.0).slow_threshold(2 * SECOND));
    for _ in 0..2 {
        call(&mut service, "slow").await.unwrap();
    }
    let tripped = Reason::SlowRate { slow: 2, total: 2, threshold: 1.0 };
    assert_eq!(handle.snapshot().tripped_by, Some(tripped));

    advance(10 * SECOND).await;
    call(&mut service, "slow").await.unwrap();
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_is_the_time_to_the_head_unless_set_otherwise() {
    for (phase, expected) in [(SlowPhase::Head, 0), (SlowPhase::Total, 1)] {
        let layer = builder().slow_threshold(SECOND).slow_phase(phase).classify(Streams);
        let layer = layer.build().unwrap();
        let (_, body) = call(&mut layer.layer(inner()), "ok").await.unwrap();
        advance(60 * SECOND).await;
        body.settle(Outcome::Success);
        assert_eq!(layer.handle().snapshot().counts.slow, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_counts_for_nothing_unless_set_or_the_peer_is_unwell_and_fails_a_probe() {
    let throttle = Throttle::new(FaultKind::Status(429));
    let throttled = Outcome::Throttled(throttle);
    let unwell = Outcome::Throttled(throttle.unhealthy());
    let total_after = |builder: BreakerBuilder, outcome| {
        let (_, handle) = service(builder);
        handle.admit().unwrap().settle(outcome);
        let counts = handle.snapshot().counts;
        (counts.total, counts.failures)
    };
    assert_eq!(total_after(builder(), throttled), (0, 0));
    assert_eq!(total_after(builder(), unwell), (1, 1));
    assert_eq!(total_after(builder().throttled_is_failure(true), throttled), (1, 1));

    for (fails, expected) in [(true, State::Open), (false, State::HalfOpen)] {
        let (mut service, handle) = service(builder().throttled_fails_probe(fails));
        trip(&mut service, &handle).await;
        advance(10 * SECOND).await;
        handle.admit().unwrap().settle(throttled);
        assert_eq!(handle.state(), expected);
        assert_eq!(handle.snapshot().probes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_layer_below_counts_for_nothing_and_gives_the_slot_back() {
    let below = BreakerLayer::builder("below").mode(Mode::ForcedOpen).build().unwrap();
    let above = builder().build().unwrap();
    let mut service = above.layer(below.layer(inner()));
    for _ in 0..10 {
        let error = call(&mut service, "ok").await.unwrap_err();
        assert_eq!(open(&error).name(), "below");
    }
    assert_eq!(above.handle().snapshot().counts.total, 0);

    for _ in 0..2 {
        above.handle().admit().unwrap().settle(Outcome::timeout());
    }
    advance(10 * SECOND).await;
    call(&mut service, "ok").await.unwrap_err();
    let snapshot = above.handle().snapshot();
    assert_eq!((snapshot.state, snapshot.probes), (State::HalfOpen, 0));
}

#[tokio::test(start_paused = true)]
async fn the_classifier_decides() {
    let teapot = classify_fn(|result: Result<&u32, &Error>| match result {
        Ok(200) => Outcome::failure(FaultKind::Status(200), Replay::Safe),
        _ => Outcome::Ignored,
    });
    let layer = builder().classify(teapot).build().unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "fail").await.unwrap_err();
    call(&mut service, "ok").await.unwrap();
    assert_eq!(layer.handle().snapshot().counts.failures, 1);
    call(&mut service, "ok").await.unwrap();
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_head_is_a_timeout_once_it_ran_long_enough() {
    let dropped_after = async |builder: BreakerBuilder, ran: Duration| {
        let (mut service, handle) = service(builder);
        let _ = timeout(ran, call(&mut service, "hang")).await.unwrap_err();
        handle.snapshot().counts.failures
    };
    let millis = Duration::from_millis;
    assert_eq!(dropped_after(builder(), millis(999)).await, 0);
    assert_eq!(dropped_after(builder(), SECOND).await, 1);
    let slow = || builder().slow_threshold(2 * SECOND);
    assert_eq!(dropped_after(slow(), millis(1_999)).await, 0);
    assert_eq!(dropped_after(slow(), 2 * SECOND).await, 1);
    let set = |abandoned| builder().abandoned(abandoned);
    assert_eq!(dropped_after(set(Abandoned::Never), 900 * SECOND).await, 0);
    assert_eq!(dropped_after(set(Abandoned::Always), millis(1)).await, 1);
    assert_eq!(dropped_after(set(Abandoned::After(millis(5))), millis(5)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_its_deadline_is_a_timeout_and_before_it_is_nothing() {
    for (ran, expected) in [(50, 0), (100, 1)] {
        let (mut service, handle) = service(builder().abandoned(Abandoned::Never));
        let deadline = clock::now() + Duration::from_millis(100);
        let within = Duration::from_millis(ran);
        let one = overrides::with().deadline(deadline).run(call(&mut service, "hang"));
        timeout(within, one).await.unwrap_err();
        assert_eq!(handle.snapshot().counts.failures, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_came_after_its_deadline_is_no_failure_of_the_peers() {
    let (mut service, handle) = service(builder());
    // Refused by a limit below, and sent all the same and given up.
    let late = async |service: &mut Breaker<Inner>| {
        let within = || overrides::with().deadline(clock::now());
        within().run(async { handle.admit().unwrap().settle(Outcome::timeout()) }).await;
        assert!(within().run(poll_k(call(service, "hang"), 2)).await.is_none());
    };
    late(&mut service).await;
    assert_eq!((handle.state(), handle.snapshot().counts.total), (State::Closed, 0));

    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;
    late(&mut service).await;
    late(&mut service).await;
    assert_eq!((handle.state(), handle.snapshot().probes), (State::HalfOpen, 0));
}

#[test]
fn rates_that_were_too_high_while_half_open_trip_once_it_has_closed() {
    let mut config = BreakerConfig::default();
    (config.window, config.minimum_calls) = (Window::Count(10), 1);
    (config.consecutive_failures, config.failure_rate) = (None, Some(0.5));
    (config.probes, config.probe_successes, config.ramp) = (3, 2, None);
    let (start, changes) = (clock::now(), &mut Changes::default());
    let engine = Engine::new(config.clone(), start).unwrap();
    let admitted = |now| match engine.admit(now, &mut Changes::default()) {
        Admission::Admitted(permit) => permit,
        refused => panic!("{refused:?}"),
    };
    engine.fail(Outcome::timeout(), start, changes);
    let later = start + config.open_cap;
    // A stream that is under way for so long has proved enough, and breaks off then.
    let stream = admitted(later);
    engine.head(&stream, true, later, changes);
    let later = later + config.max_wait;
    engine.record(stream, Outcome::timeout(), false, later, changes);
    assert_eq!((engine.state(), engine.counts(later).failures), (State::HalfOpen, 1));
    engine.record(admitted(later), Outcome::Success, false, later, changes);
    assert_eq!(engine.state(), State::Closed);
    engine.record(admitted(later), Outcome::Success, false, later, changes);
    assert_eq!(engine.state(), State::Open);
}

#[test]
fn a_clock_that_is_behind_by_half_a_window_sees_what_others_counted() {
    for (ahead, seen) in [(5, 1), (6, 0)] {
        let mut config = BreakerConfig::default();
        config.window = Window::Time(10 * SECOND);
        let (start, changes) = (clock::now(), &mut Changes::default());
        let engine = Engine::new(config, start).unwrap();
        engine.fail(Outcome::timeout(), start + ahead * SECOND, changes);
        assert_eq!(engine.counts(start).total, seen);
    }
}
