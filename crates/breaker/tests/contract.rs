//! Tower's contract, for each kind of breaker.

use std::borrow::Cow;

use portcullis_breaker::{
    Breaker, BreakerConfig, BreakerLayer, Handle, Handles, ResponseFuture, WhenOpen,
};
use portcullis_core::ByResult;
use portcullis_testkit::{
    ScriptedService, assert_clone, assert_debug, assert_send, assert_sync, contract::Suite,
};
use tower_layer::Layer;

#[tokio::test(start_paused = true)]
async fn one_breaker_for_all_keeps_the_contract() {
    let build = |inner: ScriptedService<String, u32>| {
        BreakerLayer::builder("search").build().unwrap().layer(inner)
    };
    Suite::new(build).run().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_ready_when_open_keeps_the_contract() {
    let build = |inner: ScriptedService<String, u32>| {
        let layer = BreakerLayer::builder("search").when_open(WhenOpen::NotReady).build();
        layer.unwrap().layer(inner)
    };
    Suite::new(build).run().await;
}

#[tokio::test(start_paused = true)]
async fn one_for_each_key_keeps_the_contract() {
    let build = |inner: ScriptedService<String, u32>| {
        let layer = BreakerLayer::keyed("search", |req: &String| Cow::from(&**req)).build();
        layer.unwrap().layer(inner)
    };
    Suite::new(build).run().await;
}

#[test]
fn its_types_cross_threads_whatever_is_inside() {
    struct Plain;

    assert_send::<Breaker<Plain, ByResult>>();
    assert_sync::<Breaker<Plain, ByResult>>();
    assert_debug::<Breaker<(), Plain>>();
    assert_debug::<BreakerLayer<Plain>>();
    assert_debug::<ResponseFuture<Plain, Plain>>();
    assert_send::<ResponseFuture<Plain, Plain>>();
    assert_clone::<BreakerLayer>();
    assert_clone::<Handle>();
    assert_clone::<Handles>();
    assert_send::<Handle>();
    assert_sync::<Handle>();
    assert_clone::<BreakerConfig>();
}
