//! The refusal.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{Reason, Rejection, RejectionKind, State};

use crate::Refusal;

/// A breaker let the call not pass: which one, why, and when to try again. The peer never saw the
/// request.
///
/// Its sentence is fit for a person: `search: open, 12 of 20 calls failed (limit 50 %); try again in
/// 28.4s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Open {
    name: Arc<str>,
    key: Option<Arc<str>>,
    refusal: Refusal,
    retry_after: Option<Duration>,
}

// ===== impl Open =====

impl Open {
    pub(crate) fn new(
        name: Arc<str>,
        key: Option<Arc<str>>,
        refusal: Refusal,
        now: Instant,
    ) -> Self {
        let retry_at = match refusal.reason {
            // By then a slot is free at the latest, but most likely it is in no time.
            Reason::ProbesBusy { .. } => None,
            _ => refusal.retry_at,
        };
        let retry_after = retry_at.map(|at| at.saturating_duration_since(now));
        Self { name, key, refusal, retry_after }
    }

    /// The key whose breaker refused, if it is one of many.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The breaker's state: open, forced open, half-open while as many probes are out as may be, or
    /// closed while admission still grows.
    #[must_use]
    pub fn state(&self) -> State {
        self.refusal.state
    }

    /// Why the breaker opened.
    #[must_use]
    pub fn tripped_by(&self) -> Reason {
        self.refusal.tripped_by
    }
}

impl Rejection for Open {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RejectionKind {
        RejectionKind::Open
    }

    fn reason(&self) -> Reason {
        self.refusal.reason
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        // A key that is the name says nothing more.
        if let Some(key) = self.key.as_ref().filter(|key| **key != self.name) {
            write!(f, " [{key}]")?;
        }
        write!(f, ": {}, {}", self.refusal.state, self.refusal.reason)?;
        match self.retry_after {
            Some(after) => write!(f, "; try again in {after:.1?}"),
            None => Ok(()),
        }
    }
}

impl Error for Open {}
