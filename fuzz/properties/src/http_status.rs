//! HTTP's verdicts by status and `Retry-After`.

use http::{HeaderValue, Response, StatusCode, header};
use portcullis_core::{Call, Classify, Fault, FaultKind, Hint, Outcome, Replay, Throttle, Verdict};
use portcullis_http::{HttpClassifier, hint};

use crate::{
    script::{Script, Seen, Step},
    text,
};

const EXAMPLE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Line 1 is the status, line 2 `Retry-After`, line 3 the `Date`.
pub fn http_status(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let status = lines.next().and_then(|line| StatusCode::from_bytes(line).ok());
    let Some(status) = status else { return };
    let mut response = Response::new(Script::new([Step::data(b"reply")]));
    *response.status_mut() = status;
    let fields = [header::RETRY_AFTER, header::DATE];
    *response.headers_mut() = text::headers(lines.next().unwrap_or_default(), &fields);
    // Without a date of its own, the hint would be another at each look at the clock.
    let date = text::plain(response.headers().get(header::DATE));
    if date.is_none_or(|date| httpdate::parse_http_date(date).is_err()) {
        response.headers_mut().insert(header::DATE, HeaderValue::from_static(EXAMPLE));
    }
    let hint = hint::retry_after(response.headers());
    let kind = FaultKind::Status(status.as_u16());

    judged(&HttpClassifier::new(), response.clone(), verdict(status, hint));
    // Whatever a user makes of a status, the server's hint comes with it if it has none.
    for own in [
        Outcome::Success,
        Outcome::Ignored,
        Outcome::Failure(Fault { kind, replay: Replay::Safe, hint: Hint::Never }),
    ] {
        judged(&HttpClassifier::new().with_status(status, own), response.clone(), own);
    }
    let own = |hint| Outcome::Failure(Fault { kind, replay: Replay::Safe, hint });
    let classifier = HttpClassifier::new().with_status(status, own(Hint::None));
    judged(&classifier, response.clone(), own(hint));
    let other = StatusCode::from_u16(status.as_u16() ^ 1).ok();
    if let Some(other) = other {
        let classifier = HttpClassifier::new().with_status(other, Outcome::Ignored);
        judged(&classifier, response, verdict(status, hint));
    }
}

/// The same verdict at the head, and reported when the body is dropped.
fn judged(classifier: &HttpClassifier, response: Response<Script>, expected: Outcome) {
    assert_eq!(classifier.at_head(Ok(&response)), Verdict::SoFar(expected), "{response:?}");
    let seen = Seen::new();
    drop(classifier.classify(Ok(response), seen.completion(0, Call::new())));
    assert_eq!(seen.outcomes(), [expected]);
}

/// The table in the classifier's documentation.
fn verdict(status: StatusCode, hint: Hint) -> Outcome {
    let kind = FaultKind::Status(status.as_u16());
    let throttled =
        |unhealthy| Outcome::Throttled(Throttle { kind, replay: Replay::Safe, hint, unhealthy });
    match status.as_u16() {
        429 => throttled(false),
        503 if hint != Hint::None => throttled(true),
        501 | 505 => Outcome::failure(kind, Replay::Forbidden),
        408 | 500..=599 => Outcome::Failure(Fault { kind, replay: Replay::IfIdempotent, hint }),
        _ => Outcome::Success,
    }
}
