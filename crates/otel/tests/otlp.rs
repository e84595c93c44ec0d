//! Metrics and spans as a collector receives them, over a real connection.
#![cfg(feature = "otlp")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, body, extract::State, http::StatusCode, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{metric::Data, number_data_point::Value as Number},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode as SpanStatus},
};
use opentelemetry_semantic_conventions::attribute as conventional;
use portcullis::{
    BoxError, RemoteTrace, Stack,
    http::trace_context,
    sync::Mutex,
    trace::{MemoryStore, Recorder, TraceScope, output},
};
use portcullis_otel::{
    Telemetry,
    names::{SECONDS, attribute, metric},
};
use portcullis_testkit::{call as send, poll_k};
use prost::Message;
use tower::{Layer, service_fn};

type Body = Full<Bytes>;

/// What a collector has received.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    metrics: Vec<ExportMetricsServiceRequest>,
    services: Vec<String>,
    /// What it answers instead of taking anything.
    refuses: Option<StatusCode>,
}

// ===== impl Collector =====

impl Collector {
    /// One that listens, and its address. It has a thread of its own: the program under test may
    /// block its only one.
    fn start() -> (Self, String) {
        let collector = Self::default();
        let app = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(collector.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().spans.clone()
    }
}

async fn traces(State(collector): State<Collector>, body: body::Bytes) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut received = collector.0.lock();
    if let Some(status) = received.refuses {
        return status;
    }
    for spans in request.resource_spans {
        let resource = text(&spans.resource.unwrap().attributes);
        received.services.push(resource["service.name"].clone());
        for scope in spans.scope_spans {
            assert_eq!(scope.scope.unwrap().name, "portcullis");
            received.spans.extend(scope.spans);
        }
    }
    StatusCode::OK
}

async fn metrics(State(collector): State<Collector>, body: body::Bytes) -> StatusCode {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    collector.0.lock().metrics.push(request);
    StatusCode::OK
}

fn text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |it: &KeyValue| match it.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|it| (it.key.clone(), value(it))).collect()
}

fn status(span: &Span) -> SpanStatus {
    span.status.as_ref().map_or(SpanStatus::Unset, Status::code)
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::default()).unwrap()
}

/// A client that answers these statuses one after the other, and notes what was sent to it.
#[derive(Clone)]
struct Server {
    statuses: Arc<Mutex<Vec<u16>>>,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    fn answering(statuses: &[u16]) -> Self {
        let statuses = statuses.iter().rev().copied().collect();
        Self { statuses: Arc::new(Mutex::new(statuses)), heads: Arc::default() }
    }

    /// Waits for ever where no status is left.
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.heads.lock().push(request.headers().clone());
        let Some(status) = self.statuses.lock().pop() else { return std::future::pending().await };
        Ok(Response::builder().status(status).body(Body::from("text"))?)
    }

    fn parents(&self) -> Vec<RemoteTrace> {
        let heads = self.heads.lock();
        heads.iter().map(|head| trace_context::from_headers(head).unwrap()).collect()
    }
}

macro_rules! client {
    ($stack:expr, $server:expr) => {{
        let server: Server = $server.clone();
        $stack.layer(service_fn(move |request| server.clone().answer(request)))
    }};
}

fn recorder(telemetry: &Telemetry) -> Recorder {
    telemetry.recorder(MemoryStore::new()).sample_rate(1.0).build().unwrap()
}

fn shop(telemetry: &Telemetry, recorder: &Recorder) -> portcullis::StackBuilder {
    Stack::production("shop")
        .recorder(recorder)
        .observe(telemetry.metrics().clone())
        .register_in(telemetry.registry())
}

#[tokio::test(start_paused = true)]
async fn a_scope_a_call_and_its_attempts_are_spans_under_each_other() {
    let (collector, address) = Collector::start();
    let telemetry = Telemetry::builder("checkout").otlp(&*address).build().unwrap();
    let recorder = recorder(&telemetry);
    let server = Server::answering(&[503, 404]);
    let mut client = client!(shop(&telemetry, &recorder).build().unwrap(), server);
    let scope = TraceScope::start("place order").recorder(&recorder).attribute("customer", 7);
    scope
        .attribute("url.full", "https://me:secret@shop.test/x")
        .run(async {
            let response = send(&mut client, get("https://shop.test/cart/7?card=1")).await.unwrap();
            response.into_body().collect().await.unwrap();
        })
        .await;
    recorder.shutdown().await;
    telemetry.shutdown();

    let spans = collector.spans();
    assert_eq!(collector.0.lock().services, ["checkout"]);
    let [scope, call, first, second] = &spans[..] else { panic!("{spans:#?}") };
    assert!(spans.iter().all(|span| span.trace_id == scope.trace_id));
    assert_eq!((scope.name.as_str(), scope.kind()), ("place order", SpanKind::Internal));
    assert!(scope.parent_span_id.is_empty());
    let noted = text(&scope.attributes);
    assert_eq!(noted["customer"], "7");
    assert_eq!(noted[conventional::URL_FULL], "https://REDACTED:REDACTED@shop.test/x");
    assert_eq!(noted[attribute::SAMPLING_RATE], "1");

    assert_eq!((call.name.as_str(), call.kind()), ("shop GET", SpanKind::Internal));
    assert_eq!(call.parent_span_id, scope.span_id);
    for attempt in [first, second] {
        assert_eq!((attempt.name.as_str(), attempt.kind()), ("GET", SpanKind::Client));
        assert_eq!(attempt.parent_span_id, call.span_id);
        let attributes = text(&attempt.attributes);
        assert_eq!(attributes[conventional::HTTP_REQUEST_METHOD], "GET");
        assert_eq!(attributes[conventional::SERVER_ADDRESS], "shop.test");
        assert_eq!(attributes[conventional::SERVER_PORT], "443");
        assert!(!format!("{attempt:?}").contains("card"), "a query may tell secrets");
        assert!(attempt.start_time_unix_nano >= call.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= call.end_time_unix_nano);
    }
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    let [one, two] = [first, second].map(|attempt| text(&attempt.attributes));
    assert_eq!(one[conventional::HTTP_RESPONSE_STATUS_CODE], "503");
    assert_eq!(two[conventional::HTTP_RESPONSE_STATUS_CODE], "404");
    assert_eq!(one[conventional::ERROR_TYPE], "503");
    assert_eq!(one.get(conventional::HTTP_REQUEST_RESEND_COUNT), None);
    assert_eq!(two[conventional::HTTP_REQUEST_RESEND_COUNT], "1");
    // To a client a 404 is an error; that the first attempt failed was handled.
    assert_eq!([first, second].map(status), [SpanStatus::Error, SpanStatus::Error]);
    assert_eq!([scope, call].map(status), [SpanStatus::Unset, SpanStatus::Unset]);

    let events: Vec<_> = call.events.iter().map(|event| event.name.as_str()).collect();
    assert!(events.contains(&"portcullis.retry.retrying"), "{events:?}");
    let answered = first.events.iter().find(|it| it.name == "portcullis.propagate.answered");
    assert!(text(&answered.unwrap().attributes)[attribute::REASON].contains("answered 503"));

    // What went over the wire is what was exported.
    let sent: Vec<_> = server.parents().iter().map(|it| it.context.span_id.get()).collect();
    let exported = [first, second].map(|it| u64::from_be_bytes(it.span_id[..].try_into().unwrap()));
    assert_eq!(sent, exported);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_retries_is_one_span_and_one_that_was_given_up_is_no_error() {
    let (collector, address) = Collector::start();
    let telemetry = Telemetry::builder("checkout").otlp(&*address).build().unwrap();
    let recorder = recorder(&telemetry);
    let server = Server::answering(&[200]);
    let stack = shop(&telemetry, &recorder).build().unwrap().without_retry();
    let mut client = client!(stack, server);
    send(&mut client, get("http://shop.test:81/")).await.unwrap();
    poll_k(send(&mut client, get("http://shop.test:81/")), 3).await;
    let late = send(&mut client, get("http://shop.test:81/")).await;
    late.unwrap_err();
    recorder.shutdown().await;
    telemetry.shutdown();

    let spans = collector.spans();
    assert_eq!(spans.len(), 3);
    let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    let sent = server.parents().into_iter();
    let sent = sent.map(|it| it.context.span_id.get().to_be_bytes().to_vec());
    assert_eq!(ids, sent.collect());
    for span in &spans {
        assert_eq!((span.name.as_str(), span.kind()), ("GET", SpanKind::Client));
        assert_eq!(text(&span.attributes)[conventional::SERVER_PORT], "81");
    }
    let ended = |outcome: &str| {
        let mut spans = spans.iter();
        spans.find(|span| text(&span.attributes)[attribute::OUTCOME] == outcome).unwrap()
    };
    let [answered, given_up, late] = ["success", "cancelled", "timeout"].map(ended);
    assert_eq!(text(&answered.attributes)[conventional::HTTP_RESPONSE_STATUS_CODE], "200");
    assert_eq!([answered, given_up].map(status), [SpanStatus::Unset, SpanStatus::Unset]);
    assert_eq!(status(late), SpanStatus::Error);
    assert_eq!(text(&late.attributes)[conventional::ERROR_TYPE], "timeout");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_has_no_span_of_a_request_and_what_came_in_is_a_servers() {
    let (collector, address) = Collector::start();
    let telemetry = Telemetry::builder("checkout").otlp(&*address).build().unwrap();
    let recorder = recorder(&telemetry);
    let stack = shop(&telemetry, &recorder).retry(|it| it.max_attempts(1)).build().unwrap();
    let mut client = client!(stack, Server::answering(&[200]));
    stack.breaker().handles().get_or_create("shop.test").force_open();
    let mut headers = HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", parent.parse().unwrap());
    let scope = TraceScope::start("GET /orders").parent(trace_context::from_headers(&headers));
    let refused = scope.recorder(&recorder).run(send(&mut client, get("http://shop.test/"))).await;
    refused.unwrap_err();
    recorder.shutdown().await;
    telemetry.shutdown();

    let spans = collector.spans();
    let [scope, call] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(scope.kind(), SpanKind::Server);
    assert_eq!(scope.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(scope.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!((call.kind(), status(call)), (SpanKind::Internal, SpanStatus::Error));
    let attributes = text(&call.attributes);
    assert_eq!(attributes[conventional::ERROR_TYPE], "rejected");
    assert!(call.status.as_ref().unwrap().message.contains("shop"), "{:?}", call.status);
    assert!(call.events.iter().any(|event| event.name == "portcullis.breaker.rejected"));
}

/// An agent's turn with two tools, the second of which fails.
async fn turn(recorder: &Recorder) {
    let tools = async {
        let search =
            TraceScope::tool("search").call_id("call_17").arguments("{\"for\": \"skies\"}");
        search.run(async { output("three articles") }).await;
        let fails = async { Err::<(), _>(portcullis::Error::inner("by nothing")) };
        TraceScope::tool("divide").try_run(fails).await.unwrap_err();
    };
    TraceScope::start("turn").recorder(recorder).run(tools).await;
}

#[tokio::test(start_paused = true)]
#[expect(deprecated, reason = "they have a repository of their own by now, and the same names")]
async fn an_agents_tools_are_spans_by_the_conventions_for_them() {
    for opted_in in [false, true] {
        let (collector, address) = Collector::start();
        let telemetry = Telemetry::builder("agent").otlp(&*address);
        let telemetry = if opted_in { telemetry.outputs() } else { telemetry }.build().unwrap();
        let recorder = recorder(&telemetry);
        turn(&recorder).await;
        // One outside of everything, whose parent came over the wire.
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", parent.parse().unwrap());
        let alone = TraceScope::tool("alone").parent(trace_context::from_headers(&headers));
        alone.recorder(&recorder).run(async {}).await;
        recorder.shutdown().await;
        telemetry.shutdown();

        let spans = collector.spans();
        let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        let (search, divide) = (named("execute_tool search"), named("execute_tool divide"));
        assert!(spans.iter().all(|span| span.kind() == SpanKind::Internal));
        assert_eq!(search.parent_span_id, named("turn").span_id);
        let told = text(&search.attributes);
        assert_eq!(told[conventional::GEN_AI_OPERATION_NAME], "execute_tool");
        assert_eq!(told[conventional::GEN_AI_TOOL_NAME], "search");
        assert_eq!(told[conventional::GEN_AI_TOOL_CALL_ID], "call_17");
        let shown = |key| told.get(key).map(String::as_str);
        let arguments = shown(conventional::GEN_AI_TOOL_CALL_ARGUMENTS);
        assert_eq!(arguments, opted_in.then_some("{\"for\": \"skies\"}"));
        let result = shown(conventional::GEN_AI_TOOL_CALL_RESULT);
        assert_eq!(result, opted_in.then_some("three articles"));
        assert_eq!(shown(attribute::OUTPUT), None);
        assert_eq!([search, divide].map(status), [SpanStatus::Unset, SpanStatus::Error]);
        let failed = text(&divide.attributes);
        assert!(failed.contains_key(conventional::ERROR_TYPE));
        assert!(!failed.contains_key(conventional::GEN_AI_TOOL_CALL_ID));
        let alone = named("execute_tool alone");
        assert_eq!(alone.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_come_with_units_and_buckets() {
    let (collector, address) = Collector::start();
    let telemetry = Telemetry::builder("checkout").otlp(&*address).keys(10).build().unwrap();
    let recorder = recorder(&telemetry);
    let stack = shop(&telemetry, &recorder).build().unwrap();
    let mut client = client!(stack, Server::answering(&[200]));
    send(&mut client, get("https://shop.test/")).await.unwrap();
    recorder.flush().await;
    telemetry.flush();

    let received = collector.0.lock();
    let requests = received.metrics.iter().flat_map(|it| &it.resource_metrics);
    let scopes = requests.flat_map(|it| &it.scope_metrics);
    let metrics: BTreeMap<_, _> =
        scopes.flat_map(|it| &it.metrics).map(|it| (it.name.as_str(), it)).collect();
    let requests = metrics[metric::HTTP_CLIENT_REQUEST_DURATION];
    let Some(Data::Histogram(histogram)) = &requests.data else { panic!("{requests:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((requests.unit.as_str(), &point.explicit_bounds[..]), ("s", &SECONDS[..]));
    assert_eq!(text(&point.attributes)[conventional::SERVER_ADDRESS], "shop.test");
    for name in [metric::CALL_DURATION, metric::BREAKER_STATE, metric::RETRY_BUDGET] {
        assert!(metrics.contains_key(name), "{name}: {:?}", metrics.keys());
    }
    let Some(Data::Sum(spans)) = &metrics[metric::SPANS].data else { panic!() };
    assert_eq!(spans.data_points.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_refuses_costs_spans_and_nothing_else() {
    let (collector, address) = Collector::start();
    collector.0.lock().refuses = Some(StatusCode::BAD_REQUEST);
    let telemetry = Telemetry::builder("checkout").otlp(&*address).build().unwrap();
    let recorder = recorder(&telemetry);
    let mut client =
        client!(shop(&telemetry, &recorder).build().unwrap(), Server::answering(&[200]));
    send(&mut client, get("https://shop.test/")).await.unwrap();
    recorder.flush().await;
    assert_eq!(recorder.counts().stored, 1, "the store has it all the same");
    telemetry.flush();
    telemetry.flush();

    let received = collector.0.lock();
    let last = received.metrics.last().unwrap();
    let scopes = last.resource_metrics.iter().flat_map(|it| &it.scope_metrics);
    let spans = scopes.flat_map(|it| &it.metrics).find(|it| it.name == metric::SPANS).unwrap();
    let Some(Data::Sum(sum)) = &spans.data else { panic!("{spans:?}") };
    let failed =
        sum.data_points.iter().find(|it| text(&it.attributes)[attribute::FATE] == "failed");
    assert_eq!(failed.unwrap().value, Some(Number::AsInt(2)), "the call and its attempt");
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_calls_go_on_are_stored_and_carry_their_context() {
    let (collector, address) = Collector::start();
    let telemetry = Telemetry::builder("checkout").otlp(&*address).build().unwrap();
    let recorder = recorder(&telemetry);
    let server = Server::answering(&[200]);
    let mut client = client!(shop(&telemetry, &recorder).build().unwrap(), server);
    telemetry.shutdown();
    telemetry.shutdown();
    telemetry.flush();
    send(&mut client, get("https://shop.test/")).await.unwrap();
    recorder.flush().await;
    assert_eq!(recorder.counts().stored, 1);
    assert!(collector.spans().is_empty());
    assert_eq!(server.parents().len(), 1);
}

#[test]
fn an_endpoint_that_is_none_is_refused() {
    let error = Telemetry::builder("x").otlp("no url at all").build().unwrap_err();
    assert!(error.to_string().contains("endpoint"), "{error}");
}

#[test]
fn the_dates_of_spans_are_dates() {
    let (collector, address) = Collector::start();
    let before = portcullis::clock::wall();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let telemetry = Telemetry::builder("checkout").otlp(&*address).build().unwrap();
    let recorder = recorder(&telemetry);
    runtime.block_on(async {
        let stack = shop(&telemetry, &recorder).build().unwrap();
        let mut client = client!(stack, Server::answering(&[200]));
        send(&mut client, get("https://shop.test/")).await.unwrap();
        recorder.shutdown().await;
    });
    telemetry.shutdown();
    let nanos = |date: SystemTime| date.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    for span in collector.spans() {
        let start = Duration::from_nanos(span.start_time_unix_nano);
        assert!(start + Duration::from_secs(1) >= nanos(before));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
}
