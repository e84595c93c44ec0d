//! The ramp, the modes, and what is told.

use std::sync::Arc;

use portcullis_breaker::{Handle, Mode, Ramp};
use portcullis_core::{Event, Reason, Rejection, State, What, clock, sync::Mutex};
use portcullis_testkit::call;
use tokio::time::advance;

use crate::{SECOND, Told, builder, open, service, trip};

#[tokio::test(start_paused = true)]
async fn after_closing_admission_grows_along_the_ramp() {
    let (mut service, handle) = service(builder().ramp(Ramp::new(100 * SECOND)));
    trip(&mut service, &handle).await;
    advance(10 * SECOND).await;
    for _ in 0..2 {
        call(&mut service, "ok").await.unwrap();
    }
    for (after, share) in [(0, 0.1), (50, 0.5), (90, 0.9)] {
        let closed_for = clock::now();
        let mut admitted = 0;
        for _ in 0..1_000 {
            match call(&mut service, "ok").await {
                Ok(_) => admitted += 1,
                Err(error) => {
                    let expected = Reason::Ramp { share };
                    assert_eq!(
                        (open(&error).state(), open(&error).reason()),
                        (State::Closed, expected)
                    );
                }
            }
        }
        assert!((f64::from(admitted) / 1_000.0 - share).abs() < 0.05, "{admitted} after {after} s");
        assert_eq!(clock::now(), closed_for);
        advance(if after == 0 { 50 * SECOND } else { 40 * SECOND }).await;
    }
    for _ in 0..100 {
        call(&mut service, "ok").await.unwrap();
    }
    assert_eq!(handle.snapshot().ramp_share, None);
}

#[tokio::test(start_paused = true)]
async fn disabled_it_refuses_nothing_and_tells_what_it_would_have_done() {
    let told = Told::default();
    let (mut service, handle) = service(builder().mode(Mode::Disabled).observe(told.observer()));
    for _ in 0..3 {
        call(&mut service, "fail").await.unwrap_err();
    }
    assert_eq!(handle.state(), State::Disabled);
    assert_eq!(handle.snapshot().judged, State::Open);
    let told = told.take();
    assert!(told.contains(
        &"breaker search: closed → open: 2 failures in a row (limit 2); open for 10.0s".to_owned()
    ));
    assert!(
        told.contains(&"breaker search: would have rejected: 2 failures in a row (limit 2)".into())
    );
    let admitted = told.iter().filter(|it| it.starts_with("breaker search: admitted")).count();
    assert_eq!(admitted, 2, "what would have been rejected is told as that alone");

    advance(10 * SECOND).await;
    for _ in 0..2 {
        call(&mut service, "ok").await.unwrap();
    }
    assert_eq!(handle.snapshot().judged, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn every_decision_is_told_with_its_numbers() {
    let told = Told::default();
    let (mut service, handle) = service(builder().observe(told.observer()));
    trip(&mut service, &handle).await;
    call(&mut service, "ok").await.unwrap_err();
    advance(10 * SECOND).await;
    call(&mut service, "ok").await.unwrap();
    handle.force_open();
    assert_eq!(
        told.take(),
        [
            "admitted while closed: 0 of 0 failed, 0 slow",
            "failure (other) after 0.0ns",
            "admitted while closed: 1 of 1 failed, 0 slow",
            "failure (other) after 0.0ns",
            "closed → open: 2 failures in a row (limit 2); open for 10.0s",
            "rejected: 2 failures in a row (limit 2)",
            "open → half-open: open time of 10s is over",
            "admitted while half-open: open time of 10s is over",
            "success after 0.0ns (head after 0.0ns)",
            "half-open → forced-open: by hand",
        ]
        .map(|what| format!("breaker search: {what}"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_use_the_breaker_it_is_told_of() {
    let slot: Arc<Mutex<Option<Handle>>> = Arc::default();
    let seen = slot.clone();
    let layer = builder().observe(move |event: &Event<'_>| {
        let handle = seen.lock().clone();
        if let (What::StateChanged { to: State::Open, .. }, Some(handle)) = (event.what, handle) {
            handle.reset();
        }
    });
    let (mut service, handle) = service(layer);
    *slot.lock() = Some(handle.clone());
    for _ in 0..2 {
        call(&mut service, "fail").await.unwrap_err();
    }
    assert_eq!(handle.state(), State::Closed);
}
