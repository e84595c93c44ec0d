//! The record: what is kept of a trace, as plain data.
//!
//! Times within a trace are offsets from its start, by the monotonic clock; only
//! [`Trace::started_at`] is a date. Every list is bounded, and what was left out is counted.
//!
//! With the feature `serde` it reads and writes. What there is none of is not written: no error, an
//! empty list, nothing omitted.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use portcullis_core::{FaultKind, Hint, Outcome, Replay, SpanId, TraceId};

use crate::Kept;

/// One execution: a scope with the calls made in it, or a call that was made outside of any.
///
/// Its `Display` is a picture of it for a terminal: see [`Waterfall`](crate::Waterfall).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Trace {
    /// The id, shared by all records that were kept of one trace: a server and a client in one
    /// process each have theirs.
    pub id: TraceId,
    /// The span of the whole; with the id it names this record.
    pub span: SpanId,
    /// The span that this one belongs under, in another record: what came with a request.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub parent: Option<SpanId>,
    /// What was executed.
    pub name: String,
    /// The date of the start. Settling the clock meanwhile does not change durations.
    pub started_at: SystemTime,
    /// How long it took. A call that was spawned in a scope may end later.
    pub duration: Duration,
    /// How it ended.
    pub status: Status,
    /// What the caller noted.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub attributes: Vec<(String, String)>,
    /// What came out of the scope itself, if that was noted.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub output: Option<Output>,
    /// The text of the error that the scope itself ended in.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub error: Option<String>,
    /// Events told within the scope but within no call of it.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub events: Vec<Event>,
    /// The share of traces like this that is kept, in (0, 1]; this one stands for `1 / rate`.
    pub sampling_rate: f64,
    /// Why it was kept.
    pub kept: Kept,
    /// Calls and nested scopes, in the order of their starts. Where the trace is one call outside of
    /// any scope, that is the first.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub calls: Vec<Call>,
    /// What there was no room for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "is_default"))]
    pub omitted: Omitted,
}

/// A call through a stack, or a nested scope.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Call {
    /// Whether it is a call or a scope.
    pub kind: Kind,
    /// Its span.
    pub span: SpanId,
    /// The span that it was made in: the trace's own, a nested scope's, or another call's.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub parent: Option<SpanId>,
    /// The name of the layer that recorded it, or of the scope.
    pub name: String,
    /// What was asked for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub operation: Option<String>,
    /// Whom.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub target: Option<String>,
    /// The key that it was asked under.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub key: Option<String>,
    /// When it started.
    pub started: Duration,
    /// How long it took, to the end of the response's body.
    pub duration: Duration,
    /// How long the response's head took, if it came.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub head_after: Option<Duration>,
    /// How it ended.
    pub status: Status,
    /// What kind of failure it was, in a bounded number of words: `timeout`, `status 503`,
    /// `rejected: open`.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub error_kind: Option<String>,
    /// The text of the error, with its causes.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub error: Option<String>,
    /// What the caller noted, of a scope.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub attributes: Vec<(String, String)>,
    /// What was asked of the inner service, once or more.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub attempts: Vec<Attempt>,
    /// What the layers decided.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub events: Vec<Event>,
    /// What came out of it, if that is captured.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub output: Option<Output>,
    /// Attempts whose events there was no room for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "is_default"))]
    pub omitted_attempts: u32,
    /// Events there was no room for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "is_default"))]
    pub omitted_events: u32,
    /// Attributes there was no room for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "is_default"))]
    pub omitted_attributes: u32,
}

/// What an entry of a trace stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Kind {
    /// A call through a stack.
    Call,
    /// A scope in a scope.
    Scope,
}

/// One time that the inner service was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Attempt {
    /// Which, from 1.
    pub number: u32,
    /// Its span: what went over the wire as the parent of what the peer did.
    pub span: SpanId,
    /// When it started, from the start of the trace.
    pub started: Duration,
    /// How long the response's head took, if it came.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub head_after: Option<Duration>,
    /// How long it took to its end.
    pub ended_after: Duration,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it could be repeated, and what the peer advised.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub replay: Option<Replay>,
    /// The peer's advice.
    #[cfg_attr(feature = "serde", serde(default = "no_hint", skip_serializing_if = "is_no_hint"))]
    pub hint: Hint,
    /// The status of its response, where the layer above the client was asked to
    /// [tell](portcullis_core::What::Answered).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub status: Option<u16>,
    /// The port that was asked, likewise.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub port: Option<u16>,
}

/// What a layer decided or saw.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Event {
    /// When, from the start of the trace.
    pub offset: Duration,
    /// What kind of layer told it: `breaker`, `retry`, …
    pub layer: Cow<'static, str>,
    /// The layer's name.
    pub name: String,
    /// The key it was decided for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub key: Option<String>,
    /// Which attempt it was about, from 1; 0 for the call as a whole.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "is_default"))]
    pub attempt: u32,
    /// What: `admitted`, `rejected`, `retrying`, …
    pub what: Cow<'static, str>,
    /// The whole sentence, with the reason and its numbers.
    pub why: String,
    /// How long the wait is that it begins, for `retrying` and `polled`, or ends, for `waited`.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub wait: Option<Duration>,
}

/// Something that came out of a call, cut to its first characters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Output {
    /// The beginning.
    pub text: String,
    /// Characters left out.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "is_default"))]
    pub omitted: usize,
}

/// What there was no room for in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Omitted {
    /// Calls and nested scopes.
    pub calls: u32,
    /// Events of the scope itself; those of calls are counted at the call.
    pub events: u32,
    /// Attributes of the scope itself.
    pub attributes: u32,
}

/// How an execution or a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Status {
    /// Well, or with a verdict that counts for nothing.
    Success,
    /// In a failure.
    Error,
    /// A limit or a deadline ran out.
    Timeout,
    /// A layer refused it.
    Rejected,
    /// The caller gave up.
    Cancelled,
}

// ===== impl Trace =====

impl Trace {
    /// How many bytes it takes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let pairs = |pairs: &[(String, String)]| -> usize {
            pairs.iter().map(|(k, v)| 2 * size_of::<String>() + k.len() + v.len()).sum()
        };
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let events = |events: &[Event]| -> usize {
            let heap = |e: &Event| e.name.len() + text(&e.key) + e.why.len();
            events.iter().map(|event| size_of::<Event>() + heap(event)).sum()
        };
        let output = |output: &Option<Output>| output.as_ref().map_or(0, |it| it.text.len());
        let call = |call: &Call| -> usize {
            let texts = [&call.operation, &call.target, &call.key, &call.error_kind, &call.error];
            size_of::<Call>()
                + call.name.len()
                + texts.into_iter().map(text).sum::<usize>()
                + pairs(&call.attributes)
                + size_of_val(call.attempts.as_slice())
                + events(&call.events)
                + output(&call.output)
        };
        size_of::<Self>()
            + self.name.len()
            + text(&self.error)
            + pairs(&self.attributes)
            + events(&self.events)
            + output(&self.output)
            + self.calls.iter().map(call).sum::<usize>()
    }

    /// The texts of all errors in it.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        let of_calls = self.calls.iter().filter_map(|call| call.error.as_deref());
        self.error.as_deref().into_iter().chain(of_calls)
    }
}

// ===== impl Status =====

impl Status {
    /// What an outcome is to a trace.
    #[must_use]
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Success | Outcome::Ignored => Self::Success,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Failure(_) | Outcome::Throttled(_) => match outcome.kind() {
                Some(FaultKind::Timeout) => Self::Timeout,
                Some(FaultKind::Rejected) => Self::Rejected,
                _ => Self::Error,
            },
        }
    }

    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

// ===== what is not written =====

#[cfg(feature = "serde")]
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(feature = "serde")]
fn no_hint() -> Hint {
    Hint::None
}

#[cfg(feature = "serde")]
fn is_no_hint(hint: &Hint) -> bool {
    *hint == Hint::None
}
