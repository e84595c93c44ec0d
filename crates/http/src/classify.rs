//! HTTP's verdicts: by status, hints and the end of the body.

use std::{fmt, sync::Arc};

use http::{Response, StatusCode};
use portcullis_core::{
    Classify, Completion, Error, Fault, FaultKind, Hint, Outcome, Replay, Throttle, Verdict,
};

use crate::{Body, body::Judge, client, hint};

/// Judges HTTP calls: by the status and its hints at the head, and by whether the body came to its
/// end.
///
/// | head | verdict | may be sent again |
/// |---|---|---|
/// | 429 | throttled | yes: the server says it did nothing |
/// | 503 with `Retry-After` | throttled, and a failure for breakers | yes |
/// | 501, 505 | failure | no: it would be refused again |
/// | 408, other 5xx | failure | if idempotent |
/// | everything else | success | – |
/// | no connection could be made | failure | yes |
/// | it never left the client, or HTTP/2 gave it back unprocessed | failure | yes, as the same attempt |
/// | any other error | failure | if idempotent |
///
/// A body that breaks off after a good head is a failure. A body that the caller drops leaves the
/// head's verdict standing.
///
/// ```
/// use http::StatusCode;
/// use portcullis_core::Outcome;
/// use portcullis_http::HttpClassifier;
///
/// // Here a 404 means that the cache is cold, which is no reason to think better of it.
/// let http = HttpClassifier::new().with_status(StatusCode::NOT_FOUND, Outcome::Ignored);
/// # let _ = http;
/// ```
#[derive(Clone, Default)]
pub struct HttpClassifier {
    statuses: Option<Arc<[(StatusCode, Outcome)]>>,
    errors: Option<Arc<JudgeError>>,
}

/// Marks, in a response's extensions, that the client was redirected: the response is to another
/// request than the one that was made.
///
/// It speaks for the server it came from alone. Those before may have acted, so that
/// [`HttpClassifier`] has no such response for one of a server that did nothing: after a 429, only
/// what is idempotent may be sent again.
///
/// ```
/// use http::{Response, StatusCode};
/// use portcullis_core::{Classify, Replay};
/// use portcullis_http::{HttpClassifier, Redirected};
///
/// let mut response = Response::new(String::new());
/// *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
/// let outcome = HttpClassifier::new().at_head(Ok(&response)).outcome();
/// assert_eq!(outcome.replay(), Some(Replay::Safe));
///
/// response.extensions_mut().insert(Redirected);
/// let outcome = HttpClassifier::new().at_head(Ok(&response)).outcome();
/// assert_eq!(outcome.replay(), Some(Replay::IfIdempotent));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirected;

type JudgeError = dyn Fn(&Error) -> Option<Outcome> + Send + Sync;

// ===== impl HttpClassifier =====

impl HttpClassifier {
    /// The verdicts of the table above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges one status otherwise. A `Retry-After` the response carries is added to a failure or a
    /// refusal that has no hint of its own.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode, outcome: Outcome) -> Self {
        let others = self.statuses.as_deref().unwrap_or_default();
        let others = others.iter().copied().filter(|(other, _)| *other != status);
        self.statuses = Some(others.chain([(status, outcome)]).collect());
        self
    }

    /// Judges errors of a client that is not known here; where `judge` has no opinion, the table
    /// above holds. Refusals by layers below are never asked about.
    #[must_use]
    pub fn with_errors<F>(mut self, judge: F) -> Self
    where
        F: Fn(&Error) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.errors = Some(Arc::new(judge));
        self
    }

    fn response<B>(&self, response: &Response<B>) -> Outcome {
        let status = response.status();
        let own = self.statuses.as_deref().unwrap_or_default();
        let mut outcome = match own.iter().find(|(other, _)| *other == status) {
            Some((_, outcome)) => with_hint(*outcome, response),
            None => by_status(response),
        };
        if let Outcome::Failure(Fault { replay, .. }) | Outcome::Throttled(Throttle { replay, .. }) =
            &mut outcome
            && *replay == Replay::Safe
            && response.extensions().get::<Redirected>().is_some()
        {
            *replay = Replay::IfIdempotent;
        }
        outcome
    }

    fn error(&self, error: &Error) -> Outcome {
        if error.rejection().is_some() {
            return client::outcome(error);
        }
        let own = self.errors.as_deref().and_then(|judge| judge(error));
        own.unwrap_or_else(|| client::outcome(error))
    }
}

impl<B> Classify<Response<B>> for HttpClassifier
where
    B: http_body::Body,
{
    type Response = Response<Body<B>>;

    fn at_head(&self, result: Result<&Response<B>, &Error>) -> Verdict {
        match result {
            Ok(response) if response.body().is_end_stream() => {
                Verdict::Final(self.response(response))
            }
            Ok(response) => Verdict::SoFar(self.response(response)),
            Err(error) => Verdict::Final(self.error(error)),
        }
    }

    #[inline]
    fn classify(
        &self,
        result: Result<Response<B>, Error>,
        done: Completion,
    ) -> Result<Self::Response, Error> {
        match result {
            Ok(response) => {
                let judge = Judge::http(self.response(&response));
                Ok(response.map(|body| Body::watched(body, judge, done)))
            }
            Err(error) => {
                done.settle_at_head(self.error(&error));
                Err(error)
            }
        }
    }
}

impl fmt::Debug for HttpClassifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClassifier")
            .field("statuses", &self.statuses)
            .field("errors", &self.errors.is_some())
            .finish()
    }
}

fn by_status<B>(response: &Response<B>) -> Outcome {
    let status = response.status();
    let kind = FaultKind::Status(status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let hint = hint::retry_after(response.headers());
            Outcome::Throttled(Throttle::new(kind).with_hint(hint))
        }
        StatusCode::SERVICE_UNAVAILABLE => match hint::retry_after(response.headers()) {
            Hint::None => Outcome::failure(kind, Replay::IfIdempotent),
            hint => Outcome::Throttled(Throttle::new(kind).with_hint(hint).unhealthy()),
        },
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
            Outcome::failure(kind, Replay::Forbidden)
        }
        StatusCode::REQUEST_TIMEOUT => {
            with_hint(Outcome::failure(kind, Replay::IfIdempotent), response)
        }
        status if status.is_server_error() => {
            with_hint(Outcome::failure(kind, Replay::IfIdempotent), response)
        }
        _ => Outcome::Success,
    }
}

fn with_hint<B>(outcome: Outcome, response: &Response<B>) -> Outcome {
    if outcome.hint() != Hint::None {
        return outcome;
    }
    let hint = || hint::retry_after(response.headers());
    match outcome {
        Outcome::Failure(fault) => Outcome::Failure(Fault { hint: hint(), ..fault }),
        Outcome::Throttled(throttle) => Outcome::Throttled(Throttle { hint: hint(), ..throttle }),
        other => other,
    }
}
