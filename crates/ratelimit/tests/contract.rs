//! Tower's contract, for each kind of limit.

use std::{borrow::Cow, time::Duration};

use portcullis_core::ByResult;
use portcullis_ratelimit::{
    KeyedLimiter, Limited, Limiter, LimiterBuilder, Limits, One, RateLimit, RateLimitBuilder,
    RateLimitConfig, RateLimitLayer, Receipt, ResponseFuture, Rules, Tab, UntilReady,
};
use portcullis_testkit::{
    ScriptedService, TestError, assert_clone, assert_debug, assert_send, assert_sync,
    contract::Suite,
};
use tower_layer::Layer;

type Inner = ScriptedService<String, u32>;

fn key(req: &String) -> Cow<'_, str> {
    Cow::from(&**req)
}

#[tokio::test(start_paused = true)]
async fn one_limit_for_all_keeps_the_contract() {
    let build = |inner: Inner| RateLimitLayer::builder("search").build().unwrap().layer(inner);
    Suite::new(build).run().await;
}

#[tokio::test(start_paused = true)]
async fn one_for_each_key_keeps_the_contract() {
    let build = |inner: Inner| RateLimitLayer::keyed("search", key).build().unwrap().layer(inner);
    Suite::new(build).run().await;
}

#[tokio::test(start_paused = true)]
async fn several_at_once_keep_the_contract() {
    let build = |inner: Inner| {
        let all = Limiter::builder("all").build().unwrap();
        let hosts = Limiter::builder("hosts").build_keyed().unwrap();
        let layer = RateLimitLayer::keyed("users", key).and(all).and_keyed(hosts, key).build();
        layer.unwrap().layer(inner)
    };
    Suite::new(build).run().await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_calls_wait_keeps_the_contract() {
    let suite = Suite::new(|inner: Inner| {
        let layer = RateLimitLayer::builder("search")
            .rate(1, Duration::from_millis(1))
            .burst(1)
            .max_wait(Duration::from_secs(60))
            .build()
            .unwrap();
        // Every call of the suite has to wait.
        layer.limiter().try_acquire().unwrap();
        layer.layer(inner)
    });
    // All but what a drop frees: that check stops the clock and wants calls to get through.
    suite.calls_the_readied_instance().await;
    suite.clone_has_no_readiness().await;
    suite.readiness_passes_through_and_wakes().await;
    suite.latest_waker_of_a_response_is_woken().await;
    suite.readiness_error_is_returned().await;
}

#[test]
fn its_types_cross_threads_whatever_is_inside() {
    struct Plain;

    assert_send::<RateLimit<Plain, ByResult>>();
    assert_sync::<RateLimit<Plain, ByResult>>();
    assert_debug::<RateLimit<Plain, Plain>>();
    assert_debug::<RateLimitLayer<Plain>>();
    assert_debug::<RateLimitBuilder<Plain, Plain, Plain, Plain>>();
    assert_clone::<RateLimitLayer>();

    type Service = ScriptedService<(), (), TestError>;
    type Future = ResponseFuture<Service, (), One, ByResult, Rules>;
    assert_debug::<Future>();
    assert_send::<Future>();
    assert_send::<UntilReady>();
    assert_debug::<UntilReady>();
    assert_debug::<Receipt>();
    assert_send::<Receipt>();

    assert_clone::<Limiter>();
    assert_clone::<LimiterBuilder>();
    assert_clone::<KeyedLimiter>();
    assert_clone::<Limits>();
    assert_clone::<RateLimitConfig>();
    assert_clone::<Tab>();
    assert_sync::<Limiter>();
    assert_sync::<KeyedLimiter>();
    assert_sync::<Tab>();
    assert_sync::<Limited>();
}
