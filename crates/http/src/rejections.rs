//! Refusals as responses, for whoever must answer rather than fail.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use portcullis_core::{BoxError, Error, FaultKind, Rejection, RejectionKind};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    grpc::{GRPC_STATUS, is_grpc, write_message},
    hint::{self, GRPC_RETRY_PUSHBACK_MS},
};

/// Makes [`Rejections`] services. Belongs outermost, above every layer that refuses.
///
/// | refusal | HTTP | gRPC |
/// |---|---|---|
/// | `Open` | 503 and `Retry-After` | UNAVAILABLE and `grpc-retry-pushback-ms` |
/// | `Limited` | 429 and `Retry-After` | RESOURCE_EXHAUSTED and the pushback |
/// | `Elapsed` | 504 | DEADLINE_EXCEEDED |
/// | `Exhausted` | 504 after a timeout, else 503 | DEADLINE_EXCEEDED or UNAVAILABLE |
/// | any other | 503 | UNAVAILABLE |
///
/// `Retry-After` and the pushback are there if the refusal says when another try makes sense. Both are
/// rounded up, so that nobody comes back too soon.
///
/// The response's text is the refusal's own. Other errors are handed up as they are. Which protocol
/// is answered in is told by the request's `content-type`.
///
/// # With axum
///
/// A layer of an axum `Router` must not fail, and this one hands up what is no refusal. Something must
/// answer for that, outside of it, even where nothing below ever fails otherwise:
///
/// ```
/// use axum::{Router, error_handling::HandleErrorLayer, http::StatusCode, routing::get};
/// use portcullis_core::Error;
/// use portcullis_http::RejectionsLayer;
/// use tower::ServiceBuilder;
///
/// let layers = ServiceBuilder::new()
///     .layer(HandleErrorLayer::new(|error: Error| async move {
///         (StatusCode::BAD_GATEWAY, error.to_string())
///     }))
///     // Those that refuse go inside it: .layer(limit).layer(breaker)
///     .layer(RejectionsLayer::new());
///
/// let app: Router = Router::new().route("/", get(|| async { "found" })).layer(layers);
/// # let _ = app;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RejectionsLayer;

/// Turns refusals into responses.
#[derive(Clone, Debug)]
pub struct Rejections<S> {
    inner: S,
}

/// The body of a response that may be a refusal.
pub type RejectionsBody<B> = Either<B, Full<Bytes>>;

pin_project! {
    /// The response of [`Rejections`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        grpc: bool,
    }
}

// ===== impl RejectionsLayer =====

impl RejectionsLayer {
    /// Answers refusals as in the table above.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for RejectionsLayer {
    type Service = Rejections<S>;

    fn layer(&self, inner: S) -> Rejections<S> {
        Rejections { inner }
    }
}

// ===== impl Rejections =====

impl<S, ReqB, ResB> Service<Request<ReqB>> for Rejections<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<RejectionsBody<ResB>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::inner)
    }

    fn call(&mut self, req: Request<ReqB>) -> Self::Future {
        let grpc = is_grpc(req.headers());
        ResponseFuture { inner: self.inner.call(req), grpc }
    }
}

// ===== impl ResponseFuture =====

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<RejectionsBody<B>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll(cx)) {
            Ok(response) => Ok(response.map(Either::Left)),
            Err(error) => {
                let error = Error::inner(error);
                let response = error.rejection().map(|rejection| respond(rejection, *this.grpc));
                response.map(|response| response.map(Either::Right)).ok_or(error)
            }
        })
    }
}

fn respond(rejection: &dyn Rejection, grpc: bool) -> Response<Full<Bytes>> {
    let mut response = head(rejection, grpc).map(|()| Full::default());
    if !grpc {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        *response.body_mut() = Full::from(rejection.to_string());
    }
    response
}

/// The head of the response that stands for a refusal, and for gRPC the whole of it.
pub(crate) fn head(rejection: &dyn Rejection, grpc: bool) -> Response<()> {
    let timed_out = rejection.outcome().kind() == Some(FaultKind::Timeout);
    let (status, code) = match rejection.kind() {
        RejectionKind::Limited => (StatusCode::TOO_MANY_REQUESTS, 8_u16),
        RejectionKind::Elapsed | RejectionKind::Unfinished => (StatusCode::GATEWAY_TIMEOUT, 4),
        RejectionKind::Exhausted if timed_out => (StatusCode::GATEWAY_TIMEOUT, 4),
        _ => (StatusCode::SERVICE_UNAVAILABLE, 14),
    };
    let mut response = Response::new(());
    let headers = response.headers_mut();
    if grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(code));
        write_message(headers, &rejection.to_string());
        if let Some(wait) = rejection.retry_after() {
            headers.insert(GRPC_RETRY_PUSHBACK_MS, hint::to_pushback(wait));
        }
    } else {
        if let Some(wait) = rejection.retry_after() {
            headers.insert(header::RETRY_AFTER, hint::to_retry_after(wait));
        }
        *response.status_mut() = status;
    }
    response
}
