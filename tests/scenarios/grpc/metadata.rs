//! What the server is told.

use portcullis::{
    call,
    trace::{Query, TraceScope, record::Trace},
};
use tonic::{Request, Status};

use super::{
    kit::{client, guarded, stack},
    server::Upstream,
    wire::ask,
};

#[tokio::test]
async fn the_server_learns_the_trace_the_time_and_the_attempts_before() {
    let server = Upstream::new(|nth| match nth {
        0 | 1 => Err(Status::unavailable("not yet")),
        _ => Ok(()),
    })
    .await;
    let stack = stack().build().unwrap();
    let mut request = Request::new(ask("hello"));
    request.metadata_mut().insert("x-tenant", "seven".parse().unwrap());
    let mut client = client(&stack, server.addr());
    guarded(TraceScope::start("answer").run(client.say(request))).await.unwrap();

    let traces = stack.trace().recorder();
    traces.flush().await;
    let traces = traces.store().query(&Query::new()).unwrap().traces;
    let [trace] = &traces[..] else { panic!("{traces:?}") };
    let parents = parents(trace);

    let told = server.metadata();
    let text = |nth: usize, name: &str| told[nth].get(name).map(|value| value.to_str().unwrap());
    assert_eq!(told.len(), 3);
    for (nth, parent) in parents.iter().enumerate() {
        assert_eq!(text(nth, "x-tenant"), Some("seven"));
        assert_eq!(text(nth, "traceparent"), Some(&**parent));
        assert!(text(nth, "grpc-timeout").is_some());
        let before = (nth > 0).then(|| nth.to_string());
        assert_eq!(text(nth, "grpc-previous-rpc-attempts"), before.as_deref());
    }
}

/// The `traceparent` of each attempt, by the record.
fn parents(trace: &Trace) -> Vec<String> {
    let [call] = &trace.calls[..] else { panic!("{trace:?}") };
    assert_eq!(call.operation.as_deref(), Some("test.Echo/Say"));
    let spans = call.attempts.iter().map(|attempt| attempt.span);
    spans.map(|span| format!("00-{}-{span}-01", trace.id)).collect()
}

#[tokio::test]
async fn a_callers_own_name_for_the_operation_goes_before_the_methods() {
    let server = Upstream::well().await;
    let named = portcullis::sync::Mutex::new(None);
    let named = std::sync::Arc::new(named);
    let seen = named.clone();
    let stack = stack()
        .observe(move |event: &portcullis::Event<'_>| {
            *seen.lock() = event.call.overrides().name.clone();
        })
        .build()
        .unwrap();
    let mut client = client(&stack, server.addr());
    guarded(client.say(ask("hello"))).await.unwrap();
    assert_eq!(named.lock().as_deref(), Some("test.Echo/Say"));
    guarded(call::with().name("greet").run(client.say(ask("hello")))).await.unwrap();
    assert_eq!(named.lock().as_deref(), Some("greet"));
}
