//! gRPC's status and its pushback, in a head and in trailers.

use std::task::Poll;

use http::{HeaderMap, Response, StatusCode};
use portcullis_core::{Call, Classify, Fault, FaultKind, Hint, Outcome, Replay, Throttle, Verdict};
use portcullis_http::{GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS, GrpcClassifier, hint};

use crate::{
    script::{Script, Seen, Step, next},
    text,
};

/// Line 1 is the HTTP status, line 2 the `grpc-status`, line 3 the pushback.
pub fn grpc_status(data: &[u8]) {
    let (http, rest) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let http = StatusCode::from_bytes(http).unwrap_or(StatusCode::OK);
    let fields = text::headers(rest, &[GRPC_STATUS, GRPC_RETRY_PUSHBACK_MS]);
    let lenient = GrpcClassifier::new();
    let strict = lenient.clone().unavailable_if_idempotent();
    for (classifier, unavailable) in [(&lenient, Replay::Safe), (&strict, Replay::IfIdempotent)] {
        in_head(classifier, unavailable, http, &fields);
        in_trailers(classifier, unavailable, &fields);
    }
}

fn in_head(classifier: &GrpcClassifier, unavailable: Replay, http: StatusCode, fields: &HeaderMap) {
    let seen = Seen::new();
    let mut response = Response::new(Script::new([Step::data(b"reply")]));
    *response.status_mut() = http;
    *response.headers_mut() = fields.clone();
    let expected = match status(unavailable, fields) {
        Some(outcome) => Verdict::Final(outcome),
        None if http == StatusCode::OK => Verdict::SoFar(Outcome::Success),
        None => Verdict::Final(by_http(unavailable, http)),
    };
    assert_eq!(classifier.at_head(Ok(&response)), expected, "{http} {fields:?}");

    // What the head said is what is reported, whether the body is read or not.
    let response = classifier.classify(Ok(response), seen.completion(0, Call::new()));
    assert_eq!(seen.outcomes(), []);
    drop(response.expect("no answer is made an error"));
    let at_end = match expected {
        Verdict::Final(outcome) => outcome,
        Verdict::SoFar(_) => Outcome::Cancelled,
    };
    assert_eq!(seen.outcomes(), [at_end]);
}

fn in_trailers(classifier: &GrpcClassifier, unavailable: Replay, fields: &HeaderMap) {
    let seen = Seen::new();
    let body = Script::new([Step::data(b"reply"), Step::Trailers(fields.clone())]);
    let response = classifier.classify(Ok(Response::new(body)), seen.completion(0, Call::new()));
    let mut body = response.expect("no answer is made an error").into_body();
    for _ in 0..2 {
        assert_eq!(seen.outcomes(), []);
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
    }
    let expected = status(unavailable, fields).unwrap_or_else(|| code(unavailable, 2, Hint::None));
    assert_eq!(seen.outcomes(), [expected], "{fields:?}");
}

/// The verdict of the fields, if they have a status.
fn status(unavailable: Replay, fields: &HeaderMap) -> Option<Outcome> {
    let value = fields.get(GRPC_STATUS)?;
    // No number, and no number that gRPC knows, is UNKNOWN.
    let number = text::whole(value).and_then(text::number).filter(|number| *number <= 16);
    Some(code(unavailable, number.unwrap_or(2) as u8, hint::grpc_pushback(fields)))
}

/// gRPC's "HTTP to gRPC status code mapping".
fn by_http(unavailable: Replay, http: StatusCode) -> Outcome {
    let number = match http.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    };
    code(unavailable, number, Hint::None)
}

/// The table in the classifier's documentation.
fn code(unavailable: Replay, code: u8, hint: Hint) -> Outcome {
    let kind = FaultKind::Grpc(code);
    let failure = |replay| Outcome::Failure(Fault { kind, replay, hint });
    match code {
        1 => Outcome::Ignored,
        2 | 13 | 15 => failure(Replay::Forbidden),
        4 => failure(Replay::IfIdempotent),
        8 => {
            let asked_back = hint != Hint::None;
            let replay = if asked_back { Replay::Safe } else { Replay::Forbidden };
            Outcome::Throttled(Throttle { kind, replay, hint, unhealthy: false })
        }
        14 => failure(unavailable),
        _ => Outcome::Success,
    }
}
