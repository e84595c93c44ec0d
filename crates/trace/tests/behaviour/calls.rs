//! Calls, their attempts and events.

use std::sync::Arc;

use portcullis_breaker::{BreakerLayer, Window};
use portcullis_core::{Call, Event, Observer, Outcome, Replay, call, sync::Mutex};
use portcullis_retry::{Backoff, Jitter, RetryLayer};
use portcullis_testkit::{Script, ScriptedService, Step, TestError, call as send, poll_k};
use portcullis_timeout::TimeoutLayer;
use portcullis_trace::{
    About, Kept, Recorder, Status, TraceLayer,
    record::{self, Kind},
};
use tower::ServiceBuilder;
use tower_layer::Layer;

use crate::fakes::{Inner, MS, SECOND, answering, by_status, failure, keep, one, recorder, stored};

/// Trace, total timeout, retry, breaker, attempt timeout, client.
macro_rules! stack {
    ($recorder:expr, $inner:expr) => {
        ServiceBuilder::new()
            .layer(
                TraceLayer::builder("search")
                    .recorder($recorder)
                    .classify(by_status())
                    .describe(|query: &&'static str, about: &mut About<'_>| {
                        about.operation(query).target("api.example.com").key("tenant-7");
                    })
                    .build()
                    .unwrap(),
            )
            .layer(
                TimeoutLayer::builder("total").total(SECOND).classify(by_status()).build().unwrap(),
            )
            .layer(
                RetryLayer::builder("again", keep())
                    .classify(by_status())
                    .backoff(Backoff::fixed(100 * MS))
                    .jitter(Jitter::None)
                    .build()
                    .unwrap(),
            )
            .layer(
                BreakerLayer::builder("api")
                    .window(Window::Time(60 * SECOND))
                    .classify(by_status())
                    .build()
                    .unwrap(),
            )
            .layer(
                TimeoutLayer::builder("each")
                    .attempt(50 * MS)
                    .classify(by_status())
                    .build()
                    .unwrap(),
            )
            .service($inner)
    };
}

fn told(events: &[record::Event]) -> Vec<(u128, u32, String)> {
    let line = |event: &record::Event| {
        let text = format!("{} {}: {}", event.layer, event.name, event.why);
        (event.offset.as_millis(), event.attempt, text)
    };
    events.iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn a_scripted_call_through_the_whole_stack_is_recorded_event_by_event() {
    let recorder = recorder();
    let inner: Inner = ScriptedService::new(Script::new([
        Step::Ok(503).after(10 * MS),
        Step::Hang,
        Step::Ok(200).after(20 * MS),
    ]));
    let mut stack = stack!(&recorder, inner);
    assert_eq!(send(&mut stack, "query").await.unwrap(), 200);

    let trace = one(&recorder).await;
    assert_eq!(trace.name, "search");
    assert_eq!((trace.status, trace.kept), (Status::Success, Kept::Retried));
    assert_eq!(trace.duration, 280 * MS);
    assert_eq!(trace.calls.len(), 1);
    let call = &trace.calls[0];
    assert_eq!((call.kind, call.span, call.parent), (Kind::Call, trace.span, None));
    assert_eq!(call.operation.as_deref(), Some("query"));
    assert_eq!(call.target.as_deref(), Some("api.example.com"));
    assert_eq!(call.key.as_deref(), Some("tenant-7"));
    assert_eq!((call.duration, call.head_after), (280 * MS, Some(280 * MS)));
    assert_eq!((call.error.as_deref(), call.error_kind.as_deref()), (None, None));

    let attempts = call.attempts.iter().map(|a| {
        (
            a.number,
            a.started.as_millis(),
            a.head_after.map(|it| it.as_millis()),
            a.ended_after.as_millis(),
            a.outcome,
        )
    });
    assert_eq!(
        attempts.collect::<Vec<_>>(),
        [
            (1, 0, Some(10), 10, failure(503)),
            (2, 110, None, 50, Outcome::timeout()),
            (3, 260, Some(20), 20, Outcome::Success),
        ]
    );
    assert_eq!(call.attempts[0].replay, Some(Replay::Safe));
    assert_eq!(call.attempts[1].span, call.span.of_attempt(2));

    let expected = [
        (0, 1, "retry again: attempt 1 begins"),
        (0, 1, "breaker api: admitted while closed: 0 of 0 failed, 0 slow"),
        (10, 1, "timeout each: failure (status 503) after 10.0ms (head after 10.0ms)"),
        (10, 1, "breaker api: failure (status 503) after 10.0ms (head after 10.0ms)"),
        (
            10,
            1,
            "retry again: attempt 1: failure (status 503); next in 100.0ms: backoff before retry 1",
        ),
        (110, 2, "retry again: attempt 2 begins"),
        (110, 2, "breaker api: admitted while closed: 1 of 1 failed, 0 slow"),
        (160, 2, "timeout each: timed out after 50.0ms: attempt limit of 50ms"),
        (160, 2, "timeout each: failure (timeout) after 50.0ms"),
        (160, 2, "breaker api: failure (timeout) after 50.0ms"),
        (
            160,
            2,
            "retry again: attempt 2: failure (timeout); next in 100.0ms: backoff before retry 2",
        ),
        (260, 3, "retry again: attempt 3 begins"),
        (260, 3, "breaker api: admitted while closed: 2 of 2 failed, 0 slow"),
        (280, 3, "timeout each: success after 20.0ms (head after 20.0ms)"),
        (280, 3, "breaker api: success after 20.0ms (head after 20.0ms)"),
        (280, 0, "timeout total: success after 280.0ms (head after 280.0ms)"),
    ];
    let told = told(&call.events);
    for (index, (told, (at, attempt, text))) in told.iter().zip(expected).enumerate() {
        // Events of one attempt at one moment stand in the order they were told.
        assert_eq!((told.0, told.1, &*told.2), (at, attempt, text), "event {index}");
    }
    assert_eq!(told.len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn without_a_layer_that_retries_a_call_is_its_one_attempt() {
    let recorder = recorder();
    let layer = TraceLayer::builder("bare").recorder(&recorder).build().unwrap();
    send(&mut layer.layer(answering([200])), "x").await.unwrap();

    let trace = one(&recorder).await;
    let call = &trace.calls[0];
    assert_eq!(call.attempts.len(), 1);
    let attempt = &call.attempts[0];
    assert_eq!((attempt.number, attempt.span), (1, call.span));
    assert_eq!((attempt.head_after, attempt.ended_after), (Some(10 * MS), 10 * MS));
    assert!(call.events.is_empty() && call.output.is_none() && call.operation.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_rejected_without_an_attempt_and_says_why() {
    let recorder = recorder();
    let breaker = BreakerLayer::builder("api").build().unwrap();
    breaker.handle().force_open();
    let trace = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let mut service = trace.layer(breaker.layer(answering([200])));
    send(&mut service, "x").await.unwrap_err();

    let trace = one(&recorder).await;
    let call = &trace.calls[0];
    assert_eq!(
        (trace.status, call.status, trace.kept),
        (Status::Rejected, Status::Rejected, Kept::Failed)
    );
    assert_eq!(call.error_kind.as_deref(), Some("rejected: open"));
    assert!(call.attempts.is_empty());
    assert_eq!(call.events.len(), 1);
    assert_eq!(call.events[0].what, "rejected");
    assert!(call.events[0].why.contains("by hand"), "{}", call.events[0].why);
    assert!(call.error.as_deref().unwrap().starts_with("api: "), "{:?}", call.error);
}

#[tokio::test(start_paused = true)]
async fn each_end_has_its_status_and_an_error_its_text_with_its_causes() {
    #[derive(Debug)]
    struct Outer(TestError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot search")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    let recorder = recorder();
    let trace = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let inner = ScriptedService::<(), u16, Outer>::new(Script::new([
        Step::Err(Outer(TestError("connection refused"))),
        Step::Hang,
        Step::Hang,
    ]));
    let timeout = TimeoutLayer::total("search", SECOND).unwrap();
    let mut service = trace.layer(timeout.layer(inner));
    send(&mut service, ()).await.unwrap_err();
    tokio::time::advance(MS).await;
    send(&mut service, ()).await.unwrap_err();
    poll_k(send(&mut service, ()), 2).await;

    let traces = stored(&recorder).await;
    let seen: Vec<_> = traces
        .iter()
        .map(|trace| {
            (trace.status, trace.calls[0].error_kind.as_deref(), trace.calls[0].error.as_deref())
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Status::Error, Some("other"), Some("cannot search: connection refused")),
            (Status::Timeout, Some("timeout"), Some("search: total limit of 1s ran out")),
            (Status::Cancelled, Some("cancelled"), None),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_limit_above_drops_is_a_timeout() {
    let recorder = recorder();
    let trace = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let inner: Inner = ScriptedService::new(Script::repeat(Step::Hang));
    let timeout = TimeoutLayer::total("above", SECOND).unwrap();
    send(&mut timeout.layer(trace.layer(inner)), "x").await.unwrap_err();
    assert_eq!(one(&recorder).await.status, Status::Timeout);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_inside_is_told_before_the_record_is_closed() {
    let recorder = recorder();
    let inner: Inner = ScriptedService::new(Script::repeat(Step::Hang));
    let mut stack = stack!(&recorder, inner);
    poll_k(send(&mut stack, "x"), 2).await;
    let trace = one(&recorder).await;
    let call = &trace.calls[0];
    assert_eq!(call.status, Status::Cancelled);
    let settled = call.events.iter().filter(|event| event.what == "settled").count();
    assert_eq!(settled, 3, "{:?}", call.events);
    assert_eq!(call.attempts[0].outcome, Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn the_callers_observer_hears_everything_as_before_and_the_layers_own_the_ends() {
    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<&'static str>>>);
    impl Observer for Ear {
        fn on_event(&self, event: &Event<'_>) {
            self.0.lock().push(event.what.as_str());
        }
    }

    let (recorder, caller, own) = (recorder(), Ear::default(), Ear::default());
    let trace = TraceLayer::builder("search").recorder(&recorder).observe(own.clone());
    let retry = RetryLayer::builder("again", keep()).build().unwrap();
    let mut service = trace.build().unwrap().layer(retry.layer(answering([200])));
    call::with().observe(caller.clone()).run(send(&mut service, "x")).await.unwrap();

    assert_eq!(*own.0.lock(), ["started", "settled"]);
    assert_eq!(*caller.0.lock(), ["started", "attempting", "settled"]);
    let trace = one(&recorder).await;
    assert_eq!(trace.calls[0].events.len(), 1, "the record is not told of itself");
}

#[tokio::test(start_paused = true)]
async fn events_beyond_the_bound_are_counted() {
    let mut config = crate::fakes::config();
    config.max_events = 3;
    config.max_name = 8;
    let recorder = Recorder::builder().config(config).build().unwrap();
    let mut stack = stack!(&recorder, answering([503, 503, 503]));
    send(&mut stack, "a query with a long name").await.unwrap();
    let trace = one(&recorder).await;
    let call = &trace.calls[0];
    assert_eq!((call.events.len(), call.omitted_events), (3, 13));
    assert_eq!(call.operation.as_deref(), Some("a query "));
    assert_eq!(trace.kept, Kept::Failed, "what happened beyond the bound counts");
    assert!(trace.to_string().contains("and 13 events more"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_end_was_not_kept_is_left_out_and_not_invented() {
    // Three attempts fail; their first events are all there is room for.
    for max_events in 1..12 {
        let mut config = crate::fakes::config();
        config.max_events = max_events;
        let recorder = Recorder::builder().config(config).build().unwrap();
        let mut stack = stack!(&recorder, answering([503, 503, 200]));
        send(&mut stack, "x").await.unwrap();
        let trace = one(&recorder).await;
        let call = &trace.calls[0];
        for attempt in &call.attempts {
            let last = attempt.number == 3;
            assert_eq!(attempt.outcome.is_success(), last, "{max_events}: {call:?}");
        }
        let omitted = call.omitted_attempts;
        assert_eq!(call.attempts.len() + omitted as usize, 3, "{max_events}");
        if omitted > 0 && call.events.iter().any(|event| event.what == "retrying") {
            let more = format!("… and {omitted} attempts more");
            assert!(trace.to_string().contains(&more), "{max_events}: {trace}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dates_and_durations_follow_the_monotonic_clock() {
    let before = portcullis_core::clock::wall();
    let recorder = recorder();
    let trace = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let mut service = trace.layer(answering([200]));
    tokio::time::advance(3600 * SECOND).await;
    send(&mut service, "x").await.unwrap();
    let trace = one(&recorder).await;
    let later = trace.started_at.duration_since(before).unwrap();
    assert!(later >= 3600 * SECOND && later < 3630 * SECOND, "{later:?}");
    assert_eq!(trace.duration, 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn who_is_told_of_a_calls_end_finds_it_in_its_trace_however_it_ended() {
    let recorder = recorder();
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = told.clone();
    let observe = move |event: &Event<'_>| {
        note.lock().push((event.what.as_str(), event.call.trace().map(|at| at.span_id)));
    };
    let trace = TraceLayer::builder("search").recorder(&recorder).observe(observe).build();
    let inner: Inner = ScriptedService::respond_with(|_, n| match n {
        0 => Step::Ok(200),
        1 => Step::Err(TestError("reset")),
        _ => Step::Ok(200).after(10 * MS),
    });
    let mut service = trace.unwrap().layer(inner);
    send(&mut service, "x").await.unwrap();
    send(&mut service, "x").await.unwrap_err();
    tokio::time::timeout(MS, send(&mut service, "x")).await.unwrap_err();

    let mut spans: Vec<_> = stored(&recorder).await.iter().map(|trace| Some(trace.span)).collect();
    let told = told.lock().clone();
    for words in told.chunks(2) {
        let span = words[0].1;
        assert_eq!(words, [("started", span), ("settled", span)]);
        // Each of another of them.
        spans.remove(spans.iter().position(|of| *of == span).unwrap());
    }
    assert!(spans.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_recorded_as_cancelled() {
    let recorder = recorder();
    let trace = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let inner = ScriptedService::<(), u16>::new(Script::repeat(Step::Panic("boom")));
    let mut service = trace.layer(inner);
    tokio::spawn(async move { send(&mut service, ()).await }).await.unwrap_err();
    assert_eq!(one(&recorder).await.status, Status::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_came_over_the_wire_is_continued() {
    use portcullis_core::{RemoteTrace, SpanId, TraceContext, TraceId};

    let recorder = Recorder::builder().sample_rate(0.0).build().unwrap();
    let remote = |sampled| RemoteTrace {
        context: TraceContext {
            trace_id: TraceId::new(77).unwrap(),
            span_id: SpanId::new(5).unwrap(),
            sampled,
        },
        state: Some("rojo=1".into()),
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let inner: Inner = ScriptedService::respond_with(move |_, _| {
        let call = Call::current();
        note.lock().push((call.trace().unwrap(), call.tracestate().as_deref().map(str::to_owned)));
        Step::Err(TestError("reset"))
    });
    let trace = TraceLayer::builder("search").recorder(&recorder).build().unwrap();
    let mut service = trace.layer(inner);
    for sampled in [true, false] {
        let call = Call::new().with_trace(remote(sampled));
        call.in_scope(send(&mut service, "x")).await.unwrap_err();
        tokio::time::advance(MS).await;
    }
    send(&mut service, "x").await.unwrap_err();

    let seen = seen.lock().clone();
    assert_eq!((seen[0].0.trace_id.get(), seen[0].0.sampled), (77, true));
    assert_eq!((seen[1].0.trace_id.get(), seen[1].0.sampled), (77, false));
    assert_eq!(seen[0].1.as_deref(), Some("rojo=1"));
    assert!(!seen[2].0.sampled, "nothing is sampled by rate");
    let traces = stored(&recorder).await;
    assert_eq!(traces.len(), 3, "failures are kept, whatever the flag says");
    assert_eq!(traces[0].parent, SpanId::new(5));
    assert_eq!(traces[0].span, seen[0].0.span_id);
    assert_eq!(recorder.store().get(TraceId::new(77).unwrap()).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_does_so_to_the_call_and_no_more() {
    let recorder = recorder();
    let observer = |_: &Event<'_>| panic!("a defect of the observer's");
    let trace = TraceLayer::builder("search").recorder(&recorder).observe(observer).build();
    let mut service =
        trace.unwrap().layer(ScriptedService::<(), u16>::new(Script::repeat(Step::Ok(1))));
    tokio::spawn(async move { send(&mut service, ()).await }).await.unwrap_err();
    assert_eq!(one(&recorder).await.status, Status::Cancelled);
}
