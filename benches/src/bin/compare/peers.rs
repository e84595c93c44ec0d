//! The peers, set as ours are as far as they can be.

use std::{convert::Infallible, future::Ready, num::NonZeroU32, time::Duration};

use benches::scenario::{BURST, LIMIT, RATE, SECOND};
use failsafe::{
    FailurePolicy,
    backoff::{self, EqualJittered},
    failure_policy::{self, ConsecutiveFailures, OrElse, SuccessRateOverTimeWindow},
};
use governor::{
    DefaultDirectRateLimiter, RateLimiter,
    clock::{MonotonicClock, QuantaClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::DashMapStateStore},
};
use portcullis::breaker::Window;
use recloser::Recloser;
use tower::{Layer, Service, ServiceBuilder};
use tower_resilience::{
    bulkhead::BulkheadLayer,
    circuitbreaker::{
        CircuitBreakerConfigBuilder, CircuitBreakerLayer, DefaultClassifier, SlidingWindowType,
    },
    ratelimiter::RateLimiterLayer,
    retry::RetryLayer,
    timelimiter::TimeLimiterLayer,
};

/// Longer than anything takes here.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

// ===== tower =====

/// tower's retry, with a policy that keeps a clone of the request and asks for no second attempt.
pub(crate) fn tower_retry<S>(inner: S) -> tower::retry::Retry<Never, S> {
    tower::retry::Retry::new(Never, inner)
}

/// No second attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Never;

impl<Req: Clone, Res, E> tower::retry::Policy<Req, Res, E> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Req, _: &mut Result<Res, E>) -> Option<Self::Future> {
        None
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// tower's rate limit, by fixed windows.
pub(crate) fn tower_limit<S>(inner: S) -> tower::limit::RateLimit<S> {
    tower::limit::RateLimit::new(inner, tower::limit::rate::Rate::new(RATE.into(), SECOND))
}

// ===== tower-resilience =====

/// A breaker with ours' thresholds and this window.
pub(crate) fn resilience_breaker(window: Window) -> CircuitBreakerConfigBuilder<DefaultClassifier> {
    let breaker = CircuitBreakerLayer::builder()
        .name("bench")
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(20)
        .wait_duration_in_open(DAY);
    match window {
        Window::Time(time) => {
            breaker.sliding_window_type(SlidingWindowType::TimeBased).sliding_window_duration(time)
        }
        Window::Count(calls) => breaker.sliding_window_size(calls as usize),
    }
}

/// A service behind such a breaker.
pub(crate) fn resilience_broken<S>(
    window: Window,
    inner: S,
) -> <CircuitBreakerLayer<DefaultClassifier> as Layer<S>>::Service {
    resilience_breaker(window).build().expect("valid").layer(inner)
}

/// Retries, three attempts as ours, which do not happen.
pub(crate) fn resilience_retry<Req, Res, E>() -> RetryLayer<Req, Res, E> {
    RetryLayer::builder().name("bench").max_attempts(3).build()
}

/// A limit with a burst, which is a token bucket and the nearest to ours.
pub(crate) fn resilience_limit() -> RateLimiterLayer {
    RateLimiterLayer::builder()
        .name("bench")
        .limit_for_period(RATE as usize)
        .refresh_period(SECOND)
        .burst_size(BURST as usize)
        .timeout_duration(Duration::ZERO)
        .build()
        .expect("valid")
}

/// A time limit.
pub(crate) fn resilience_timeout() -> TimeLimiterLayer {
    TimeLimiterLayer::builder().name("bench").timeout_duration(LIMIT).build()
}

/// A bulkhead that is never full.
pub(crate) fn resilience_bulkhead() -> BulkheadLayer {
    BulkheadLayer::builder().name("bench").max_concurrent_calls(1000).build().expect("valid")
}

/// Its four layers in the order ours stand. What ours has beyond: a limit on the whole call, and
/// traces. The breaker counts calls (100), which is much the cheaper of its windows.
pub(crate) fn resilience_stack<S, Req>(
    inner: S,
) -> impl Service<Req, Response = S::Response, Error: std::fmt::Debug> + Clone + Send + 'static
where
    S: Service<Req, Error = Infallible> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
    Req: Clone + Send + 'static,
{
    ServiceBuilder::new()
        .layer(resilience_retry())
        .layer(resilience_limit())
        .layer(resilience_breaker(Window::Count(100)).build().expect("valid"))
        .layer(resilience_timeout())
        .service(inner)
}

// ===== recloser and failsafe, which wrap functions and not services =====

/// recloser, whose only window is one of calls.
pub(crate) fn recloser(calls: u32) -> Recloser {
    Recloser::custom().error_rate(0.5).closed_len(calls as usize).open_wait(DAY).build()
}

/// failsafe, whose window is one of time, weighted, in whole seconds; and so many failures in a row.
pub(crate) fn failsafe(window: Duration) -> Failsafe {
    let backoff = backoff::equal_jittered(Duration::from_secs(30), Duration::from_secs(300));
    let rate = failure_policy::success_rate_over_time_window(0.5, 20, window, backoff.clone());
    let in_a_row = failure_policy::consecutive_failures(5, backoff);
    failsafe::Config::new().failure_policy(rate.or_else(in_a_row)).build()
}

pub(crate) type Failsafe = failsafe::StateMachine<
    OrElse<SuccessRateOverTimeWindow<EqualJittered>, ConsecutiveFailures<EqualJittered>>,
    (),
>;

// ===== governor =====

pub(crate) fn governor_quota() -> governor::Quota {
    let most = |n| NonZeroU32::new(n).expect("above 0");
    governor::Quota::per_second(most(RATE)).allow_burst(most(BURST))
}

/// With its own clock, which reads the processor's time stamps.
pub(crate) fn governor() -> DefaultDirectRateLimiter {
    RateLimiter::direct(governor_quota())
}

/// With the standard library's clock, which ours and the others read.
pub(crate) fn governor_std()
-> RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>> {
    RateLimiter::direct_with_clock(governor_quota(), MonotonicClock)
}

/// One limit for each key.
pub(crate) fn governor_keyed() -> GovernorKeyed {
    RateLimiter::dashmap_with_clock(governor_quota(), QuantaClock::default())
}

pub(crate) type GovernorKeyed = RateLimiter<
    String,
    DashMapStateStore<String>,
    QuantaClock,
    NoOpMiddleware<governor::clock::QuantaInstant>,
>;
