//! Beside tower-http's layers, outside and inside.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use portcullis::{
    BoxError, Error, RejectionKind, State, inbound::InboundLayer, sync::Mutex, trace::Recorder,
};
use std::{convert::Infallible, sync::Arc};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::{
    map_response_body::MapResponseBodyLayer, set_header::SetRequestHeaderLayer,
    timeout::TimeoutLayer, trace::TraceLayer,
};

use crate::support::{Reply, SOON, Upstream, breaker, build, client, stack};

/// The body of a response that has come through a stack.
type Boxed = UnsyncBoxBody<Bytes, Error>;

/// Its text, or the error that the call or its body ended in.
async fn read<S, B>(service: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let response = service.oneshot(request).await.map_err(Error::inner)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Error::inner)?;
    Ok((status, body.to_bytes()))
}

#[tokio::test]
async fn beside_its_trace_layer_verdicts_fall_at_the_bodys_end_and_refusals_arrive() {
    for inside in [false, true] {
        let upstream = Upstream::always(Reply::Cut).await;
        let stack = build(stack());
        for index in 0..4 {
            let request = upstream.get("/");
            let error = if inside {
                read(stack.layer(TraceLayer::new_for_http().layer(client())), request).await
            } else {
                read(TraceLayer::new_for_http().layer(stack.layer(client())), request).await
            }
            .unwrap_err();
            match index {
                0..3 => assert!(error.is::<hyper::Error>(), "{error:?}"),
                _ => assert_eq!(error.rejection().unwrap().kind(), RejectionKind::Open),
            }
        }
        assert_eq!(breaker(&stack, &upstream).state(), State::Open, "inside: {inside}");
    }
}

#[tokio::test]
async fn its_timeout_inside_is_an_answer_that_is_judged_and_retried() {
    let upstream = Upstream::new(|asked| match asked.index {
        0 => Reply::Hang,
        _ => Reply::Whole(200, "there"),
    })
    .await;
    let stack = build(stack());
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SOON);
    // Its own answer has a body by default, which hyper's cannot be.
    let boxed = MapResponseBodyLayer::new(UnsyncBoxBody::<Bytes, hyper::Error>::new);
    let service = stack.layer(timeout.layer(boxed.layer(client())));
    let answer = read(service, upstream.get("/")).await.unwrap();
    assert_eq!(answer, (StatusCode::OK, Bytes::from("there")));
    assert_eq!(upstream.requests(), 2);
    let counts = breaker(&stack, &upstream).snapshot().counts;
    assert_eq!((counts.failures, counts.total), (1, 2));
}

#[tokio::test]
async fn its_timeout_outside_ends_the_call_and_leaves_nothing_behind() {
    let upstream = Upstream::always(Reply::Hang).await;
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SOON);
    let stack = build(stack());
    let boxed = MapResponseBodyLayer::new(Boxed::new);
    let service = timeout.layer(boxed.layer(stack.layer(client())));
    let answer = read(service, upstream.get("/")).await.unwrap();
    assert_eq!(answer.0, StatusCode::GATEWAY_TIMEOUT);
    crate::support::eventually("the connection is closed", || upstream.connections() == 0).await;
    assert_eq!(stack.retry().budget().unwrap().waiting(), 0);
}

#[tokio::test]
async fn headers_set_outside_or_inside_are_on_every_attempt() {
    let name = || HeaderName::from_static("x-tenant");
    let set = || SetRequestHeaderLayer::overriding(name(), HeaderValue::from_static("acme"));
    for inside in [false, true] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tenants = seen.clone();
        let upstream = Upstream::new(move |asked| {
            tenants.lock().push(asked.head.headers.get("x-tenant").cloned());
            Reply::Whole(if asked.index == 0 { 503 } else { 200 }, "text")
        })
        .await;
        let stack = build(stack());
        let answer = if inside {
            read(stack.layer(set().layer(client())), upstream.get("/")).await
        } else {
            read(set().layer(stack.layer(client())), upstream.get("/")).await
        };
        assert_eq!(answer.unwrap().0, StatusCode::OK);
        assert_eq!(
            *seen.lock(),
            [Some(HeaderValue::from_static("acme")), Some("acme".parse().unwrap())]
        );
    }
}

#[tokio::test]
async fn a_body_mapped_inside_is_judged_by_what_it_became() {
    let upstream = Upstream::always(Reply::Whole(200, "more than there may be")).await;
    let stack = build(stack());
    let short = MapResponseBodyLayer::new(|body: Incoming| Limited::new(body, 4));
    for _ in 0..3 {
        let service = stack.layer(short.clone().layer(client()));
        let error = read(service, upstream.get("/")).await.unwrap_err();
        assert!(error.is::<http_body_util::LengthLimitError>(), "{error:?}");
    }
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);
}

#[tokio::test]
async fn a_body_mapped_outside_hides_no_end_from_those_within() {
    let upstream = Upstream::always(Reply::Cut).await;
    let stack = build(stack());
    for _ in 0..3 {
        let service = ServiceBuilder::new()
            .layer(MapResponseBodyLayer::new(Boxed::new))
            .layer(stack.clone())
            .service(client());
        assert!(read(service, upstream.get("/")).await.unwrap_err().is::<hyper::Error>());
    }
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);
}

#[tokio::test]
async fn a_server_has_its_layers_and_the_inbound_one_in_either_order() {
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let inbound = || InboundLayer::builder("shop").recorder(&recorder).build().unwrap();
    let handler = || {
        service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from("found"))))
        })
    };
    let late = || TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SOON);
    let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
    let outside = ServiceBuilder::new().layer(inbound()).layer(TraceLayer::new_for_http());
    let outside = outside.layer(late()).service(handler());
    let inside = ServiceBuilder::new().layer(TraceLayer::new_for_http()).layer(late());
    let inside = inside.layer(inbound()).service(handler());
    assert_eq!(read(outside, request.clone()).await.unwrap().1, "found");
    assert_eq!(read(inside, request).await.unwrap().1, "found");
    recorder.flush().await;
    assert_eq!(recorder.counts().stored, 2);
}
