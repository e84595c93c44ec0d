//! What reqwest's errors mean, where that is not told by the errors of hyper within them.

use std::{error::Error as StdError, iter};

use portcullis_core::{Error, Judged, Outcome};

/// The error of a call that has brought no response.
pub(crate) fn call(error: reqwest::Error) -> Error {
    let outcome = if error.is_builder() || error.is_redirect() || is_of_request_body(&error) {
        // A URL that leads nowhere, a redirect that the client will not follow, a body that the caller
        // could not finish: nothing of it speaks of the server.
        Some(Outcome::Ignored)
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

/// Whether what failed was the request's own body: then reqwest's error on it is below the one on the
/// call.
fn is_of_request_body(error: &reqwest::Error) -> bool {
    iter::successors(error.source(), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<reqwest::Error>())
        .any(reqwest::Error::is_body)
}
