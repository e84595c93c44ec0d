//! Where a call or a scope stands: in which trace, under what, and by whom it is waited for.

use std::sync::{Arc, OnceLock};

use portcullis_core::{Call, SpanId, TraceContext, TraceId};

use crate::{
    buffer::Admitted,
    hub::Hub,
    live::{Live, Owner},
    recorder::Recorder,
};

/// Where a call or scope begins.
pub(crate) struct Place {
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<SpanId>,
    pub(crate) state: Option<Arc<str>>,
    pub(crate) root: Counted,
    /// Which of its root's children it is.
    pub(crate) number: u32,
    /// The root that has no room for a record; there is none then.
    pub(crate) omitted_from: Option<Arc<Live>>,
}

/// The root that waits for a call to end. Until the call is there to answer for it, dropping this
/// does: the user's code that runs in between may panic.
pub(crate) struct Counted(Option<Arc<Live>>);

// ===== impl Place =====

impl Place {
    /// The beginning of a trace.
    #[inline]
    pub(crate) fn new_trace(hub: &Hub) -> Self {
        Self::begin(|id| hub.sampler.is_of_the_share(id))
    }

    #[inline]
    pub(crate) fn begin(sampled: impl FnOnce(TraceId) -> bool) -> Self {
        let trace_id = new_trace_id();
        let context = TraceContext { trace_id, span_id: new_span_id(), sampled: sampled(trace_id) };
        Self::at(context, None, None)
    }

    /// A record of its own in a trace that has others.
    pub(crate) fn under(parent: TraceContext, state: Option<Arc<str>>) -> Self {
        let context = TraceContext { span_id: new_span_id(), ..parent };
        Self::at(context, Some(parent.span_id), state)
    }

    /// A call or scope in what `outer` is in.
    pub(crate) fn within(outer: &Call, recorder: Option<&Recorder>) -> Self {
        let Some(parent) = Live::of(outer) else {
            return match outer.record() {
                Some(record) => Self::under(record.context(), record.state()),
                // It was left behind, in a scope that this one is not in.
                None => Self::begin(|id| {
                    recorder.is_none_or(|recorder| recorder.hub().sampler.is_of_the_share(id))
                }),
            };
        };
        let root = parent.root().unwrap_or(&parent).clone();
        if let (Owner::Scope { recorder: known, .. }, Some(recorder)) = (root.owner(), recorder)
            && known.get().is_none()
        {
            adopt(&root, known, recorder);
        }
        let mut place = Self::under(parent.head().context, parent.tracestate().cloned());
        match root.admit() {
            Admitted::As(number) => {
                place.number = number;
                place.root = Counted(Some(root));
            }
            Admitted::NoRoom => place.omitted_from = Some(root),
            // It begins in a task that outlives its scope. Then it has a record of its own, in the
            // same trace.
            Admitted::TooLate => {}
        }
        place
    }

    /// Whether it begins a record of its own.
    pub(crate) fn is_root(&self) -> bool {
        self.root.0.is_none() && self.omitted_from.is_none()
    }

    /// The root, if it waits for this one, or leaves it out.
    #[inline]
    pub(crate) fn into_root(mut self) -> Option<Arc<Live>> {
        self.root.0.take().or(self.omitted_from)
    }

    #[inline]
    fn at(context: TraceContext, parent: Option<SpanId>, state: Option<Arc<str>>) -> Self {
        Self { context, parent, state, root: Counted(None), number: 0, omitted_from: None }
    }
}

/// The first call brings the recorder.
#[cold]
fn adopt(root: &Live, known: &OnceLock<Recorder>, recorder: &Recorder) {
    if known.set(recorder.clone()).is_ok() {
        root.adopted();
    }
}

// ===== impl Counted =====

impl Drop for Counted {
    #[inline]
    fn drop(&mut self) {
        if let Some(root) = self.0.take() {
            root.release(None);
        }
    }
}

#[inline]
fn new_trace_id() -> TraceId {
    loop {
        // Zero is none; it is drawn once in 2¹²⁸.
        if let Some(id) = TraceId::new(fastrand::u128(..)) {
            return id;
        }
    }
}

#[inline]
fn new_span_id() -> SpanId {
    loop {
        if let Some(id) = SpanId::new(fastrand::u64(..)) {
            return id;
        }
    }
}
