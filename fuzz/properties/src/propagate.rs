//! What a server is told of a call.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use portcullis_core::{Call, RemoteTrace, SpanId, TraceContext, TraceId, clock};
use portcullis_http::{
    GRPC_PREVIOUS_RPC_ATTEMPTS, GRPC_TIMEOUT, PropagateLayer, parse_grpc_timeout,
    trace_context::{self, TRACEPARENT, TRACESTATE},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::trace_context::is_state;

#[derive(Arbitrary, Debug)]
struct Input {
    left: Option<(u32, u32)>,
    attempt: u32,
    trace: Option<(u128, u64, bool, Option<String>)>,
    content_type: ContentType,
    /// What the request has already.
    own: [Option<Vec<u8>>; 4],
}

#[derive(Arbitrary, Debug)]
enum ContentType {
    None,
    Grpc,
    GrpcAnd(String),
    Other(String),
}

const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-timeout-ms");

/// A call, and a request with headers of its own.
pub fn propagate(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    // The clock stands still, so that what is left is known.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(send(input));
}

async fn send(input: Input) {
    let content_type = match input.content_type {
        ContentType::None => None,
        ContentType::Grpc => Some("application/grpc".to_owned()),
        ContentType::GrpcAnd(more) => Some(format!("application/grpc{more}")),
        ContentType::Other(other) => Some(other),
    };
    let mut own = HeaderMap::new();
    if let Some(value) = content_type.and_then(|value| HeaderValue::try_from(value).ok()) {
        own.insert(header::CONTENT_TYPE, value);
    }
    let names = [GRPC_TIMEOUT, GRPC_PREVIOUS_RPC_ATTEMPTS, TRACEPARENT, TRACESTATE];
    for (name, value) in names.into_iter().zip(input.own) {
        if let Some(Ok(value)) = value.map(|value| HeaderValue::from_bytes(&value)) {
            own.insert(name, value);
        }
    }

    let left =
        input.left.map(|(seconds, nanos)| Duration::new(seconds.into(), nanos % 1_000_000_000));
    let trace = input.trace.and_then(|(trace_id, span_id, sampled, state)| {
        let (trace_id, span_id) = (TraceId::new(trace_id)?, SpanId::new(span_id)?);
        let context = TraceContext { trace_id, span_id, sampled };
        Some(RemoteTrace { context, state: state.map(Into::into) })
    });
    let mut call = Call::new().with_attempt(input.attempt);
    call = call.with_deadline(left.and_then(|left| clock::now().checked_add(left)));
    if let Some(trace) = trace.clone() {
        call = call.with_trace(trace);
    }
    let layer = PropagateLayer::new().with_attempt_header(ATTEMPT).with_timeout_header(TIMEOUT_MS);
    let mut service = layer.layer(Headers);
    let mut request = Request::new(());
    *request.headers_mut() = own.clone();
    let Ok(response) = call.in_scope(async move { service.call(request).await }).await;
    let sent = response.into_parts().0.headers;

    assert_eq!(sent.get(ATTEMPT).cloned(), (input.attempt > 0).then(|| input.attempt.into()));
    let millis = left.map(|left| HeaderValue::from(left.as_millis() as u64));
    assert_eq!(sent.get(TIMEOUT_MS).cloned(), millis);
    traced(&own, &sent, trace, input.attempt);
    if is_grpc(&own) {
        timed(&own, &sent, left);
        let previous = (input.attempt > 1).then(|| HeaderValue::from(input.attempt - 1));
        let previous = previous.or(own.get(GRPC_PREVIOUS_RPC_ATTEMPTS).cloned());
        assert_eq!(sent.get(GRPC_PREVIOUS_RPC_ATTEMPTS).cloned(), previous);
    } else {
        for name in [GRPC_TIMEOUT, GRPC_PREVIOUS_RPC_ATTEMPTS] {
            assert_eq!(sent.get(&name), own.get(&name));
        }
    }
}

/// A limit the caller wrote is only shortened, and what is written is what is left, hardly less.
fn timed(own: &HeaderMap, sent: &HeaderMap, left: Option<Duration>) {
    let Some(left) = left else {
        return assert_eq!(sent.get(GRPC_TIMEOUT), own.get(GRPC_TIMEOUT));
    };
    let limit =
        own.get(GRPC_TIMEOUT).and_then(parse_grpc_timeout).map_or(left, |own| own.min(left));
    let written = parse_grpc_timeout(&sent[GRPC_TIMEOUT]).expect("what is written can be read");
    assert!(written <= limit);
    assert!(limit - written <= limit / 10_000 + Duration::from_nanos(1), "{written:?} {limit:?}");
}

fn traced(own: &HeaderMap, sent: &HeaderMap, trace: Option<RemoteTrace>, attempt: u32) {
    let Some(RemoteTrace { context, state }) = trace else {
        for name in [TRACEPARENT, TRACESTATE] {
            assert_eq!(sent.get(&name), own.get(&name));
        }
        return;
    };
    let read = trace_context::from_headers(sent).expect("what is written can be read");
    let span_id = context.span_id.of_attempt(attempt);
    assert_eq!(read.context, TraceContext { span_id, ..context });
    assert_eq!(read.state, state.filter(|state| is_state(state)));
    assert_eq!(sent.get_all(TRACESTATE).iter().count(), usize::from(read.state.is_some()));
}

/// By gRPC over HTTP/2: `application/grpc`, alone or with a suffix or a parameter.
fn is_grpc(headers: &HeaderMap) -> bool {
    let bytes = headers.get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let marks: [&[u8]; 3] = [b"application/grpc+", b"application/grpc;", b"application/grpc "];
    bytes == b"application/grpc" || marks.iter().any(|mark| bytes.starts_with(mark))
}

/// Answers with the headers it was called with.
struct Headers;

impl Service<Request<()>> for Headers {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut response = Response::new(());
        *response.headers_mut() = request.into_parts().0.headers;
        ready(Ok(response))
    }
}
