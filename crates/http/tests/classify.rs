//! HTTP's verdicts.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use portcullis_core::{
    Classify, Elapsed, Error, Fault, FaultKind, Hint, Outcome, Phase, Replay, Throttle, Verdict,
};
use portcullis_http::HttpClassifier;

fn head(status: u16, retry_after: Option<&'static str>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("text"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(value) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(value));
    }
    response
}

fn outcome(status: u16, retry_after: Option<&'static str>) -> Outcome {
    HttpClassifier::new().at_head(Ok(&head(status, retry_after))).outcome()
}

#[test]
fn the_table_of_statuses_holds() {
    for status in [200, 204, 301, 304, 400, 401, 404, 409, 422] {
        assert_eq!(outcome(status, None), Outcome::Success, "{status}");
    }
    for status in [408, 500, 502, 503, 504, 599] {
        let expected = Outcome::failure(FaultKind::Status(status), Replay::IfIdempotent);
        assert_eq!(outcome(status, None), expected, "{status}");
    }
    for status in [501, 505] {
        let expected = Outcome::failure(FaultKind::Status(status), Replay::Forbidden);
        assert_eq!(outcome(status, None), expected, "{status}");
    }
}

#[test]
fn a_429_and_a_503_that_says_when_to_come_back_did_nothing() {
    let two_seconds = Hint::After(Duration::from_secs(2));
    assert_eq!(outcome(429, None), Outcome::Throttled(Throttle::new(FaultKind::Status(429))));
    assert_eq!(
        outcome(429, Some("2")),
        Outcome::Throttled(Throttle::new(FaultKind::Status(429)).with_hint(two_seconds)),
    );
    assert_eq!(
        outcome(503, Some("2")),
        Outcome::Throttled(
            Throttle::new(FaultKind::Status(503)).with_hint(two_seconds).unhealthy()
        ),
    );
    let plain = Outcome::failure(FaultKind::Status(503), Replay::IfIdempotent);
    assert_eq!(outcome(503, Some("when I feel like it")), plain, "as if absent");
}

#[test]
fn a_hint_on_another_failure_is_kept() {
    let fault = Fault::new(FaultKind::Status(500), Replay::IfIdempotent);
    let hint = Hint::After(Duration::from_secs(9));
    assert_eq!(outcome(500, Some("9")), Outcome::Failure(fault.with_hint(hint)));
}

#[test]
fn a_status_can_be_judged_otherwise_without_a_type() {
    let failure = Outcome::failure(FaultKind::Status(404), Replay::Safe);
    let http = HttpClassifier::new()
        .with_status(StatusCode::NOT_FOUND, Outcome::Ignored)
        .with_status(StatusCode::NOT_FOUND, failure)
        .with_status(StatusCode::INTERNAL_SERVER_ERROR, Outcome::Success);
    let judge = |response| http.at_head(Ok(&response)).outcome();
    assert_eq!(judge(head(404, None)), failure);
    assert_eq!(judge(head(404, Some("1"))).hint(), Hint::After(Duration::from_secs(1)));
    assert_eq!(judge(head(500, None)), Outcome::Success);
}

#[test]
fn the_head_is_final_only_without_a_body() {
    let http = HttpClassifier::new();
    assert_eq!(http.at_head(Ok(&head(200, None))), Verdict::SoFar(Outcome::Success));
    let empty = Response::new(Full::<Bytes>::default());
    assert_eq!(http.at_head(Ok(&empty)), Verdict::Final(Outcome::Success));
}

fn error(http: &HttpClassifier, error: &Error) -> Outcome {
    Classify::<Response<Full<Bytes>>>::at_head(http, Err(error)).outcome()
}

#[test]
fn errors_of_an_unknown_client_can_be_judged_and_refusals_speak_for_themselves() {
    let http = HttpClassifier::new().with_errors(|error| {
        let error = error.find::<io::Error>()?;
        (error.kind() == io::ErrorKind::NotFound)
            .then_some(Outcome::failure(FaultKind::Connect, Replay::Safe))
    });
    let io = |kind| Error::inner(io::Error::from(kind));
    let connect = Outcome::failure(FaultKind::Connect, Replay::Safe);
    assert_eq!(error(&http, &io(io::ErrorKind::NotFound)), connect);
    assert_eq!(error(&http, &io(io::ErrorKind::ConnectionRefused)), connect);
    assert_eq!(error(&http, &io(io::ErrorKind::BrokenPipe)).replay(), Some(Replay::IfIdempotent));

    let elapsed = Elapsed::new("search", Phase::Readiness, Duration::from_secs(1));
    let expected = Outcome::failure(FaultKind::Timeout, Replay::Safe);
    assert_eq!(error(&http, &Error::rejected(elapsed)), expected);
}
