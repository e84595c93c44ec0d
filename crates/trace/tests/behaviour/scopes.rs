//! Scopes: what belongs together.

use std::{future::Ready, sync::Arc, time::Duration};

use portcullis_core::{
    Call, Elapsed, Error, Event, LayerKind, Outcome, Phase, SpanId, TraceContext, TraceId, What,
    clock,
};
use portcullis_testkit::{ScriptedService, Step, TestError, call as send, poll_k};
use portcullis_timeout::TimeoutLayer;
use portcullis_trace::{
    Recorder, Status, TraceLayer, TraceScope, Traced, attribute, fail,
    record::{Call as Recorded, Kind},
};
use tokio::time::timeout;
use tower_layer::Layer;

use crate::fakes::{MS, SECOND, config, one, recorder, stored};

type Inner = ScriptedService<(), u16>;

fn client(recorder: &Recorder, name: &'static str) -> Traced<Inner> {
    let inner = ScriptedService::respond_with(|(), _| Step::Ok(200).after(10 * MS));
    TraceLayer::builder(name).recorder(recorder).build().unwrap().layer(inner)
}

fn names(calls: &[Recorded]) -> Vec<&str> {
    calls.iter().map(|call| call.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn joined_calls_are_children_of_their_scope_at_the_same_time() {
    let recorder = recorder();
    let (mut a, mut b) = (client(&recorder, "a"), client(&recorder, "b"));
    TraceScope::start("answer question")
        .attribute("user", 7)
        .run(async {
            let (a, b) = tokio::join!(send(&mut a, ()), send(&mut b, ()));
            a.and(b).unwrap();
            attribute("found", true);
        })
        .await;

    let trace = one(&recorder).await;
    assert_eq!((&*trace.name, trace.status), ("answer question", Status::Success));
    assert_eq!(trace.duration, 10 * MS);
    assert_eq!(names(&trace.calls), ["a", "b"]);
    let pairs = [("user", "7"), ("found", "true")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(trace.attributes, pairs);
    for call in &trace.calls {
        assert_eq!(
            (call.parent, call.started, call.duration),
            (Some(trace.span), Duration::ZERO, 10 * MS)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_spawned_call_belongs_to_the_scope_only_if_it_is_carried_over() {
    let recorder = recorder();
    let (mut carried, mut bare) = (client(&recorder, "carried"), client(&recorder, "bare"));
    TraceScope::start("request")
        .recorder(&recorder)
        .run(async {
            let call = Call::current();
            let carried = tokio::spawn(call.in_scope(async move { send(&mut carried, ()).await }));
            let bare = tokio::spawn(async move { send(&mut bare, ()).await });
            carried.await.unwrap().unwrap();
            bare.await.unwrap().unwrap();
        })
        .await;

    let traces = stored(&recorder).await;
    assert_eq!(traces.len(), 2);
    let scope = traces.iter().find(|trace| trace.name == "request").unwrap();
    let bare = traces.iter().find(|trace| trace.name == "bare").unwrap();
    assert_eq!(names(&scope.calls), ["carried"]);
    assert_eq!(names(&bare.calls), ["bare"]);
    assert_ne!(scope.id, bare.id);
}

#[tokio::test(start_paused = true)]
async fn a_trace_waits_for_the_last_call_that_is_open_when_its_scope_ends() {
    let recorder = recorder();
    let mut client = client(&recorder, "late");
    let mut late = None;
    TraceScope::start("request")
        .recorder(&recorder)
        .run(async {
            let call = Call::current().in_scope(async move { send(&mut client, ()).await });
            late = Some(tokio::spawn(call));
            tokio::task::yield_now().await;
        })
        .await;
    assert_eq!(recorder.counts().seen, 0);
    late.unwrap().await.unwrap().unwrap();

    let trace = one(&recorder).await;
    assert_eq!((trace.duration, trace.calls[0].duration), (Duration::ZERO, 10 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_its_scope_leaves_records_of_its_own_in_the_same_trace() {
    let recorder = recorder();
    let mut client = client(&recorder, "background");
    let call =
        TraceScope::start("request").recorder(&recorder).run(async { Call::current() }).await;
    assert_eq!(stored(&recorder).await.len(), 1, "what merely could call holds nothing up");
    call.in_scope(send(&mut client, ())).await.unwrap();

    let traces = stored(&recorder).await;
    assert_eq!(traces.len(), 2);
    assert_eq!(traces[0].id, traces[1].id);
    let background = traces.iter().find(|trace| trace.name == "background").unwrap();
    let request = traces.iter().find(|trace| trace.name == "request").unwrap();
    assert_eq!(background.parent, Some(request.span));
}

#[tokio::test(start_paused = true)]
async fn nested_scopes_nest_and_calls_know_which_they_are_in() {
    let recorder = recorder();
    let (mut outer, mut inner) = (client(&recorder, "outer"), client(&recorder, "inner"));
    TraceScope::start("request")
        .run(async {
            send(&mut outer, ()).await.unwrap();
            TraceScope::start("step").attribute("n", 1).run(send(&mut inner, ())).await.unwrap();
        })
        .await;

    let trace = one(&recorder).await;
    assert_eq!(names(&trace.calls), ["outer", "step", "inner"]);
    let [first, step, second] = &trace.calls[..] else { panic!("{trace:?}") };
    assert_eq!(step.kind, Kind::Scope);
    assert_eq!((first.parent, step.parent), (Some(trace.span), Some(trace.span)));
    assert_eq!(second.parent, Some(step.span));
    assert_eq!(step.attributes, [("n".to_owned(), "1".to_owned())]);
    assert_eq!((step.started, step.duration, step.status), (10 * MS, 10 * MS, Status::Success));
}

#[tokio::test(start_paused = true)]
async fn a_handlers_calls_are_children_of_the_call_it_serves() {
    let recorder = recorder();
    let backend = client(&recorder, "backend");
    let handler = tower::service_fn(move |()| {
        let mut backend = backend.clone();
        async move { send(&mut backend, ()).await }
    });
    let mut front =
        TraceLayer::builder("front").recorder(&recorder).build().unwrap().layer(handler);
    send(&mut front, ()).await.unwrap();

    let trace = one(&recorder).await;
    assert_eq!((&*trace.name, names(&trace.calls)), ("front", vec!["front", "backend"]));
    assert_eq!(trace.calls[1].parent, Some(trace.calls[0].span));
    assert_eq!(trace.calls[0].span, trace.span);
}

#[tokio::test(start_paused = true)]
async fn what_a_call_has_to_say_of_its_scope_is_in_the_scopes_record() {
    let recorder = recorder();
    let inner = ScriptedService::<Call, u16>::respond_with(|scope, _| {
        attribute("said of", "the call");
        _ = scope.enter(clock::now(), || attribute("said of", "the scope"));
        Step::Ok(200)
    });
    let mut client = TraceLayer::builder("c").recorder(&recorder).build().unwrap().layer(inner);
    TraceScope::start("s").run(async { send(&mut client, Call::current()).await.unwrap() }).await;

    let trace = one(&recorder).await;
    assert_eq!(trace.attributes, [("said of".to_owned(), "the scope".to_owned())]);
    assert_eq!(trace.calls[0].attributes, [("said of".to_owned(), "the call".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_as_it_is_called_leaves_what_was_recorded_till_then() {
    let recorder = recorder();
    let inner = tower::service_fn(|()| -> Ready<Result<u16, TestError>> {
        attribute("got", "here");
        panic!("boom");
    });
    let mut client = TraceLayer::builder("c").recorder(&recorder).build().unwrap().layer(inner);
    let scope = TraceScope::start("s").run(async move { send(&mut client, ()).await });
    tokio::spawn(scope).await.unwrap_err();

    let trace = one(&recorder).await;
    assert_eq!(names(&trace.calls), ["c"]);
    assert_eq!(trace.calls[0].status, Status::Cancelled);
    assert_eq!(trace.calls[0].attributes, [("got".to_owned(), "here".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_server_continues_the_trace_it_was_sent() {
    let recorder = recorder();
    let mut client = client(&recorder, "client");
    let context = TraceContext {
        trace_id: TraceId::new(99).unwrap(),
        span_id: SpanId::new(3).unwrap(),
        sampled: false,
    };
    TraceScope::start("serve")
        .parent(portcullis_core::RemoteTrace::from(context))
        .run(async {
            let now = Call::current().trace().unwrap();
            assert_eq!((now.trace_id.get(), now.sampled), (99, false));
            send(&mut client, ()).await.unwrap();
        })
        .await;
    let trace = one(&recorder).await;
    assert_eq!((trace.id.get(), trace.parent), (99, SpanId::new(3)));
    assert_eq!(trace.calls[0].parent, Some(trace.span));

    let fresh = TraceScope::start("serve").parent(None).recorder(&recorder);
    fresh.run(async {}).await;
    assert_eq!(stored(&recorder).await[1].parent, None);
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_dropped_is_cancelled_and_one_that_a_limit_drops_timed_out() {
    let recorder = recorder();
    let hang: Inner = ScriptedService::respond_with(|_, _| Step::Hang);
    let mut client = TraceLayer::builder("c").recorder(&recorder).build().unwrap().layer(hang);
    poll_k(TraceScope::start("given up").run(send(&mut client, ())), 2).await;

    tokio::time::advance(MS).await;
    let slow = tower::service_fn(|()| {
        let mut client = client.clone();
        async move { TraceScope::start("too slow").run(send(&mut client, ())).await }
    });
    let mut limited = TimeoutLayer::total("limit", SECOND).unwrap().layer(slow);
    send(&mut limited, ()).await.unwrap_err();

    let traces = stored(&recorder).await;
    let seen: Vec<_> =
        traces.iter().map(|trace| (&*trace.name, trace.status, trace.calls[0].status)).collect();
    assert_eq!(
        seen,
        [
            ("given up", Status::Cancelled, Status::Cancelled),
            ("too slow", Status::Timeout, Status::Timeout),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_scope_fails_by_its_answer_or_by_word_and_not_by_a_call_it_could_do_without() {
    let recorder = recorder();
    let broken: Inner = ScriptedService::respond_with(|_, _| Step::Err(TestError("down")));
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    let mut client = layer.layer(broken);

    let scope = |name: &'static str| TraceScope::start(name).recorder(&recorder);
    scope("fallback").run(async { send(&mut client, ()).await.unwrap_or(1) }).await;
    scope("tried").try_run(async { send(&mut client, ()).await }).await.unwrap_err();
    scope("said so").run(async { fail(&TestError("no such user")) }).await;
    let elapsed = || Error::rejected(Elapsed::new("search", Phase::Total, SECOND));
    scope("late").try_run(async { Err::<(), _>(elapsed()) }).await.unwrap_err();

    let mut traces = stored(&recorder).await;
    traces.sort_by_key(|trace| {
        ["fallback", "tried", "said so", "late"].iter().position(|n| trace.name == *n)
    });
    let seen: Vec<_> = traces.iter().map(|t| (t.status, t.error.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (Status::Success, None),
            (Status::Error, Some("down")),
            (Status::Error, Some("no such user")),
            (Status::Timeout, Some("search: total limit of 1s ran out")),
        ]
    );
    assert_eq!(traces[0].kept.as_str(), "failed", "a failed call keeps its trace");
}

#[tokio::test(start_paused = true)]
async fn what_fails_within_a_call_that_answers_does_not_end_it_on_whatever_thread_it_is_said() {
    for elsewhere in [false, true] {
        let recorder = recorder();
        let inner: Inner = ScriptedService::respond_with(move |(), _| {
            let say = |call: Call| _ = call.enter(clock::now(), || fail(&TestError("no cache")));
            let call = Call::current();
            if elsewhere {
                std::thread::scope(|scope| scope.spawn(|| say(call)).join().unwrap());
            } else {
                say(call);
            }
            Step::Ok(200).after(10 * MS)
        });
        let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
        send(&mut layer.layer(inner), ()).await.unwrap();

        let call = &one(&recorder).await.calls[0];
        assert_eq!((call.status, call.duration), (Status::Success, 10 * MS), "{elsewhere}");
        assert_eq!(call.error.as_deref(), Some("no cache"));
    }
}

#[tokio::test]
async fn an_event_that_tells_what_cannot_be_does_not_end_the_writer() {
    let recorder = recorder();
    let inner: Inner = ScriptedService::respond_with(|(), _| {
        let call = Call::current().with_attempt(1);
        let what = What::Settled {
            outcome: Outcome::Success,
            head_after: Some(Duration::MAX),
            elapsed: Duration::ZERO,
        };
        let (layer, name, at) = (LayerKind::Breaker, "of the user's making", clock::now());
        let event = Event { layer, name, key: None, call: &call, at, what };
        call.record().unwrap().on_event(&event);
        Step::Ok(200)
    });
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    send(&mut layer.layer(inner), ()).await.unwrap();
    let stored = timeout(10 * SECOND, stored(&recorder)).await.unwrap();
    assert_eq!(stored[0].calls[0].attempts[0].head_after, None);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_bound_are_counted_and_keep_the_trace_if_they_fail() {
    let mut config = config();
    config.max_calls = 2;
    config.sample_rate = 0.0;
    let recorder = Recorder::builder().config(config).build().unwrap();
    let inner: Inner = ScriptedService::respond_with(|_, n| match n {
        4 => Step::Err(TestError("the fifth")),
        _ => Step::Ok(200),
    });
    let mut client = TraceLayer::builder("c").recorder(&recorder).build().unwrap().layer(inner);
    TraceScope::start("many")
        .run(async {
            for _ in 0..5 {
                let _ = send(&mut client, ()).await;
            }
        })
        .await;
    let trace = one(&recorder).await;
    assert_eq!((trace.calls.len(), trace.omitted.calls), (2, 3));
    assert_eq!(trace.kept.as_str(), "failed");
    assert!(trace.to_string().contains("and 3 calls more"));
}

#[tokio::test(start_paused = true)]
async fn attributes_are_bounded_and_replaced_by_name() {
    let mut config = config();
    config.max_attributes = 2;
    let recorder = Recorder::builder().config(config).build().unwrap();
    let scope = TraceScope::start("s").recorder(&recorder);
    let scope = scope.attribute("a", 1).attribute("b", 2).attribute("a", 3).attribute("c", 4);
    scope.run(async {}).await;
    let trace = one(&recorder).await;
    assert_eq!(trace.attributes.len(), 2);
    assert_eq!(trace.attributes[0].1, "3");
    assert_eq!(trace.omitted.attributes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_scope_without_a_recorder_and_without_calls_disturbs_nobody() {
    assert_eq!(TraceScope::start("lost").run(async { 5 }).await, 5);
    attribute("nobody", "listens");
    fail(&TestError("nor here"));
}

#[tokio::test]
async fn many_threads_in_one_scope_lose_no_call() {
    let recorder = Arc::new(recorder());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
    let runtime = runtime.unwrap();
    let inside = recorder.clone();
    let done = runtime.spawn(async move {
        let scope = TraceScope::start("wide").recorder(&inside);
        scope
            .run(async {
                let inner: Inner = ScriptedService::answering(200);
                let layer = TraceLayer::builder("c").recorder(&inside).build().unwrap();
                let client = layer.layer(inner);
                let tasks: Vec<_> = (0..200)
                    .map(|_| {
                        let mut client = client.clone();
                        let call = async move { send(&mut client, ()).await };
                        tokio::spawn(Call::current().in_scope(call))
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap().unwrap();
                }
            })
            .await;
    });
    done.await.unwrap();
    runtime.shutdown_background();
    let trace = one(&recorder).await;
    assert_eq!(trace.calls.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_failure_noted_after_a_scope_is_over_leaves_its_duration() {
    let recorder = recorder();
    let (child, late) = TraceScope::start("request")
        .recorder(&recorder)
        .run(async {
            tokio::time::advance(SECOND).await;
            let child = TraceScope::start("child").run(tokio::time::sleep(3 * SECOND));
            let child = tokio::spawn(Call::current().in_scope(child));
            let late = tokio::spawn(Call::current().in_scope(async {
                tokio::time::sleep(SECOND).await;
                fail(&std::io::Error::other("too late"));
            }));
            // The child begins, and keeps the trace open until it is over.
            tokio::task::yield_now().await;
            (child, late)
        })
        .await;
    late.await.unwrap();
    child.await.unwrap();
    let trace = one(&recorder).await;
    assert_eq!((trace.status, trace.duration), (Status::Error, SECOND));
}
