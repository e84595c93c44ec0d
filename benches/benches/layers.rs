//! What a successful call costs through each layer, beside tower's own where there is one.
//!
//! The inner service answers at once, or is pending once. Compare ratios, not nanoseconds.

mod inner;

use std::{
    convert::Infallible,
    future::{Future, Ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::{
    ByClone,
    breaker::{BreakerLayer, Window},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};
use tower::{Layer, Service, ServiceBuilder};

use self::inner::{AtOnce, call};

const LIMIT: Duration = Duration::from_secs(30);

/// Answers when it is polled again, so that a timer must be made.
#[derive(Clone)]
struct PendingOnce;

struct SecondPoll(bool);

impl Future for SecondPoll {
    type Output = Result<(), Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.0, true) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

impl Service<()> for PendingOnce {
    type Response = ();
    type Error = Infallible;
    type Future = SecondPoll;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        SecondPoll(false)
    }
}

fn measure<S: Service<()>>(c: &mut Criterion, name: &str, mut service: S) {
    c.bench_function(name, |b| b.iter(|| call(&mut service, ())));
}

fn breaker(window: Window) -> BreakerLayer {
    BreakerLayer::builder("bench").window(window).build().expect("valid")
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::total("bench", LIMIT).expect("valid")
}

fn retry() -> RetryLayer<ByClone> {
    RetryLayer::builder("bench", ByClone::idempotent()).build().expect("valid")
}

fn layers(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let _entered = runtime.as_ref().expect("a runtime").enter();

    measure(c, "bare", AtOnce);
    c.bench_function("clock", |b| b.iter(portcullis::clock::now));

    for (name, window) in [
        ("breaker, 10 s", Window::Time(Duration::from_secs(10))),
        ("breaker, 10 min", Window::Time(Duration::from_secs(600))),
        ("breaker, 100 calls", Window::Count(100)),
        ("breaker, 50 000 calls", Window::Count(50_000)),
    ] {
        measure(c, name, breaker(window).layer(AtOnce));
    }
    measure(c, "retry", retry().layer(AtOnce));
    measure(c, "retry, tower's", tower_retry());
    measure(c, "timeout", timeout().layer(AtOnce));
    measure(c, "timeout, tower's", tower::timeout::Timeout::new(AtOnce, LIMIT));
    measure(c, "timeout, pending once", timeout().layer(PendingOnce));
    measure(c, "timeout, pending once, tower's", tower::timeout::Timeout::new(PendingOnce, LIMIT));

    let stack = ServiceBuilder::new()
        .layer(timeout())
        .layer(retry())
        .layer(breaker(Window::Time(LIMIT)))
        .layer(TimeoutLayer::attempt("bench", LIMIT).expect("valid"))
        .service(AtOnce);
    measure(c, "total timeout, retry, breaker, attempt timeout", stack);
}

/// tower's retry with a policy that never does.
fn tower_retry() -> impl Service<()> {
    #[derive(Clone)]
    struct Never;

    impl<Res, E> tower::retry::Policy<(), Res, E> for Never {
        type Future = Ready<()>;

        fn retry(&mut self, (): &mut (), _: &mut Result<Res, E>) -> Option<Self::Future> {
            None
        }

        fn clone_request(&mut self, (): &()) -> Option<()> {
            Some(())
        }
    }

    tower::retry::Retry::new(Never, AtOnce)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = layers
}
criterion_main!(benches);
