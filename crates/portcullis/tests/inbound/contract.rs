//! Tower's contract, facts about the types, and settings that cannot be.

use std::time::Duration;

use axum::{Router, extract::MatchedPath, routing::get};
use http::{HeaderName, Request, Response};
use portcullis::{
    Invalid,
    inbound::{Body, Inbound, InboundBuilder, InboundLayer, ResponseFuture},
};
use portcullis_testkit::{
    ScriptedService, assert_clone, assert_debug, assert_send, assert_sync, assert_unpin, contract,
};
use tower::{Layer, ServiceExt};

use crate::fakes::{MS, PARENT, Text, one, recorder, request};

type Inner = ScriptedService<Request<Text>, Response<Text>>;

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_towers_contract() {
    let plain = |inner: Inner| InboundLayer::new().layer(inner);
    contract::Suite::with(Request::default, Response::default, plain).run().await;

    let recorder = recorder();
    let layer = InboundLayer::builder("contract")
        .default_timeout(Duration::from_secs(9_000))
        .recorder(&recorder)
        .build()
        .unwrap();
    let asked = || request(&[("traceparent", PARENT)]);
    let full = |inner: Inner| layer.layer(inner);
    contract::Suite::with(asked, Response::default, full).run().await;
}

#[test]
fn types_are_what_a_server_needs() {
    /// Neither `Debug` nor anything else.
    #[derive(Clone)]
    struct Bare;

    assert_clone::<InboundLayer>();
    assert_debug::<InboundLayer>();
    assert_sync::<InboundLayer>();
    assert_debug::<InboundBuilder>();
    assert_clone::<Inbound<Bare>>();
    assert_debug::<Inbound<Bare>>();
    assert_send::<Inbound<Bare>>();
    assert_sync::<Inbound<Bare>>();
    assert_debug::<ResponseFuture<Bare>>();
    assert_send::<ResponseFuture<Bare>>();
    assert_debug::<Body<Bare>>();
    assert_send::<Body<Text>>();
    assert_unpin::<Body<Text>>();
}

#[tokio::test]
async fn an_axum_router_takes_it_as_it_is_and_a_trace_can_be_named_by_its_route() {
    let recorder = recorder();
    let inbound = InboundLayer::builder("app").recorder(&recorder).name_by(|request| {
        let route = request.extensions.get::<MatchedPath>().map_or("?", MatchedPath::as_str);
        format!("{} {route}", request.method).into()
    });
    let app: Router = Router::new()
        .route("/users/{id}", get(|| async { "somebody" }))
        .layer(inbound.build().unwrap());
    let request = Request::get("/users/42").body(axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(axum::body::to_bytes(response.into_body(), 99).await.unwrap(), "somebody");
    assert_eq!(one(&recorder).await.name, "GET /users/{id}");
}

#[test]
fn a_bad_setting_is_named() {
    let built = |builder: InboundBuilder| builder.build().map_err(|bad: Invalid| bad.to_string());
    let shop = || InboundLayer::builder("shop");
    assert_eq!(
        built(shop().default_timeout(Duration::ZERO)).unwrap_err(),
        "shop: default_timeout is 0ns, allowed is above 0"
    );
    assert_eq!(
        built(shop().max_timeout(Duration::ZERO)).unwrap_err(),
        "shop: max_timeout is 0ns, allowed is above 0"
    );
    assert_eq!(
        built(shop().default_timeout(2 * MS).max_timeout(MS)).unwrap_err(),
        "shop: default_timeout is 2ms, allowed is at most max_timeout, 1ms"
    );
    let header = HeaderName::from_static("x-timeout-ms");
    assert!(built(shop().default_timeout(MS).max_timeout(MS).timeout_header(header)).is_ok());
}
