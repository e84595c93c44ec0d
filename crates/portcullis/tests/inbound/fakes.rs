//! Requests, handlers, and a recorder that keeps everything.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    inbound::{self, InboundLayer},
    trace::{Query, Recorder, Trace},
};
use tower::{Layer, Service, ServiceExt, service_fn};

pub(crate) type Text = Full<Bytes>;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const SPAN_ID: &str = "00f067aa0ba902b7";

pub(crate) fn request(headers: &[(&str, &str)]) -> Request<Text> {
    let mut request = Request::get("/users/42?token=secret");
    for (name, value) in headers {
        request = request.header(*name, value.as_bytes());
    }
    request.body(Text::default()).unwrap()
}

pub(crate) fn grpc(headers: &[(&str, &str)]) -> Request<Text> {
    let mut request = request(headers);
    let kind = http::HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", kind);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = "/shop.v1.Carts/Add".parse().unwrap();
    request
}

pub(crate) fn answer<B>(status: u16, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Serves one request by `handle`, through `layer`.
pub(crate) fn serve<H, F, B>(
    layer: &InboundLayer,
    request: Request<Text>,
    handle: H,
) -> impl Future<Output = Response<inbound::Body<B>>> + use<H, F, B>
where
    H: FnOnce() -> F,
    F: Future<Output = Response<B>>,
    B: http_body::Body,
{
    let mut handle = Some(handle);
    let mut service = layer.layer(service_fn(move |_: Request<Text>| {
        let answer = handle.take().unwrap()();
        async { Ok::<_, Infallible>(answer.await) }
    }));
    async move {
        let Ok(ready) = service.ready().await;
        let Ok(response) = ready.call(request).await;
        response
    }
}

pub(crate) fn recorder() -> Recorder {
    Recorder::builder().sample_rate(1.0).build().unwrap()
}

pub(crate) async fn stored(recorder: &Recorder) -> Vec<Arc<Trace>> {
    recorder.flush().await;
    recorder.store().query(&Query::new()).unwrap().traces
}

pub(crate) async fn one(recorder: &Recorder) -> Arc<Trace> {
    let mut traces = stored(recorder).await;
    assert_eq!(traces.len(), 1, "{traces:?}");
    traces.remove(0)
}
