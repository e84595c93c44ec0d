//! Calls that are refused, to the caller's error.

use std::{
    future::Future,
    hint::black_box,
    num::NonZeroU32,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use benches::{
    inner::{AtOnce, call},
    scenario::breaker,
};
use failsafe::CircuitBreaker;
use governor::RateLimiter;
use portcullis::{
    breaker::Window,
    ratelimit::{Limiter, RateLimitLayer},
};
use tower::{Layer, Service};
use tower_resilience::ratelimiter::RateLimiterLayer;

use super::Plan;
use crate::{
    measure::{Contest, Side},
    peers::{self, DAY},
};

const GROUP: &str = "refusals";

pub(super) fn plans() -> Vec<Plan> {
    vec![
        Plan::new(GROUP, "open breaker", |_| open()),
        Plan::new(GROUP, "limit, asked without a service", |_| limited()),
        Plan::new(GROUP, "limit, as a layer", |_| limited_as_a_layer()),
    ]
}

fn open() -> Contest {
    let window = Window::Count(100);
    let layer = breaker(window);
    layer.handle().force_open();

    let (resilience, handle) =
        peers::resilience_breaker(window).build_with_handle().expect("valid");
    now_or_never(handle.force_open());

    // These two open by failing.
    let recloser = peers::recloser(4);
    let failsafe = peers::failsafe(Duration::from_secs(10));
    for _ in 0..10 {
        _ = recloser.call(|| Err::<(), ()>(()));
        _ = failsafe.call(|| Err::<(), ()>(()));
    }
    Contest::new(
        refused("ours", layer.layer(AtOnce)),
        [
            refused("tower-resilience", resilience.layer(AtOnce)),
            refused_by("recloser", move || recloser.call(|| call(&mut AtOnce, ())).is_err()),
            refused_by("failsafe", move || failsafe.call(|| call(&mut AtOnce, ())).is_err()),
        ],
    )
}

/// One a day, and that one was taken.
fn limited() -> Contest {
    let ours = Limiter::builder("bench").rate(1, DAY).burst(1).build().expect("valid");
    let day = governor::Quota::with_period(DAY).expect("above 0");
    let governor = RateLimiter::direct(day.allow_burst(NonZeroU32::MIN));
    assert!(ours.try_acquire().is_ok() && governor.check().is_ok());
    Contest::new(
        refused_by("ours", move || ours.try_acquire().is_err()),
        [refused_by("governor", move || governor.check().is_err())],
    )
}

/// The same.
fn limited_as_a_layer() -> Contest {
    let ours = RateLimitLayer::builder("bench").rate(1, DAY).burst(1).build().expect("valid");
    let peer = RateLimiterLayer::builder()
        .name("bench")
        .limit_for_period(1)
        .refresh_period(DAY)
        .timeout_duration(Duration::ZERO)
        .build()
        .expect("valid");
    let (mut ours, mut peer) = (ours.layer(AtOnce), peer.layer(AtOnce));
    assert!(call(&mut ours, ()).is_ok() && call(&mut peer, ()).is_ok());
    Contest::new(refused("ours", ours), [refused("tower-resilience", peer)])
}

fn refused<S: Service<()> + 'static>(name: &str, mut service: S) -> Side {
    refused_by(name, move || call(&mut service, ()).is_err())
}

/// Makes sure that it is a refusal that is measured.
fn refused_by(name: &str, mut is_refused: impl FnMut() -> bool + 'static) -> Side {
    assert!(is_refused(), "{name} lets a call pass");
    Side::new(name, move || assert!(black_box(is_refused())))
}

fn now_or_never(future: impl Future<Output = ()>) {
    let poll = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(poll, Poll::Ready(()));
}
