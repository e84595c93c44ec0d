//! The traces that the stack's recorder kept, as far as they are judged.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis::trace::{
    Kept, Query, Recorder, Status, Trace,
    record::{Call, Kind},
};
use portcullis_core::{BoxError, Outcome, SpanId};
use tokio::{task::spawn_blocking, time::timeout};

use crate::load::REQUEST;

/// All traces that were kept, and what was counted of them.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    pub(crate) kept: Vec<Arc<Trace>>,
    seen: usize,
    lost: usize,
    sampled: f64,
}

/// What the traces say, to be held against the logs.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceLog {
    pub(crate) traced: Vec<Traced>,
    /// Calls that came to their end, their traces kept or not.
    pub(crate) seen: usize,
    /// Traces that were to be kept and for which there was no room.
    pub(crate) lost: usize,
    /// The share of the unremarkable that are to be kept.
    pub(crate) sampled: f64,
}

/// What a trace says of its request.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// The request that it says it is of.
    pub(crate) id: Option<u32>,
    pub(crate) kept: Kept,
    /// Whether the stack's record of the call says that it failed.
    pub(crate) failed: bool,
    /// The attempts that left the stack, in their order.
    pub(crate) sent: Vec<Sent>,
}

/// An attempt that left the stack, as the trace has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// What went over the wire.
    pub(crate) span: SpanId,
    pub(crate) outcome: Outcome,
}

/// How long the store may take over the last traces.
const FLUSH: Duration = Duration::from_secs(5);
/// Traces asked for at a time.
const PAGE: usize = 1_000;

// ===== impl Traces =====

impl Traces {
    /// All that the recorder has of what began in this time, once what is over by now is stored.
    ///
    /// # Errors
    ///
    /// When that takes too long, or the store's.
    pub(crate) async fn of(recorder: &Recorder, time: Range<SystemTime>) -> Result<Self, BoxError> {
        timeout(FLUSH, recorder.flush()).await?;
        let recorder = recorder.clone();
        spawn_blocking(move || Self::read(&recorder, time)).await?
    }

    fn read(recorder: &Recorder, time: Range<SystemTime>) -> Result<Self, BoxError> {
        let store = recorder.store();
        let mut kept = Vec::new();
        let mut query = Query::new().since(time.start).until(time.end).limit(PAGE);
        loop {
            let page = store.query(&query)?;
            kept.extend(page.traces);
            if page.next.is_none() {
                break;
            }
            query = query.after(page.next);
        }
        let counts = recorder.counts();
        let no_room = counts.dropped_successes + counts.dropped_others;
        let lost = no_room + counts.lost;
        Ok(Self {
            kept,
            seen: counts.seen as usize,
            lost: lost as usize,
            sampled: recorder.config().sample_rate,
        })
    }

    /// What they say.
    pub(crate) fn log(&self) -> TraceLog {
        TraceLog {
            traced: self.kept.iter().map(|trace| Traced::of(trace)).collect(),
            seen: self.seen,
            lost: self.lost,
            sampled: self.sampled,
        }
    }
}

// ===== impl Traced =====

impl Traced {
    fn of(trace: &Trace) -> Self {
        let calls = || trace.calls.iter().filter(|call| call.kind == Kind::Call);
        Self {
            id: request(trace),
            kept: trace.kept,
            failed: calls().any(|call| call.status != Status::Success),
            sent: calls().flat_map(sent).collect(),
        }
    }
}

/// The request that a trace says it is of.
pub(crate) fn request(trace: &Trace) -> Option<u32> {
    let mut attributes = trace.attributes.iter();
    attributes.find(|(key, _)| key == REQUEST)?.1.parse().ok()
}

/// The attempts that the breaker admitted: behind it there is nothing that refuses.
fn sent(call: &Call) -> impl Iterator<Item = Sent> {
    let attempts = call.attempts.iter().filter(|attempt| {
        call.events.iter().any(|event| {
            event.attempt == attempt.number && event.layer == "breaker" && event.what == "admitted"
        })
    });
    attempts.map(|attempt| Sent { span: attempt.span, outcome: attempt.outcome })
}
