//! Traces as OTLP in JSON, held against the protocol's own types.
#![cfg(feature = "json")]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, TracesData};
use opentelemetry_sdk::trace::InMemorySpanExporter;
use portcullis::{
    RemoteTrace, Stack,
    http::trace_context,
    trace::{MemoryStore, TraceScope},
};
use portcullis_otel::{Telemetry, otlp_json};
use portcullis_testkit::{Script, ScriptedService, Step, call as send};
use serde_json::Value;
use tower::Layer;

type Body = Full<Bytes>;
type Inner = ScriptedService<Request<Body>, Response<Body>>;

fn answering(statuses: impl IntoIterator<Item = u16>) -> Inner {
    let steps = statuses.into_iter().map(|status| {
        let mut response = Response::new(Body::from("text"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Step::Ok(response)
    });
    ScriptedService::new(Script::new(steps))
}

fn from_elsewhere() -> RemoteTrace {
    let mut headers = http::HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", parent.parse().unwrap());
    trace_context::from_headers(&headers).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_file_has_the_spans_that_an_exporter_is_given() {
    let exporter = InMemorySpanExporter::default();
    let telemetry = Telemetry::builder("unused").spans(exporter.clone()).outputs().build().unwrap();
    let recorder = telemetry.recorder(MemoryStore::new()).sample_rate(1.0).build().unwrap();
    let stack = Stack::production("shop \"quoted\" \u{1f512}").recorder(&recorder).build().unwrap();
    let mut client = stack.layer(answering([503, 200, 404]));
    let scope = TraceScope::start("serve")
        .parent(from_elsewhere())
        .attribute("line", "two\nlines")
        .recorder(&recorder);
    let id = scope
        .run(async {
            portcullis::trace::output("what came out");
            for path in ["a", "b"] {
                let request = Request::get(format!("https://shop.test/{path}"));
                send(&mut client, request.body(Body::default()).unwrap()).await.unwrap();
            }
            stack.breaker().handles().get_or_create("shop.test").force_open();
            let request = Request::post("https://shop.test/c").body(Body::default()).unwrap();
            send(&mut client, request).await.unwrap_err();
            portcullis::Call::current().trace().unwrap().trace_id
        })
        .await;
    recorder.flush().await;
    telemetry.flush();

    let records = recorder.store().get(id).unwrap();
    let text = otlp_json("the shop", &records);
    let file: TracesData = serde_json::from_str(&text).unwrap();
    let [ResourceSpans { resource: Some(resource), scope_spans, .. }] = &file.resource_spans[..]
    else {
        panic!("{text}");
    };
    assert_eq!(resource.attributes[0].key, "service.name");
    let [scope] = &scope_spans[..] else { panic!("{text}") };
    assert_eq!(scope.scope.as_ref().unwrap().name, "portcullis");
    let exported = exporter.get_finished_spans().unwrap();
    let exported: Vec<Span> = exported.into_iter().map(Span::from).collect();
    assert_eq!(exported.len(), 7, "a scope, three calls, and three attempts that sent something");
    assert_eq!(scope.spans, exported);
}

#[tokio::test(start_paused = true)]
async fn numbers_of_64_bits_are_strings_ids_hexadecimal_and_enums_numbers() {
    let telemetry = Telemetry::builder("unused").build().unwrap();
    let recorder = telemetry.recorder(MemoryStore::new()).sample_rate(1.0).build().unwrap();
    let stack = Stack::production("shop").recorder(&recorder).build().unwrap();
    let stack = stack.without_retry();
    let mut client = stack.layer(answering([500]));
    let request = Request::get("https://shop.test/").body(Body::default()).unwrap();
    send(&mut client, request).await.unwrap();
    recorder.flush().await;
    let page = recorder.store().query(&portcullis::trace::Query::new()).unwrap();
    let file: Value = serde_json::from_str(&otlp_json("s", &page.traces)).unwrap();
    let span = &file["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], page.traces[0].id.to_string());
    assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
    assert!(span.get("parentSpanId").is_none());
    assert!(span["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(span["kind"], 3);
    assert_eq!(span["status"]["code"], 2);
    let attributes = span["attributes"].as_array().unwrap();
    let status = attributes.iter().find(|it| it["key"] == "http.response.status_code").unwrap();
    assert_eq!(status["value"], serde_json::json!({ "intValue": "500" }));
}
