//! The record of the call that this thread runs.
//!
//! A call is run by one task at a time, and nearly all that the layers tell of it is told while its
//! future is polled. So whoever polls it lays its record on the thread's desk, and what is told is
//! written there: without a lock, and without a count of references in each layer.

use std::{cell::Cell, sync::Arc};

use crate::{Event, Record, Rejection, Sheet, SpanId, What, notes::Teller, sync::local};

local! {
    /// The span whose sheet lies on the desk.
    static LIES: Cell<Option<SpanId>> = Cell::new(None);
}

local! {
    // Taken out while the user's code runs, so that nothing can find it in use.
    static DESK: Cell<Option<Box<dyn Sheet>>> = Cell::new(None);
}

/// For layers that keep records: runs a part of the call of this span with its sheet on the desk of this
/// thread, and takes it back. Without a sheet it only runs it.
#[inline]
pub fn lay<R>(span: SpanId, sheet: &mut Option<Box<dyn Sheet>>, f: impl FnOnce() -> R) -> R {
    // While a thread ends, its locals are gone and there is no desk: what is told of what is dropped
    // then is told to who holds the record.
    if sheet.is_none() || !swap(sheet) {
        return f();
    }
    let before = LIES.with(|lies| lies.replace(Some(span)));
    let _turn = Turn { before, sheet };
    f()
}

/// For layers that keep records: writes on the sheet of this span, if it lies on the desk of this
/// thread. No code of the user's may be called there.
///
/// # Errors
///
/// `f` itself, if it does not.
#[inline]
pub fn write<R, F: FnOnce(&mut dyn Sheet) -> R>(span: SpanId, f: F) -> Result<R, F> {
    if !lies(Some(span)) {
        return Err(f);
    }
    let mut f = Some(f);
    let done = with(span, |sheet| f.take().map(|f| f(sheet))).flatten();
    match (done, f) {
        (Some(done), _) => Ok(done),
        (None, Some(f)) => Err(f),
        (None, None) => unreachable!("what was called has answered"),
    }
}

/// Restores what lay on the desk before, also after a panic.
struct Turn<'a> {
    before: Option<SpanId>,
    sheet: &'a mut Option<Box<dyn Sheet>>,
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.sheet);
        LIES.with(|lies| lies.set(self.before));
    }
}

/// Exchanges what lies on the desk, if there is one.
#[inline]
fn swap(sheet: &mut Option<Box<dyn Sheet>>) -> bool {
    DESK.try_with(|desk| *sheet = desk.replace(sheet.take())).is_ok()
}

/// What lies on the desk, to be [put back](put_back). There is nothing while a refusal is asked what it
/// is; what is told meanwhile is lost.
#[inline(always)]
pub(crate) fn take() -> Option<Box<dyn Sheet>> {
    DESK.try_with(Cell::take).ok().flatten()
}

/// Lays down what was [taken](take).
#[inline(always)]
pub(crate) fn put_back(sheet: Box<dyn Sheet>) {
    // Nothing lies there, and the desk was there a moment ago.
    let mut sheet = Some(sheet);
    swap(&mut sheet);
}

/// Whether the sheet of this span lies on the desk.
#[inline]
pub(super) fn lies(span: Option<SpanId>) -> bool {
    span.is_some() && LIES.with(Cell::get) == span
}

#[inline]
pub(super) fn with<R>(span: SpanId, f: impl FnOnce(&mut dyn Sheet) -> R) -> Option<R> {
    if !lies(Some(span)) {
        return None;
    }
    let mut sheet = take()?;
    let result = f(&mut *sheet);
    put_back(sheet);
    Some(result)
}

/// Who keeps the record that lies on the desk, for whoever takes it elsewhere.
pub(super) fn share(span: SpanId) -> Option<Arc<dyn Record>> {
    with(span, Sheet::share)
}

/// Notes an event on the sheet of this span; `false` if it is not at hand.
pub(super) fn note(span: SpanId, event: &Event<'_>, teller: Teller<'_>) -> bool {
    if !lies(Some(span)) {
        return false;
    }
    if let What::Rejected { rejection } = event.what {
        return note_a_refusal(event, teller, rejection);
    }
    with(span, |sheet| sheet.notes().event(teller, event, None)).is_some()
}

/// A refusal may be of the user's own making, and is asked what it is.
#[cold]
fn note_a_refusal(event: &Event<'_>, teller: Teller<'_>, rejection: &dyn Rejection) -> bool {
    /// Puts the sheet back, also after a panic.
    struct Taken(Option<Box<dyn Sheet>>);

    impl Drop for Taken {
        fn drop(&mut self) {
            swap(&mut self.0);
        }
    }

    let mut taken = Taken(None);
    swap(&mut taken.0);
    let Some(sheet) = taken.0.as_mut() else { return false };
    let refusal = sheet.refusal(rejection);
    sheet.notes().event(teller, event, refusal);
    true
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;
    use crate::{
        Call, LayerKind, Note, Noted, Notes, NotesLimits, Observer, Refusal, RemoteTrace,
        TraceContext, TraceId, Voice, clock, sync::Mutex,
    };

    /// Which attempts were told of, and where that was written: on the sheet, once that was taken back, or
    /// to who holds the record.
    #[derive(Default)]
    struct Written(Mutex<Vec<(&'static str, u32)>>);

    struct Of(Arc<Written>, TraceContext);

    struct Laid {
        of: Of,
        notes: Notes,
        asks: bool,
    }

    fn context(span: u64) -> TraceContext {
        let (trace_id, span_id) = (TraceId::new(1).unwrap(), SpanId::new(span).unwrap());
        TraceContext { trace_id, span_id, sampled: true }
    }

    fn attempt(event: &Event<'_>) -> u32 {
        match event.what {
            What::Attempting { attempt } => attempt,
            _ => 0,
        }
    }

    impl Laid {
        fn new(written: &Arc<Written>, span: u64) -> Self {
            let notes = Notes::new(NotesLimits { events: 16, name: 32 });
            Self { of: Of(written.clone(), context(span)), notes, asks: false }
        }
    }

    impl Drop for Laid {
        fn drop(&mut self) {
            let attempt = |note: &Note| match note.what() {
                Noted::Told(What::Attempting { attempt }) => attempt,
                _ => 0,
            };
            let notes = self.notes.as_slice().iter();
            self.of.0.0.lock().extend(notes.map(|note| ("sheet", attempt(note))));
        }
    }

    impl Sheet for Laid {
        fn context(&self) -> TraceContext {
            self.of.1
        }

        fn state(&self) -> Option<Arc<str>> {
            None
        }

        fn notes(&mut self) -> &mut Notes {
            &mut self.notes
        }

        fn refusal(&self, rejection: &dyn Rejection) -> Option<Refusal> {
            self.asks.then(|| Refusal::of(rejection))
        }

        fn share(&mut self) -> Arc<dyn Record> {
            Arc::new(Of(self.of.0.clone(), self.of.1))
        }
    }

    impl Observer for Of {
        fn on_event(&self, event: &Event<'_>) {
            self.0.0.lock().push(("record", attempt(event)));
        }
    }

    impl Record for Of {
        fn context(&self) -> TraceContext {
            self.1
        }
    }

    fn tell(call: &Call, attempt: u32) {
        let voice = Voice::new(LayerKind::Retry, "retry");
        voice.tell(call, clock::now(), || What::Attempting { attempt });
    }

    /// Runs `f` as a layer does that keeps the record of this span.
    fn record<R>(written: &Arc<Written>, span: u64, f: impl FnOnce() -> R) -> R {
        let context = context(span);
        let mut sheet: Option<Box<dyn Sheet>> = Some(Box::new(Laid::new(written, span)));
        let done = lay(context.span_id, &mut sheet, || {
            let mut made = None;
            let call = Call::new().with_sheet(context.span_id);
            drop(call.enter(clock::now(), || made = Some(f())));
            made.unwrap()
        });
        assert!(sheet.is_some(), "taken back");
        done
    }

    #[test]
    fn what_is_told_where_the_call_runs_is_written_on_its_sheet_and_elsewhere_told_to_who_holds_it()
    {
        let written = Arc::default();
        let (here, held) = record(&written, 7, || {
            let here = Call::here();
            tell(&here, 1);
            let held = here.clone();
            tell(&held, 2);
            (here, held)
        });
        tell(&here, 3);
        tell(&held, 4);
        std::thread::scope(|scope| scope.spawn(|| tell(&held, 5)).join().unwrap());
        let expected = [("sheet", 1), ("sheet", 2), ("record", 4), ("record", 5)];
        assert_eq!(*written.0.lock(), expected);
        assert_eq!((here.trace(), held.trace()), (None, Some(context(7))));
    }

    #[test]
    fn a_record_within_another_is_the_one_that_is_told_and_the_outer_one_is_back_after_it() {
        let (outer, inner) = (Arc::default(), Arc::default());
        record(&outer, 7, || {
            let of_outer = Call::current();
            record(&inner, 8, || {
                tell(&Call::here(), 1);
                tell(&of_outer, 2);
            });
            tell(&Call::here(), 3);
        });
        assert_eq!(*inner.0.lock(), [("sheet", 1)]);
        assert_eq!(*outer.0.lock(), [("record", 2), ("sheet", 3)]);
    }

    #[test]
    fn a_scope_without_a_record_hides_that_of_the_one_around_it() {
        let written = Arc::default();
        record(&written, 7, || {
            drop(Call::new().enter(clock::now(), || {
                assert!(!Call::here().is_recorded() && !Call::current().is_recorded());
                tell(&Call::current(), 1);
            }));
            // Who holds it enters it again, though it is hidden in between.
            let held = Call::current();
            drop(Call::new().enter(clock::now(), || {
                drop(held.enter(clock::now(), || tell(&Call::here(), 2)));
            }));
        });
        assert_eq!(*written.0.lock(), [("sheet", 2)]);
    }

    /// Runs `f` in a call that continues the span 7 with this `tracestate`.
    fn continued(state: &str, f: impl FnOnce()) {
        let trace = RemoteTrace { context: context(7), state: Some(state.into()) };
        drop(Call::current().with_trace(trace).enter(clock::now(), || {
            for call in [Call::here(), Call::current()] {
                assert_eq!(call.trace(), Some(context(7)));
                assert_eq!(call.tracestate().as_deref(), Some(state));
                tell(&call, 1);
            }
            f();
        }));
    }

    #[test]
    fn another_trace_takes_the_place_of_the_record_though_it_stands_at_the_same_span() {
        let written = Arc::default();
        record(&written, 7, || {
            continued("vendor=1", || {
                continued("vendor=2", || ());
                assert_eq!(Call::current().tracestate().as_deref(), Some("vendor=1"));
            });
            tell(&Call::here(), 2);
        });
        assert_eq!(*written.0.lock(), [("sheet", 2)]);
    }

    #[test]
    fn a_panic_takes_the_sheet_from_the_desk() {
        let written: Arc<Written> = Arc::default();
        let of = written.clone();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            record(&of, 7, || panic!("inside"));
        }));
        assert!(panicked.is_err());
        assert!(!lies(SpanId::new(7)) && !Call::current().is_recorded());
    }

    #[test]
    fn what_is_told_when_a_refusal_is_asked_what_it_is_is_lost_and_disturbs_nothing() {
        #[derive(Debug)]
        struct Asks;

        impl std::fmt::Display for Asks {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                Ok(())
            }
        }

        impl std::error::Error for Asks {}

        impl crate::Rejection for Asks {
            fn name(&self) -> &str {
                "asks"
            }

            fn kind(&self) -> crate::RejectionKind {
                crate::RejectionKind::Limited
            }

            fn reason(&self) -> crate::Reason {
                tell(&Call::here(), 9);
                crate::Reason::Manual
            }
        }

        let (outer, written) = (Arc::<Written>::default(), Arc::<Written>::default());
        let around = Call::new().with_record(Arc::new(Of(outer.clone(), context(6))));
        let context = context(7);
        let mut asking = Laid::new(&written, 7);
        asking.asks = true;
        let mut sheet: Option<Box<dyn Sheet>> = Some(Box::new(asking));
        drop(around.enter(clock::now(), || {
            lay(context.span_id, &mut sheet, || {
                drop(Call::new().with_sheet(context.span_id).enter(clock::now(), || {
                    let call = Call::here();
                    let voice = Voice::new(LayerKind::RateLimit, "limit");
                    voice.tell_of_refusal(None, &call, clock::now(), &Asks);
                    tell(&call, 1);
                }));
            });
        }));
        drop(sheet);
        assert_eq!(*written.0.lock(), [("sheet", 0), ("sheet", 1)]);
        assert_eq!(*outer.0.lock(), [], "it is not told to who keeps another record");
    }
}
