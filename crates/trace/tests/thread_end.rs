//! Calls that end with their thread. In a process of their own: a clock that some test has paused is
//! asked for the time through a thread-local of tokio's.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Waker},
    thread,
};

use portcullis_core::{Call, LayerKind, Voice, What, clock};
use portcullis_testkit::{Script, ScriptedService, Step, call as send};
use portcullis_trace::{Query, Recorder, Status, TraceLayer, TraceScope};
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;

#[tokio::test]
async fn calls_that_are_dropped_with_their_threads_locals_are_recorded() {
    type Held = RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>;
    // Locals go in the order of their first use, or against it: one of the two outlives ours.
    thread_local! {
        static FIRST: Held = const { RefCell::new(None) };
        static LAST: Held = const { RefCell::new(None) };
    }
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let layer = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let begin = |scope: &'static str| {
        let mut service = layer.layer(ScriptedService::<_, u16>::new(Script::repeat(Step::Hang)));
        let called = async move {
            let _ = send(&mut service, "query").await;
        };
        let mut future = Box::pin(TraceScope::start(scope).recorder(&recorder).run(called));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        future
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            FIRST.with(|held| _ = held.borrow_mut().take());
            let (first, last) = (begin("first"), begin("last"));
            FIRST.set(Some(first));
            LAST.set(Some(last));
        });
        // The end of the scope does not wait for the thread's locals.
        thread.join().unwrap();
    });
    recorder.flush().await;
    let traces = recorder.store().query(&Query::new()).unwrap().traces;
    assert_eq!(traces.len(), 2);
    for trace in traces {
        assert_eq!((trace.status, trace.calls.len()), (Status::Cancelled, 1));
        assert_eq!(trace.calls[0].status, Status::Cancelled);
    }
}

#[tokio::test]
async fn what_was_told_of_a_call_until_its_threads_locals_are_dropped_is_in_its_record() {
    type Held = RefCell<Option<Box<dyn std::any::Any>>>;
    thread_local! { static HELD: Held = const { RefCell::new(None) }; }

    for held_first in [true, false] {
        let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
        let layer = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
        let tells = service_fn(|()| async {
            for attempt in [1, 2] {
                let voice = Voice::new(LayerKind::Retry, "search");
                voice.tell(&Call::current(), clock::now(), || What::Attempting { attempt });
            }
            std::future::pending::<Result<(), portcullis_core::Error>>().await
        });
        let client = layer.layer(tells);
        thread::spawn(move || {
            if held_first {
                HELD.set(Some(Box::new(())));
            }
            let mut future = Box::pin(client.oneshot(()));
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(future.as_mut().poll(cx).is_pending());
            HELD.set(Some(Box::new(future)));
        })
        .join()
        .unwrap();
        recorder.flush().await;
        let traces = recorder.store().query(&Query::new()).unwrap().traces;
        let [call] = &traces[0].calls[..] else { panic!("{traces:?}") };
        assert_eq!((call.status, call.events.len()), (Status::Cancelled, 2));
    }
}
