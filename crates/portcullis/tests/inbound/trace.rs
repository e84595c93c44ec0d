//! What is recorded of a request, and which trace its calls belong to.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Channel, StreamBody};
use portcullis::{
    Call, Error,
    inbound::InboundLayer,
    trace::{self, Recorder, Status, Trace, TraceLayer, Traced, record::Kind},
};
use portcullis_testkit::{ScriptedService, Step, call, poll_k};
use std::sync::Arc;
use tower::{Layer, ServiceExt, service_fn};

use crate::fakes::{
    MS, PARENT, SPAN_ID, TRACE_ID, Text, answer, grpc, one, recorder, request, serve, stored,
};

fn recording(recorder: &Recorder) -> InboundLayer {
    InboundLayer::builder("shop").recorder(recorder).build().unwrap()
}

/// A client that answers after 10 ms.
fn client(recorder: &Recorder, name: &'static str) -> Traced<ScriptedService<(), u16>> {
    let inner = ScriptedService::respond_with(|(), _| Step::Ok(200).after(10 * MS));
    TraceLayer::builder(name).recorder(recorder).build().unwrap().layer(inner)
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_handler_are_children_of_the_request_in_the_trace_it_came_with() {
    let recorder = recorder();
    let mut stock = client(&recorder, "stock");
    let asked = request(&[("traceparent", PARENT), ("tracestate", "rojo=1")]);
    let response = serve(&recording(&recorder), asked, || async {
        assert_eq!(Call::current().tracestate().as_deref(), Some("rojo=1"));
        call(&mut stock, ()).await.unwrap();
        answer(200, Text::from("found"))
    })
    .await;
    assert_eq!(recorder.counts().seen, 0, "it is over with its body");
    response.into_body().collect().await.unwrap();

    let trace = one(&recorder).await;
    assert_eq!((&*trace.name, trace.status), ("GET", Status::Success));
    assert_eq!(trace.id.to_string(), TRACE_ID);
    assert_eq!(trace.parent.unwrap().to_string(), SPAN_ID);
    assert_eq!(trace.duration, 10 * MS);
    assert_eq!(trace.calls.len(), 1);
    assert_eq!((&*trace.calls[0].name, trace.calls[0].parent), ("stock", Some(trace.span)));
}

#[tokio::test(start_paused = true)]
async fn without_a_recorder_calls_belong_to_the_trace_it_came_with_all_the_same() {
    let recorder = recorder();
    let mut stock = client(&recorder, "stock");
    let asked = request(&[("traceparent", PARENT)]);
    let handled = serve(&InboundLayer::new(), asked, || async {
        call(&mut stock, ()).await.unwrap();
        answer(200, Text::default())
    });
    drop(handled.await);
    let trace = one(&recorder).await;
    assert_eq!(trace.id.to_string(), TRACE_ID);
    assert_eq!(trace.calls[0].parent.unwrap().to_string(), SPAN_ID);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_trace_or_one_that_is_not_trusted_begins_a_new_one() {
    let recorder = recorder();
    let twice = &[("traceparent", PARENT), ("traceparent", PARENT)];
    let bad = &[("traceparent", "00-what-ever-01"), ("tracestate", "é")];
    for headers in [&[][..], twice, bad] {
        drop(serve(&recording(&recorder), request(headers), found).await);
    }
    let edge = InboundLayer::builder("edge").recorder(&recorder).without_remote_trace();
    let asked = request(&[("traceparent", PARENT)]);
    drop(serve(&edge.build().unwrap(), asked, found).await);
    let traces = stored(&recorder).await;
    assert_eq!(traces.len(), 4);
    for trace in traces {
        assert_eq!(trace.parent, None);
        assert_ne!(trace.id.to_string(), TRACE_ID);
    }
}

async fn found() -> Response<Text> {
    answer(200, Text::from("found"))
}

#[tokio::test(start_paused = true)]
async fn a_layer_on_a_nested_router_is_a_child_of_the_one_outside() {
    let recorder = recorder();
    let handler = service_fn(|_: Request<Text>| async { Ok::<_, Infallible>(found().await) });
    let nested = recording(&recorder).layer(recording(&recorder).layer(handler));
    let response = nested.oneshot(request(&[("traceparent", PARENT)])).await.unwrap();
    response.into_body().collect().await.unwrap();

    let trace = one(&recorder).await;
    assert_eq!(trace.parent.unwrap().to_string(), SPAN_ID);
    assert_eq!(trace.calls.len(), 1);
    assert_eq!((trace.calls[0].kind, trace.calls[0].parent), (Kind::Scope, Some(trace.span)));
}

#[tokio::test(start_paused = true)]
async fn a_layer_inside_trusts_no_trace_that_the_one_outside_does_not() {
    let recorder = recorder();
    let handler = service_fn(|_: Request<Text>| async { Ok::<_, Infallible>(found().await) });
    for inner in [recording(&recorder), InboundLayer::new()] {
        let edge = InboundLayer::builder("edge").recorder(&recorder).without_remote_trace();
        let nested = edge.build().unwrap().layer(inner.layer(handler));
        let response = nested.oneshot(request(&[("traceparent", PARENT)])).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let traces = stored(&recorder).await;
    assert_eq!(traces.len(), 2, "one for each request");
    assert!(traces.iter().all(|trace| trace.parent.is_none()));
}

#[tokio::test]
async fn a_handler_is_no_attempt_whatever_calls_it() {
    let recorder = recorder();
    for layer in [recording(&recorder), InboundLayer::new()] {
        let handled = serve(&layer, request(&[]), || async {
            assert_eq!(Call::current().attempt(), 0);
            found().await
        });
        assert_eq!(Call::new().with_attempt(2).in_scope(handled).await.status(), 200);
    }
}

/// A body that has a frame, and then panics.
struct Panicking(bool);

impl http_body::Body for Panicking {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(!std::mem::replace(&mut self.0, true), "out of paper");
        Poll::Ready(Some(Ok(Frame::data(Bytes::from("half")))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_is_no_success() {
    for asked in [request(&[]), grpc(&[])] {
        let recorder = recorder();
        let body = Panicking(false);
        let response = serve(&recording(&recorder), asked, || async { answer(200, body) }).await;
        // As a server has it, whose connections are tasks.
        let served = tokio::spawn(response.into_body().collect()).await;
        assert!(served.unwrap_err().is_panic());
        assert_eq!(one(&recorder).await.status, Status::Cancelled);
        assert_eq!(Call::current().trace(), None);
    }
}

/// What is recorded of a request with this answer, read to its end.
async fn recorded<B>(asked: Request<Text>, response: Response<B>) -> Arc<Trace>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<portcullis::BoxError>,
{
    let recorder = recorder();
    let response = serve(&recording(&recorder), asked, || async { response }).await;
    let _ = response.into_body().collect().await;
    one(&recorder).await
}

#[tokio::test(start_paused = true)]
async fn its_status_is_that_of_the_response_to_the_end_of_its_body() {
    for (status, expected) in [
        (200, Status::Success),
        (404, Status::Success),
        (429, Status::Success),
        (500, Status::Error),
    ] {
        let trace = recorded(request(&[]), answer(status, Text::from("text"))).await;
        assert_eq!(trace.status, expected, "{status}");
    }

    let broken = |_| Err::<Frame<Bytes>, _>(std::io::Error::other("the disk is gone"));
    let frames = stream_of([Ok(Frame::data(Bytes::from("half"))), broken(())]);
    let trace = recorded(request(&[]), answer(200, StreamBody::new(frames))).await;
    assert_eq!(trace.status, Status::Error, "it broke off");

    for (code, expected) in [("0", Status::Success), ("5", Status::Success), ("13", Status::Error)]
    {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.parse().unwrap());
        let frames = [Frame::data(Bytes::from("message")), Frame::trailers(trailers)];
        let frames = stream_of(frames.map(Ok::<_, Infallible>));
        let trace = recorded(grpc(&[]), answer(200, StreamBody::new(frames))).await;
        assert_eq!((&*trace.name, trace.status), ("shop.v1.Carts/Add", expected), "{code}");
    }
}

fn stream_of<T: Unpin>(items: impl IntoIterator<Item = T>) -> impl futures_util::Stream<Item = T> {
    futures_util::stream::iter(items)
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_says_of_its_failure_stands() {
    let recorder = recorder();
    let response = serve(&recording(&recorder), request(&[]), || async {
        trace::fail(&Error::inner("no stock"));
        found().await
    });
    response.await.into_body().collect().await.unwrap();
    let trace = one(&recorder).await;
    assert_eq!((trace.status, trace.error.as_deref()), (Status::Error, Some("no stock")));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_handed_up_and_recorded() {
    let recorder = recorder();
    let failing = service_fn(|_: Request<Text>| async { Err::<Response<Text>, _>("broken") });
    let error = recording(&recorder).layer(failing).oneshot(request(&[])).await.unwrap_err();
    assert_eq!(error, "broken");
    assert_eq!(one(&recorder).await.status, Status::Error);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_cancels_the_request_and_its_calls() {
    let recorder = recorder();
    let mut stock = client(&recorder, "stock");
    let handled = serve(&recording(&recorder), request(&[]), || async {
        call(&mut stock, ()).await.unwrap();
        found().await
    });
    assert!(poll_k(handled, 1).await.is_none());
    let trace = one(&recorder).await;
    assert_eq!((trace.status, trace.calls[0].status), (Status::Cancelled, Status::Cancelled));

    let recorder = crate::fakes::recorder();
    let (_sender, body) = Channel::<Bytes>::new(1);
    let response = serve(&recording(&recorder), request(&[]), || async { answer(200, body) }).await;
    assert!(poll_k(response.into_body().collect(), 1).await.is_none());
    assert_eq!(one(&recorder).await.status, Status::Cancelled, "in the middle of its response");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_is_recorded_as_a_timeout_with_the_limit() {
    for (asked, text) in
        [("0", "GET: inherited limit of 0ns ran out"), ("5", "GET: inherited limit of 5ms ran out")]
    {
        let recorder = recorder();
        let mut stock = client(&recorder, "stock");
        let header = http::HeaderName::from_static("x-timeout-ms");
        let layer = InboundLayer::builder("shop").recorder(&recorder).timeout_header(header);
        let asked = request(&[("x-timeout-ms", asked)]);
        let response = serve(&layer.build().unwrap(), asked, || async {
            call(&mut stock, ()).await.unwrap();
            found().await
        });
        assert_eq!(response.await.status(), 504);
        let trace = one(&recorder).await;
        assert_eq!((trace.status, trace.error.as_deref()), (Status::Timeout, Some(text)));
        // The call that was dropped for it is no caller who gave up.
        assert!(trace.calls.iter().all(|call| call.status == Status::Timeout));
    }
}

/// A body that makes a call for its one frame, and another when it is dropped.
struct Calling {
    stock: Traced<ScriptedService<(), u16>>,
    asking: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    dropped_in: Arc<portcullis::sync::Mutex<Option<Call>>>,
}

impl http_body::Body for Calling {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut stock = self.stock.clone();
        let asking = self.asking.get_or_insert_with(|| {
            Box::pin(async move {
                call(&mut stock, ()).await.unwrap();
            })
        });
        asking.as_mut().poll(cx).map(|()| None)
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        *self.dropped_in.lock() = Some(Call::current());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_body_belong_to_the_request_as_does_its_drop() {
    let recorder = recorder();
    let stock = client(&recorder, "stock");
    let dropped_in = Arc::default();
    let body = Calling { stock, asking: None, dropped_in: Arc::clone(&dropped_in) };
    let asked = request(&[("traceparent", PARENT)]);
    let response = serve(&recording(&recorder), asked, || async { answer(200, body) }).await;
    response.into_body().collect().await.unwrap();

    let trace = one(&recorder).await;
    assert_eq!(trace.duration, 10 * MS);
    assert_eq!(trace.calls[0].parent, Some(trace.span));
    let dropped_in = dropped_in.lock().take().unwrap().trace().unwrap();
    assert_eq!(dropped_in.span_id, trace.span);
    assert_eq!(Call::current().trace(), None);
}
