//! What the layer answers with when it has nothing of the peer's left to hand up.

use std::{error::Error as StdError, fmt, sync::Arc};

use portcullis_core::{Error, Outcome, Reason, Rejection, RejectionKind};

/// Retrying came to its end after the last response had been dropped.
///
/// That is rare: whether another attempt will be made is settled before a response is dropped, and
/// otherwise the last response or error itself is handed up. What remains is time that ran out
/// during the wait, and an inner service that failed to become ready again; its error is the
/// [`source`](StdError::source).
#[derive(Debug)]
pub struct Exhausted {
    name: Arc<str>,
    attempts: u32,
    last: Outcome,
    reason: Reason,
    source: Option<Error>,
}

// ===== impl Exhausted =====

impl Exhausted {
    pub(crate) fn new(
        name: Arc<str>,
        attempts: u32,
        last: Outcome,
        reason: Reason,
        source: Option<Error>,
    ) -> Self {
        Self { name, attempts, last, reason, source }
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What became of the last one.
    #[must_use]
    pub fn last(&self) -> Outcome {
        self.last
    }
}

impl Rejection for Exhausted {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RejectionKind {
        RejectionKind::Exhausted
    }

    fn reason(&self) -> Reason {
        self.reason
    }

    // No `retry_after`: what the peer had asked for was waited for, or there would have been no wait
    // for time to run out in.

    fn outcome(&self) -> Outcome {
        // The peer did see the request; what it made of it last is what is known.
        self.last
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.attempts == 1 { "" } else { "s" };
        write!(
            f,
            "{}: gave up after {} attempt{plural}, the last a {}: {}",
            self.name, self.attempts, self.last, self.reason
        )
    }
}

impl StdError for Exhausted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
