//! Trip, refuse, probe, close.

use std::time::Duration;

use portcullis_breaker::Window;
use portcullis_core::{
    Fault, FaultKind, Hint, Outcome, Reason, Rejection, RejectionKind, Replay, State,
};
use portcullis_testkit::{call, ready};
use tokio::time::advance;
use tower_service::Service;

use crate::{SECOND, builder, open, service, trip};

#[tokio::test(start_paused = true)]
async fn trips_refuses_probes_and_closes() {
    let (mut service, handle) = service(builder());
    call(&mut service, "fail").await.unwrap_err();
    call(&mut service, "ok").await.unwrap();
    trip(&mut service, &handle).await;
    assert_eq!(service.get_ref().journal().calls(), 4);

    advance(9 * SECOND).await;
    let error = call(&mut service, "ok").await.unwrap_err();
    assert_eq!(service.get_ref().journal().calls(), 4, "the peer is left alone");
    let refusal = open(&error);
    assert_eq!((refusal.name(), refusal.kind()), ("search", RejectionKind::Open));
    assert_eq!(refusal.state(), State::Open);
    assert_eq!(refusal.reason(), Reason::ConsecutiveFailures { count: 2, threshold: 2 });
    assert_eq!(refusal.tripped_by(), refusal.reason());
    assert_eq!(refusal.retry_after(), Some(SECOND));
    assert_eq!(error.to_string(), "search: open, 2 failures in a row (limit 2); try again in 1.0s");
    assert_eq!(error.outcome().replay(), Some(Replay::Safe));
    assert_eq!(error.outcome().hint(), Hint::After(SECOND));

    advance(SECOND).await;
    call(&mut service, "ok").await.unwrap();
    assert_eq!(handle.state(), State::HalfOpen);
    call(&mut service, "ok").await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_first_failed_probe_reopens_for_twice_as_long_up_to_the_cap() {
    let (mut service, handle) = service(builder().open_time(10 * SECOND, 25 * SECOND));
    trip(&mut service, &handle).await;
    for expected in [10, 20, 25, 25] {
        assert_eq!(handle.snapshot().open_for, Some(expected * SECOND));
        advance(expected * SECOND).await;
        call(&mut service, "fail").await.unwrap_err();
        assert_eq!(handle.state(), State::Open);
    }
    assert_eq!(
        handle.snapshot().tripped_by,
        Some(Reason::ProbeFailed { succeeded: 0, threshold: 2 })
    );
}

#[tokio::test(start_paused = true)]
async fn the_open_time_shrinks_only_after_a_healthy_window() {
    let window = Window::Time(60 * SECOND);
    let (mut service, handle) =
        service(builder().window(window).open_time(10 * SECOND, 300 * SECOND));
    let mut closes_after_one_cycle = async |healthy: Duration| {
        trip(&mut service, &handle).await;
        let open_for = handle.snapshot().open_for.unwrap();
        advance(open_for).await;
        for _ in 0..2 {
            call(&mut service, "ok").await.unwrap();
        }
        advance(healthy).await;
        open_for
    };
    assert_eq!(closes_after_one_cycle(59 * SECOND).await, 10 * SECOND);
    assert_eq!(closes_after_one_cycle(60 * SECOND).await, 20 * SECOND);
    assert_eq!(closes_after_one_cycle(SECOND).await, 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn jitter_keeps_the_open_time_in_its_upper_half_and_a_seed_pins_it() {
    let draw = |seed| {
        let (_, handle) = service(builder().jitter(true).consecutive_failures(1).seed(seed));
        handle.admit().unwrap().settle(Outcome::timeout());
        handle.snapshot().open_for.unwrap()
    };
    let all: Vec<_> = (0..100).map(draw).collect();
    assert!(all.iter().all(|d| (5 * SECOND..=10 * SECOND).contains(d)));
    assert!(all.iter().min() < all.iter().max());
    assert_eq!(draw(7), draw(7));
}

#[tokio::test(start_paused = true)]
async fn a_hint_lengthens_the_open_time_up_to_its_limit() {
    for (asked, expected) in [(3, 10), (40, 40), (4_000, 60)] {
        let (_, handle) = service(builder().consecutive_failures(1).max_hint(60 * SECOND));
        let fault = Fault::new(FaultKind::Status(503), Replay::Safe);
        let fault = fault.with_hint(Hint::After(asked * SECOND));
        handle.admit().unwrap().settle(Outcome::Failure(fault));
        assert_eq!(handle.snapshot().open_for, Some(expected * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_are_out_at_once_than_may_be() {
    let (mut service, handle) = service(builder());
    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;

    ready(&mut service).await.unwrap();
    let first = service.call("slow");
    ready(&mut service).await.unwrap();
    let second = service.call("slow");
    let error = call(&mut service, "ok").await.unwrap_err();
    assert_eq!(open(&error).state(), State::HalfOpen);
    assert_eq!(open(&error).reason(), Reason::ProbesBusy { limit: 2 });
    assert_eq!(open(&error).tripped_by(), Reason::ConsecutiveFailures { count: 2, threshold: 2 });

    // A probe that is dropped before it could be slow gives its slot back, and proves nothing.
    drop(first);
    assert_eq!(handle.snapshot().probes, 1);
    assert_eq!(handle.snapshot().probes_succeeded, 0);
    call(&mut service, "ok").await.unwrap();
    second.await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}
