//! Who writes a call's record while the call runs.
//!
//! Nearly all that the layers tell of a call is told while its future is polled. So whoever polls it
//! [lays](call::lay) its buffer on the desk of the thread, and what is told is written there. Only what
//! may be told from elsewhere, by a body or by a task that carries the call over, makes it
//! [shared](Sheet::share): then that goes into a second buffer behind a lock, and the two are joined when
//! the future is done.

use std::{
    any::Any,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use portcullis_core::{
    Call, Completion, End, Notes, Record, Refusal, Rejection, Sheet, SpanId, Ticket, TraceContext,
    call,
};

use crate::{
    buffer::{Buffer, Head},
    layer::Shared,
    live::Live,
};

/// Whose a buffer is that is being written.
#[derive(Default)]
pub(crate) enum Origin {
    /// Nobody's: it waits to be used, or to be stored.
    #[default]
    Nobody,
    /// A call's that nobody but its future knows of.
    Alone(Alone),
    /// A call's that others may tell of, too.
    Shared(Arc<Live>),
}

/// What is known of a call besides its buffer.
pub(crate) struct Alone {
    pub(crate) layer: Arc<Shared>,
    pub(crate) state: Option<Arc<str>>,
    pub(crate) root: Option<Arc<Live>>,
}

/// A call's record in the hands of the future that runs the call.
pub(crate) struct Writing {
    span: SpanId,
    /// `None` if there was no room for a record, while it is on the desk, and once it was put back.
    sheet: Option<Box<dyn Sheet>>,
    /// The call that there was no room for: its end is told all the same.
    omitted: Option<Arc<Live>>,
}

/// Lets `f` write into the buffer of the call of this span, if this thread runs that call.
///
/// # Errors
///
/// `f` itself, if it does not.
#[inline]
pub(crate) fn write<R, F: FnOnce(&mut Buffer) -> R>(span: SpanId, f: F) -> Result<R, F> {
    let mut f = Some(f);
    let done = call::write(span, |sheet| {
        let buffer: Option<&mut Buffer> = (sheet as &mut dyn Any).downcast_mut();
        Some(f.take()?(buffer?))
    });
    match (done.ok().flatten(), f) {
        (Some(done), _) => Ok(done),
        (None, Some(f)) => Err(f),
        (None, None) => unreachable!("what was called has answered"),
    }
}

// ===== impl Writing =====

impl Writing {
    #[inline]
    pub(crate) fn new(buffer: Box<Buffer>) -> Self {
        Self { span: buffer.head.context.span_id, sheet: Some(buffer), omitted: None }
    }

    /// Of a call that there was no room for.
    #[cold]
    pub(crate) fn omitted(live: Arc<Live>) -> Self {
        Self { span: live.head().context.span_id, sheet: None, omitted: Some(live) }
    }

    /// Runs a part of the call, with the record at hand.
    #[inline]
    pub(crate) fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        call::lay(self.span, &mut self.sheet, f)
    }

    /// Notes the end of the call, and lets go of the record.
    #[inline]
    pub(crate) fn finish(mut self, end: &End<'_>) {
        match self.take() {
            Some(Ok(mut buffer)) => {
                if let Origin::Alone(Alone { layer, .. }) = &buffer.origin
                    && layer.voice.is_none()
                {
                    buffer.finish(end);
                    return conclude(buffer);
                }
                let live = buffer.origin.live(buffer.head);
                // The sheet is on no desk any more: who is told of the end finds the record all the same.
                let call = end.call.clone().with_record(live.clone());
                live.ended(Some(buffer), &End { call: &call, ..*end });
            }
            Some(Err(live)) => live.ended(None, end),
            None => {}
        }
    }

    /// Puts the record back: from now on it is written behind its lock.
    pub(crate) fn put_back(mut self) -> Option<Arc<Live>> {
        Some(self.take()?.map_or_else(|live| live, put_back))
    }

    #[inline]
    fn take(&mut self) -> Option<Result<Box<Buffer>, Arc<Live>>> {
        let Some(sheet) = self.sheet.take() else { return self.omitted.take().map(Err) };
        let sheet: Box<dyn Any> = sheet;
        // It is ours, and of no other kind.
        sheet.downcast().ok().map(Ok)
    }
}

/// Nobody saw the call's end: a panic.
impl Drop for Writing {
    #[inline]
    fn drop(&mut self) {
        if let Some(rest) = self.take() {
            cut_short(rest);
        }
    }
}

/// There was a panic before there was a future: the call was begun, and has to end.
#[cold]
fn cut_short(rest: Result<Box<Buffer>, Arc<Live>>) {
    let live = rest.map_or_else(|live| live, put_back);
    let (call, started) = (Call::current().with_record(live.clone()), live.head().started);
    let ended = Completion::new(live, Ticket::default(), call, started);
    // It may have been an observer that panicked, and does so again: twice at once would be an abort.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
}

fn put_back(mut buffer: Box<Buffer>) -> Arc<Live> {
    let live = buffer.origin.live(buffer.head);
    live.take_back(buffer);
    live
}

/// Hands a call's record over that nobody else can tell of: to its root, or to the recorder.
#[inline]
fn conclude(mut buffer: Box<Buffer>) {
    if let Origin::Alone(Alone { layer, root, .. }) = mem::take(&mut buffer.origin) {
        match root {
            Some(root) => root.release(Some(buffer)),
            None => layer.recorder.hub().submit(buffer),
        }
    }
}

// ===== impl Origin =====

impl Origin {
    /// What others tell of the call through. It has the buffer no more.
    fn live(&mut self, head: Head) -> Arc<Live> {
        match mem::take(self) {
            Self::Shared(live) => live,
            Self::Alone(alone) => Live::alone(head, alone),
            Self::Nobody => unreachable!("a buffer that is written is somebody's"),
        }
    }

    /// What is kept of a refusal; `None` if it panicked when it was asked.
    #[cold]
    fn refusal(&self, rejection: &dyn Rejection) -> Option<Refusal> {
        match self {
            Self::Nobody => None,
            Self::Alone(Alone { layer, .. }) => {
                layer.recorder.hub().guarded(|| Refusal::of(rejection))
            }
            Self::Shared(live) => live.guarded(|| Refusal::of(rejection)),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Alone(_) => "Alone",
            Self::Shared(_) => "Shared",
        })
    }
}

// ===== impl Buffer =====

impl Sheet for Buffer {
    fn context(&self) -> TraceContext {
        self.head.context
    }

    fn state(&self) -> Option<Arc<str>> {
        match &self.origin {
            Origin::Nobody => None,
            Origin::Alone(alone) => alone.state.clone(),
            Origin::Shared(live) => live.tracestate().cloned(),
        }
    }

    #[inline]
    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    #[cold]
    fn refusal(&self, rejection: &dyn Rejection) -> Option<Refusal> {
        self.origin.refusal(rejection)
    }

    fn share(&mut self) -> Arc<dyn Record> {
        if let Origin::Shared(live) = &self.origin {
            return live.clone();
        }
        let live = self.origin.live(self.head);
        self.origin = Origin::Shared(live.clone());
        live
    }
}
