//! Limits asked without a service, one for all and one for each key.

use std::hint::black_box;

use benches::scenario::{BURST, RATE, SECOND};
use portcullis::{
    clock,
    ratelimit::{Bucket, KeyedLimiter, Limiter, LimiterBuilder, Quota},
};

use super::Plan;
use crate::{
    measure::{Contest, Side},
    peers::{self, GovernorKeyed},
};

const GROUP: &str = "limits";

pub(super) fn plans() -> Vec<Plan> {
    let mut plans = vec![
        Plan::new(GROUP, "direct", |_| {
            let limiter = ours().build().expect("valid");
            let (governor, with_std) = (peers::governor(), peers::governor_std());
            Contest::new(
                Side::new("ours", move || _ = black_box(limiter.try_acquire().is_ok())),
                [
                    Side::new("governor", move || _ = black_box(governor.check().is_ok())),
                    Side::new("governor, std's clock", move || {
                        _ = black_box(with_std.check().is_ok());
                    }),
                ],
            )
        }),
        // The decision alone: nobody reads a clock.
        Plan::new(GROUP, "direct, told the time", |_| {
            let now = clock::now();
            let limiter = ours().build().expect("valid");
            let quota = Quota::new(limiter.config(), now).expect("valid");
            let bucket = Bucket::new();
            Contest::new(
                Side::new("ours", move || {
                    _ = black_box(bucket.take(&quota, 1, black_box(now)).is_ok());
                }),
                [],
            )
        }),
    ];
    for (name, keys) in [("1 key", 1), ("1 000 keys", 1_000), ("100 000 keys", 100_000)] {
        plans.push(Plan::new(GROUP, format!("keyed, {name}"), move |_| keyed(keys)));
    }
    plans
}

pub(crate) fn ours() -> LimiterBuilder {
    Limiter::builder("bench").rate(RATE, SECOND).burst(BURST)
}

/// With room for more keys than there are, so that none is evicted.
pub(crate) fn ours_keyed(keys: usize) -> KeyedLimiter {
    ours().max_keys(keys * 2 + 128).build_keyed().expect("valid")
}

/// So many keys, in an order that no memory is prefetched for.
pub(crate) fn tenants(keys: usize) -> Vec<String> {
    // A prime that divides none of the numbers of keys: every key comes once.
    const STRIDE: usize = 7919;
    (0..keys).map(|nth| format!("tenant-{:06}", nth * STRIDE % keys)).collect()
}

fn keyed(keys: usize) -> Contest {
    let tenants = tenants(keys);
    let (limiter, governor): (_, GovernorKeyed) = (ours_keyed(keys), peers::governor_keyed());
    for key in &tenants {
        assert!(limiter.try_acquire(key).is_ok() && governor.check_key(key).is_ok());
    }
    let mut at = Around::new(tenants.clone());
    let ours = Side::new("ours", move || {
        _ = black_box(limiter.try_acquire(at.next()).is_ok());
    });
    let mut at = Around::new(tenants);
    let peer = Side::new("governor", move || {
        _ = black_box(governor.check_key(at.next()).is_ok());
    });
    Contest::new(ours, [peer])
}

/// One after another, and from the start again.
struct Around {
    keys: Vec<String>,
    next: usize,
}

impl Around {
    fn new(keys: Vec<String>) -> Self {
        Self { keys, next: 0 }
    }

    #[inline]
    fn next(&mut self) -> &String {
        let at = self.next;
        self.next = if at + 1 == self.keys.len() { 0 } else { at + 1 };
        &self.keys[at]
    }
}
