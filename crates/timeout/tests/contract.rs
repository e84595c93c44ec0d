//! Tower's contract, and facts about the types.

use std::time::Duration;

use portcullis_core::ByResult;
use portcullis_testkit::{
    ScriptedService, assert_clone, assert_debug, assert_send, assert_sync, contract::Suite,
};
use portcullis_timeout::{ResponseFuture, Timeout, TimeoutLayer};
use tower_layer::Layer;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract_under_every_limit() {
    let layer = TimeoutLayer::builder("contract")
        .total(9 * SECOND)
        .readiness(SECOND)
        .head(SECOND)
        .body(SECOND)
        .idle(SECOND)
        .slow(SECOND)
        .build()
        .unwrap();
    Suite::new(|inner: ScriptedService<String, u32>| layer.layer(inner)).run().await;
}

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract_without_any_timer() {
    let layer = TimeoutLayer::builder("contract").slow(SECOND).build().unwrap();
    Suite::new(|inner: ScriptedService<(), ()>| layer.layer(inner)).run().await;
}

#[test]
fn types_are_what_a_stack_needs() {
    /// Neither `Debug` nor anything else.
    #[derive(Clone)]
    struct Bare;

    assert_clone::<Timeout<Bare, Bare>>();
    assert_clone::<TimeoutLayer<Bare>>();
    assert_debug::<Timeout<Bare, Bare>>();
    assert_debug::<TimeoutLayer<Bare>>();
    assert_debug::<ResponseFuture<Bare, Bare>>();
    assert_send::<ResponseFuture<Bare, Bare>>();
    assert_send::<Timeout<Bare>>();
    assert_sync::<Timeout<Bare>>();
}

/// A layer above relies on the timer that it left in its own place: see
/// [`LeftTimer`](portcullis_core::call::LeftTimer).
#[test]
fn the_future_stays_where_it_was_polled_first() {
    trait Movable<T> {
        fn is_movable() {}
    }

    impl<F: ?Sized> Movable<()> for F {}
    impl<F: ?Sized + Unpin> Movable<u8> for F {}

    // Ambiguous, and so no program, for what is `Unpin`.
    <ResponseFuture<std::future::Ready<()>, ByResult> as Movable<_>>::is_movable();
}

/// What the layer adds to the inner future, scope and room for a timer included. A change here is a
/// change of every stack's size.
#[test]
fn the_future_stays_small() {
    let own = size_of::<ResponseFuture<std::future::Ready<()>, ByResult>>();
    assert!(own <= 176, "{own} bytes");
}
