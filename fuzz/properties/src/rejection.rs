//! Refusals as responses: what is written is what a client reads.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use http::{HeaderMap, Request, Response, header};
use portcullis_core::{Error, Hint, Outcome, Phase, Reason, Rejection, RejectionKind};
use portcullis_http::{
    GRPC_STATUS, RejectionsLayer,
    hint::{self, LONGEST},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::script::next;

#[derive(Arbitrary, Clone, Debug)]
struct Refused {
    kind: Kind,
    timed_out: bool,
    text: String,
    retry_after: Option<Duration>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Open,
    Elapsed,
    Limited,
    Exhausted,
    Other,
}

/// A refusal, answered in either protocol.
pub fn rejection(data: &[u8]) {
    let Ok(refused) = Refused::arbitrary(&mut Unstructured::new(data)) else { return };
    let (status, code) = match (refused.kind, refused.timed_out) {
        (Kind::Limited, _) => (429, "8"),
        (Kind::Elapsed, _) | (Kind::Exhausted, true) => (504, "4"),
        _ => (503, "14"),
    };

    let http = respond(&refused, None);
    assert_eq!(http.status().as_u16(), status);
    wait(hint::retry_after(http.headers()), refused.retry_after, Duration::from_secs(1));
    let text = match next(&mut http.into_body()) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("the text"),
        _ => Default::default(),
    };
    assert_eq!(text, refused.text);

    let grpc = respond(&refused, Some("application/grpc+proto"));
    assert_eq!(grpc.status().as_u16(), 200);
    assert_eq!(grpc.headers()[GRPC_STATUS], code);
    assert_eq!(grpc.headers()[header::CONTENT_TYPE], "application/grpc");
    wait(hint::grpc_pushback(grpc.headers()), refused.retry_after, Duration::from_millis(1));
    assert_eq!(message(grpc.headers()), refused.text.as_bytes());
    assert!(matches!(next(&mut grpc.into_body()), Poll::Ready(None)), "a head is all there is");
}

/// The hint is the wait, rounded up to a unit that it has at least; so nobody comes back too soon.
fn wait(hint: Hint, wait: Option<Duration>, unit: Duration) {
    let Some(wait) = wait else { return assert_eq!(hint, Hint::None) };
    let Some(hint) = hint.wait() else { panic!("{hint:?} for {wait:?}") };
    assert!(hint >= wait.min(LONGEST), "{hint:?} for {wait:?}");
    assert!(hint < wait.saturating_add(unit) || hint == unit, "{hint:?} for {wait:?}");
}

/// `grpc-message`, decoded: gRPC over HTTP/2, "Responses".
fn message(headers: &HeaderMap) -> Vec<u8> {
    let mut message = Vec::new();
    let mut rest = headers["grpc-message"].as_bytes();
    while let [byte, more @ ..] = rest {
        assert!((b' '..=b'~').contains(byte), "it goes over the wire");
        if let (b'%', [high, low, more @ ..]) = (byte, more) {
            let digits = [*high, *low];
            let digits = std::str::from_utf8(&digits).expect("it is ASCII");
            message.push(u8::from_str_radix(digits, 16).expect("two digits follow"));
            rest = more;
        } else {
            message.push(*byte);
            rest = more;
        }
    }
    message
}

fn respond(
    refused: &Refused,
    content_type: Option<&'static str>,
) -> Response<portcullis_http::RejectionsBody<String>> {
    let mut request = Request::new(());
    if let Some(content_type) = content_type {
        let content_type = http::HeaderValue::from_static(content_type);
        request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    let future = RejectionsLayer::new().layer(Refuses(refused.clone())).call(request);
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        other => panic!("a refusal is answered, not {:?}", other.map_ok(|_| ())),
    }
}

/// Refuses all requests.
struct Refuses(Refused);

impl Service<Request<()>> for Refuses {
    type Response = Response<String>;
    type Error = Error;
    type Future = Ready<Result<Response<String>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Err(Error::rejected(self.0.clone())))
    }
}

// ===== impl Refused =====

impl Rejection for Refused {
    fn name(&self) -> &str {
        "refused"
    }

    fn kind(&self) -> RejectionKind {
        match self.kind {
            Kind::Open => RejectionKind::Open,
            Kind::Elapsed => RejectionKind::Elapsed,
            Kind::Limited => RejectionKind::Limited,
            Kind::Exhausted => RejectionKind::Exhausted,
            Kind::Other => RejectionKind::Other,
        }
    }

    fn reason(&self) -> Reason {
        Reason::Elapsed { phase: Phase::Total, limit: Duration::ZERO }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn outcome(&self) -> Outcome {
        if self.timed_out { Outcome::timeout() } else { Outcome::Ignored }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Refused {}
