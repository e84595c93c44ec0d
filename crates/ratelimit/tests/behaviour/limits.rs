//! One limit: what passes, what is refused and how.

use std::time::{Duration, Instant};

use portcullis_core::{
    Hint, Outcome, Reason, Rejection, RejectionKind, Replay, call as overrides, clock,
};
use portcullis_ratelimit::{Bucket, Limiter, Quota, RateLimitConfig, RateLimitLayer, Refusal};
use portcullis_testkit::{call, ready};
use tower_layer::Layer;
use tower_service::Service;

use crate::{SECOND, Told, inner, layer, limited, limiter};

#[tokio::test(start_paused = true)]
async fn a_burst_passes_and_then_the_rate() {
    let limiter = Limiter::builder("search").rate(100, 60 * SECOND).burst(20).build().unwrap();
    for _ in 0..20 {
        limiter.try_acquire().unwrap();
    }
    let limited = limiter.try_acquire().unwrap_err();
    assert_eq!(limited.retry_after(), Some(Duration::from_millis(600)));
    assert_eq!(
        limited.reason(),
        Reason::Limited { limit: 100, per: 60 * SECOND, burst: 20, cost: 1 }
    );

    let mut passed = 0;
    for _ in 0..60_000 {
        tokio::time::advance(Duration::from_millis(1)).await;
        passed += u32::from(limiter.try_acquire().is_ok());
    }
    assert_eq!(passed, 100);
}

#[tokio::test(start_paused = true)]
async fn no_edge_of_a_window_lets_a_burst_pass_twice() {
    // A window of 60 s that starts afresh would let 100 pass just before its end and 100 just after.
    let limiter = Limiter::builder("search").rate(100, 60 * SECOND).burst(100).build().unwrap();
    tokio::time::advance(59 * SECOND).await;
    let mut passed = 0;
    for _ in 0..2_000 {
        passed += u32::from(limiter.try_acquire().is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(passed, 100 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_safe_to_repeat_later_and_never_reached_the_peer() {
    let told = Told::default();
    let layer = layer(1).observe(told.observer()).build().unwrap();
    let inner = inner();
    let journal = inner.journal();
    let mut service = layer.layer(inner);
    assert_eq!(call(&mut service, "four").await.unwrap(), 4);
    tokio::time::advance(SECOND / 4).await;
    let error = call(&mut service, "four").await.unwrap_err();

    let limited = limited(&error);
    assert_eq!((limited.name(), limited.key(), limited.cost()), ("search", None, 1));
    assert_eq!(limited.kind(), RejectionKind::Limited);
    assert_eq!(limited.retry_after(), Some(SECOND * 3 / 4));
    assert_eq!(error.outcome().hint(), Hint::After(SECOND * 3 / 4));
    assert_eq!(error.outcome().replay(), Some(Replay::Safe));
    assert_eq!(error.to_string(), "search: limit of 1 in 1s (burst 1); try again in 750.0ms");
    assert_eq!(journal.calls(), 1);
    assert_eq!(
        told.take(),
        [
            "ratelimit search: took 1, 0 left",
            "ratelimit search: rejected: limit of 1 in 1s (burst 1)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_costs_more_than_the_burst_can_never_pass_and_is_not_worth_repeating() {
    let layer = layer(3).max_wait(60 * SECOND).build().unwrap();
    let mut service = layer.layer(inner());
    let error = overrides::with().cost(4).run(call(&mut service, "q")).await.unwrap_err();
    let refused = limited(&error);
    assert!(refused.is_permanent());
    assert_eq!(refused.retry_after(), None);
    assert_eq!(refused.reason(), Reason::CostTooLarge { cost: 4, burst: 3 });
    assert_eq!(refused.to_string(), "search: the call costs 4, more than can ever pass (burst 3)");
    assert_eq!(error.outcome().replay(), Some(Replay::Forbidden));
    assert_eq!(error.outcome().hint(), Hint::Never);
    assert!(matches!(error.outcome(), Outcome::Failure(_)));
    // And nothing was taken.
    assert_eq!(layer.limiter().snapshot().left, 3);
    assert!(layer.limiter().until_ready_n(4).await.unwrap_err().is_permanent());
}

#[tokio::test(start_paused = true)]
async fn several_units_pass_together_or_not_at_all() {
    let limiter = limiter(5).build().unwrap();
    limiter.try_acquire_n(3).unwrap();
    let limited = limiter.try_acquire_n(3).unwrap_err();
    assert_eq!(limited.retry_after(), Some(SECOND));
    assert_eq!(
        limited.to_string(),
        "search: limit of 1 in 1s (burst 5), the call costs 3; try again in 1.0s"
    );
    limiter.try_acquire_n(2).unwrap();
    assert_eq!(limiter.snapshot().wait, SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_layers_state_is_made_when_it_is_built() {
    let layer = layer(2).build().unwrap();
    for passes in [true, true, false] {
        assert_eq!(call(&mut layer.layer(inner()), "q").await.is_ok(), passes);
    }
    assert!(call(&mut layer.clone().layer(inner()), "q").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services_and_never_a_refusal() {
    let layer = layer(1).build().unwrap();
    let mut service = layer.layer(inner());
    ready(&mut service).await.unwrap();
    service.call("q").await.unwrap();
    ready(&mut service).await.unwrap();
    assert!(service.call("q").await.is_err());
    ready(&mut service).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_need_not_wait_makes_no_clone() {
    let layer = layer(2).max_wait(SECOND).build().unwrap();
    let inner = inner();
    let journal = inner.journal();
    let mut service = layer.layer(inner);
    for _ in 0..2 {
        call(&mut service, "q").await.unwrap();
    }
    assert_eq!(journal.instances(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_limit_serves_layers_and_plain_code() {
    let limiter = limiter(2).build().unwrap();
    let mut one = RateLimitLayer::of(limiter.clone()).build().unwrap().layer(inner());
    let mut two = RateLimitLayer::of(limiter.clone()).build().unwrap().layer(inner());
    call(&mut one, "q").await.unwrap();
    limiter.try_acquire().unwrap();
    assert!(call(&mut two, "q").await.is_err());
}

#[test]
fn it_works_outside_a_runtime_where_nothing_waits() {
    let limiter = limiter(1).build().unwrap();
    limiter.try_acquire().unwrap();
    assert!(limiter.try_acquire().is_err());
}

#[test]
fn instants_before_the_start_and_far_ahead_neither_panic_nor_let_more_pass() {
    let now = clock::now();
    let mut config = RateLimitConfig::default();
    (config.limit, config.per, config.burst) = (1, SECOND, 2);
    let quota = Quota::new(&config, now).unwrap();
    let bucket = Bucket::new();
    let before = now.checked_sub(60 * SECOND).unwrap_or(now);
    let far = clock::after(now, Duration::MAX);
    let instants: [Instant; 5] = [before, before, before, now, now];
    let passed = instants.iter().filter(|&&at| bucket.take(&quota, 1, at).is_ok()).count();
    assert_eq!(passed, 2);

    let charge = bucket.take(&quota, 1, far).unwrap();
    assert!(matches!(bucket.take(&quota, 1, now), Err(Refusal::Until { held: false, .. })));
    bucket.settle(&quota, charge, u32::MAX, now);
    bucket.hold(&quota, Duration::MAX, far);
    assert!(bucket.take(&quota, 1, far).is_err());
    assert_eq!(bucket.left(&quota, now), 0);
}

#[test]
fn who_asks_before_the_start_and_may_pass_does_not_wait_for_it() {
    let now = clock::now();
    let mut config = RateLimitConfig::default();
    (config.limit, config.per, config.burst) = (1, SECOND, 2);
    let quota = Quota::new(&config, now + 60 * SECOND).unwrap();
    assert_eq!(Bucket::new().reserve(&quota, 2, now, now).unwrap().at(), now);
}

#[tokio::test(start_paused = true)]
async fn a_limit_tells_what_it_is_held_to() {
    let limiter = Limiter::builder("search").rate(100, 60 * SECOND).burst(20).build().unwrap();
    limiter.try_acquire_n(5).unwrap();
    let told = limiter.snapshot();
    assert_eq!((told.limit, told.per, told.burst, told.left), (100, 60 * SECOND, 20, 15));
    let quota = Quota::new(limiter.config(), clock::now()).unwrap();
    assert_eq!((quota.limit(), quota.per(), quota.burst()), (100, 60 * SECOND, 20));
    assert_eq!(quota.spacing(), Duration::from_millis(600));
}

#[test]
fn settings_out_of_their_range_are_named() {
    assert_eq!(limiter(0).build().unwrap_err().field(), "burst");
    assert_eq!(limiter(1).rate(0, SECOND).build().unwrap_err().field(), "limit");
    assert_eq!(layer(1).rate(1, Duration::ZERO).build().unwrap_err().field(), "per");
    let keyed = limiter(1).max_keys(0).build_keyed();
    assert_eq!(keyed.unwrap_err().field(), "max_keys");
}

#[tokio::test(start_paused = true)]
async fn the_highest_rate_is_one_a_nanosecond() {
    let limiter = limiter(1).rate(1_000_000_000, SECOND).build().unwrap();
    limiter.try_acquire().unwrap();
    assert_eq!(limiter.try_acquire().unwrap_err().retry_after(), Some(Duration::from_nanos(1)));
    let config = limiter.config().clone();
    assert_eq!(crate::limiter(1).config(config).build().unwrap().config().limit, 1_000_000_000);
}
