//! What a request allocates on its way through the layer.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use portcullis::{http::is_grpc, inbound::InboundLayer, trace::Recorder};
use tower::{Layer, Service};

use crate::fakes::{PARENT, Text, grpc, request};

/// Answers at once.
#[derive(Clone)]
struct Found;

impl Service<Request<Text>> for Found {
    type Response = Response<Text>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Text>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Request<Text>) -> Self::Future {
        let mut response = Response::new(Full::new(Bytes::from_static(b"found")));
        if is_grpc(asked.headers()) {
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
        }
        ready(Ok(response))
    }
}

/// What one request allocates to the end of its response's body, beyond what it does without the layer.
fn allocated(layer: &InboundLayer, make: impl Fn() -> Request<Text>) -> u64 {
    let through = count(layer.layer(Found), &make);
    through - count(Found, &make)
}

fn count<S, B>(mut service: S, make: impl Fn() -> Request<Text>) -> u64
where
    S: Service<Request<Text>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    let mut serve = |request| {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("it answers at once");
        };
        let mut body = pin!(response.into_body());
        assert!(body.as_mut().poll_frame(&mut cx).is_ready());
        assert!(body.as_mut().poll_frame(&mut cx).is_ready());
    };
    for _ in 0..3 {
        serve(make());
    }
    let request = make();
    allocation_counter::measure(|| serve(request)).count_total
}

#[test]
fn without_a_recorder_only_a_trace_to_continue_allocates() {
    let layer = InboundLayer::new();
    assert_eq!(allocated(&layer, || request(&[])), 0);
    assert_eq!(allocated(&layer, || grpc(&[("grpc-timeout", "5S")])), 0);
    assert_eq!(allocated(&layer, || request(&[("traceparent", PARENT)])), 1);
    let state = || request(&[("traceparent", PARENT), ("tracestate", "rojo=1")]);
    assert_eq!(allocated(&layer, state), 3);
}

#[test]
fn a_recorded_request_allocates_its_scope_and_its_name() {
    // Nothing is kept, so buffers come back at once.
    let recorder = Recorder::builder().sample_rate(0.0).build().unwrap();
    let layer = InboundLayer::builder("shop").recorder(&recorder).build().unwrap();
    assert_eq!(allocated(&layer, || request(&[])), 1);
    assert_eq!(allocated(&layer, || request(&[("traceparent", PARENT)])), 1);
    assert_eq!(allocated(&layer, || grpc(&[("grpc-timeout", "5S")])), 2);
}
