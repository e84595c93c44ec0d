//! Metrics as text for Prometheus.
#![cfg(feature = "prometheus")]

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{BoxError, Stack, trace::MemoryStore};
use portcullis_otel::{TEXT, Telemetry};
use portcullis_testkit::call as send;
use tower::{Layer, service_fn};

type Body = Full<Bytes>;

/// The samples of a text, by name and labels; whoever cannot read a line fails.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(types.insert(name, kind), None, "{name} is there twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let before = samples.insert(series.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{series} is there twice");
        }
    }
    samples
}

fn labelled<'a>(
    samples: &'a BTreeMap<String, f64>,
    name: &str,
    labels: &[&str],
) -> Vec<(&'a str, f64)> {
    let wanted = |series: &&String| {
        let rest = series.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('{') && labels.iter().all(|it| rest.contains(it)))
    };
    samples.keys().filter(wanted).map(|series| (series.as_str(), samples[series])).collect()
}

#[tokio::test(start_paused = true)]
async fn a_scrape_has_the_metrics_by_prometheus_names() {
    let telemetry = Telemetry::builder("checkout").prometheus().keys(10).build().unwrap();
    let recorder = telemetry.recorder(MemoryStore::new()).sample_rate(1.0).build().unwrap();
    let stack = Stack::production("shop")
        .recorder(&recorder)
        .observe(telemetry.metrics().clone())
        .register_in(telemetry.registry())
        .build()
        .unwrap();
    let mut client = stack.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, BoxError>(Response::new(Body::default()))
    }));
    // Names come from outside: a quote in one must not break the text.
    for host in ["shop.test", "shop.test"] {
        let request = Request::get(format!("https://{host}/")).body(Body::default()).unwrap();
        send(&mut client, request).await.unwrap();
    }
    stack.breaker().handles().get_or_create("shop.test").force_open();
    recorder.flush().await;

    let text = telemetry.prometheus().unwrap();
    let samples = samples(&text);
    let one = |name: &str, labels: &[&str]| match labelled(&samples, name, labels)[..] {
        [(_, value)] => value,
        ref other => panic!("{name}: {other:?} in\n{text}"),
    };
    let shop = r#"portcullis_target="shop""#;
    assert_eq!(one("portcullis_call_started_total", &[shop]), 2.0);
    assert_eq!(one("portcullis_call_active", &[shop]), 0.0);
    let ended = [shop, r#"portcullis_outcome="success""#];
    assert_eq!(one("portcullis_call_duration_seconds_count", &ended), 2.0);
    let bucket = [shop, r#"le="0.005""#];
    assert_eq!(one("portcullis_call_duration_seconds_bucket", &bucket), 2.0);
    let asked = [
        r#"http_request_method="GET""#,
        r#"server_address="shop.test""#,
        r#"server_port="443""#,
        r#"http_response_status_code="200""#,
    ];
    assert_eq!(one("http_client_request_duration_seconds_count", &asked), 2.0);
    let open = [shop, r#"portcullis_state="forced-open""#];
    assert_eq!(one("portcullis_breaker_state", &open), 1.0);
    assert_eq!(one("portcullis_retry_budget", &[shop]), 100.0);
    assert_eq!(one("portcullis_trace_stored_total", &[]), 2.0);
    assert_eq!(one("target_info", &[r#"service_name="checkout""#]), 1.0);
    assert!(TEXT.starts_with("text/plain; version=0.0.4"));

    // A scrape changes nothing but what has happened since.
    assert_eq!(telemetry.prometheus().unwrap(), text);
    telemetry.shutdown();
    assert!(!telemetry.prometheus().unwrap().contains("portcullis_"), "it is over");
}

#[test]
fn names_with_quotes_and_line_ends_are_escaped() {
    let telemetry = Telemetry::builder("a \"b\"\n").prometheus().build().unwrap();
    let name = "quo\"te\nand \\ more";
    let stack = Stack::production(name).observe(telemetry.metrics().clone());
    let client = stack.build().unwrap().layer(service_fn(|_: Request<Body>| async {
        Ok::<_, BoxError>(Response::new(Body::default()))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { send(&mut { client }, Request::default()).await.unwrap() });
    let text = telemetry.prometheus().unwrap();
    let samples = samples(&text);
    let escaped = r#"portcullis_target="quo\"te\nand \\ more""#;
    assert_eq!(labelled(&samples, "portcullis_call_started_total", &[escaped]).len(), 1, "{text}");
}

#[test]
fn without_being_asked_for_there_is_none() {
    assert_eq!(Telemetry::builder("x").build().unwrap().prometheus(), None);
}
