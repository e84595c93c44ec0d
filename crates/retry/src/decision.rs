//! What is asked and answered when an attempt has failed.

use std::time::Duration;

use portcullis_core::{Error, Outcome, Reason, backoff::Reached};

use crate::Withdrawal;

/// An attempt that did not succeed, as far as the decision concerns it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// Which attempt it was, from 1.
    pub number: u32,
    /// The verdict at its head.
    pub outcome: Outcome,
    /// The error, where it ended in one and not in a response.
    pub error: Option<&'a Error>,
    /// Whether sending the request twice does no more than sending it once: the caller's word for
    /// the call, else the request's own.
    pub idempotent: bool,
}

/// What a user's rule says to another attempt: see
/// [`retry_if`](crate::RetryBuilder::retry_if).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opinion {
    /// Nothing: the verdict decides.
    #[default]
    None,
    /// Another attempt is worth while and does no harm, whatever the verdict's
    /// [`Replay`](portcullis_core::Replay) says and whether or not the request is idempotent. Only the
    /// caller's own `not_idempotent` for the call stands above it. Attempts, hint, deadline and budget
    /// still bound it.
    Retry,
    /// No other attempt.
    Forbid,
}

/// What follows an attempt.
#[derive(Debug)]
#[must_use]
pub enum Decision<T> {
    /// There is no reason for another attempt: the result is the caller's.
    Done,
    /// Another attempt is made.
    Retry(Plan<T>),
    /// None is made, for this reason: the result is the caller's.
    GiveUp(Reason),
}

/// What is sent next, and when.
#[derive(Debug)]
#[must_use]
pub struct Plan<T> {
    /// The request.
    pub request: T,
    /// Which attempt it is: the next one, or the same once more where no application saw it.
    pub attempt: u32,
    /// How long to wait first; it may be zero.
    pub delay: Duration,
    /// What the delay rests on.
    pub reason: Reason,
    /// What is to be told to the next decision about the same call.
    pub progress: Progress,
    /// The budget's token, to be spent when the request is sent; `None` without a budget, and for the
    /// same attempt once more.
    pub withdrawal: Option<Withdrawal>,
}

/// How far a call has come: what one decision leaves for the next. A call begins with the
/// default one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How far its backoff has come.
    pub reached: Reached,
    /// Whether the peer's transport gave an attempt of the call back, and it was made again for that.
    pub unprocessed: bool,
    /// How often an attempt of the call never left the client, and was made again for that.
    pub unsent: u32,
}

/// How long the wait before one retry can be: see [`Policy::waits`](crate::Policy::waits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// The shortest the backoff computes.
    pub shortest: Duration,
    /// The longest the backoff computes.
    pub longest: Duration,
    /// The longest if the peer asks for as much as it may.
    pub hinted: Duration,
}

// ===== impl Attempt =====

impl Attempt<'_> {
    /// Attempt `number`, from 1, of a request that is not idempotent, without an error to look at.
    #[must_use]
    pub const fn new(number: u32, outcome: Outcome) -> Self {
        Self { number, outcome, error: None, idempotent: false }
    }

    /// The same attempt of an idempotent request, or of one that is not.
    #[must_use]
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }
}
