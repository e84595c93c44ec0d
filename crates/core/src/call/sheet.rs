//! The record of the call that this thread runs.
//!
//! A call is run by one task at a time, and nearly all that the layers tell of it is told while its
//! future is polled. So whoever polls it lays its record on the thread's desk, and what is told is
//! written there: without a lock, and without a count of references in each layer.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use crate::{Event, Label, Record, Sheet, SpanId, What, sync::local};

local! {
    /// The span whose sheet lies on the desk.
    static LIES: Cell<Option<SpanId>> = Cell::new(None);
}

local! {
    // Taken out while the user's code runs, so that nothing can find it in use.
    static DESK: RefCell<Option<Box<dyn Sheet>>> = RefCell::new(None);
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
    DESK.try_with(|desk| std::mem::swap(&mut *desk.borrow_mut(), sheet)).is_ok()
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
    DESK.try_with(|desk| desk.borrow_mut().as_mut().map(|sheet| f(&mut **sheet))).ok().flatten()
}

/// Who keeps the record that lies on the desk, for whoever takes it elsewhere.
pub(super) fn share(span: SpanId) -> Option<Arc<dyn Record>> {
    with(span, Sheet::share)
}

/// Notes an event on the sheet of this span; `false` if it is not at hand.
#[inline]
pub(super) fn note(span: SpanId, event: &Event<'_>, teller: Option<Label>) -> bool {
    if !lies(Some(span)) {
        return false;
    }
    if let What::Rejected { .. } = event.what {
        return note_a_refusal(event, teller);
    }
    with(span, |sheet| sheet.note(event, teller)).is_some()
}

/// A refusal may be of the user's own making, and is asked what it is.
#[cold]
fn note_a_refusal(event: &Event<'_>, teller: Option<Label>) -> bool {
    /// Puts the sheet back, also after a panic.
    struct Taken(Option<Box<dyn Sheet>>);

    impl Drop for Taken {
        fn drop(&mut self) {
            swap(&mut self.0);
        }
    }

    let mut taken = Taken(None);
    swap(&mut taken.0);
    taken.0.as_mut().map(|sheet| sheet.note(event, teller)).is_some()
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;
    use crate::{
        Call, LayerKind, Observer, RemoteTrace, TraceContext, TraceId, Voice, clock, sync::Mutex,
    };

    /// Notes which attempts it was told of, and who wrote of them.
    #[derive(Default)]
    struct Written(Mutex<Vec<(&'static str, u32)>>);

    struct Of(Arc<Written>, TraceContext);

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

    impl Sheet for Of {
        fn context(&self) -> TraceContext {
            self.1
        }

        fn state(&self) -> Option<Arc<str>> {
            None
        }

        fn note(&mut self, event: &Event<'_>, _: Option<Label>) {
            self.0.0.lock().push(("sheet", attempt(event)));
        }

        fn share(&mut self) -> Arc<dyn Record> {
            Arc::new(Self(self.0.clone(), self.1))
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
        let mut sheet: Option<Box<dyn Sheet>> = Some(Box::new(Of(written.clone(), context)));
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

        struct Asking(Of);

        impl Sheet for Asking {
            fn context(&self) -> TraceContext {
                self.0.1
            }

            fn state(&self) -> Option<Arc<str>> {
                None
            }

            fn note(&mut self, event: &Event<'_>, teller: Option<Label>) {
                if let What::Rejected { rejection } = event.what {
                    let _ = rejection.reason();
                }
                self.0.note(event, teller);
            }

            fn share(&mut self) -> Arc<dyn Record> {
                self.0.share()
            }
        }

        let (outer, written) = (Arc::<Written>::default(), Arc::<Written>::default());
        let around = Call::new().with_record(Arc::new(Of(outer.clone(), context(6))));
        let context = context(7);
        let asking = Asking(Of(written.clone(), context));
        let mut sheet: Option<Box<dyn Sheet>> = Some(Box::new(asking));
        drop(around.enter(clock::now(), || {
            lay(context.span_id, &mut sheet, || {
                drop(Call::new().with_sheet(context.span_id).enter(clock::now(), || {
                    let call = Call::here();
                    let voice = Voice::new(LayerKind::RateLimit, "limit");
                    voice.tell(&call, clock::now(), || What::Rejected { rejection: &Asks });
                    tell(&call, 1);
                }));
            });
        }));
        assert_eq!(*written.0.lock(), [("sheet", 0), ("sheet", 1)]);
        assert_eq!(*outer.0.lock(), [], "it is not told to who keeps another record");
    }
}
