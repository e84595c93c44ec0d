//! Refusals as responses.

use std::{
    error::Error as StdError,
    fmt, io,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, error_handling::HandleErrorLayer, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use portcullis_core::{
    Elapsed, Error, FaultKind, Outcome, Phase, Reason, Rejection, RejectionKind, Replay,
};
use portcullis_http::{GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS, RejectionsBody, RejectionsLayer};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, layer::layer_fn};

#[derive(Clone, Copy, Debug)]
struct Refusal(RejectionKind, Outcome);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payments: 50 % failed → open")
    }
}

impl StdError for Refusal {}

impl Rejection for Refusal {
    fn name(&self) -> &str {
        "payments"
    }

    fn kind(&self) -> RejectionKind {
        self.0
    }

    fn reason(&self) -> Reason {
        Reason::Manual
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_millis(1_500))
    }

    fn outcome(&self) -> Outcome {
        self.1
    }
}

/// A refusal of this kind, whose outcome is a timeout.
fn refused(kind: RejectionKind) -> Error {
    Error::rejected(Refusal(kind, Outcome::timeout()))
}

#[derive(Clone)]
struct Fails<F>(F);

impl<F: Fn() -> Error, B> Service<Request<B>> for Fails<F> {
    type Response = Response<Full<Bytes>>;
    type Error = Error;
    type Future = std::future::Ready<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        std::future::ready(Err((self.0)()))
    }
}

async fn answer(
    content_type: &str,
    error: impl Fn() -> Error,
) -> Result<Response<RejectionsBody<Full<Bytes>>>, Error> {
    let request = Request::post("/").header(header::CONTENT_TYPE, content_type).body(()).unwrap();
    RejectionsLayer::new().layer(Fails(error)).call(request).await
}

#[tokio::test]
async fn http_is_answered_with_a_status_and_when_to_come_back() {
    for (kind, status) in [
        (RejectionKind::Open, StatusCode::SERVICE_UNAVAILABLE),
        (RejectionKind::Limited, StatusCode::TOO_MANY_REQUESTS),
        (RejectionKind::Exhausted, StatusCode::GATEWAY_TIMEOUT),
        (RejectionKind::Unfinished, StatusCode::GATEWAY_TIMEOUT),
    ] {
        let response = answer("application/json", || refused(kind)).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2", "rounded up");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "payments: 50 % failed → open");
    }
    let elapsed = || Error::rejected(Elapsed::new("search", Phase::Total, Duration::from_secs(1)));
    let response = answer("application/json", elapsed).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(!response.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn grpc_is_answered_with_a_head_that_is_all_there_is() {
    let open = || refused(RejectionKind::Open);
    let response = answer("application/grpc+proto", open).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers[header::CONTENT_TYPE], "application/grpc");
    assert_eq!(headers[GRPC_STATUS], "14");
    assert_eq!(headers[GRPC_RETRY_PUSHBACK_MS], "1500");
    assert_eq!(headers["grpc-message"], "payments: 50 %25 failed %E2%86%92 open");
    assert!(http_body::Body::is_end_stream(response.body()));
}

#[tokio::test]
async fn who_has_no_attempts_left_answers_by_what_the_last_one_came_to() {
    let refused = Outcome::failure(FaultKind::Connect, Replay::IfIdempotent);
    for (last, status, code) in [
        (Outcome::timeout(), StatusCode::GATEWAY_TIMEOUT, "4"),
        (refused, StatusCode::SERVICE_UNAVAILABLE, "14"),
    ] {
        let exhausted = || Error::rejected(Refusal(RejectionKind::Exhausted, last));
        let response = answer("application/json", exhausted).await.unwrap();
        assert_eq!(response.status(), status);
        let response = answer("application/grpc", exhausted).await.unwrap();
        assert_eq!(response.headers()[GRPC_STATUS], code);
    }
}

#[tokio::test]
async fn other_errors_are_handed_up() {
    let broken = || Error::inner(io::Error::from(io::ErrorKind::BrokenPipe));
    let error = answer("application/json", broken).await.unwrap_err();
    assert!(error.is::<io::Error>());
}

#[tokio::test]
async fn a_router_of_axum_answers_refusals_and_what_else_fails() {
    let app = |error: fn() -> Error| {
        let layers = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(|error: Error| async move {
                (StatusCode::BAD_GATEWAY, error.to_string())
            }))
            .layer(RejectionsLayer::new())
            .layer(layer_fn(move |_route| Fails(error)));
        Router::new().route("/", get(|| async { "found" })).layer(layers)
    };
    let get = || Request::get("/").body(Body::empty()).unwrap();

    let open = app(|| refused(RejectionKind::Open));
    let response = open.oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");

    let broken = app(|| Error::inner(io::Error::from(io::ErrorKind::BrokenPipe)));
    assert_eq!(broken.oneshot(get()).await.unwrap().status(), StatusCode::BAD_GATEWAY);
}
