//! The clock, a bare service, and each layer alone on a call that succeeds at once.

use std::{hint::black_box, time::Duration};

use benches::{
    inner::AtOnce,
    scenario::{LIMIT, breaker, broken_by_key, limit, limited_by_key, retry, timeout},
};
use portcullis::{breaker::Window, clock};
use tower::Layer;

use super::Plan;
use crate::{
    measure::{Contest, Effort, Side},
    peers,
    table::number,
};

const GROUP: &str = "layers";
const TEN_SECONDS: Duration = Duration::from_secs(10);

pub(super) fn plans() -> Vec<Plan> {
    vec![
        Plan::new(GROUP, "clock, read once", |_| {
            let ours = Side::new("ours", || _ = black_box(clock::now()));
            Contest::new(ours, [Side::new("std", || _ = black_box(std_now()))])
        }),
        // Ours has no bulkhead: its peers' are here to be seen.
        Plan::new(GROUP, "bare service", |_| {
            let bulkhead = peers::resilience_bulkhead().layer(AtOnce);
            let limit = tower::limit::ConcurrencyLimit::new(AtOnce, 1000);
            Contest::new(
                Side::service("ours", AtOnce),
                [
                    Side::service("tower ConcurrencyLimit", limit),
                    Side::service("tower-resilience bulkhead", bulkhead),
                ],
            )
            .noted("nothing round it, and what a bulkhead of the peers' adds; ours has none")
        }),
        Plan::new(GROUP, "timeout", |_| {
            let tower = tower::timeout::Timeout::new(AtOnce, LIMIT);
            let resilience = peers::resilience_timeout().layer(AtOnce);
            Contest::new(
                Side::service("ours", timeout().layer(AtOnce)),
                [Side::service("tower", tower), Side::service("tower-resilience", resilience)],
            )
        }),
        // tower's has no budget and no backoff here: a policy that clones and says no.
        Plan::new(GROUP, "retry", |_| {
            Contest::new(
                Side::service("ours", retry().layer(AtOnce)),
                [
                    Side::service("tower", peers::tower_retry(AtOnce)),
                    Side::service("tower-resilience", peers::resilience_retry().layer(AtOnce)),
                ],
            )
        }),
        // tower's is for one task and holds its place in `poll_ready`; it is cloned by nobody.
        Plan::new(GROUP, "rate limit", |_| {
            Contest::new(
                Side::service("ours", limit().layer(AtOnce)),
                [
                    Side::service("tower", peers::tower_limit(AtOnce)),
                    Side::service("tower-resilience", peers::resilience_limit().layer(AtOnce)),
                ],
            )
        }),
        // No peer has a Tower layer with keys.
        Plan::new(GROUP, "rate limit by key", |_| {
            Contest::new(Side::service("ours", limited_by_key(AtOnce)), [])
        }),
        Plan::new(GROUP, "breaker, count window", |_| {
            let window = Window::Count(100);
            let peer = peers::resilience_broken(window, AtOnce);
            Contest::new(
                Side::service("ours", breaker(window).layer(AtOnce)),
                [Side::service("tower-resilience", peer)],
            )
        }),
        Plan::new(GROUP, "breaker, time window of 10 s, busy", busy),
        Plan::new(GROUP, "breaker by key", |_| {
            Contest::new(Side::service("ours", broken_by_key(AtOnce)), [])
        }),
    ]
}

/// The window holds what 10 000 calls a second leave in it, as far as time allows.
fn busy(effort: Effort) -> Contest {
    let window = Window::Time(TEN_SECONDS);
    let mut ours = breaker(window).layer(AtOnce);
    let mut peer = peers::resilience_broken(window, AtOnce);
    let held = effort.fill(100_000, || _ = benches::inner::call(&mut ours, ()));
    let peer_held = effort.fill(100_000, || _ = benches::inner::call(&mut peer, ()));
    Contest::new(Side::service("ours", ours), [Side::service("tower-resilience", peer)]).noted(
        format!(
            "{} calls in ours' window and {} in the peer's at the start",
            number(held as f64),
            number(peer_held as f64)
        ),
    )
}

#[expect(clippy::disallowed_methods, reason = "this is what the clock is compared with")]
fn std_now() -> std::time::Instant {
    std::time::Instant::now()
}
