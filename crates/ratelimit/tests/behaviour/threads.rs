//! The engine on many threads at once.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use portcullis_core::{clock, sync::Mutex};
use portcullis_ratelimit::{Bucket, KeyedLimiter, Limiter, Limits, Quota, RateLimitConfig};

use crate::SECOND;

fn on_threads(f: impl Fn(u32) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let f = &f;
            scope.spawn(move || f(thread));
        }
    });
}

fn quota(burst: u32, spacing: Duration, epoch: Instant) -> Quota {
    let mut config = RateLimitConfig::default();
    (config.limit, config.per, config.burst) = (1, spacing, burst);
    Quota::new(&config, epoch).unwrap()
}

#[test]
fn the_bound_is_exact_on_many_threads_at_one_moment() {
    let now = clock::now();
    let quota = quota(10_000, SECOND, now);
    let (bucket, passed) = (Bucket::new(), AtomicU32::new(0));
    on_threads(|_| {
        for cost in (1..=3).cycle().take(20_000) {
            if bucket.take(&quota, cost, now).is_ok() {
                passed.fetch_add(cost, Ordering::Relaxed);
            }
        }
    });
    assert_eq!(passed.into_inner(), 10_000);
}

#[test]
fn the_bound_holds_over_all_intervals_on_many_threads() {
    // Each tells the time it read before it comes to the bucket: they come in any order.
    let epoch = clock::now();
    let quota = quota(5, Duration::from_nanos(10), epoch);
    let (bucket, ticks) = (Bucket::new(), AtomicU64::new(0));
    let all = Mutex::new(Vec::new());
    on_threads(|_| {
        let mut passed = Vec::new();
        for _ in 0..10_000 {
            let tick = ticks.fetch_add(3, Ordering::Relaxed);
            if bucket.take(&quota, 1, epoch + Duration::from_nanos(tick)).is_ok() {
                passed.push(tick);
            }
        }
        all.lock().extend(passed);
    });
    let mut passed = std::mem::take(&mut *all.lock());
    passed.sort_unstable();
    // Of cost 1 each: the n-th after any passes no sooner than (n − 5)·10 ns after it. That TAT never
    // falls makes it enough to look at the earliest that each can be.
    let mut earliest = i64::MIN;
    for (n, &tick) in passed.iter().enumerate() {
        let offset = i64::try_from(tick).unwrap() - 10 * i64::try_from(n).unwrap();
        assert!(offset + 10 * 4 >= earliest, "the {n}th at {tick}");
        earliest = earliest.max(offset);
    }
    assert!(passed.len() > 1_000);
}

#[test]
fn a_place_in_line_is_given_once_on_many_threads() {
    let now = clock::now();
    let quota = quota(1, SECOND, now);
    let bucket = Bucket::new();
    let turns = Mutex::new(Vec::new());
    on_threads(|thread| {
        for turn in 0..1_000 {
            let latest = now + 100_000 * SECOND;
            let place = bucket.reserve(&quota, 1, now, latest).unwrap();
            if (thread + turn) % 2 == 0 {
                bucket.cancel(&quota, place, now);
            } else {
                turns.lock().push(place.at());
            }
        }
    });
    let mut turns = std::mem::take(&mut *turns.lock());
    turns.sort_unstable();
    assert!(turns.windows(2).all(|two| two[1] - two[0] >= SECOND));
    assert_eq!(turns.len(), 2_000);
    // At most one place is lost for each that was given up.
    assert!(turns[turns.len() - 1] <= now + 4_000 * SECOND);
}

#[test]
fn settling_on_many_threads_gives_back_just_what_was_taken() {
    let now = clock::now();
    let quota = quota(1_000, SECOND, now);
    let (bucket, spent) = (Bucket::new(), AtomicU32::new(0));
    on_threads(|thread| {
        for _ in 0..20_000 {
            if let Ok(charge) = bucket.take(&quota, 7, now) {
                let actual = u32::from(thread == 0);
                bucket.settle(&quota, charge, actual, now);
                spent.fetch_add(actual, Ordering::Relaxed);
            }
        }
    });
    let spent = spent.into_inner();
    assert!(spent <= 1_000);
    // A refund beside others may be smaller than it could be, and never larger.
    assert!(bucket.left(&quota, now) <= 1_000 - spent);
}

#[test]
fn several_limits_are_rolled_back_whole_on_many_threads() {
    let limiter =
        |burst| Limiter::builder("l").rate(1, 3_600 * SECOND).burst(burst).build().unwrap();
    let (wide, narrow) = (limiter(1_000), limiter(300));
    let passed = AtomicU32::new(0);
    on_threads(|thread| {
        // In both orders.
        let mut both = [wide.clone(), narrow.clone()];
        both.rotate_left(thread as usize % 2);
        let both = Limits::all(both).unwrap();
        for _ in 0..2_000 {
            passed.fetch_add(u32::from(both.try_acquire().is_ok()), Ordering::Relaxed);
        }
    });
    assert_eq!(passed.into_inner(), 300);
    assert!(wide.snapshot().left <= 700 && wide.snapshot().left >= 690);
}

#[test]
fn no_key_passes_twice_though_keys_are_forgotten_on_many_threads() {
    let limiters = KeyedLimiter::builder("keys")
        .rate(1, 3_600 * SECOND)
        .burst(1)
        .max_keys(64)
        .build_keyed()
        .unwrap();
    let passed: Vec<_> = (0..256).map(|_| AtomicU32::new(0)).collect();
    on_threads(|thread| {
        for turn in 0..20_000_u32 {
            let key = (turn * 7 + thread * 61) % 256;
            if limiters.try_acquire(&key.to_string()).is_ok() {
                passed[key as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert!(passed.iter().all(|passed| passed.load(Ordering::Relaxed) <= 1));
    assert_eq!(limiters.len(), 64);
}
