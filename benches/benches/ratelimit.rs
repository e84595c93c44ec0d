//! What a limit costs a call that passes, beside governor's: alone, by key, and as a layer.
//!
//! The limits are so wide that nothing is refused. governor reads `std`'s clock, as we do outside of a
//! paused runtime; `at one moment` is the decision alone. Compare ratios, not nanoseconds.

mod inner;

use std::{borrow::Cow, num::NonZeroU32, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use governor::{RateLimiter, clock::MonotonicClock};
use portcullis_ratelimit::{Bucket, Limiter, LimiterBuilder, Quota, RateLimitLayer};
use tower::Layer;

use self::inner::{AtOnce, call};

/// A billion a second, and as many at one moment.
const MOST: u32 = 1_000_000_000;
const KEYS: usize = 1_000;

fn wide() -> LimiterBuilder {
    Limiter::builder("bench").rate(MOST, Duration::from_secs(1)).burst(MOST)
}

fn governors() -> governor::Quota {
    governor::Quota::per_second(NonZeroU32::new(MOST).expect("above 0"))
}

fn limits(c: &mut Criterion) {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("tenant-{key}")).collect();

    c.bench_function("clock", |b| b.iter(portcullis::clock::now));

    let limiter = wide().build().expect("valid");
    c.bench_function("direct", |b| b.iter(|| limiter.try_acquire().is_ok()));
    let peer = RateLimiter::direct_with_clock(governors(), MonotonicClock);
    c.bench_function("direct, governor's", |b| b.iter(|| peer.check().is_ok()));

    let now = portcullis::clock::now();
    let quota = Quota::new(limiter.config(), now).expect("valid");
    let bucket = Bucket::new();
    c.bench_function("direct, at one moment", |b| b.iter(|| bucket.take(&quota, 1, now).is_ok()));

    let limiters = wide().build_keyed().expect("valid");
    let mut at = keys.iter().cycle();
    c.bench_function("keyed", |b| {
        b.iter(|| at.next().is_some_and(|key| limiters.try_acquire(key).is_ok()));
    });
    let peer = RateLimiter::dashmap_with_clock(governors(), MonotonicClock);
    let mut at = keys.iter().cycle();
    c.bench_function("keyed, governor's", |b| {
        // It takes its keys by value's reference; a new key would be cloned.
        b.iter(|| at.next().is_some_and(|key| peer.check_key(key).is_ok()));
    });

    c.bench_function("bare", |b| b.iter(|| call(&mut AtOnce, ())));
    let layer = RateLimitLayer::of(limiter).build().expect("valid");
    let mut service = layer.layer(AtOnce);
    c.bench_function("layer", |b| b.iter(|| call(&mut service, ())));
    let layer = RateLimitLayer::of_keyed(limiters, |key: &&'static str| Cow::from(*key));
    let mut service = layer.build().expect("valid").layer(AtOnce);
    c.bench_function("layer, keyed", |b| b.iter(|| call(&mut service, "tenant-7")));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = limits
}
criterion_main!(benches);
