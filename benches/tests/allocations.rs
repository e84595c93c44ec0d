//! What a successful call allocates: nothing, through any layer; a known few through HTTP.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    ByClone, Stack,
    breaker::{BreakerLayer, Window},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};
use portcullis_trace::{Recorder, TraceLayer, TraceScope};
use tower::{Layer, Service, ServiceBuilder};

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Answers<Res>(Res);

impl<Req, Res: Clone> Service<Req> for Answers<Res> {
    type Response = Res;
    type Error = Infallible;
    type Future = Ready<Result<Res, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

/// What is allocated by one call of a service that is warm.
fn allocated<S, Req>(service: &mut S, request: impl Fn() -> Req) -> u64
where
    S: Service<Req>,
    S::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |request| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let Poll::Ready(result) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("the service answers at once");
        };
        result.unwrap()
    };
    drop(call(request()));
    let request = request();
    allocation_counter::measure(|| drop(call(request))).count_total
}

fn breaker() -> BreakerLayer {
    BreakerLayer::builder("test").window(Window::Time(LIMIT)).build().unwrap()
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::total("test", LIMIT).unwrap()
}

fn retry() -> RetryLayer<ByClone> {
    RetryLayer::builder("test", ByClone::idempotent()).build().unwrap()
}

#[test]
fn a_layer_alone_allocates_nothing() {
    assert_eq!(allocated(&mut breaker().layer(Answers(())), || ()), 0, "breaker");
    assert_eq!(allocated(&mut timeout().layer(Answers(())), || ()), 0, "timeout");
    assert_eq!(allocated(&mut retry().layer(Answers(())), || ()), 0, "retry");
}

#[test]
fn a_stack_of_layers_allocates_nothing() {
    let mut stack = ServiceBuilder::new()
        .layer(timeout())
        .layer(retry())
        .layer(breaker())
        .layer(TimeoutLayer::attempt("test", LIMIT).unwrap())
        .service(Answers(()));
    assert_eq!(allocated(&mut stack, || ()), 0);
}

/// A recorder that keeps nothing of what succeeds.
fn recorder() -> Recorder {
    Recorder::builder().sample_rate(0.0).build().unwrap()
}

#[test]
fn a_recorded_call_allocates_once_whatever_the_layers_inside_have_to_tell() {
    let trace = TraceLayer::builder("test").recorder(&recorder()).build().unwrap();
    assert_eq!(allocated(&mut trace.layer(Answers(())), || ()), 1, "alone");
    let mut stack = ServiceBuilder::new()
        .layer(trace)
        .layer(timeout())
        .layer(retry())
        .layer(breaker())
        .layer(TimeoutLayer::attempt("test", LIMIT).unwrap())
        .service(Answers(()));
    assert_eq!(allocated(&mut stack, || ()), 1, "with a stack inside");
}

#[test]
fn a_call_in_a_scope_allocates_once_too() {
    let recorder = recorder();
    let trace = TraceLayer::builder("test").recorder(&recorder).build().unwrap();
    let mut service = trace.layer(Answers(()));
    let mut run = |calls: u32| {
        let mut cx = Context::from_waker(Waker::noop());
        let scope = TraceScope::start("test").recorder(&recorder).run(async {
            for _ in 0..calls {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(Service::<()>::poll_ready(&mut service, &mut cx).is_ready());
                assert!(pin!(service.call(())).poll(&mut cx).is_ready());
            }
        });
        assert!(pin!(scope).poll(&mut cx).is_ready());
    };
    // The buffers are there, and have room.
    run(64);
    run(64);
    let few = allocation_counter::measure(|| run(4)).count_total;
    let many = allocation_counter::measure(|| run(36)).count_total;
    assert_eq!(many - few, 32);
}

#[test]
fn keyed_breakers_allocate_only_for_a_new_key() {
    let keyed = BreakerLayer::keyed("test", |key: &&'static str| std::borrow::Cow::from(*key));
    let mut service = keyed.build().unwrap().layer(Answers(()));
    assert_eq!(allocated(&mut service, || "tenant-7"), 0);
}

#[test]
fn an_http_request_through_the_ready_made_stack_costs_its_copy_and_its_trace() {
    // Of what is kept, a trace is made; whether this call is one of those must not be left to chance.
    let stack = Stack::production("test").recorder(&recorder()).build().unwrap();
    let mut service = stack.layer(Answers(Response::new(Full::new(Bytes::from_static(b"ok")))));
    let request = || {
        Request::get("http://test/")
            .header("accept", "*/*")
            .body(Full::new(Bytes::from_static(b"ask")))
            .unwrap()
    };
    let copy = {
        let request = request();
        allocation_counter::measure(|| drop(request.clone())).count_total
    };
    assert!(copy <= 3, "{copy}");
    // The call's record, and the header that tells the server of it.
    let cost = copy + 2;
    assert_eq!(allocated(&mut service, request), cost);

    // To the end of the body: its watchers are part of the response, not boxes.
    let mut cx = Context::from_waker(Waker::noop());
    let request = request();
    assert!(Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut cx).is_ready());
    let measured = allocation_counter::measure(|| {
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("the service answers at once");
        };
        let mut body = response.into_body();
        assert!(pin!(body.frame()).poll(&mut cx).is_ready());
        assert!(pin!(body.frame()).poll(&mut cx).is_ready());
    });
    assert_eq!(measured.count_total, cost);
}

#[test]
fn limits_allocate_only_for_a_new_key_or_a_wait() {
    use portcullis_ratelimit::RateLimitLayer;

    let layer = RateLimitLayer::builder("test").build().unwrap();
    assert_eq!(allocated(&mut layer.layer(Answers(())), || ()), 0);
    let other = portcullis_ratelimit::Limiter::builder("other").build().unwrap();
    let layer = RateLimitLayer::keyed("test", |key: &&'static str| std::borrow::Cow::from(*key));
    let layer = layer.and(other).build().unwrap();
    assert_eq!(allocated(&mut layer.layer(Answers(())), || "tenant-7"), 0);
}
