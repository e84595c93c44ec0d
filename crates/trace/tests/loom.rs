//! The hand-over under every interleaving of two callers and the writer: nothing is lost without
//! being counted, nothing is stored twice, and whoever sleeps is woken. No time passes here, so a
//! wake-up that is lost is a deadlock, which loom reports.
//!
//! The queues are stand-ins: crossbeam's own are trusted, and so is tokio's channel that answers a
//! flush.
//!
//! ```sh
//! RUSTFLAGS="--cfg portcullis_loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --release --target-dir target/loom -p portcullis-trace --test loom
//! ```

#![cfg(portcullis_loom)]

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, Pending, Ready, pending, poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, SystemTime},
};

use loom::{model::Builder, sync::Notify, thread};
use portcullis_core::{
    BoxError, Call, LayerKind, SpanId, TraceId, Voice, What, clock, sync::Mutex,
};
use portcullis_trace::{
    Page, Query, Recorder, StoreCounts, Trace, TraceConfig, TraceLayer, TraceScope, TraceStore,
};
use tower_layer::Layer;
use tower_service::Service;

/// Holds what was put into it; at its end, with the writer's, as many as it was to hold.
struct Shelf {
    stored: Mutex<Vec<Arc<Trace>>>,
    /// `None` where somebody asks before that.
    in_the_end: Option<usize>,
}

impl Shelf {
    fn new(in_the_end: Option<usize>) -> Arc<Self> {
        Arc::new(Self { stored: Mutex::new(Vec::new()), in_the_end })
    }

    fn spans(&self) -> Vec<SpanId> {
        let mut spans: Vec<_> = self.stored.lock().iter().map(|trace| trace.span).collect();
        spans.sort();
        spans
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let Some(expected) = self.in_the_end {
            assert_eq!(self.stored.get_mut().len(), expected);
        }
    }
}

impl TraceStore for Shelf {
    fn put(&self, batch: &[Arc<Trace>]) -> Result<(), BoxError> {
        self.stored.lock().extend(batch.iter().cloned());
        Ok(())
    }

    fn get(&self, _: TraceId) -> Result<Vec<Arc<Trace>>, BoxError> {
        Ok(Vec::new())
    }

    fn query(&self, _: &Query) -> Result<Page, BoxError> {
        Ok(Page::default())
    }

    fn delete_older_than(&self, _: SystemTime) -> Result<u64, BoxError> {
        Ok(0)
    }

    fn expire(&self, _: SystemTime) -> Result<u64, BoxError> {
        Ok(0)
    }

    fn counts(&self) -> Result<StoreCounts, BoxError> {
        Ok(StoreCounts::default())
    }
}

/// A recorder that keeps everything, with room for so many traces to wait.
fn recorder(shelf: &Arc<Shelf>, queue: usize) -> Recorder {
    let mut config = TraceConfig::default();
    (config.sample_rate, config.queue, config.batch_interval) = (1.0, queue, Duration::ZERO);
    Recorder::builder().config(config).shared_store(shelf.clone()).build().unwrap()
}

/// Hands over a trace of a success, or of a failure.
fn hand_over(recorder: &Recorder, succeeds: bool) {
    let scope = TraceScope::start("scope").recorder(recorder);
    let outcome = if succeeds { Ok(()) } else { Err(std::fmt::Error) };
    assert!(poll(pin!(scope.try_run(ready(outcome)))).is_ready());
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Ring(Notify);

    impl Wake for Ring {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }

    let ring = Arc::new(Ring(Notify::new()));
    let waker = ring.clone().into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => ring.0.wait(),
        }
    }
}

/// All that was kept is stored once or counted, and nothing waits. Says how many are stored.
///
/// They are counted on the shelf, whose lock the writer held: loom does not see that it is done before
/// tokio's channel says so, and would have the recorder's own count read too early.
fn assert_accounted(recorder: &Recorder, shelf: &Shelf, handed_over: u64) -> u64 {
    let mut spans = shelf.spans();
    let stored = spans.len() as u64;
    let counts = recorder.counts();
    let dropped = counts.dropped_successes + counts.dropped_others;
    assert_eq!((counts.seen, counts.kept), (handed_over, handed_over));
    assert_eq!(stored + dropped, handed_over, "{counts:?}");
    assert_eq!((counts.waiting, counts.waiting_bytes), (0, 0));
    spans.dedup();
    assert_eq!(spans.len() as u64, stored, "none twice");
    stored
}

#[test]
fn what_is_over_before_a_flush_is_stored_when_it_ends() {
    loom::model(|| {
        let shelf = Shelf::new(None);
        let recorder = recorder(&shelf, 4);
        let other = {
            let recorder = recorder.clone();
            thread::spawn(move || hand_over(&recorder, true))
        };
        hand_over(&recorder, true);
        block_on(recorder.flush());
        assert!(!shelf.spans().is_empty());
        other.join().unwrap();
    });
}

#[test]
fn a_failure_is_never_left_out_for_a_success() {
    loom::model(|| {
        let shelf = Shelf::new(None);
        let recorder = recorder(&shelf, 1);
        hand_over(&recorder, true);
        hand_over(&recorder, false);
        block_on(recorder.flush());
        assert_accounted(&recorder, &shelf, 2);
        assert_eq!(recorder.counts().dropped_others, 0);
    });
}

#[test]
fn two_who_want_the_one_place_are_both_accounted_for() {
    // Three who are at it all the way: one preemption fewer keeps it short.
    let mut model = Builder::new();
    model.preemption_bound = model.preemption_bound.map(|most| most.min(1));
    model.check(|| {
        let shelf = Shelf::new(None);
        let recorder = recorder(&shelf, 1);
        let other = {
            let recorder = recorder.clone();
            thread::spawn(move || hand_over(&recorder, false))
        };
        hand_over(&recorder, true);
        other.join().unwrap();
        block_on(recorder.flush());
        assert!(assert_accounted(&recorder, &shelf, 2) >= 1);
        assert_eq!(recorder.counts().dropped_others, 0, "left out for a success");
    });
}

#[test]
fn a_shutdown_in_the_midst_of_it_loses_nothing_uncounted() {
    loom::model(|| {
        let shelf = Shelf::new(None);
        let recorder = recorder(&shelf, 1);
        hand_over(&recorder, true);
        let other = {
            let recorder = recorder.clone();
            thread::spawn(move || hand_over(&recorder, false))
        };
        block_on(recorder.shutdown());
        other.join().unwrap();
        // The writer may not have ended yet, if the other had its place already.
        block_on(recorder.flush());
        assert_accounted(&recorder, &shelf, 2);
    });
}

#[test]
fn the_last_to_let_go_ends_the_writer_after_all_is_stored() {
    loom::model(|| {
        let recorder = recorder(&Shelf::new(Some(2)), 4);
        let clone = recorder.clone();
        thread::spawn(move || hand_over(&clone, true));
        hand_over(&recorder, false);
    });
}

/// A call that two tell of: whoever runs it, and somebody else.
#[derive(Clone)]
struct Told(Arc<Mutex<Option<Call>>>);

impl Service<()> for Told {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let call = Call::current();
        tell(&call, 1);
        *self.0.lock() = Some(call);
        ready(Ok(()))
    }
}

fn tell(call: &Call, attempt: u32) {
    let voice = Voice::new(LayerKind::Retry, "retry");
    voice.tell(call, clock::now(), || What::Attempting { attempt });
}

#[test]
fn what_another_thread_tells_of_a_call_is_in_its_record_too() {
    loom::model(|| {
        let shelf = Shelf::new(None);
        let recorder = recorder(&shelf, 4);
        let told = Told(Arc::default());
        let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
        let mut future = Box::pin(layer.layer(told.clone()).call(()));
        let call = told.0.lock().take().unwrap();
        let other = thread::spawn(move || tell(&call, 2));
        assert!(poll(future.as_mut()).is_ready());
        drop(future);
        other.join().unwrap();
        block_on(recorder.flush());
        let stored = shelf.stored.lock();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].calls[0].events.len(), 2);
    });
}

/// Never answers.
#[derive(Clone)]
struct Silent;

impl Service<()> for Silent {
    type Response = ();
    type Error = Infallible;
    type Future = Pending<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        pending()
    }
}

#[test]
fn a_scope_and_its_call_that_end_at_once_are_one_trace() {
    loom::model(|| {
        let shelf = Shelf::new(None);
        let recorder = recorder(&shelf, 4);
        let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
        let child = RefCell::new(None);
        let mut scope = pin!(TraceScope::start("scope").recorder(&recorder).run(poll_fn(|_| {
            if child.borrow().is_some() {
                return Poll::Ready(());
            }
            *child.borrow_mut() = Some(Some(Box::pin(layer.layer(Silent).call(()))));
            Poll::Pending
        })));
        assert!(poll(scope.as_mut()).is_pending());
        let call = child.borrow_mut().as_mut().and_then(Option::take);
        let other = thread::spawn(move || drop(call));
        assert!(poll(scope.as_mut()).is_ready());
        other.join().unwrap();
        block_on(recorder.flush());
        assert_accounted(&recorder, &shelf, 1);
        let stored = shelf.stored.lock();
        assert_eq!(stored[0].calls.len(), 1, "{:?}", stored[0]);
    });
}
