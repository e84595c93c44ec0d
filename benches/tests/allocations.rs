//! What a successful call allocates: nothing, through any layer; a known few through HTTP.

use std::{
    borrow::Cow,
    fmt::Debug,
    pin::pin,
    task::{Context, Waker},
};

use benches::{
    inner::{Answers, AtOnce, call},
    scenario::{LIMIT, breaker, limit, recorder, retry, stack, timeout, trace},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Stack,
    breaker::{BreakerLayer, Window},
    ratelimit::{Limiter, RateLimitLayer},
    trace::{TraceLayer, TraceScope},
};
use tower::{Layer, Service};

/// What is allocated by one call of a service that is warm.
fn allocated<S, Req>(mut service: S, request: impl Fn() -> Req) -> u64
where
    S: Service<Req, Error: Debug>,
{
    drop(call(&mut service, request()).unwrap());
    let request = request();
    allocation_counter::measure(|| drop(call(&mut service, request).unwrap())).count_total
}

/// A key that is in the request.
fn key<'r>(key: &'r &'static str) -> Cow<'r, str> {
    Cow::from(*key)
}

#[test]
fn a_layer_alone_allocates_nothing() {
    assert_eq!(allocated(breaker(Window::Time(LIMIT)).layer(AtOnce), || ()), 0, "time window");
    assert_eq!(allocated(breaker(Window::Count(100)).layer(AtOnce), || ()), 0, "count window");
    assert_eq!(allocated(timeout().layer(AtOnce), || ()), 0, "timeout");
    assert_eq!(allocated(retry().layer(AtOnce), || ()), 0, "retry");
    assert_eq!(allocated(limit().layer(AtOnce), || ()), 0, "rate limit");
}

#[test]
fn a_stack_of_layers_allocates_nothing() {
    assert_eq!(allocated(stack(AtOnce), || ()), 0);
}

#[test]
fn a_recorded_call_allocates_nothing_whatever_the_layers_inside_have_to_tell() {
    assert_eq!(allocated(trace(0.0).layer(AtOnce), || ()), 0, "alone");
    assert_eq!(allocated(trace(0.0).layer(stack(AtOnce)), || ()), 0, "with a stack inside");
}

#[test]
fn a_call_in_a_scope_allocates_no_more_than_the_scope() {
    let recorder = recorder(0.0);
    let layer = TraceLayer::builder("test").recorder(&recorder).build().unwrap();
    let mut service = layer.layer(AtOnce);
    let mut run = |calls: u32| {
        let scope = TraceScope::start("test").recorder(&recorder).run(async {
            for _ in 0..calls {
                assert!(call(&mut service, ()).is_ok());
            }
        });
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(scope).poll(&mut cx).is_ready());
    };
    // The buffers are there, and have room.
    run(64);
    run(64);
    let few = allocation_counter::measure(|| run(4)).count_total;
    let many = allocation_counter::measure(|| run(36)).count_total;
    assert!(many <= few, "{many} for 36 calls, {few} for 4");
}

#[test]
fn keyed_breakers_allocate_only_for_a_new_key() {
    let keyed = BreakerLayer::keyed("test", key).build().unwrap();
    assert_eq!(allocated(keyed.layer(AtOnce), || "tenant-7"), 0);
}

#[test]
fn keyed_limits_allocate_only_for_a_new_key_or_a_wait() {
    let other = Limiter::builder("other").build().unwrap();
    let both = RateLimitLayer::keyed("test", key).and(other).build().unwrap();
    assert_eq!(allocated(both.layer(AtOnce), || "tenant-7"), 0);
}

#[test]
fn an_http_request_through_the_ready_made_stack_costs_its_copy_and_its_trace() {
    // Of what is kept, a trace is made; whether this call is one of those must not be left to chance.
    let stack = Stack::production("test").recorder(&recorder(0.0)).build().unwrap();
    let answer = Answers(|| Response::new(Full::new(Bytes::from_static(b"ok"))));
    let mut service = stack.layer(answer);
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
    assert_eq!(allocated(service.clone(), request), cost);

    // To the end of the body: its watchers are part of the response, not boxes.
    let request = request();
    let measured = allocation_counter::measure(|| {
        let mut body = call(&mut service, request).unwrap().into_body();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(body.frame()).poll(&mut cx).is_ready());
        assert!(pin!(body.frame()).poll(&mut cx).is_ready());
    });
    assert_eq!(measured.count_total, cost);
}
