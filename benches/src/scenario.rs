//! What is counted, by name: one call through each layer, and through stacks of them.

use std::{
    borrow::Cow,
    convert::Infallible,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use portcullis::{
    ByClone, Error, Stack, StackBuilder,
    breaker::{BreakerLayer, Window},
    clock,
    ratelimit::RateLimitLayer,
    retry::RetryLayer,
    timeout::TimeoutLayer,
    trace::{Recorder, TraceLayer},
};
use tower::{Layer, Service, ServiceBuilder};

use crate::{
    inner::{Answers, AtOnce, PendingOnce, call},
    observed::{measured, metrics},
};

/// A limit that never runs out here.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A limit that is not reached here: so many in each [`SECOND`].
pub const RATE: u32 = 1_000_000_000;
/// What it is counted by.
pub const SECOND: Duration = Duration::from_secs(1);
/// A second of them: a thread can be kept from its processor between reading the clock and asking the
/// limit, which others move on meanwhile.
pub const BURST: u32 = 1_000_000_000;

/// Something to be done again and again, that makes one call each time.
pub struct Scenario {
    /// What it is known by.
    pub name: &'static str,
    make: fn() -> Box<dyn FnMut()>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let scenario = |name, make| Scenario { name, make };
    vec![
        scenario("bare", || calls(AtOnce)),
        scenario("clock", || Box::new(|| _ = black_box(clock::now()))),
        scenario("timeout", || calls(timeout().layer(AtOnce))),
        scenario("timeout, pending once", || calls(timeout().layer(PendingOnce))),
        scenario("tower's timeout", || calls(tower::timeout::Timeout::new(AtOnce, LIMIT))),
        scenario("tower's timeout, pending once", || {
            calls(tower::timeout::Timeout::new(PendingOnce, LIMIT))
        }),
        scenario("retry", || calls(retry().layer(AtOnce))),
        scenario("rate limit", || calls(limit().layer(AtOnce))),
        scenario("rate limit by key", || calls(limited_by_key(AtOnce))),
        scenario("breaker, time window", || calls(breaker(Window::Time(LIMIT)).layer(AtOnce))),
        scenario("breaker, count window", || calls(breaker(Window::Count(100)).layer(AtOnce))),
        scenario("breaker by key", || calls(broken_by_key(AtOnce))),
        scenario("trace", || calls(trace(0.0).layer(AtOnce))),
        scenario("trace, kept", || calls(trace(1.0).layer(AtOnce))),
        scenario("stack of four", || calls(stack(AtOnce))),
        scenario("stack of four, pending once", || calls(stack(PendingOnce))),
        scenario("stack of five", || calls(trace(0.0).layer(stack(AtOnce)))),
        scenario("stack of five, with metrics", || {
            let metrics = metrics();
            let trace = TraceLayer::builder("bench").recorder(&recorder(0.0));
            let trace = trace.observe(metrics.clone()).build().expect("valid");
            calls(trace.layer(measured(AtOnce, &metrics)))
        }),
        scenario("ready-made stack over http, to the end of the body", || {
            let mut service = http_stack().build().expect("valid").layer(http_client());
            Box::new(move || exchange(&mut service))
        }),
        scenario("ready-made stack over http, with metrics", || {
            let stack = http_stack().observe(metrics()).build().expect("valid");
            let mut service = stack.layer(http_client());
            Box::new(move || exchange(&mut service))
        }),
    ]
}

// ===== impl Scenario =====

impl Scenario {
    /// Sets it up; what comes back makes one call.
    #[must_use]
    pub fn set_up(&self) -> Box<dyn FnMut()> {
        (self.make)()
    }
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

// ===== The layers, as they are measured =====

/// A total limit.
#[must_use]
pub fn timeout() -> TimeoutLayer {
    TimeoutLayer::total("bench", LIMIT).expect("valid")
}

/// A limit on each attempt.
#[must_use]
pub fn attempt() -> TimeoutLayer {
    TimeoutLayer::attempt("bench", LIMIT).expect("valid")
}

/// Retries, which do not happen.
#[must_use]
pub fn retry() -> RetryLayer<ByClone> {
    RetryLayer::builder("bench", ByClone::idempotent()).build().expect("valid")
}

/// A limit that is not reached.
#[must_use]
pub fn limit() -> RateLimitLayer {
    RateLimitLayer::builder("bench").rate(RATE, SECOND).burst(BURST).build().expect("valid")
}

/// A breaker that stays closed.
#[must_use]
pub fn breaker(window: Window) -> BreakerLayer {
    BreakerLayer::builder("bench").window(window).build().expect("valid")
}

/// A service behind limits by key.
pub fn limited_by_key<S>(inner: S) -> impl Service<(), Response = S::Response, Error = Error>
where
    S: Service<(), Error = Infallible> + Clone,
{
    let layer = RateLimitLayer::keyed("bench", key).rate(RATE, SECOND).burst(BURST);
    layer.build().expect("valid").layer(inner)
}

/// A service behind breakers by key.
pub fn broken_by_key<S>(inner: S) -> impl Service<(), Response = S::Response, Error = Error>
where
    S: Service<(), Error = Infallible>,
{
    BreakerLayer::keyed("bench", key).build().expect("valid").layer(inner)
}

/// A recorder that keeps a share of the traces of what succeeds.
#[must_use]
pub fn recorder(sample_rate: f64) -> Recorder {
    Recorder::builder().sample_rate(sample_rate).build().expect("valid")
}

/// Traces, of whose successes a share is kept.
#[must_use]
pub fn trace(sample_rate: f64) -> TraceLayer {
    TraceLayer::builder("bench").recorder(&recorder(sample_rate)).build().expect("valid")
}

/// All layers but trace, in their order, around a service.
pub fn stack<S>(inner: S) -> impl Service<(), Response = S::Response, Error = Error> + Clone
where
    S: Service<(), Error = Infallible> + Clone,
{
    ServiceBuilder::new()
        .layer(timeout())
        .layer(retry())
        .layer(limit())
        .layer(breaker(Window::Time(LIMIT)))
        .layer(attempt())
        .service(inner)
}

// ===== How they are called =====

/// Calls a service for nothing.
fn calls<S: Service<()> + 'static>(mut service: S) -> Box<dyn FnMut()> {
    Box::new(move || _ = black_box(call(&mut service, ())))
}

/// Every call is of the same key.
fn key((): &()) -> Cow<'_, str> {
    Cow::Borrowed("tenant-7")
}

// ===== Over HTTP =====

/// What an HTTP client answers with here.
pub type Answer = Response<Full<Bytes>>;

/// A client that answers at once.
#[must_use]
pub fn http_client() -> Answers<fn() -> Answer> {
    Answers(|| Response::new(Full::new(Bytes::from_static(b"an answer"))))
}

/// The ready-made stack in the making, whose limit is not reached and which keeps no trace.
pub fn http_stack() -> StackBuilder {
    Stack::production("bench")
        .recorder(&recorder(0.0))
        .limit(|limit| limit.rate(RATE, SECOND).burst(BURST))
}

/// Makes a request with headers and a body, and reads what comes back to the end of its body.
pub fn exchange<S, B>(service: &mut S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    B: Body,
{
    let request = Request::get("http://upstream.test/search")
        .header("accept", "application/json")
        .body(Full::new(Bytes::from_static(b"a question")))
        .expect("valid");
    let Ok(response) = call(service, request) else { panic!("it answers at once") };
    let mut body = pin!(response.into_body());
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        _ = black_box(frame.is_ok());
    }
}
