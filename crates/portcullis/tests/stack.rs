//! The ready-made stack: presets, parts and Tower's contract.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use portcullis::{
    ByResult, Error, Event, GrpcResponseBody, GrpcStack, HttpStack, Outcome, Preset, Registry,
    ResponseBody, Stack, StackBuilder, State, What,
    breaker::{BreakerLayer, Handle, Handles, Mode},
    http::{GrpcClassifier, HttpClassifier, PropagateLayer},
    ratelimit::KeyedLimiter,
    retry::Budget,
    sync::Mutex,
    timeout::{Elapsed, TimeoutLayer},
    trace::{Query, Recorder},
};
use portcullis_testkit::{
    Script, ScriptedService, Step, TestError, assert_clone, assert_send, assert_sync, contract,
};
use std::sync::Arc;
use tower::{Layer, Service, ServiceExt};

type Body = Full<Bytes>;
type Inner = ScriptedService<Request<Body>, Response<Body>>;

fn answering(status: StatusCode) -> Inner {
    ScriptedService::respond_with(move |_, _| {
        let mut response = Response::new(Body::from("text"));
        *response.status_mut() = status;
        Step::Ok(response)
    })
}

#[tokio::test(start_paused = true)]
async fn every_preset_is_valid_and_answers() {
    for preset in [Preset::Development, Preset::Staging, Preset::Production] {
        let stack = StackBuilder::new("search", preset).build().unwrap();
        let service = stack.layer(answering(StatusCode::OK));
        assert_eq!(service.oneshot(Request::default()).await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_development_breaker_only_tells() {
    let stack = Stack::development("search").build().unwrap();
    assert_eq!(stack.breaker().handles().get_or_create("x").config().mode, Mode::Disabled);
    let service = stack.layer(answering(StatusCode::INTERNAL_SERVER_ERROR));
    for _ in 0..50 {
        let response = service.clone().oneshot(Request::default()).await;
        assert_eq!(response.unwrap().status(), 500);
    }
}

#[test]
fn a_bad_setting_is_named_and_registers_nothing() {
    let registry = Registry::new();
    let stack = Stack::production("search").breaker(|breaker| breaker.failure_rate(1.2));
    let invalid = stack.register_in(&registry).build().unwrap_err();
    assert_eq!(invalid.field(), "failure_rate");
    assert_eq!(
        invalid.to_string(),
        "search: breaker: failure_rate is 1.2, allowed is above 0 and at most 1, or off"
    );
    assert!(registry.get::<Handles>("search").is_none());
}

#[test]
fn handles_are_filed_under_the_targets_name() {
    let registry = Registry::new();
    let stack = Stack::production("search").register_in(&registry).build().unwrap();
    registry.get::<Handles>("search").unwrap().get_or_create("a.test").force_open();
    let breaker = stack.breaker().handles().get("a.test").unwrap();
    assert_eq!(breaker.state(), State::ForcedOpen);
    assert_eq!(registry.get::<Budget>("search").unwrap().waiting(), 0);
    assert!(registry.get::<KeyedLimiter>("search").unwrap().is_empty());
    assert_eq!(registry.get::<Recorder>("search").unwrap().counts().seen, 0);
}

#[tokio::test(start_paused = true)]
async fn one_observer_hears_every_layer() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let seen = heard.clone();
    let stack = Stack::production("search")
        .observe(move |event: &Event<'_>| {
            seen.lock().push((event.layer.as_str(), event.what.as_str()));
        })
        .build()
        .unwrap();
    let inner = Inner::new(
        Script::new([Step::Err(TestError("reset"))]).then_repeat(Step::Err(TestError("gone"))),
    );
    let _ = stack.layer(inner).oneshot(Request::get("/").body(Body::default()).unwrap()).await;
    let heard = heard.lock();
    for told in [
        ("breaker", "admitted"),
        ("breaker", "settled"),
        ("retry", "retrying"),
        ("retry", "gave_up"),
        ("timeout", "settled"),
    ] {
        assert!(heard.contains(&told), "{told:?} is not in {heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_part_can_be_replaced_or_left_out() {
    let stack = || Stack::production("search").build().unwrap();
    let shared = Handle::new("shared", Default::default()).unwrap();

    let replaced = stack()
        .with_breaker(BreakerLayer::new(shared.clone()).with_classifier(HttpClassifier::new()))
        .with_attempt(TimeoutLayer::attempt("mine", Duration::from_secs(1)).unwrap())
        .without_retry();
    let hung = Inner::new(Script::repeat(Step::Hang));
    let error = replaced.layer(hung).oneshot(Request::default()).await.unwrap_err();
    assert_eq!(error.find::<Elapsed>().unwrap().limit(), Duration::from_secs(1));
    assert_eq!(shared.snapshot().counts.failures, 1);

    let bare = stack().without_trace().without_total().without_retry();
    let bare = bare.without_limit().without_breaker().without_attempt();
    let response = bare.layer(answering(StatusCode::BAD_GATEWAY)).oneshot(Request::default());
    assert_eq!(response.await.unwrap().status(), 502);
}

#[tokio::test(start_paused = true)]
async fn every_layer_judges_by_the_same_classifier() {
    let lenient =
        HttpClassifier::new().with_status(StatusCode::INTERNAL_SERVER_ERROR, Outcome::Success);
    let stack = Stack::production("search").classify(lenient).build().unwrap();
    let inner = answering(StatusCode::INTERNAL_SERVER_ERROR);
    let journal = inner.journal();
    let response = stack.layer(inner).oneshot(Request::default()).await.unwrap();
    drop(response);
    assert_eq!(journal.calls(), 1);
    assert_eq!(stack.breaker().handles().get_or_create("").snapshot().counts.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn the_stack_keeps_towers_contract() {
    let layered = |inner: Inner| Stack::production("search").build().unwrap().layer(inner);
    // A POST: retries are another suite's business.
    let request = || Request::post("/").body(Body::default()).unwrap();
    contract::Suite::with(request, Response::default, layered).run().await;
}

/// A body as a client of gRPC has it.
type Boxed = UnsyncBoxBody<Bytes, Error>;
type GrpcInner = ScriptedService<Request<Boxed>, Response<Body>>;

fn grpc_request() -> Request<Boxed> {
    let request = Request::post("/shop.Orders/Place").header("content-type", "application/grpc");
    request.body(Boxed::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_grpc_stack_keeps_towers_contract() {
    let layered =
        |inner: GrpcInner| Stack::production("shop").grpc(Boxed::new).build().unwrap().layer(inner);
    // Its settings keep retries out: they are another suite's business.
    let succeeding = || {
        let mut response = Response::new(Body::default());
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
        response
    };
    contract::Suite::with(grpc_request, succeeding, layered).run().await;
}

#[tokio::test(start_paused = true)]
async fn a_grpc_stack_answers_refusals_and_keeps_what_was_set_before() {
    let registry = Registry::new();
    let stack: GrpcStack<Boxed> = Stack::production("shop")
        .breaker(|breaker| breaker.consecutive_failures(2))
        .retry(|retry| retry.max_attempts(1))
        .limit(|limit| limit.rate(3, Duration::from_secs(60)).burst(3).max_wait(Duration::ZERO))
        .register_in(&registry)
        .grpc(Boxed::new)
        .build()
        .unwrap();
    let inner = GrpcInner::respond_with(|_, _| {
        let mut response = Response::new(Body::default());
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
        Step::Ok(response)
    });
    let journal = inner.journal();
    let service = stack.layer(inner);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let response: Response<GrpcResponseBody<Body>> =
            service.clone().oneshot(grpc_request()).await.unwrap();
        seen.push(response.headers()["grpc-status"].to_str().unwrap().to_owned());
    }
    // Two of the server's, one of the breaker's, one of the limit's.
    assert_eq!(seen, ["14", "14", "14", "8"]);
    assert_eq!(journal.calls(), 2);
    let breaker = registry.get::<Handles>("shop").unwrap().get("shop").unwrap();
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(stack.check().max_attempts, 1);
}

#[test]
fn a_stack_goes_where_layers_go() {
    assert_clone::<GrpcStack<Boxed>>();
    assert_send::<GrpcStack<Boxed>>();
    assert_sync::<GrpcStack<Boxed>>();
    assert_send::<GrpcResponseBody<Body>>();
    assert_clone::<HttpStack>();
    assert_send::<HttpStack>();
    assert_sync::<HttpStack>();
    assert_send::<ResponseBody<Body>>();
    let grpc = Stack::production("search").classify(GrpcClassifier::new()).build().unwrap();
    fn is_service<S>(_: &S)
    where
        S: Service<Request<Body>, Response = Response<ResponseBody<Body>>>,
    {
    }
    is_service(&grpc.layer(answering(StatusCode::OK)));
    let plain = Stack::production("search").classify(ByResult).build().unwrap();
    let _ = plain.layer(answering(StatusCode::OK));
}

#[tokio::test(start_paused = true)]
async fn an_observer_of_the_stack_hears_of_each_call_and_of_each_answer() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = told.clone();
    let stack = Stack::production("search")
        .observe(move |event: &Event<'_>| {
            if matches!(event.what, What::Started | What::Answered { .. }) {
                ear.lock().push(event.to_string());
            }
        })
        // Replaced after the observer was given, and told to it all the same.
        .propagate(PropagateLayer::new())
        .build()
        .unwrap();
    let service = stack.layer(answering(StatusCode::OK));
    let request = Request::get("http://a.test/x").body(Body::default()).unwrap();
    service.oneshot(request).await.unwrap();
    assert_eq!(
        *told.lock(),
        ["trace search: begins", "propagate search [a.test]: answered 200 after 0.0ns"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_is_described_by_its_method() {
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    let stack = Stack::production("carts").recorder(&recorder).build().unwrap();
    for content in ["application/grpc", "application/json"] {
        let request = Request::post("http://a.test/shop.Carts/Add").header("content-type", content);
        let service = stack.layer(answering(StatusCode::OK));
        service.oneshot(request.body(Body::default()).unwrap()).await.unwrap();
    }
    recorder.flush().await;
    let page = recorder.store().query(&Query::new()).unwrap();
    let mut operations: Vec<_> =
        page.traces.iter().map(|it| it.calls[0].operation.clone().unwrap()).collect();
    operations.sort();
    assert_eq!(operations, ["POST", "shop.Carts/Add"]);
}
