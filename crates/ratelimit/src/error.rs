//! The refusal.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use portcullis_core::{Fault, FaultKind, Hint, Outcome, Reason, Rejection, RejectionKind, Replay};
use smol_str::SmolStr;

/// A limit let the call not pass: which one, why, and when to try again. The peer never saw the
/// request.
///
/// Its sentence is fit for a person: `search [tenant-7]: limit of 100 in 60s (burst 20); try again in
/// 580.0ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limited {
    name: Arc<str>,
    key: Option<SmolStr>,
    cost: u32,
    reason: Reason,
    retry_after: Option<Duration>,
}

// ===== impl Limited =====

impl Limited {
    pub(crate) fn new(
        name: Arc<str>,
        key: Option<SmolStr>,
        cost: u32,
        reason: Reason,
        retry_after: Option<Duration>,
    ) -> Self {
        Self { name, key, cost, reason, retry_after }
    }

    /// The key whose limit refused, if it is one of many.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What the call costs.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// Whether the call can never pass, because it costs more than the burst.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.reason, Reason::CostTooLarge { .. })
    }
}

impl Rejection for Limited {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RejectionKind {
        RejectionKind::Limited
    }

    fn reason(&self) -> Reason {
        self.reason
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn outcome(&self) -> Outcome {
        let (replay, hint) = match self.retry_after {
            _ if self.is_permanent() => (Replay::Forbidden, Hint::Never),
            Some(after) => (Replay::Safe, Hint::After(after)),
            None => (Replay::Safe, Hint::None),
        };
        Outcome::Failure(Fault::new(FaultKind::Rejected, replay).with_hint(hint))
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        // A key that is the name says nothing more.
        if let Some(key) = self.key.as_ref().filter(|key| ***key != *self.name) {
            write!(f, " [{key}]")?;
        }
        write!(f, ": {}", self.reason)?;
        match self.retry_after {
            Some(after) => write!(f, "; try again in {after:.1?}"),
            None => Ok(()),
        }
    }
}

impl Error for Limited {}
