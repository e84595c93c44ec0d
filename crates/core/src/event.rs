//! What layers tell: one typed event for each decision, and who listens.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Call, FaultKind, Outcome, Phase, ProcessStage, Reason, Rejection};

/// Something a layer decided or saw.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What kind of layer tells.
    pub layer: LayerKind,
    /// The layer's name, as it was configured.
    pub name: &'a str,
    /// The key the decision was made for, where a layer keeps state by key.
    pub key: Option<&'a str>,
    /// The call it was about; an empty one for what concerns no call.
    pub call: &'a Call,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What<'a>,
}

/// The layers that tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerKind {
    /// A circuit breaker.
    Breaker,
    /// Retries.
    Retry,
    /// What asks on until an operation is done.
    Poll,
    /// A program that is run for each call.
    Process,
    /// Time limits.
    Timeout,
    /// Rate limits.
    RateLimit,
    /// The capture of traces.
    Trace,
    /// What stands right above the client and tells the server what the call knows.
    Propagate,
}

/// What a layer decided or saw, with the numbers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum What<'a> {
    /// A call begins. Told by the layer that records calls, once for each that it will settle.
    Started,
    /// A call was let through.
    Admitted {
        /// The breaker's state.
        state: State,
        /// What the decision rested on.
        reason: Reason,
    },
    /// A call was refused.
    Rejected {
        /// The refusal that the caller gets.
        rejection: &'a dyn Rejection,
    },
    /// A call was let through that would have been refused, had the layer not been disabled.
    WouldReject {
        /// What the refusal would have rested on.
        reason: Reason,
    },
    /// An attempt is about to be made: the inner service is called next.
    Attempting {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// An attempt failed and another will follow.
    Retrying {
        /// The attempt that failed, from 1.
        attempt: u32,
        /// How it failed.
        outcome: Outcome,
        /// How long the wait before the next one is.
        delay: Duration,
        /// What the delay rests on.
        reason: Reason,
    },
    /// An attempt failed before any application of the peer's saw it, and is made again, as the same
    /// attempt.
    Resending {
        /// The attempt, from 1.
        attempt: u32,
        /// How it failed.
        outcome: Outcome,
        /// How long the wait before it is sent again is; mostly none.
        delay: Duration,
        /// Why nobody can have seen it.
        reason: Reason,
    },
    /// An attempt failed and none will follow.
    GaveUp {
        /// The attempt that failed, from 1.
        attempt: u32,
        /// How it failed.
        outcome: Outcome,
        /// Why it was the last one.
        reason: Reason,
    },
    /// An operation that takes longer than one request was asked about.
    Polled {
        /// How often it was asked about so far; 0 with the answer to the request that began it.
        polls: u32,
        /// How long it has taken so far.
        elapsed: Duration,
        /// How it goes on.
        course: Course,
    },
    /// A time limit ran out.
    TimedOut {
        /// Which part of the call it covered.
        phase: Phase,
        /// The limit.
        limit: Duration,
        /// How long the call had taken.
        elapsed: Duration,
    },
    /// A call took longer than the threshold for slow ones. It was not stopped for it.
    Slow {
        /// How long it took to its head.
        elapsed: Duration,
        /// The threshold.
        threshold: Duration,
    },
    /// A breaker changed its state, or started its count anew.
    StateChanged {
        /// The state it left.
        from: State,
        /// The state it is in.
        to: State,
        /// Why.
        reason: Reason,
        /// How long it will stay open, where it opened.
        open_for: Option<Duration>,
    },
    /// A key had to share an entry, because its map was full of entries that may not be evicted.
    Overflowed {
        /// What the map was full of.
        reason: Reason,
    },
    /// A call has waited for its turn and may pass now.
    Waited {
        /// How long it waited.
        waited: Duration,
        /// What it waited for.
        reason: Reason,
    },
    /// A limit let a call pass, and took what the call costs.
    Acquired {
        /// What the call costs.
        cost: u32,
        /// What could be taken at once after it.
        left: u32,
    },
    /// A limit lets nothing pass for a while.
    HeldBack {
        /// How long.
        hold: Duration,
        /// Why.
        reason: Reason,
    },
    /// What a call really cost is known, and the difference is charged or given back.
    Adjusted {
        /// What was taken for the call when it passed.
        taken: u32,
        /// What it cost.
        actual: u32,
    },
    /// The client answered an attempt, with a response's head or an error, or had not when a limit
    /// ran out. Of an attempt that the caller gave up on nothing is told.
    Answered {
        /// What was asked, and what the answer was.
        answer: Answer,
        /// How long it took to the head.
        elapsed: Duration,
    },
    /// A process is run for a call, as its client.
    Process {
        /// What became of it.
        stage: ProcessStage,
        /// How long it ran.
        elapsed: Duration,
        /// Bytes that it has written to its standard output, as far as that was read.
        stdout: u64,
        /// Bytes that it has written to its standard error, likewise.
        stderr: u64,
    },
    /// A call came to its end.
    Settled {
        /// The verdict.
        outcome: Outcome,
        /// How long after the start the response's head was there.
        head_after: Option<Duration>,
        /// How long after the start the end was reached.
        elapsed: Duration,
    },
}

/// How an operation goes on that takes longer than one request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Course {
    /// It is not done, and is asked about again.
    Pending {
        /// How long the wait before that is.
        delay: Duration,
        /// What the delay rests on.
        reason: Reason,
    },
    /// It is not done, and is not asked about again.
    GaveUp {
        /// Why not.
        reason: Reason,
    },
    /// It ended with the request, or the look at its answer, that was under way.
    Ended {
        /// How.
        outcome: Outcome,
    },
    /// It was left before it was asked about again.
    Left {
        /// Why: the caller gave up, time ran out, or the inner service failed.
        outcome: Outcome,
    },
}

/// What a client answered to one attempt: plain numbers and bounded words, fit for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The method of the request, if it is one of those everybody knows; else `_OTHER`.
    pub method: &'static str,
    /// Whether it is a call by gRPC, of which the method and the status say little.
    pub is_grpc: bool,
    /// The port that was asked, if it is known.
    pub port: Option<u16>,
    /// The status of the response; `None` if there was none.
    pub status: Option<u16>,
    /// What failed, where there was no response.
    pub fault: Option<FaultKind>,
    /// How long the response's body will be, in bytes, if the head tells.
    pub size: Option<u64>,
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the open time is over.
    Open,
    /// A few calls pass as probes.
    HalfOpen,
    /// Calls are refused until somebody orders otherwise.
    ForcedOpen,
    /// Calls pass, whatever becomes of them, until somebody orders otherwise.
    ForcedClosed,
    /// Calls pass; what the breaker would have done is counted and told, but not done.
    Disabled,
}

/// Somebody who wants to know of events.
///
/// Any `Fn(&Event<'_>)` is one. An observer is called on the path of the call and never under a
/// lock; one that blocks or panics does so to the call.
///
/// ```
/// use portcullis_core::{Event, Observer, What};
///
/// fn tells_of_retries() -> impl Observer {
///     |event: &Event<'_>| {
///         if let What::Retrying { attempt, delay, .. } = event.what {
///             println!("{}: attempt {attempt} failed, next in {delay:?}", event.name);
///         }
///     }
/// }
/// # let _ = tells_of_retries();
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Takes note of an event.
    fn on_event(&self, event: &Event<'_>);
}

// ===== impl Event =====

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.layer.as_str(), self.name)?;
        // A key that is the name says nothing more.
        if let Some(key) = self.key.filter(|key| *key != self.name) {
            write!(f, " [{key}]")?;
        }
        write!(f, ": {}", self.what)
    }
}

// ===== impl LayerKind =====

impl LayerKind {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Retry => "retry",
            Self::Poll => "poll",
            Self::Process => "process",
            Self::Timeout => "timeout",
            Self::RateLimit => "ratelimit",
            Self::Trace => "trace",
            Self::Propagate => "propagate",
        }
    }
}

// ===== impl What =====

impl<'a> What<'a> {
    /// The same, for whoever keeps it beyond the event.
    ///
    /// # Errors
    ///
    /// A refusal is borrowed from the caller's error; it is handed back, for what is to be kept of
    /// it.
    #[inline]
    pub fn detach(self) -> Result<What<'static>, &'a dyn Rejection> {
        Ok(match self {
            Self::Rejected { rejection } => return Err(rejection),
            Self::Started => What::Started,
            Self::Answered { answer, elapsed } => What::Answered { answer, elapsed },
            Self::Admitted { state, reason } => What::Admitted { state, reason },
            Self::WouldReject { reason } => What::WouldReject { reason },
            Self::Attempting { attempt } => What::Attempting { attempt },
            Self::Retrying { attempt, outcome, delay, reason } => {
                What::Retrying { attempt, outcome, delay, reason }
            }
            Self::Resending { attempt, outcome, delay, reason } => {
                What::Resending { attempt, outcome, delay, reason }
            }
            Self::GaveUp { attempt, outcome, reason } => What::GaveUp { attempt, outcome, reason },
            Self::Polled { polls, elapsed, course } => What::Polled { polls, elapsed, course },
            Self::TimedOut { phase, limit, elapsed } => What::TimedOut { phase, limit, elapsed },
            Self::Slow { elapsed, threshold } => What::Slow { elapsed, threshold },
            Self::StateChanged { from, to, reason, open_for } => {
                What::StateChanged { from, to, reason, open_for }
            }
            Self::Overflowed { reason } => What::Overflowed { reason },
            Self::Waited { waited, reason } => What::Waited { waited, reason },
            Self::Acquired { cost, left } => What::Acquired { cost, left },
            Self::HeldBack { hold, reason } => What::HeldBack { hold, reason },
            Self::Adjusted { taken, actual } => What::Adjusted { taken, actual },
            Self::Process { stage, elapsed, stdout, stderr } => {
                What::Process { stage, elapsed, stdout, stderr }
            }
            Self::Settled { outcome, head_after, elapsed } => {
                What::Settled { outcome, head_after, elapsed }
            }
        })
    }

    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Answered { .. } => "answered",
            Self::Admitted { .. } => "admitted",
            Self::Rejected { .. } => "rejected",
            Self::WouldReject { .. } => "would_reject",
            Self::Attempting { .. } => "attempting",
            Self::Retrying { .. } => "retrying",
            Self::Resending { .. } => "resending",
            Self::GaveUp { .. } => "gave_up",
            Self::Polled { .. } => "polled",
            Self::TimedOut { .. } => "timed_out",
            Self::Slow { .. } => "slow",
            Self::StateChanged { .. } => "state_changed",
            Self::Overflowed { .. } => "overflowed",
            Self::Waited { .. } => "waited",
            Self::Acquired { .. } => "acquired",
            Self::HeldBack { .. } => "held_back",
            Self::Adjusted { .. } => "adjusted",
            Self::Process { stage, .. } => stage.as_str(),
            Self::Settled { .. } => "settled",
        }
    }
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("begins"),
            Self::Answered { answer, elapsed } => write!(f, "{answer} after {elapsed:.1?}"),
            Self::Admitted { state, reason } => write!(f, "admitted while {state}: {reason}"),
            Self::Rejected { rejection } => write!(f, "rejected: {}", rejection.reason()),
            Self::WouldReject { reason } => write!(f, "would have rejected: {reason}"),
            Self::Attempting { attempt } => write!(f, "attempt {attempt} begins"),
            Self::Retrying { attempt, outcome, delay, reason } => {
                write!(f, "attempt {attempt}: {outcome}; next in {delay:.1?}: {reason}")
            }
            Self::Resending { attempt, outcome, delay: Duration::ZERO, reason } => {
                write!(f, "attempt {attempt}: {outcome}; sent again at once: {reason}")
            }
            Self::Resending { attempt, outcome, delay, reason } => {
                write!(f, "attempt {attempt}: {outcome}; sent again in {delay:.1?}: {reason}")
            }
            Self::GaveUp { attempt, outcome, reason } => {
                write!(f, "attempt {attempt}: {outcome}; no other: {reason}")
            }
            Self::Polled { polls, elapsed, course } => course.write(f, *polls, *elapsed),
            Self::TimedOut { phase, limit, elapsed } => {
                write!(f, "timed out after {elapsed:.1?}: {phase} limit of {limit:?}")
            }
            Self::Slow { elapsed, threshold } => {
                write!(f, "slow: {elapsed:.1?} (threshold {threshold:?})")
            }
            Self::StateChanged { from, to, reason, open_for } => {
                write!(f, "{from} → {to}: {reason}")?;
                match open_for {
                    Some(open_for) => write!(f, "; open for {open_for:.1?}"),
                    None => Ok(()),
                }
            }
            Self::Overflowed { reason } => write!(f, "shares the overflow entry: {reason}"),
            Self::Waited { waited, reason } => write!(f, "waited {waited:.1?}: {reason}"),
            Self::Acquired { cost, left } => write!(f, "took {cost}, {left} left"),
            Self::HeldBack { hold, reason } => write!(f, "held back for {hold:.1?}: {reason}"),
            Self::Adjusted { taken, actual } => write!(f, "took {taken}, cost {actual}"),
            Self::Process { stage, elapsed, stdout, stderr } => {
                stage.write(f, *elapsed, [*stdout, *stderr])
            }
            Self::Settled { outcome, head_after, elapsed } => {
                write!(f, "{outcome} after {elapsed:.1?}")?;
                match head_after {
                    Some(head_after) => write!(f, " (head after {head_after:.1?})"),
                    None => Ok(()),
                }
            }
        }
    }
}

// ===== impl Course =====

impl Course {
    fn write(self, f: &mut fmt::Formatter<'_>, polls: u32, elapsed: Duration) -> fmt::Result {
        match (self, polls) {
            (Self::Pending { delay, reason }, 0) => {
                write!(f, "not done after {elapsed:.1?}; asked about in {delay:.1?}: {reason}")
            }
            (Self::Pending { delay, reason }, _) => {
                write!(f, "poll {polls}: not done after {elapsed:.1?}; ")?;
                write!(f, "next in {delay:.1?}: {reason}")
            }
            (Self::GaveUp { reason }, _) => {
                write!(f, "poll {polls}: not done after {elapsed:.1?}; no other: {reason}")
            }
            (Self::Ended { outcome }, _) => {
                write!(f, "poll {polls}: {outcome} after {elapsed:.1?}")
            }
            (Self::Left { outcome }, _) => {
                write!(f, "poll {polls} was the last: {outcome} after {elapsed:.1?}")
            }
        }
    }
}

// ===== impl Answer =====

impl Answer {
    /// No answer yet to a request of this method.
    #[must_use]
    pub const fn to(method: &'static str) -> Self {
        Self { method, is_grpc: false, port: None, status: None, fault: None, size: None }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.fault) {
            (Some(status), _) => write!(f, "answered {status}"),
            (None, Some(fault)) => write!(f, "no response: {fault}"),
            (None, None) => f.write_str("no response"),
        }
    }
}

// ===== impl State =====

impl State {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced-open",
            Self::ForcedClosed => "forced-closed",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// ===== impl Observer =====

impl<F> Observer for F
where
    F: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}
