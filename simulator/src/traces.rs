//! The traces that the recorder kept, as far as they are judged.

use std::collections::HashMap;

use portcullis::trace::{Kept, Query, Recorder, Status, Trace, record::Call};
use portcullis_core::{BoxError, SpanId, TraceId};

use crate::watch::Told;

/// All traces that were kept, and what was counted of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces {
    /// In the order of the calls they are of.
    pub(crate) kept: Vec<Traced>,
    /// Calls that came to their end, their traces kept or not.
    pub(crate) seen: u64,
    /// Traces that were to be kept and are not there.
    pub(crate) lost: u64,
}

/// A trace of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traced {
    /// The call that had this trace's id; `None` if no layer ever told of one.
    pub(crate) call: Option<u32>,
    pub(crate) kept: Kept,
    pub(crate) status: Status,
    /// The attempts that the breaker admitted, behind which nothing refuses: their numbers, and the
    /// spans that went to the upstream.
    pub(crate) sent: Vec<(u32, SpanId)>,
}

/// Traces asked for at a time.
const PAGE: usize = 1_000;

// ===== impl Traces =====

impl Traces {
    /// All that the recorder has stored.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(crate) fn of(recorder: &Recorder, told: &[Told]) -> Result<Self, BoxError> {
        let named = told.iter().filter_map(|told| Some((told.trace?, told.call?)));
        let named: HashMap<TraceId, u32> = named.collect();
        let store = recorder.store();
        let mut kept = Vec::new();
        let mut query = Query::new().limit(PAGE);
        loop {
            let page = store.query(&query)?;
            kept.extend(page.traces.iter().map(|trace| Traced::of(trace, &named)));
            if page.next.is_none() {
                break;
            }
            query = query.after(page.next);
        }
        kept.sort_unstable_by_key(|traced| traced.call);
        let counts = recorder.counts();
        let dropped = counts.dropped_successes + counts.dropped_others;
        let lost = dropped + counts.lost + store.counts()?.evicted;
        Ok(Self { kept, seen: counts.seen, lost })
    }
}

// ===== impl Traced =====

impl Traced {
    fn of(trace: &Trace, named: &HashMap<TraceId, u32>) -> Self {
        Self {
            call: named.get(&trace.id).copied(),
            kept: trace.kept,
            status: trace.status,
            sent: trace.calls.iter().flat_map(sent).collect(),
        }
    }
}

fn sent(call: &Call) -> impl Iterator<Item = (u32, SpanId)> {
    let attempts = call.attempts.iter().filter(|attempt| {
        call.events.iter().any(|event| {
            event.attempt == attempt.number && event.layer == "breaker" && event.what == "admitted"
        })
    });
    attempts.map(|attempt| (attempt.number, attempt.span))
}
