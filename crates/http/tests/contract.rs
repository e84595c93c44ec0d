//! Tower's contract, kept by the layers of this crate.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use portcullis_core::Event;
use portcullis_http::{GrpcCallLayer, PeekLayer, PropagateLayer, RejectionsLayer};
use portcullis_testkit::{ScriptedService, assert_send, assert_sync, contract::Suite};
use tower_layer::Layer;

type Inner = ScriptedService<Request<Full<Bytes>>, Response<Full<Bytes>>>;

#[tokio::test(start_paused = true)]
async fn propagate_keeps_towers_contract() {
    let layered = |inner: Inner| PropagateLayer::new().layer(inner);
    Suite::with(Request::default, Response::default, layered).run().await;
}

#[tokio::test(start_paused = true)]
async fn propagate_keeps_towers_contract_while_it_tells() {
    let told = PropagateLayer::new().with_observer("shop", |_: &Event<'_>| ());
    let layered = move |inner: Inner| told.layer(inner);
    Suite::with(Request::default, Response::default, layered).run().await;
}

#[tokio::test(start_paused = true)]
async fn rejections_keep_towers_contract() {
    let layered = |inner: Inner| RejectionsLayer::new().layer(inner);
    Suite::with(Request::default, Response::default, layered).run().await;
}

#[tokio::test(start_paused = true)]
async fn grpc_calls_keep_towers_contract() {
    let layered = |inner: Inner| GrpcCallLayer::new().layer(inner);
    let request = || {
        let request = Request::post("/a.B/C").header("content-type", "application/grpc");
        request.header("grpc-timeout", "99999999H").body(Full::default()).unwrap()
    };
    Suite::with(request, Response::default, layered).run().await;
}

#[tokio::test(start_paused = true)]
async fn peek_keeps_towers_contract() {
    for layer in [PeekLayer::new(), PeekLayer::new().wait_for(|_| true)] {
        let layered = move |inner: Inner| layer.layer(inner);
        Suite::with(Request::default, Response::default, layered).run().await;
    }
}

#[tokio::test(start_paused = true)]
async fn peek_keeps_towers_contract_while_it_looks() {
    let answer = || {
        let mut response = Response::new(Full::from("message"));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        response
    };
    let layered = |inner: Inner| PeekLayer::new().wait_for(|_| true).layer(inner);
    Suite::with(Request::default, answer, layered).run().await;
}

#[test]
fn layers_go_where_services_go() {
    assert_send::<PropagateLayer>();
    assert_sync::<PropagateLayer>();
    assert_send::<GrpcCallLayer>();
    assert_sync::<GrpcCallLayer>();
    assert_send::<PeekLayer>();
    assert_sync::<PeekLayer>();
    assert_send::<RejectionsLayer>();
    assert_sync::<RejectionsLayer>();
}
