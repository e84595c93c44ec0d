//! Calls that end with their response's body, and what goes over the wire.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, channel::Channel};
use portcullis_breaker::BreakerLayer;
use portcullis_core::{Event, RemoteTrace, sync::Mutex};
use portcullis_http::{CloneBody, HttpClassifier, PropagateLayer, trace_context};
use portcullis_retry::{Backoff, RetryLayer};
use portcullis_testkit::call as send;
use portcullis_trace::{Query, Recorder, Status, Trace, TraceLayer, TraceScope};
use tower::{ServiceBuilder, service_fn};

const MS: Duration = Duration::from_millis(1);

fn recorder() -> Recorder {
    Recorder::builder().sample_rate(1.0).build().unwrap()
}

async fn one(recorder: &Recorder) -> Arc<Trace> {
    recorder.flush().await;
    let mut traces = recorder.store().query(&Query::new()).unwrap().traces;
    assert_eq!(traces.len(), 1);
    traces.remove(0)
}

/// A trace layer round a breaker round a service whose bodies end when the test says so.
macro_rules! streaming {
    ($recorder:expr, $senders:expr) => {{
        let senders = $senders.clone();
        ServiceBuilder::new()
            .layer(
                TraceLayer::builder("get")
                    .recorder($recorder)
                    .classify(HttpClassifier::new())
                    .build()
                    .unwrap(),
            )
            .layer(BreakerLayer::builder("b").classify(HttpClassifier::new()).build().unwrap())
            .service(service_fn(move |_: Request<()>| {
                let (sender, body) = Channel::<Bytes, Infallible>::new(4);
                senders.lock().push(sender);
                async move { Ok::<_, Infallible>(Response::new(body)) }
            }))
    }};
}

#[tokio::test(start_paused = true)]
async fn a_call_lasts_to_the_end_of_its_body() {
    let (recorder, senders) = (recorder(), Arc::new(Mutex::new(Vec::new())));
    let mut client = streaming!(&recorder, senders);
    let response = send(&mut client, Request::new(())).await.unwrap();
    tokio::time::advance(30 * MS).await;
    assert_eq!(recorder.counts().seen, 0);
    senders.lock().clear();
    response.into_body().collect().await.unwrap();

    let trace = one(&recorder).await;
    let call = &trace.calls[0];
    assert_eq!((call.head_after, call.duration), (Some(Duration::ZERO), 30 * MS));
    assert_eq!(call.status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_body_ends_its_call_and_the_layers_inside_are_heard_all_the_same() {
    let (recorder, senders) = (recorder(), Arc::new(Mutex::new(Vec::new())));
    let mut client = streaming!(&recorder, senders);
    let response = send(&mut client, Request::new(())).await.unwrap();
    tokio::time::advance(5 * MS).await;
    // The outer body reports before it drops the inner one, on whose end the breaker waits.
    drop(response);

    let trace = one(&recorder).await;
    let told: Vec<_> = trace.calls[0].events.iter().map(|event| &*event.what).collect();
    assert_eq!(told, ["admitted", "settled"]);
    assert_eq!(trace.duration, 5 * MS);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_was_sent_is_the_span_of_the_attempt_in_the_record() {
    let recorder = recorder();
    let heard = Arc::new(Mutex::new(Vec::<RemoteTrace>::new()));
    let note = heard.clone();
    let mut client = ServiceBuilder::new()
        .layer(
            TraceLayer::builder("get")
                .recorder(&recorder)
                .classify(HttpClassifier::new())
                .build()
                .unwrap(),
        )
        .layer(
            RetryLayer::builder("again", CloneBody)
                .classify(HttpClassifier::new())
                .backoff(Backoff::fixed(MS))
                .build()
                .unwrap(),
        )
        .layer(PropagateLayer::new())
        .service(service_fn(move |request: Request<Full<Bytes>>| {
            let mut heard = note.lock();
            heard.extend(trace_context::from_headers(request.headers()));
            let status = match heard.len() {
                1 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            let response = Response::builder().status(status).body(Full::<Bytes>::default());
            async move { response }
        }));
    let mut incoming = http::HeaderMap::new();
    for (name, value) in [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "rojo=00f067aa0ba902b7"),
    ] {
        incoming.insert(name, value.parse().unwrap());
    }
    TraceScope::start("serve")
        .parent(trace_context::from_headers(&incoming))
        .run(send(&mut client, Request::new(Full::default())))
        .await
        .unwrap();

    let trace = one(&recorder).await;
    assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(trace.parent.unwrap().to_string(), "00f067aa0ba902b7");
    let heard = heard.lock().clone();
    let attempts = &trace.calls[0].attempts;
    assert_eq!(attempts.len(), 2);
    for (attempt, heard) in attempts.iter().zip(&heard) {
        assert_eq!(heard.context.trace_id, trace.id);
        assert_eq!(heard.context.span_id, attempt.span);
        assert!(heard.context.sampled);
        assert_eq!(heard.state.as_deref(), Some("rojo=00f067aa0ba902b7"));
    }
    assert_ne!(attempts[0].span, attempts[1].span);
}

/// A trace layer round a retry layer round a client whose answers are told.
#[tokio::test(start_paused = true)]
async fn an_attempt_has_the_status_and_the_port_that_were_told_of_it() {
    let recorder = recorder();
    let layer = TraceLayer::builder("get").recorder(&recorder).classify(HttpClassifier::new());
    let backoff = Backoff::fixed(MS);
    let retry = RetryLayer::builder("get", CloneBody).classify(HttpClassifier::new());
    let told = PropagateLayer::new().with_observer("get", |_: &Event<'_>| ());
    let statuses = Arc::new(Mutex::new(vec![404, 503]));
    let mut client = ServiceBuilder::new()
        .layer(layer.build().unwrap())
        .layer(retry.backoff(backoff).build().unwrap())
        .layer(told)
        .service(service_fn(move |_: Request<Full<Bytes>>| {
            let response = Response::builder().status(statuses.lock().pop().unwrap());
            async move { Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap()) }
        }));
    let request = Request::get("http://a.test:81/").body(Full::default()).unwrap();
    drop(send(&mut client, request).await.unwrap());

    let trace = one(&recorder).await;
    let attempts = &trace.calls[0].attempts;
    let answers: Vec<_> = attempts.iter().map(|it| (it.status, it.port)).collect();
    assert_eq!(answers, [(Some(503), Some(81)), (Some(404), Some(81))]);
    assert!(trace.to_string().contains("answered 404"), "{trace}");
}
