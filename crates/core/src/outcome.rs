//! What became of a call: the words every layer judges by.

use std::{fmt, time::Duration};

/// What became of one call, judged at its true end.
///
/// A [classifier](crate::Classify) produces it; breakers count it, retry decides on it, observers
/// report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Outcome {
    /// The peer did what was asked, or refused for a reason that says nothing about its health.
    Success,
    /// The peer, or the way to it, failed.
    Failure(Fault),
    /// The peer is well but asked for less.
    Throttled(Throttle),
    /// The caller gave up. Known only by a drop, never chosen by a classifier.
    Cancelled,
    /// A verdict the classifier or the user chose: the call counts for nothing.
    Ignored,
}

/// A failure: what kind, whether the peer can have acted, and what the peer advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub struct Fault {
    /// What failed.
    pub kind: FaultKind,
    /// Whether sending the request again can repeat an effect.
    pub replay: Replay,
    /// The peer's advice on when to come back.
    pub hint: Hint,
}

/// A refusal by the peer's own limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub struct Throttle {
    /// How the refusal was worded.
    pub kind: FaultKind,
    /// Whether sending the request again can repeat an effect.
    pub replay: Replay,
    /// The peer's advice on when to come back.
    pub hint: Hint,
    /// Whether the refusal also speaks of the peer's health, as a 503 with `Retry-After` does. A
    /// breaker counts such a refusal as a failure.
    pub unhealthy: bool,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum FaultKind {
    /// No connection could be made: nothing was sent.
    Connect,
    /// A deadline or a time limit ran out.
    Timeout,
    /// An HTTP status, by its code.
    Status(u16),
    /// A gRPC status, by its code.
    Grpc(u8),
    /// The response's body broke off after its head had arrived.
    Body,
    /// A layer below refused the call; the peer never saw it.
    Rejected,
    /// A process exited with this code.
    Exit(i32),
    /// A process was ended by this signal.
    Signal(i32),
    /// A process could not be run, or its output not be understood.
    Process(ProcessFault),
    /// Anything else.
    Other,
}

/// Where running a process failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ProcessFault {
    /// It could not be started.
    Start,
    /// Its standard input could not be written.
    Stdin,
    /// Its standard output could not be read, or was more than is kept.
    Stdout,
    /// Its standard error could not be read, or was more than is kept.
    Stderr,
    /// Its end could not be waited for.
    Wait,
    /// What it put out could not be understood.
    Parse,
}

/// Whether a request may be sent again without repeating an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Replay {
    /// The request never left the client: it may be sent again at once, and that is no other attempt.
    Unsent,
    /// The peer's transport gave it back before any application saw it: the same, but it cost the peer
    /// something, so once is enough.
    Unprocessed,
    /// The peer did nothing: any request may be sent again.
    Safe,
    /// The peer may have acted: only idempotent requests may be sent again.
    IfIdempotent,
    /// Sending the request again is of no use, or harmful.
    Forbidden,
}

/// A peer's advice on when to send the request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Hint {
    /// The peer gave no advice.
    None,
    /// Not before this much time has passed since the response's head: who waits longer does what was
    /// asked as well.
    After(Duration),
    /// When this much time has passed since the response's head, no sooner and no later: the peer has
    /// spread its callers itself, and chance added to that would undo it (gRFC A6, "Pushback").
    Exactly(Duration),
    /// Not at all.
    Never,
}

// ===== impl Outcome =====

impl Outcome {
    /// A failure without a hint.
    #[must_use]
    pub const fn failure(kind: FaultKind, replay: Replay) -> Self {
        Self::Failure(Fault::new(kind, replay))
    }

    /// The failure that a deadline or a limit which ran out stands for: the peer may have acted.
    #[must_use]
    pub const fn timeout() -> Self {
        Self::failure(FaultKind::Timeout, Replay::IfIdempotent)
    }

    /// Whether the call succeeded.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// What the failure or refusal was, if it was one.
    #[must_use]
    pub const fn kind(&self) -> Option<FaultKind> {
        match self {
            Self::Failure(fault) => Some(fault.kind),
            Self::Throttled(throttle) => Some(throttle.kind),
            Self::Success | Self::Cancelled | Self::Ignored => None,
        }
    }

    /// Whether the request may be sent again; `None` if there is no reason to.
    #[must_use]
    pub const fn replay(&self) -> Option<Replay> {
        match self {
            Self::Failure(fault) => Some(fault.replay),
            Self::Throttled(throttle) => Some(throttle.replay),
            Self::Success | Self::Cancelled | Self::Ignored => None,
        }
    }

    /// The peer's advice; [`Hint::None`] where there is none.
    #[must_use]
    pub const fn hint(&self) -> Hint {
        match self {
            Self::Failure(fault) => fault.hint,
            Self::Throttled(throttle) => throttle.hint,
            Self::Success | Self::Cancelled | Self::Ignored => Hint::None,
        }
    }

    /// One bounded word, fit for a metric's label: `success`, `failure`, `throttled`, `cancelled`
    /// or `ignored`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(_) => "failure",
            Self::Throttled(_) => "throttled",
            Self::Cancelled => "cancelled",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        if let Some(kind) = self.kind() {
            write!(f, " ({kind})")?;
        }
        Ok(())
    }
}

// ===== impl Hint =====

impl Hint {
    /// How long the peer asked to be left alone, be it at least or exactly; `None` if it asked for no
    /// wait, or never to be called again.
    #[must_use]
    pub const fn wait(self) -> Option<Duration> {
        match self {
            Self::After(wait) | Self::Exactly(wait) => Some(wait),
            Self::None | Self::Never => None,
        }
    }
}

// ===== impl Fault =====

impl Fault {
    /// A fault without a hint.
    #[must_use]
    pub const fn new(kind: FaultKind, replay: Replay) -> Self {
        Self { kind, replay, hint: Hint::None }
    }

    /// The same fault with the peer's advice.
    #[must_use]
    pub const fn with_hint(mut self, hint: Hint) -> Self {
        self.hint = hint;
        self
    }
}

// ===== impl Throttle =====

impl Throttle {
    /// A refusal of a healthy peer. The peer says it did nothing, so the request is safe to send
    /// again.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        Self { kind, replay: Replay::Safe, hint: Hint::None, unhealthy: false }
    }

    /// The same refusal with the peer's advice.
    #[must_use]
    pub const fn with_hint(mut self, hint: Hint) -> Self {
        self.hint = hint;
        self
    }

    /// The same refusal, speaking of the peer's health as well.
    #[must_use]
    pub const fn unhealthy(mut self) -> Self {
        self.unhealthy = true;
        self
    }
}

// ===== impl FaultKind =====

impl FaultKind {
    /// What gRPC calls its statuses, by number from 0 (gRPC, "Status codes and their use").
    pub const GRPC_NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Grpc(code) => write!(f, "grpc status {code}"),
            Self::Body => f.write_str("body"),
            Self::Rejected => f.write_str("rejected"),
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Process(fault) => write!(f, "process {}", fault.as_str()),
            Self::Other => f.write_str("other"),
        }
    }
}

// ===== impl ProcessFault =====

impl ProcessFault {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Wait => "wait",
            Self::Parse => "parse",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_names_its_kind_and_hint() {
        let hint = Hint::After(Duration::from_secs(2));
        let throttled = Outcome::Throttled(Throttle::new(FaultKind::Status(429)).with_hint(hint));

        assert_eq!(throttled.to_string(), "throttled (status 429)");
        assert_eq!(throttled.hint(), hint);
        assert_eq!(throttled.replay(), Some(Replay::Safe));
        assert_eq!(Outcome::Success.replay(), None);
        assert_eq!(hint.wait(), Some(Duration::from_secs(2)));
        assert_eq!(Hint::Exactly(Duration::ZERO).wait(), Some(Duration::ZERO));
        assert_eq!((Hint::None.wait(), Hint::Never.wait()), (None, None));
        assert_eq!(Outcome::timeout().to_string(), "failure (timeout)");
    }
}
