//! An axum app that calls out, and one that is called as a service per request.

use std::time::Duration;

use axum::{Router, extract::State as Shared, response::IntoResponse, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Call, HttpStack, RejectionKind, State,
    breaker::BreakerLayer,
    clock,
    http::{HttpClassifier, RejectionsLayer},
    timeout::TimeoutLayer,
};
use tower::{Layer, ServiceExt};

use crate::support::{HyperClient, Reply, SOON, Upstream, breaker, build, client, stack};

#[derive(Clone)]
struct Out {
    client: HyperClient,
    stack: HttpStack,
    upstream: Uri,
}

/// Builds the service anew for each request, as handlers do.
async fn proxy(Shared(out): Shared<Out>) -> impl IntoResponse {
    let service = RejectionsLayer::new().layer(out.stack.layer(out.client));
    let request = Request::get(out.upstream).body(Full::<Bytes>::default()).unwrap();
    match service.oneshot(request).await {
        Ok(response) => {
            let status = response.status();
            let _ = response.into_body().collect().await;
            status
        }
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

async fn status(app: &Router) -> StatusCode {
    // `oneshot` consumes a clone: axum itself makes one per request.
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn a_stack_applied_per_request_keeps_its_breakers_state() {
    let upstream = Upstream::always(Reply::Whole(500, "down")).await;
    let stack = build(stack().retry(|retry| retry.max_attempts(1)));
    let out = Out { client: client(), stack: stack.clone(), upstream: upstream.uri("/") };
    let app = Router::new().route("/", get(proxy)).with_state(out);

    for _ in 0..3 {
        assert_eq!(status(&app).await, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(breaker(&stack, &upstream).state(), State::Open);
    assert_eq!(status(&app).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn an_app_behind_a_breaker_is_a_service_per_request_and_still_one_circuit() {
    let app = Router::new().route("/", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
    let breaker = BreakerLayer::builder("app")
        .consecutive_failures(3)
        .classify(HttpClassifier::new())
        .build()
        .unwrap();
    for _ in 0..3 {
        let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        let response = breaker.layer(app.clone()).oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    let error = breaker.layer(app).oneshot(request).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().kind(), RejectionKind::Open);
}

#[tokio::test]
async fn a_handler_hands_its_deadline_on_to_the_calls_it_makes() {
    let upstream = Upstream::always(Reply::Hang).await;
    let out = Out { client: client(), stack: build(stack()), upstream: upstream.uri("/") };
    let app = Router::new().route("/", get(proxy)).with_state(out);
    let app = TimeoutLayer::builder("server")
        .total(SOON)
        .classify(HttpClassifier::new())
        .build()
        .unwrap()
        .layer(app);

    let started = clock::now();
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    let deadline = Call::current().with_deadline(started + Duration::from_secs(60));
    let answer = deadline.in_scope(app.oneshot(request)).await;
    // Both limits are the same instant: the client's refusal, as a response, comes up first.
    assert_eq!(answer.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(clock::now() - started < SOON * 3);
}
