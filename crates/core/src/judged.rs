//! Errors that come with their verdict.

use std::{error::Error as StdError, fmt};

use crate::{BoxError, Outcome};

/// A client's error, and what it means to the layers above.
///
/// For whoever makes a service of a client whose errors no classifier knows: what only they can tell of
/// an error goes with it, and every classifier of the house takes their word.
///
/// ```
/// use portcullis_core::{Error, FaultKind, Judged, Outcome, Replay};
/// use std::io;
///
/// let busy = io::Error::other("every worker is busy");
/// let error = Error::inner(Judged::new(busy, Outcome::failure(FaultKind::Other, Replay::Safe)));
/// assert_eq!(error.outcome(), Outcome::failure(FaultKind::Other, Replay::Safe));
/// assert!(error.is::<io::Error>());
/// assert_eq!(error.to_string(), "every worker is busy");
/// ```
///
/// `Display` is the error's own; `source` is the error.
#[derive(Debug)]
pub struct Judged {
    error: BoxError,
    outcome: Outcome,
}

// ===== impl Judged =====

impl Judged {
    /// An error that means `outcome`.
    #[must_use]
    pub fn new(error: impl Into<BoxError>, outcome: Outcome) -> Self {
        Self { error: error.into(), outcome }
    }

    /// What the error means.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The error without its verdict.
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.error
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Judged {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error)
    }
}
