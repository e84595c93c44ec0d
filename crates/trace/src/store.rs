//! Where traces are kept, and how they are found again.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{BoxError, SpanId, TraceId};

use crate::record::{Status, Trace};

/// Keeps traces.
///
/// # Implementing one
///
/// The methods are synchronous and may block. [`put`](Self::put) and [`expire`](Self::expire) are
/// only ever called by the recorder's own thread, one at a time, and never while a call waits; an
/// error or a panic there costs the batch, which is counted. The others are for whoever wants to see
/// traces: in async code, call them through `spawn_blocking`. A store that speaks to a server by async
/// means keeps a runtime's handle and blocks on it. That makes the trait usable as `dyn TraceStore`
/// without a boxed future.
///
/// A trace's [`id`](Trace::id) is not unique: a server and its client may keep their parts of one
/// trace in the same store. [`id`](Trace::id) and [`span`](Trace::span) together are.
///
/// Newest first means by [`started_at`](Trace::started_at), then by span, both descending: an order
/// in which a trace has its fixed place, so that no page shows twice what others do while traces
/// arrive.
///
/// With the feature `conformance`, `conformance::check` holds a store to all this.
pub trait TraceStore: Send + Sync + 'static {
    /// Takes traces. One whose id and span are there already replaces it.
    ///
    /// # Errors
    ///
    /// If they could not be stored; the recorder counts them as lost and does not try again.
    fn put(&self, batch: &[Arc<Trace>]) -> Result<(), BoxError>;

    /// All records of the trace with this id, in the order of their starts.
    ///
    /// # Errors
    ///
    /// If the store could not be read.
    fn get(&self, id: TraceId) -> Result<Vec<Arc<Trace>>, BoxError>;

    /// The traces that match, newest first.
    ///
    /// # Errors
    ///
    /// If the store could not be read.
    fn query(&self, query: &Query) -> Result<Page, BoxError>;

    /// Forgets the traces that started before `date`, and says how many.
    ///
    /// # Errors
    ///
    /// If they could not be deleted.
    fn delete_older_than(&self, date: SystemTime) -> Result<u64, BoxError>;

    /// Forgets what is older than the store keeps traces, and says how many. The recorder asks for it
    /// at its start and every hour. A store may forget by the day, as long as it shows nothing that is
    /// too old.
    ///
    /// # Errors
    ///
    /// If it could not be deleted.
    fn expire(&self, now: SystemTime) -> Result<u64, BoxError>;

    /// How much it holds.
    ///
    /// # Errors
    ///
    /// If the store could not be read.
    fn counts(&self) -> Result<StoreCounts, BoxError>;
}

/// Which traces to find. What is not set does not restrict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Query {
    /// Started at this date or later.
    pub since: Option<SystemTime>,
    /// Started before this date.
    pub until: Option<SystemTime>,
    /// Ended so.
    pub status: Option<Status>,
    /// With exactly this name, of the trace or of a call or scope in it.
    pub name: Option<String>,
    /// With a call of exactly this target.
    pub target: Option<String>,
    /// Took at least so long.
    pub min_duration: Option<Duration>,
    /// With this text in one of the errors. Case matters only beyond ASCII.
    pub text: Option<String>,
    /// At most so many, from 1 to 1000; 50 by default.
    pub limit: usize,
    /// Only what comes after this place.
    pub cursor: Option<Cursor>,
}

/// Some of the traces that match.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// The traces, newest first.
    pub traces: Vec<Arc<Trace>>,
    /// Where the next page begins; `None` if there is nothing after this one.
    pub next: Option<Cursor>,
}

/// A place in the order of traces. Written as a short text, to be handed to clients and taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The start of the trace before it, in nanoseconds since 1970.
    nanos: u64,
    span: u64,
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseCursorError;

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCounts {
    /// Traces.
    pub traces: u64,
    /// Bytes they take, about.
    pub bytes: u64,
    /// Traces given up early, for want of room.
    pub evicted: u64,
}

// ===== impl Query =====

impl Query {
    /// The newest traces.
    pub const fn new() -> Self {
        Self {
            since: None,
            until: None,
            status: None,
            name: None,
            target: None,
            min_duration: None,
            text: None,
            limit: 50,
            cursor: None,
        }
    }

    /// Started at this date or later.
    pub fn since(mut self, date: SystemTime) -> Self {
        self.since = Some(date);
        self
    }

    /// Started before this date.
    pub fn until(mut self, date: SystemTime) -> Self {
        self.until = Some(date);
        self
    }

    /// Ended so.
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// With exactly this name, of the trace or of a call or scope in it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With a call of exactly this target.
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Took at least so long.
    pub fn min_duration(mut self, duration: Duration) -> Self {
        self.min_duration = Some(duration);
        self
    }

    /// With this text in one of the errors. Case matters only beyond ASCII.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// At most so many; what is beyond 1 to 1000 is brought there.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Only what comes after this place.
    pub fn after(mut self, cursor: impl Into<Option<Cursor>>) -> Self {
        self.cursor = cursor.into();
        self
    }

    /// The limit, brought into its range.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, 1000)
    }

    /// Whether a trace is one of those looked for; the cursor and the limit aside. For stores that
    /// cannot put the question to their own engine.
    #[must_use]
    pub fn matches(&self, trace: &Trace) -> bool {
        let name = |name: &String| {
            trace.name == *name || trace.calls.iter().any(|call| call.name == *name)
        };
        let target =
            |target: &String| trace.calls.iter().any(|call| call.target.as_ref() == Some(target));
        let text = |text: &String| trace.errors().any(|error| contains(error, text));
        self.since.is_none_or(|since| trace.started_at >= since)
            && self.until.is_none_or(|until| trace.started_at < until)
            && self.status.is_none_or(|status| trace.status == status)
            && self.min_duration.is_none_or(|least| trace.duration >= least)
            && self.name.as_ref().is_none_or(name)
            && self.target.as_ref().is_none_or(target)
            && self.text.as_ref().is_none_or(text)
    }
}

impl Default for Query {
    fn default() -> Self {
        Self::new()
    }
}

// ===== impl Cursor =====

impl Cursor {
    /// The place right after a trace.
    #[must_use]
    pub fn after(trace: &Trace) -> Self {
        Self::at(trace.started_at, trace.span)
    }

    /// The place right after a trace that started at `date` with this span.
    #[must_use]
    pub fn at(date: SystemTime, span: SpanId) -> Self {
        Self { nanos: nanos(date), span: span.get() }
    }

    /// The place before everything that started at `date` or later.
    pub(crate) fn before(date: SystemTime) -> Self {
        Self { nanos: nanos(date), span: 0 }
    }

    /// The start of the trace before it, in nanoseconds since 1970.
    #[must_use]
    pub fn nanos(self) -> u64 {
        self.nanos
    }

    /// The span of the trace before it, as a number.
    #[must_use]
    pub fn span(self) -> u64 {
        self.span
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.nanos, self.span)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        let value = value.ok_or(ParseCursorError)?;
        Ok(Self { nanos: (value >> 64) as u64, span: value as u64 })
    }
}

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor is the text that came with the page before")
    }
}

impl std::error::Error for ParseCursorError {}

/// Nanoseconds since 1970; a date before that is 1970, one after 2554 is 2554.
pub(crate) fn nanos(date: SystemTime) -> u64 {
    let since = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}
