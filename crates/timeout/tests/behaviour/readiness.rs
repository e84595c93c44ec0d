//! The wait for readiness, and who pays for it.

use std::time::Duration;

use portcullis_core::{FaultKind, Outcome, Phase, Replay};
use portcullis_testkit::{TestError, call as ask, poll_k, ready};
use portcullis_timeout::TimeoutLayer;
use tokio::time::{Instant, advance};
use tower_layer::Layer;
use tower_service::Service;

use crate::kit::{Inner, MS, elapsed, hanging, ready_after};

#[tokio::test(start_paused = true)]
async fn poll_ready_neither_times_out_nor_rejects() {
    let inner = Inner::answering(200);
    let readiness = inner.readiness();
    readiness.hold();
    let layer = TimeoutLayer::builder("search").total(50 * MS).readiness(MS).build().unwrap();
    let mut service = layer.layer(inner);
    assert!(poll_k(ready(&mut service), 1).await.is_none());
    advance(Duration::from_secs(3600)).await;
    assert!(poll_k(ready(&mut service), 1).await.is_none());
    readiness.release();
    ready(&mut service).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_readiness_is_charged_to_the_call() {
    let inner = hanging();
    let readiness = inner.readiness();
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(inner);
    ready_after(&mut service, &readiness, 30 * MS).await;
    let called = Instant::now();
    assert_eq!(elapsed(service.call(()).await), (Phase::Total, 50 * MS));
    assert_eq!(called.elapsed(), 20 * MS);

    // The next call is charged with nothing of that.
    let start = Instant::now();
    assert_eq!(elapsed(ask(&mut service, ()).await), (Phase::Total, 50 * MS));
    assert_eq!(start.elapsed(), 50 * MS);
}

#[tokio::test(start_paused = true)]
async fn what_passes_between_readiness_and_the_call_is_the_callers_own_time() {
    let inner = Inner::answering(200);
    let readiness = inner.readiness();
    let mut service = TimeoutLayer::total("search", 50 * MS).unwrap().layer(inner);
    ready_after(&mut service, &readiness, 10 * MS).await;
    // A worker that is ready and has nothing to do.
    advance(60 * 1_000 * MS).await;
    assert_eq!(service.call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_the_call_on() {
    let inner = hanging();
    let readiness = inner.readiness();
    let layer = TimeoutLayer::builder("search").total(90 * MS).head(20 * MS).build().unwrap();
    let mut service = layer.layer(inner);
    ready_after(&mut service, &readiness, 30 * MS).await;
    let called = Instant::now();
    assert_eq!(elapsed(service.call(()).await), (Phase::Head, 20 * MS));
    assert_eq!(called.elapsed(), 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_took_it_all_ends_the_call_before_it_is_made() {
    let inner = Inner::answering(200);
    let (readiness, journal) = (inner.readiness(), inner.journal());
    let layer = TimeoutLayer::builder("search").total(50 * MS).readiness(20 * MS).build().unwrap();
    let mut service = layer.layer(inner);

    ready_after(&mut service, &readiness, 20 * MS).await;
    let error = service.call(()).await.unwrap_err();
    // Nothing was sent, so it may be sent again.
    assert_eq!(error.outcome(), Outcome::failure(FaultKind::Timeout, Replay::Safe));
    assert_eq!(elapsed::<()>(Err(error)), (Phase::Readiness, 20 * MS));
    assert_eq!(journal.calls(), 0);

    // The inner service stayed ready for the next call, which has waited for nothing.
    readiness.hold();
    assert_eq!(ask(&mut service, ()).await.unwrap(), 200);

    let total = TimeoutLayer::total("search", 50 * MS).unwrap();
    let mut service = total.layer(service.get_ref().clone());
    ready_after(&mut service, &readiness, 50 * MS).await;
    assert_eq!(elapsed(service.call(()).await), (Phase::Total, 50 * MS));
    assert_eq!(journal.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_within_its_limit_is_forgiven() {
    let inner = Inner::answering(200);
    let readiness = inner.readiness();
    let layer = TimeoutLayer::builder("search").readiness(20 * MS).build().unwrap();
    let mut service = layer.layer(inner);
    ready_after(&mut service, &readiness, 19 * MS).await;
    assert_eq!(service.call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_not_waited() {
    let inner = Inner::answering(200);
    let readiness = inner.readiness();
    let layer = TimeoutLayer::builder("search").readiness(20 * MS).build().unwrap();
    let mut service = layer.layer(inner);
    ready_after(&mut service, &readiness, 30 * MS).await;
    let mut clone = service.clone();
    assert_eq!(ask(&mut clone, ()).await.unwrap(), 200);
    assert_eq!(elapsed(service.call(()).await), (Phase::Readiness, 20 * MS));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_the_inner_services_and_ends_the_wait() {
    let inner = Inner::answering(200);
    let readiness = inner.readiness();
    let layer = TimeoutLayer::builder("search").readiness(20 * MS).build().unwrap();
    let mut service = layer.layer(inner);
    readiness.hold();
    assert!(poll_k(ready(&mut service), 1).await.is_none());
    advance(30 * MS).await;
    readiness.fail_next(TestError("no connection"));
    let error = ready(&mut service).await.unwrap_err();
    assert!(error.is::<TestError>());

    readiness.release();
    assert_eq!(ask(&mut service, ()).await.unwrap(), 200);
}
