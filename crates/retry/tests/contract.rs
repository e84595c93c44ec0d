//! Tower's contract.

use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_core::{ByClone, ByResult, Error, FaultKind, Outcome, Replay, classify_fn};
use portcullis_retry::{Backoff, Retry, RetryBuilder, RetryLayer};
use portcullis_testkit::{
    ScriptedService, TestError, assert_clone, assert_debug, assert_send, assert_sync,
    contract::Suite,
};
use std::time::Duration;
use tower_layer::Layer;

struct Opaque;

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract() {
    Suite::new(|inner: ScriptedService<String, u32>| {
        let layer = RetryLayer::builder("contract", ByClone::idempotent()).build();
        layer.unwrap().layer(inner)
    })
    .run()
    .await;
}

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract_with_one_attempt_only() {
    Suite::new(|inner: ScriptedService<String, u32>| {
        let layer = RetryLayer::builder("contract", ByClone::idempotent()).max_attempts(1);
        layer.build().unwrap().layer(inner)
    })
    .run()
    .await;
}

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract_while_it_retries() {
    for delay in [Duration::ZERO, Duration::from_micros(10)] {
        let suite = Suite::new(move |inner: ScriptedService<String, u32>| {
            let refuse = AtomicBool::new(false);
            // Every other answer is refused.
            let classify = classify_fn(move |_: Result<&u32, &Error>| {
                if refuse.fetch_xor(true, Ordering::Relaxed) {
                    Outcome::Success
                } else {
                    Outcome::failure(FaultKind::Other, Replay::Safe)
                }
            });
            let layer = RetryLayer::builder("contract", ByClone::idempotent())
                .backoff(Backoff::fixed(delay))
                .classify(classify);
            layer.build().unwrap().layer(inner)
        });
        // All but the clone's readiness: that check holds the inner service unready while a call is
        // answered, and a retry waits for just that.
        suite.calls_the_readied_instance().await;
        suite.drop_frees_everything().await;
        suite.readiness_passes_through_and_wakes().await;
        suite.latest_waker_of_a_response_is_woken().await;
        suite.readiness_error_is_returned().await;
    }
}

#[test]
fn is_send_sync_clone_and_debug_whatever_its_parameters() {
    assert_clone::<RetryLayer<Opaque, Opaque>>();
    assert_debug::<RetryLayer<Opaque, Opaque>>();
    assert_debug::<RetryBuilder<Opaque, Opaque>>();
    assert_debug::<Retry<Opaque, Opaque, Opaque>>();
    assert_clone::<Retry<(), Opaque, Opaque>>();

    type Service = Retry<ScriptedService<(), (), TestError>, ByClone, ByResult>;
    assert_send::<Service>();
    assert_sync::<Service>();
    assert_debug::<<Service as tower_service::Service<()>>::Future>();
    assert_send::<<Service as tower_service::Service<()>>::Future>();
}
