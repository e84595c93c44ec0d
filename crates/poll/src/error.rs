//! What the layer answers with when it gives an operation up.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use portcullis_core::{Error, FaultKind, Outcome, Reason, Rejection, RejectionKind, Replay};

/// An operation was given up before it was done: it was asked about as often or for as long as it may be,
/// or the next wait would have ended too late.
///
/// The peer may well go on with it. Layers above take it for a timeout after which the request is not to
/// be sent again, for that would begin a second operation beside the first.
#[derive(Debug)]
pub struct Unfinished {
    pub(crate) name: Arc<str>,
    pub(crate) polls: u32,
    pub(crate) elapsed: Duration,
    pub(crate) seen: Option<Cow<'static, str>>,
    pub(crate) reason: Reason,
    pub(crate) source: Option<Error>,
}

// ===== impl Unfinished =====

impl Unfinished {
    /// How often it was asked about, the request that began it not included.
    #[must_use]
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// How long it was followed, from the call that began it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What the last answer said of it, if whoever looked at it said so.
    #[must_use]
    pub fn last_seen(&self) -> Option<&str> {
        self.seen.as_deref()
    }
}

impl Rejection for Unfinished {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RejectionKind {
        RejectionKind::Unfinished
    }

    fn reason(&self) -> Reason {
        self.reason
    }

    // No `retry_after`: another try would begin another operation.

    fn outcome(&self) -> Outcome {
        Outcome::failure(FaultKind::Timeout, Replay::Forbidden)
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, polls, elapsed, seen, reason, .. } = self;
        let plural = if *polls == 1 { "" } else { "s" };
        write!(f, "{name}: not done after {polls} poll{plural} in {elapsed:.1?}")?;
        if let Some(seen) = seen {
            write!(f, ", last seen: {seen}")?;
        }
        write!(f, ": {reason}")
    }
}

impl StdError for Unfinished {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
