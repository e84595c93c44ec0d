//! What reqwest's errors mean, where that is not told by the errors of hyper within them.

use http::{Response, StatusCode};
use portcullis_core::{Classify, Error, Judged, Outcome, find_error};
use portcullis_http::{HttpClassifier, Redirected};

/// The error of a call that has brought no response.
pub(crate) fn call(error: reqwest::Error) -> Error {
    let outcome = if error.is_builder() || error.is_redirect() || is_of_request_body(&error) {
        // A URL that leads nowhere, a redirect that the client will not follow, a body that the caller
        // could not finish: nothing of it speaks of the server.
        Some(Outcome::Ignored)
    } else if let Some(status) = error.status() {
        Some(answered(status))
    } else if error.is_connect() {
        // A limit on connecting that ran out is a failure to connect, and hyper-util's error says so.
        None
    } else {
        error.is_timeout().then(Outcome::timeout)
    };
    with(error, outcome)
}

/// The error of a response's body.
pub(crate) fn body(error: reqwest::Error) -> Error {
    let outcome = error.is_timeout().then(Outcome::timeout);
    with(error, outcome)
}

fn with(error: reqwest::Error, outcome: Option<Outcome>) -> Error {
    match outcome {
        Some(outcome) => Error::inner(Judged::new(error, outcome)),
        None => Error::inner(error),
    }
}

/// What a status means of which another middleware has made an error. Where it came from is not known
/// any more, nor what its headers said.
fn answered(status: StatusCode) -> Outcome {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response.extensions_mut().insert(Redirected);
    HttpClassifier::new().at_head(Ok(&response)).outcome()
}

/// Whether what failed was the request's own body. reqwest looks for timeouts and the like below that, too.
fn is_of_request_body(error: &reqwest::Error) -> bool {
    find_error::<hyper::Error>(error).is_some_and(hyper::Error::is_user)
}
