//! Tower's contract, and facts about the types.

use portcullis_testkit::{
    ScriptedService, assert_clone, assert_debug, assert_send, assert_sync, contract::Suite,
};
use portcullis_trace::{Recorder, ResponseFuture, ScopeFuture, TraceLayer, TraceStore, Traced};
use tower_layer::Layer;

#[tokio::test(start_paused = true)]
async fn keeps_towers_contract() {
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let layer = TraceLayer::builder("contract").recorder(&recorder).build().unwrap();
    Suite::new(|inner: ScriptedService<String, u32>| layer.layer(inner)).run().await;
}

#[test]
fn types_are_what_a_stack_needs() {
    /// Neither `Debug` nor anything else.
    #[derive(Clone)]
    struct Bare;

    assert_clone::<Traced<Bare, Bare, Bare, Bare>>();
    assert_clone::<TraceLayer<Bare, Bare, Bare>>();
    assert_debug::<Traced<Bare, Bare, Bare, Bare>>();
    assert_debug::<TraceLayer<Bare, Bare, Bare>>();
    assert_debug::<ResponseFuture<Bare, Bare, Bare>>();
    assert_debug::<ScopeFuture<Bare>>();
    assert_send::<ResponseFuture<Bare, Bare, Bare>>();
    assert_send::<ScopeFuture<Bare>>();
    assert_sync::<Traced<Bare>>();
    assert_send::<Recorder>();
    assert_sync::<dyn TraceStore>();
}

/// What the layer adds to the inner future, scope included. A change here is a change of every
/// stack's size.
#[test]
fn the_future_stays_small() {
    let own = size_of::<ResponseFuture<std::future::Ready<()>, (), ()>>();
    assert!(own <= 144, "{own} bytes");
}
