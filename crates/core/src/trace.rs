//! Which trace a call belongs to, and who keeps its record.

use std::{
    any::Any,
    error::Error,
    fmt,
    num::{NonZeroU64, NonZeroU128},
    str::FromStr,
    sync::Arc,
};

use crate::{Event, Notes, Observer, Refusal, Rejection};

/// The identity of a trace: 128 bits, not all zero (W3C Trace Context, "trace-id").
///
/// Written as 32 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

/// The identity of a span within a trace: 64 bits, not all zero (W3C Trace Context, "parent-id").
///
/// Written as 16 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

/// A text that is not an id: not as many hexadecimal digits, or all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseIdError;

/// Where a call stands in a trace: what goes over the wire as `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that is the parent of what follows.
    pub span_id: SpanId,
    /// Whether those before us asked for the trace to be kept.
    pub sampled: bool,
}

/// A trace that began elsewhere: the context that came with a request, and its `tracestate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTrace {
    /// Where the sender stands.
    pub context: TraceContext,
    /// What the vendors on the way had to say; handed on as it came.
    pub state: Option<Arc<str>>,
}

/// Who keeps the record of a call: it is told of every event of the call, besides the call's
/// [observer](crate::Call::observer), and knows where the call stands in its trace.
pub trait Record: Observer + Any {
    /// Where the call stands in its trace.
    fn context(&self) -> TraceContext;

    /// The `tracestate` to hand on.
    fn state(&self) -> Option<Arc<str>> {
        None
    }

    /// Hands the notes of the call over to be written in, for what is told to nobody else; `false` if it
    /// keeps none, and is to be told of the event.
    fn write(&self, _write: &mut dyn FnMut(&mut Notes)) -> bool {
        false
    }
}

/// The record of a call that one thread runs right now. It [lies](crate::call::lay) there, and is
/// written without a lock.
pub trait Sheet: Any + Send + Sync {
    /// Where the call stands in its trace.
    fn context(&self) -> TraceContext;

    /// The `tracestate` to hand on.
    fn state(&self) -> Option<Arc<str>>;

    /// Where what is told of the call is noted.
    fn notes(&mut self) -> &mut Notes;

    /// What is to be kept of a refusal, if it can be had: it may be of the user's own making, and panics
    /// are to be caught.
    fn refusal(&self, rejection: &dyn Rejection) -> Option<Refusal>;

    /// Who keeps the record wherever it is told of: for what outlives the poll it began in, such as a
    /// response's body or a task.
    fn share(&mut self) -> Arc<dyn Record>;
}

// ===== impl TraceId =====

impl TraceId {
    /// The id with this value; `None` for zero.
    #[must_use]
    pub const fn new(value: u128) -> Option<Self> {
        match NonZeroU128::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0.get()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl FromStr for TraceId {
    type Err = ParseIdError;

    /// Reads 32 lowercase hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        hex(text, 32).and_then(Self::new).ok_or(ParseIdError)
    }
}

// ===== impl SpanId =====

impl SpanId {
    /// The id with this value; `None` for zero.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The span of attempt `number` of the call whose span this is; the call's own for 0, where no
    /// layer retries.
    ///
    /// It is computed and not drawn, so that who writes it into a request and who records the
    /// attempt need not tell each other.
    #[must_use]
    pub const fn of_attempt(self, number: u32) -> Self {
        if number == 0 {
            return self;
        }
        // The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection, so the attempts of one
        // call never collide.
        let mut z = self.get() ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        match NonZeroU64::new(z ^ (z >> 31)) {
            Some(value) => Self(value),
            None => self,
        }
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

impl FromStr for SpanId {
    type Err = ParseIdError;

    /// Reads 16 lowercase hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let value = hex(text, 16).and_then(|value| u64::try_from(value).ok());
        value.and_then(Self::new).ok_or(ParseIdError)
    }
}

// ===== impl ParseIdError =====

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 32 (trace) or 16 (span) lowercase hexadecimal digits, not all zero")
    }
}

impl Error for ParseIdError {}

// ===== impl RemoteTrace =====

impl From<TraceContext> for RemoteTrace {
    fn from(context: TraceContext) -> Self {
        Self { context, state: None }
    }
}

/// Nothing is recorded here: it only says where the call stands.
impl Observer for RemoteTrace {
    fn on_event(&self, _: &Event<'_>) {}
}

impl Record for RemoteTrace {
    fn context(&self) -> TraceContext {
        self.context
    }

    fn state(&self) -> Option<Arc<str>> {
        self.state.clone()
    }
}

/// A number of exactly `digits` lowercase hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lowercase = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(lowercase) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(feature = "serde")]
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::{SpanId, TraceId};

    macro_rules! as_text {
        ($($id:ty),+) => {$(
            impl Serialize for $id {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $id {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(D::Error::custom)
                }
            }
        )+};
    }

    as_text!(TraceId, SpanId);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Call;

    fn context() -> TraceContext {
        TraceContext {
            trace_id: TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap(),
            span_id: SpanId::new(0xf0_67aa_0ba9_02b7).unwrap(),
            sampled: true,
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let TraceContext { trace_id, span_id, .. } = context();
        assert_eq!(trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(trace_id.to_string().parse(), Ok(trace_id));
        assert_eq!(span_id.to_string().parse(), Ok(span_id));
        for bad in
            ["", "0000000000000000", "00F067AA0BA902B7", "+0f067aa0ba902b7", "00f067aa0ba902b"]
        {
            assert_eq!(bad.parse::<SpanId>(), Err(ParseIdError), "{bad}");
        }
        assert_eq!(TraceId::new(0), None);
        assert_eq!("0".repeat(32).parse::<TraceId>(), Err(ParseIdError));
    }

    #[test]
    fn each_attempt_has_a_span_of_its_own() {
        let span = context().span_id;
        assert_eq!(span.of_attempt(0), span);
        let mut spans: Vec<_> = (0..1000).map(|number| span.of_attempt(number)).collect();
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), 1000);
        assert_eq!(span.of_attempt(2), span.of_attempt(2));
    }

    #[tokio::test]
    async fn a_call_says_where_it_stands_and_its_children_inherit_it() {
        assert_eq!(Call::new().trace(), None);
        let state = Some("vendor=1".into());
        let call = Call::new().with_trace(RemoteTrace { context: context(), state });
        call.in_scope(async {
            let attempt = Call::current().with_attempt(2);
            assert_eq!(attempt.trace(), Some(context()));
            assert_eq!(attempt.tracestate().as_deref(), Some("vendor=1"));
        })
        .await;
    }

    /// It is swapped on every poll of every layer.
    #[test]
    fn a_call_stays_small() {
        assert!(size_of::<Call>() <= 96, "{}", size_of::<Call>());
    }
}
