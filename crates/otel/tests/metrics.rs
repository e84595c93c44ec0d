//! What is counted of the layers' events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
    data::{AggregatedMetrics, Metric, MetricData},
};
use opentelemetry_semantic_conventions::{attribute as conventional, metric as conventions};
use portcullis::{
    Backoff, BoxError, Call, Event, Jitter, LayerKind, Next, Observer, Outcome, Progress, Registry,
    Stack, Voice, What, clock, follow_fn,
    poll::PollLayer,
    process::{Invocation, Process},
    timeout::TimeoutLayer,
    trace::Recorder,
};
use portcullis_otel::{
    Metrics, MetricsBuilder,
    names::{BYTES, LONG_SECONDS, OTHER, SECONDS, attribute, metric},
};
use portcullis_testkit::{Script, ScriptedService, Step, TestError, call as send, poll_k};
use tower::{Layer, ServiceExt, service_fn};

type Body = Full<Bytes>;
type Inner = ScriptedService<Request<Body>, Response<Body>>;

struct Meters {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

/// A series: its attributes as text, and what it came to.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    attributes: BTreeMap<String, String>,
    value: f64,
    /// Of a histogram.
    bounds: Vec<f64>,
    count: u64,
}

// ===== impl Meters =====

impl Meters {
    fn new(builder: MetricsBuilder) -> (Self, Metrics) {
        let exporter = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(exporter.clone()).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let metrics = builder.build(&provider);
        (Self { provider, exporter }, metrics)
    }

    /// The series of each metric, collected now.
    fn collect(&self) -> BTreeMap<String, (String, Vec<Series>)> {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let finished = self.exporter.get_finished_metrics().unwrap();
        let last = finished.last().expect("something was counted");
        let scopes = last.scope_metrics();
        let metrics = scopes.flat_map(|scope| {
            assert_eq!(scope.scope().name(), "portcullis");
            scope.metrics()
        });
        metrics.map(|it| (it.name().to_owned(), (it.unit().to_owned(), series(it)))).collect()
    }

    fn series(&self, name: &str) -> Vec<Series> {
        self.collect().remove(name).map(|(_, series)| series).unwrap_or_default()
    }
}

fn series(metric: &Metric) -> Vec<Series> {
    fn text<'a>(
        attributes: impl Iterator<Item = &'a opentelemetry::KeyValue>,
    ) -> BTreeMap<String, String> {
        attributes.map(|it| (it.key.to_string(), it.value.to_string())).collect()
    }
    macro_rules! numbers {
        ($data:expr) => {
            match $data {
                MetricData::Gauge(gauge) => gauge
                    .data_points()
                    .map(|it| (text(it.attributes()), it.value() as f64, Vec::new(), 0))
                    .collect::<Vec<_>>(),
                MetricData::Sum(sum) => sum
                    .data_points()
                    .map(|it| (text(it.attributes()), it.value() as f64, Vec::new(), 0))
                    .collect(),
                MetricData::Histogram(histogram) => histogram
                    .data_points()
                    .map(|it| {
                        let bounds = it.bounds().collect();
                        (text(it.attributes()), it.sum() as f64, bounds, it.count())
                    })
                    .collect(),
                MetricData::ExponentialHistogram(_) => panic!("nobody asked for it"),
            }
        };
    }
    let all = match metric.data() {
        AggregatedMetrics::F64(data) => numbers!(data),
        AggregatedMetrics::U64(data) => numbers!(data),
        AggregatedMetrics::I64(data) => numbers!(data),
    };
    all.into_iter()
        .map(|(attributes, value, bounds, count)| Series { attributes, value, bounds, count })
        .collect()
}

fn attributes<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn find(series: &[Series], wanted: &BTreeMap<String, String>) -> Series {
    let found = series.iter().find(|it| it.attributes == *wanted);
    found.unwrap_or_else(|| panic!("no {wanted:?} in {series:#?}")).clone()
}

fn answering(statuses: impl IntoIterator<Item = u16>) -> Inner {
    let steps = statuses.into_iter().map(|status| {
        let mut response = Response::new(Body::from("text"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-length", 4.into());
        Step::Ok(response)
    });
    ScriptedService::new(Script::new(steps))
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_retried_is_counted_as_one_call_and_two_requests() {
    let (meters, metrics) = Meters::new(Metrics::builder().keys(10));
    let stack = Stack::production("shop").observe(metrics).build().unwrap();
    let mut client = stack.layer(answering([503, 200]));
    let response = send(&mut client, get("https://Shop.test/cart?id=7")).await.unwrap();
    response.into_body().collect().await.unwrap();

    let all = meters.collect();
    let target = [(attribute::TARGET, "shop")];
    let value = |name: &str| find(&all[name].1, &attributes(target)).value;
    assert_eq!(value(metric::CALL_STARTED), 1.0);
    assert_eq!(value(metric::CALL_ACTIVE), 0.0);
    assert_eq!(value(metric::ATTEMPTS), 2.0);

    let (unit, calls) = &all[metric::CALL_DURATION];
    let [target] = target;
    let ended = find(calls, &attributes([target, (attribute::OUTCOME, "success")]));
    assert_eq!((unit.as_str(), ended.count, calls.len()), ("s", 1, 1));
    assert_eq!(ended.bounds, SECONDS);
    let retries = find(&all[metric::RETRIES].1, &attributes([target, ("error.type", "503")]));
    assert_eq!(retries.value, 1.0);
    let waited = &all[metric::RETRY_DELAY].1[0];
    assert_eq!(waited.count, 1);
    assert!(waited.value <= ended.value);
    assert!(!all.contains_key(metric::CALL_ERRORS), "a handled retry is no error");

    // By the conventions, each request is one.
    let (unit, requests) = &all[conventions::HTTP_CLIENT_REQUEST_DURATION];
    assert_eq!((unit.as_str(), requests.len()), ("s", 2));
    let common = [
        target,
        (conventional::HTTP_REQUEST_METHOD, "GET"),
        (conventional::SERVER_ADDRESS, "shop.test"),
        (conventional::SERVER_PORT, "443"),
    ];
    let mut failed = attributes(common);
    failed.extend(attributes([
        (conventional::HTTP_RESPONSE_STATUS_CODE, "503"),
        (conventional::ERROR_TYPE, "503"),
    ]));
    let mut answered = attributes(common);
    answered.extend(attributes([(conventional::HTTP_RESPONSE_STATUS_CODE, "200")]));
    for series in [find(requests, &failed), find(requests, &answered)] {
        assert_eq!((series.count, &series.bounds[..]), (1, &SECONDS[..]));
    }
    let (unit, sizes) = &all[conventions::HTTP_CLIENT_RESPONSE_BODY_SIZE];
    let size = find(sizes, &answered);
    assert_eq!((unit.as_str(), size.value, &size.bounds[..]), ("By", 4.0, &BYTES[..]));
}

#[tokio::test(start_paused = true)]
async fn every_outcome_of_a_call_has_its_word() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let stack = Stack::production("shop")
        .observe(metrics)
        .retry(|retry| retry.max_attempts(1))
        .breaker(|breaker| breaker.consecutive_failures(3))
        .build()
        .unwrap();
    let steps: [Step<_, TestError>; 6] = [
        Step::Ok(Response::new(Body::default())),
        Step::Ok(Response::builder().status(429).body(Body::default()).unwrap()),
        Step::Ok(Response::builder().status(500).body(Body::default()).unwrap()),
        Step::Hang,
        Step::Hang,
        Step::Ok(Response::builder().status(500).body(Body::default()).unwrap()),
    ];
    let mut client = stack.layer(ScriptedService::new(Script::new(steps)));
    for _ in 0..3 {
        let _ = send(&mut client, get("http://a.test/")).await.unwrap();
    }
    let mut given_up = Box::pin(send(&mut client, get("http://a.test/")));
    portcullis_testkit::poll_k(&mut given_up, 2).await;
    assert_eq!(meters.series(metric::CALL_ACTIVE)[0].value, 1.0);
    drop(given_up);
    send(&mut client, get("http://a.test/")).await.unwrap_err();
    let _ = send(&mut client, get("http://a.test/")).await.unwrap();
    send(&mut client, get("http://a.test/")).await.unwrap_err();

    let all = meters.collect();
    let of = |name: &str, key: &str| -> BTreeMap<String, u64> {
        let series = all[name].1.iter();
        let count = |it: &Series| if it.count > 0 { it.count } else { it.value as u64 };
        series.map(|it| (it.attributes[key].clone(), count(it))).collect()
    };
    let counts = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
    };
    assert_eq!(
        of(metric::CALL_DURATION, attribute::OUTCOME),
        counts(&[
            ("success", 1),
            ("throttled", 1),
            ("error", 2),
            ("cancelled", 1),
            ("timeout", 1),
            ("rejected", 1)
        ])
    );
    assert_eq!(
        of(metric::CALL_ERRORS, "error.type"),
        counts(&[("429", 1), ("500", 2), ("timeout", 1), ("rejected", 1)])
    );
    assert_eq!(of(metric::TIMEOUTS, attribute::PHASE), counts(&[("attempt", 1)]));
    assert_eq!(of(metric::REJECTIONS, attribute::REASON), counts(&[("open", 1)]));
    assert_eq!(of(metric::REJECTIONS, attribute::LAYER), counts(&[("breaker", 1)]));
    assert_eq!(of(metric::TRANSITIONS, attribute::TO), counts(&[("open", 1)]));
    assert_eq!(of(metric::CALL_ACTIVE, attribute::TARGET), counts(&[("shop", 0)]));
    // What timed out was asked and not answered; what was given up or refused was neither.
    let requests = &all[conventions::HTTP_CLIENT_REQUEST_DURATION].1;
    assert_eq!(requests.iter().map(|it| it.count).sum::<u64>(), 5);
    let late = requests
        .iter()
        .find(|it| it.attributes.get("error.type").is_some_and(|it| it == "timeout"));
    assert!(late.is_some_and(|it| !it.attributes.contains_key("http.response.status_code")));
}

#[tokio::test(start_paused = true)]
async fn levels_are_those_of_what_is_registered() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let registry = Registry::new();
    metrics.watch(&registry);
    let recorder = Recorder::builder().sample_rate(1.0).build().unwrap();
    for name in ["shop", "search"] {
        let stack = Stack::production(name).register_in(&registry).recorder(&recorder);
        let stack = stack.retry(|retry| retry.max_attempts(1)).build().unwrap();
        let mut client = stack.layer(answering([200, 200]));
        for host in ["a", "b"] {
            send(&mut client, get(&format!("http://{host}.test/"))).await.unwrap();
        }
        if name == "shop" {
            stack.breaker().handles().get("a.test").unwrap().force_open();
        }
    }
    recorder.flush().await;

    let all = meters.collect();
    let state = |name, state| {
        let wanted = attributes([(attribute::TARGET, name), (attribute::STATE, state)]);
        find(&all[metric::BREAKER_STATE].1, &wanted).value
    };
    assert_eq!((state("shop", "closed"), state("shop", "forced-open")), (1.0, 1.0));
    assert_eq!((state("search", "closed"), state("search", "forced-open")), (2.0, 0.0));
    let budget = &all[metric::RETRY_BUDGET].1;
    assert_eq!(budget.len(), 2);
    assert!(budget.iter().all(|it| it.value == 100.0), "{budget:?}");
    // Both stacks have the recorder, and it is counted once.
    assert_eq!(all[metric::TRACES_ENDED].1[0].value, 4.0);
    assert_eq!(all[metric::TRACES_STORED].1[0].value, 4.0);
    let dropped: Vec<_> = all[metric::TRACES_DROPPED].1.iter().map(|it| it.value).collect();
    assert_eq!(dropped, [0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn grpc_is_counted_by_its_own_conventions() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let stack = Stack::production("carts")
        .classify(portcullis::http::GrpcClassifier::new())
        .observe(metrics)
        .retry(|retry| retry.max_attempts(1))
        .build()
        .unwrap();
    let response = |status: &str| {
        let head = Response::builder().header("content-type", "application/grpc");
        Step::Ok(head.header("grpc-status", status).body(Body::default()).unwrap())
    };
    let mut client =
        stack.layer(ScriptedService::<_, _>::new(Script::new([response("0"), response("14")])));
    for _ in 0..2 {
        let request = Request::post("http://a.test/shop.Carts/Add");
        let request = request.header("content-type", "application/grpc");
        let response = send(&mut client, request.body(Body::default()).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let all = meters.collect();
    assert!(!all.contains_key(conventions::HTTP_CLIENT_REQUEST_DURATION));
    let (unit, calls) = &all[metric::RPC_CLIENT_CALL_DURATION];
    let common = [(attribute::TARGET, "carts"), (attribute::RPC_SYSTEM, "grpc")];
    let ok = find(calls, &attributes(common));
    let mut failing = attributes(common);
    failing.extend(attributes([
        (attribute::RPC_STATUS, "UNAVAILABLE"),
        (conventional::ERROR_TYPE, "UNAVAILABLE"),
    ]));
    let failed = find(calls, &failing);
    assert_eq!((unit.as_str(), ok.count, failed.count), ("s", 1, 1));
    assert_eq!(ok.bounds, SECONDS);
}

/// Ten thousand hosts, each asked once.
async fn many_hosts(metrics: Metrics) {
    let stack = Stack::production("crawler").observe(metrics).sample_rate(0.0).build().unwrap();
    let mut client = stack.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, BoxError>(Response::new(Body::default()))
    }));
    for host in 0..10_000 {
        send(&mut client, get(&format!("http://host-{host}.test/"))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_hosts_are_no_attribute_unless_asked_for_and_then_up_to_the_bound() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    many_hosts(metrics).await;
    for (name, (_, series)) in meters.collect() {
        assert_eq!(series.len(), 1, "{name}");
    }

    let (meters, metrics) = Meters::new(Metrics::builder().keys(50));
    many_hosts(metrics).await;
    let all = meters.collect();
    let requests = &all[conventions::HTTP_CLIENT_REQUEST_DURATION].1;
    assert_eq!(requests.len(), 51);
    let beyond = attributes([
        (attribute::TARGET, "crawler"),
        (conventional::HTTP_REQUEST_METHOD, "GET"),
        (conventional::SERVER_ADDRESS, OTHER),
        (conventional::HTTP_RESPONSE_STATUS_CODE, "200"),
    ]);
    assert_eq!(find(requests, &beyond).count, 9_950);
    assert!(all.values().all(|(_, series)| series.len() <= 51));
}

#[test]
fn made_up_names_and_statuses_are_counted_together_beyond_the_bound() {
    let (meters, metrics) = Meters::new(Metrics::builder().targets(5));
    for name in 0..100 {
        let voice = Voice::new(LayerKind::Retry, format!("made up {name}"));
        let voice = voice.with_observer(Arc::new(metrics.clone()));
        voice.tell(&Call::new(), clock::now(), || What::Attempting { attempt: 1 });
    }
    let mut counts: Vec<_> =
        meters.series(metric::ATTEMPTS).into_iter().map(|it| it.value).collect();
    counts.sort_by(f64::total_cmp);
    assert_eq!(counts, [1.0, 1.0, 1.0, 1.0, 1.0, 95.0]);

    let (meters, metrics) = Meters::new(Metrics::builder());
    let voice = Voice::new(LayerKind::Trace, "x").with_observer(Arc::new(metrics));
    for status in 100..600 {
        let kind = portcullis::FaultKind::Status(status);
        let outcome = Outcome::failure(kind, portcullis::Replay::Safe);
        let what = What::Settled { outcome, head_after: None, elapsed: Duration::ZERO };
        voice.tell(&Call::new(), clock::now(), || what);
    }
    let errors = meters.series(metric::CALL_ERRORS);
    assert_eq!(errors.iter().map(|it| it.value).sum::<f64>(), 500.0);
    assert!(errors.len() <= 40, "{}", errors.len());
}

#[test]
fn what_is_sent_again_within_an_attempt_is_counted_by_itself() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let voice = Voice::new(LayerKind::Retry, "x").with_observer(Arc::new(metrics));
    let kind = portcullis::FaultKind::Other;
    let what = What::Resending {
        attempt: 1,
        outcome: Outcome::failure(kind, portcullis::Replay::Safe),
        delay: Duration::ZERO,
        reason: portcullis::Reason::Other("unseen"),
    };
    voice.tell(&Call::new(), clock::now(), || what);
    let wanted = attributes([(attribute::TARGET, "x"), ("error.type", OTHER)]);
    assert_eq!(find(&meters.series(metric::RESENT), &wanted).value, 1.0);
    assert!(meters.series(metric::RETRIES).is_empty());
}

/// One instrument forgotten in the page would be one that nobody finds.
#[tokio::test(start_paused = true)]
async fn polls_are_counted_by_what_came_of_them_and_operations_by_how_long_they_took() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let second = Duration::from_secs(1);
    let follow = follow_fn(|percent: u32| match percent {
        100 => Ok(Progress::Done(())),
        101.. => Err(BoxError::from("it failed")),
        _ => Ok(Progress::Pending(Next::new("look"))),
    });
    let layer = PollLayer::builder("render", follow)
        .backoff(Backoff::fixed(second))
        .jitter(Jitter::None)
        .max_polls(3)
        .observe(metrics);
    let steps = [100, 1, 50, 100, 1, 101, 1, 2, 3, 4, 1].map(Step::<_>::Ok);
    let inner = ScriptedService::new(Script::new(steps).then(Step::Hang));
    let mut service = layer.build().unwrap().layer(inner);
    // Done at once, done by the second poll, failed at the first, given up after the third.
    for ends_well in [true, true, false, false] {
        let answer: Result<(), portcullis::Error> = send(&mut service, "start").await;
        assert_eq!(answer.is_ok(), ends_well);
    }
    // Dropped while it waits for the first poll, and while that hangs.
    assert!(tokio::time::timeout(second / 2, send(&mut service, "start")).await.is_err());

    let of = |outcome| attributes([(attribute::TARGET, "render"), (attribute::OUTCOME, outcome)]);
    let polls = meters.series(metric::POLLS);
    for (outcome, count) in [("pending", 4.0), ("success", 1.0), ("error", 1.0)] {
        assert_eq!(find(&polls, &of(outcome)).value, count, "{outcome}");
    }
    assert_eq!(polls.len(), 3);
    let (unit, durations) = meters.collect().remove(metric::POLL_DURATION).unwrap();
    assert_eq!((unit.as_str(), &durations[0].bounds[..]), ("s", &LONG_SECONDS[..]));
    for (outcome, sum) in [("success", 2.0), ("error", 1.0), ("timeout", 3.0), ("cancelled", 0.5)] {
        let series = find(&durations, &of(outcome));
        assert_eq!((series.count, series.value), (1, sum), "{outcome}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn processes_are_counted_by_how_they_ended_and_what_they_put_out() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let tool = |script: &str| {
        let tool = Process::builder("tool", "sh").arg("-c").arg(script);
        tool.observe(metrics.clone()).build().unwrap()
    };
    for script in ["printf hello", "exit 3", "printf no >&2; exit 3", "kill -SEGV $$"] {
        tool(script).oneshot(Invocation::new()).await.unwrap();
    }
    let missing = Process::builder("tool", "/nowhere/portcullis").observe(metrics.clone());
    missing.build().unwrap().oneshot(Invocation::new()).await.unwrap_err();
    let limit = TimeoutLayer::builder("tool").total(Duration::from_millis(300)).build().unwrap();
    let hangs = limit.layer(tool("exec sleep 600"));
    hangs.oneshot(Invocation::new()).await.unwrap_err();
    let given_up = poll_k(tool("exec sleep 600").oneshot(Invocation::new()), 2).await;
    assert!(given_up.is_none());

    let of = |pairs: &[(&'static str, &'static str)]| {
        let pairs = pairs.iter().chain(&[(attribute::TARGET, "tool")]);
        pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let value = |name, pairs: &[_]| find(&meters.series(name), &of(pairs)).value;
    assert_eq!(value(metric::PROCESSES_STARTED, &[]), 6.0);
    assert_eq!(value(metric::PROCESSES_ACTIVE, &[]), 0.0);
    let status = |status| (attribute::PROCESS_STATUS, status);
    let code = |code| (conventional::PROCESS_EXIT_CODE, code);
    for (pairs, count) in [
        (&[status("success"), code("0")][..], 1.0),
        (&[status("failure"), code("3")], 2.0),
        (&[status("signal"), (attribute::PROCESS_SIGNAL, "SIGSEGV")], 1.0),
        (&[status("killed")], 2.0),
    ] {
        assert_eq!(value(metric::PROCESS_EXITS, pairs), count, "{pairs:?}");
    }
    let errors = meters.series(metric::PROCESS_ERRORS);
    for kind in ["start", "timeout"] {
        assert_eq!(find(&errors, &of(&[(attribute::ERROR_TYPE, kind)])).value, 1.0);
    }
    assert_eq!(errors.len(), 2);
    let output = meters.series(metric::PROCESS_OUTPUT);
    for (stream, bytes) in [("stdout", 5.0), ("stderr", 2.0)] {
        let series = find(&output, &of(&[(attribute::PROCESS_STREAM, stream)]));
        assert_eq!((series.count, series.value, &series.bounds[..]), (6, bytes, &BYTES[..]));
    }
    let durations = meters.series(metric::PROCESS_DURATION);
    assert_eq!(find(&durations, &of(&[status("killed")])).count, 2);
}

#[test]
fn exit_codes_without_end_are_counted_together_beyond_the_bound() {
    let (meters, metrics) = Meters::new(Metrics::builder());
    let voice = Voice::new(LayerKind::Process, "tool").with_observer(Arc::new(metrics));
    for code in -1000..1000 {
        let stage = portcullis::ProcessStage::Exited(code);
        let elapsed = Duration::ZERO;
        let what = What::Process { stage, elapsed, stdout: 0, stderr: 0 };
        voice.tell(&Call::new(), clock::now(), || what);
    }
    let exits = meters.series(metric::PROCESS_EXITS);
    assert!(exits.len() <= 65, "{}", exits.len());
    assert_eq!(exits.iter().map(|it| it.value).sum::<f64>(), 2000.0);
}

#[test]
fn the_page_has_every_name() {
    let page = include_str!("../../../docs/opentelemetry.md");
    let names = include_str!("../src/names.rs");
    let values = names.lines().filter_map(|line| line.split_once("= \"")?.1.split_once("\";"));
    for (name, _) in values.filter(|(name, _)| name.contains('.')) {
        let short = format!("`.{}`", name.rsplit('.').next().unwrap());
        assert!(page.contains(&format!("`{name}`")) || page.contains(&short), "{name}");
    }
}

#[test]
fn what_is_told_after_the_shutdown_goes_nowhere_and_hurts_nobody() {
    let (meters, metrics) = Meters::new(Metrics::builder().keys(3));
    let voice = Voice::new(LayerKind::Retry, "x").with_observer(Arc::new(metrics.clone()));
    let tell = || voice.tell(&Call::new(), clock::now(), || What::Attempting { attempt: 1 });
    tell();
    meters.provider.shutdown().unwrap();
    tell();
    metrics.watch(&Registry::new());
    let late = Metrics::new(&meters.provider);
    let call = Call::new();
    late.on_event(&Event {
        layer: LayerKind::Trace,
        name: "late",
        key: None,
        call: &call,
        at: clock::now(),
        what: What::Started,
    });
}

#[test]
fn an_event_allocates_nothing_once_its_series_are_there() {
    let (_meters, metrics) = Meters::new(Metrics::builder().keys(10));
    let call = Call::new();
    let mut answer = portcullis::Answer::to("GET");
    (answer.status, answer.size) = (Some(200), Some(17));
    let elapsed = Duration::from_millis(20);
    let outcome = Outcome::timeout();
    let events = [
        (LayerKind::Trace, None, What::Started),
        (LayerKind::Retry, None, What::Attempting { attempt: 1 }),
        (LayerKind::RateLimit, Some("a.test"), What::Acquired { cost: 1, left: 3 }),
        (LayerKind::Propagate, Some("a.test"), What::Answered { answer, elapsed }),
        (LayerKind::Trace, None, What::Settled { outcome, head_after: None, elapsed }),
    ];
    let tell = || {
        for (layer, key, what) in events {
            let (call, at) = (&call, clock::now());
            metrics.on_event(&Event { layer, name: "shop", key, call, at, what });
        }
    };
    tell();
    let told = allocation_counter::measure(|| (0..100).for_each(|_| tell()));
    assert_eq!(told.count_total, 0);
}
