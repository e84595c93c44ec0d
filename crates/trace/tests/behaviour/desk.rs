//! Records that lie on a thread's desk while their calls run: none is lost, and none is written into
//! for another.

use std::{
    future::{Ready, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use portcullis_core::{
    BoxError, ByResult, Call, Event, FaultKind, LayerKind, Outcome, Reason, Replay, Voice, What,
    clock, sync::Mutex,
};
use portcullis_trace::{
    About, Kept, NoCapture, Recorder, ResponseFuture, Trace, TraceLayer, TraceScope, attribute,
};
use tower::{ServiceExt, service_fn, util::BoxCloneService};
use tower_layer::Layer;
use tower_service::Service;

use crate::fakes::{config, one, recorder, stored};

type Client = BoxCloneService<String, (), BoxError>;

/// A client whose calls tell four events by the name of their request: as they are made, and around
/// and after two calls of `beneath`, which run at once.
fn client(recorder: &Recorder, beneath: Option<Client>) -> Client {
    let tells = service_fn(move |name: String| {
        let beneath = beneath.clone();
        tell(&name, 1);
        async move {
            tell(&name, 2);
            tokio::task::yield_now().await;
            tell(&name, 3);
            if let Some(beneath) = beneath {
                let (one, other) = tokio::join!(
                    beneath.clone().oneshot(format!("{name}a")),
                    beneath.oneshot(format!("{name}b")),
                );
                one.and(other)?;
            }
            tell(&name, 4);
            Ok::<_, BoxError>(())
        }
    });
    let layer = TraceLayer::builder("client")
        .recorder(recorder)
        .describe(|name: &String, about: &mut About<'_>| {
            about.operation(name);
        })
        .build()
        .unwrap();
    BoxCloneService::new(layer.layer(tells).map_err(BoxError::from))
}

fn tell(name: &str, attempt: u32) {
    let voice = Voice::new(LayerKind::Retry, name);
    voice.tell(&Call::current(), clock::now(), || What::Attempting { attempt });
}

/// Polls until it is over, each time on another thread.
fn wander<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    loop {
        let polled = std::thread::scope(|scope| {
            let poll = || future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            scope.spawn(poll).join().unwrap()
        });
        if let Poll::Ready(output) = polled {
            return output;
        }
    }
}

#[test]
fn a_recorded_future_may_be_shared_between_threads_as_what_it_wraps_may() {
    fn shared<T: Send + Sync>() {}
    shared::<ResponseFuture<Ready<Result<(), BoxError>>, ByResult, NoCapture>>();
}

#[tokio::test]
async fn who_hears_of_a_calls_beginning_is_in_the_call_around_it() {
    let recorder = recorder();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let inner = TraceLayer::builder("inner")
        .recorder(&recorder)
        .observe({
            let heard = heard.clone();
            move |event: &Event<'_>| {
                if let What::Started = event.what {
                    let current = Call::current().trace().map(|trace| trace.span_id);
                    heard.lock().push((current, event.call.trace().map(|trace| trace.span_id)));
                    attribute("heard", "inner");
                }
            }
        })
        .build()
        .unwrap()
        .layer(service_fn(|(): ()| ready(Ok::<_, BoxError>(()))));
    let outer = TraceLayer::builder("outer").recorder(&recorder).build().unwrap();
    let mut outer = outer.layer(service_fn(move |(): ()| inner.clone().call(())));
    let scope = TraceScope::start("scope").recorder(&recorder);
    scope.run(async move { outer.call(()).await }).await.unwrap();

    let trace = one(&recorder).await;
    let span = |name| trace.calls.iter().find(|call| call.name == name).map(|call| call.span);
    assert_eq!(*heard.lock(), [(span("outer"), span("inner"))]);
    let noted: Vec<_> = trace.calls.iter().filter(|call| !call.attributes.is_empty()).collect();
    assert_eq!(noted.iter().map(|call| &*call.name).collect::<Vec<_>>(), ["outer"]);
}

#[tokio::test]
async fn calls_within_calls_that_wander_between_threads_keep_their_events_apart() {
    let recorder = recorder();
    let outer = client(&recorder, Some(client(&recorder, None)));
    let (a, b) = (outer.clone().oneshot("a".into()), outer.oneshot("b".into()));
    let both = async {
        let (a, b) = tokio::join!(a, b);
        a.and(b).unwrap();
    };
    wander(TraceScope::start("scope").recorder(&recorder).run(both));

    let trace = one(&recorder).await;
    assert_eq!(trace.calls.len(), 6);
    for call in &trace.calls {
        let name = call.operation.as_deref().unwrap();
        let told: Vec<_> = call.events.iter().map(|event| (&*event.name, &*event.why)).collect();
        let expected = (1..=4).map(|attempt| format!("attempt {attempt} begins"));
        let expected: Vec<_> = expected.collect();
        assert_eq!(told, expected.iter().map(|why| (name, &**why)).collect::<Vec<_>>());
        let parent = trace.calls.iter().find(|call| call.operation.as_deref() == Some(&name[..1]));
        let expected = if name.len() == 1 { trace.span } else { parent.unwrap().span };
        assert_eq!(call.parent, Some(expected), "{name}");
    }
}

#[tokio::test]
async fn calls_that_are_dropped_or_panic_within_another_leave_its_record_to_it() {
    let recorder = recorder();
    let beneath = client(&recorder, None);
    let layer = TraceLayer::builder("outer").recorder(&recorder).build().unwrap();
    let panics = TraceLayer::builder("panics").recorder(&recorder).build().unwrap();
    let panics = panics.layer(service_fn(|(): ()| async {
        if true {
            tell("panics", 1);
            panic!("inside");
        }
        Ok::<_, BoxError>(())
    }));
    let outer = layer.layer(service_fn(move |(): ()| {
        let (beneath, panics) = (beneath.clone(), panics.clone());
        async move {
            let mut begun = Box::pin(beneath.oneshot("begun".into()));
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(begun.as_mut().poll(cx).is_pending());
            tell("outer", 1);
            let panicking = pin!(panics.oneshot(()));
            let poll = std::panic::AssertUnwindSafe(|| panicking.poll(cx).is_ready());
            assert!(std::panic::catch_unwind(poll).is_err());
            tell("outer", 2);
            drop(begun);
            tell("outer", 3);
            Ok::<_, BoxError>(())
        }
    }));
    outer.oneshot(()).await.unwrap();

    let trace = &stored(&recorder).await[0];
    let told = trace.calls.iter().map(|call| {
        let names: Vec<_> = call.events.iter().map(|event| &*event.name).collect();
        (&*call.name, call.status.as_str(), names.join(" "))
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("outer", "success", "outer outer outer".to_owned()),
            ("client", "cancelled", "begun begun".to_owned()),
            ("panics", "cancelled", "panics".to_owned()),
        ]
    );
}

#[tokio::test]
async fn what_begins_in_a_call_whose_record_stayed_behind_is_sampled_as_any_trace() {
    let mut none = config();
    none.sample_rate = 0.0;
    let recorder = Recorder::builder().config(none).build().unwrap();
    let left = Arc::new(Mutex::new(None));
    let inner = {
        let left = left.clone();
        service_fn(move |(): ()| {
            *left.lock() = Some(Call::here());
            ready(Ok::<_, BoxError>(()))
        })
    };
    let layer = TraceLayer::builder("client").recorder(&recorder).build().unwrap();
    layer.layer(inner).oneshot(()).await.unwrap();

    let outer = left.lock().take().unwrap();
    let (call, done) = TraceScope::start("scope").recorder(&recorder).open(outer);
    assert_eq!(call.trace().map(|trace| trace.sampled), Some(false));
    drop(done);
}

#[tokio::test]
async fn what_another_thread_tells_while_the_call_runs_is_in_its_record_and_decides_with_it() {
    let (elapsed, threshold) = (Duration::from_secs(3), Duration::from_secs(2));
    let retrying = || What::Retrying {
        attempt: 1,
        outcome: Outcome::failure(FaultKind::Status(503), Replay::Safe),
        delay: Duration::ZERO,
        reason: Reason::Backoff { retry: 1 },
    };
    let slow = || What::Slow { elapsed, threshold };
    for (what, kept, name) in [
        (&retrying as &(dyn Fn() -> What<'static> + Sync), Kept::Retried, "retrying"),
        (&slow, Kept::Slow, "slow"),
    ] {
        let mut config = config();
        config.max_events = 3;
        let recorder = Recorder::builder().config(config).build().unwrap();
        let trace = TraceLayer::builder("call").recorder(&recorder).build().unwrap();
        let say = |call: &Call, what: &dyn Fn() -> What<'static>| {
            Voice::new(LayerKind::Retry, "a layer").tell(call, clock::now(), what);
        };
        let mut service = trace.layer(service_fn(|(): ()| async move {
            let call = Call::current();
            say(&call, &|| What::Attempting { attempt: 1 });
            // The record lies with the thread that runs the call.
            std::thread::scope(|scope| {
                scope.spawn(|| (0..4).for_each(|_| say(&call, what)));
            });
            Ok::<_, BoxError>(())
        }));
        service.call(()).await.unwrap();
        let trace = one(&recorder).await;
        let call = &trace.calls[0];
        assert_eq!(trace.kept, kept);
        let told: Vec<_> = call.events.iter().map(|event| (&*event.what, &*event.name)).collect();
        assert_eq!(told, [("attempting", "a layer"), (name, "a layer"), (name, "a layer")]);
        assert_eq!(call.omitted_events, 2);
    }
}

#[tokio::test]
async fn a_tellers_name_is_cut_as_every_other_is() {
    let mut config = config();
    config.max_name = 8;
    let recorder = Recorder::builder().config(config).build().unwrap();
    let mut client = client(&recorder, None);
    for name in ["eight by", "nine byte", "more than thirty bytes of a name"] {
        client.call(name.to_owned()).await.unwrap();
    }
    let names = |trace: &Arc<Trace>| -> Vec<_> {
        trace.calls[0].events.iter().map(|event| event.name.clone()).collect()
    };
    let traces = stored(&recorder).await;
    let names: Vec<_> = traces.iter().map(names).collect();
    assert_eq!(names, [["eight by"; 4], ["nine byt"; 4], ["more tha"; 4]]);
}
