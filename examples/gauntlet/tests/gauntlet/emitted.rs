//! What a program in which everything happens tells Prometheus, and whether dashboards and rules ask
//! for nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use opentelemetry_sdk::trace::InMemorySpanExporter;
use portcullis::{
    BoxError, Call, FaultKind, LayerKind, Next, Outcome, Progress, Reason, Replay, Stack, Voice,
    What, clock, follow_fn,
    http::GrpcClassifier,
    otel::Telemetry,
    poll::PollLayer,
    process::{Invocation, Process},
    retry::BudgetConfig,
    trace::MemoryStore,
};
use portcullis_testkit::{call as send, poll_k};
use tokio::time::sleep;
use tower::{Layer, Service, service_fn};

use crate::{
    pages::{asked_by_panels, dashboards, rules},
    promql::{Asked, Matcher, Selector, asked},
};

type Body = Full<Bytes>;

/// For each metric its series: their labels and values of them.
type Emitted = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// Labels that Prometheus adds to what it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

/// A server that does what it is asked for.
async fn moody(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let response = Response::builder();
    Ok(match request.uri().path() {
        "/hangs" => std::future::pending().await,
        "/breaks" => return Err("the connection broke".into()),
        "/slow" => {
            sleep(Duration::from_secs(2)).await;
            response.body(Body::default())?
        }
        "/throttles" => response.status(429).header("retry-after", "1").body(Body::default())?,
        "/grpc" => {
            let failed = response.header("content-type", "application/grpc");
            failed.header("grpc-status", "14").body(Body::default())?
        }
        "/fails" => response.status(503).body(Body::default())?,
        _ => response.header("content-length", 4).body(Body::from("text"))?,
    })
}

async fn ask<S>(client: &mut S, host: &str, path: &str)
where
    S: Service<Request<Body>>,
    S::Response: IntoBody,
{
    let request = Request::get(format!("http://{host}{path}"));
    let request = match path {
        "/grpc" => request.header("content-type", "application/grpc"),
        _ => request,
    };
    let request = request.body(Body::default()).unwrap();
    // However it ends.
    if let Ok(response) = send(client, request).await {
        response.read().await;
    }
}

/// A response that is read to its end.
trait IntoBody {
    async fn read(self);
}

impl<B: http_body::Body> IntoBody for Response<B> {
    async fn read(self) {
        let _ = self.into_body().collect().await;
    }
}

/// Everything that the layers can tell happens, to stacks and to what is behind them.
async fn everything(telemetry: &Telemetry) {
    let recorder = telemetry.recorder(MemoryStore::new()).sample_rate(1.0).build().unwrap();
    let mut budget = BudgetConfig::default();
    (budget.capacity, budget.ratio, budget.reserve) = (3, 0.0, 0.0);
    let stack = Stack::production("shop")
        .recorder(&recorder)
        .observe(telemetry.metrics().clone())
        .register_in(telemetry.registry())
        .total(|timeout| timeout.slow(Duration::from_secs(1)))
        .retry(|retry| retry.max_attempts(2).budget(budget))
        .limit(|limit| limit.rate(1, Duration::from_secs(1)).burst(3).max_keys(1))
        .breaker(|breaker| breaker.consecutive_failures(7).max_keys(1))
        .build()
        .unwrap();
    let mut client = stack.layer(service_fn(moody));
    // Whoever asked has left.
    let mut left = client.clone();
    poll_k(&mut Box::pin(ask(&mut left, "a.test", "/hangs")), 3).await;
    for path in ["/", "/hangs", "/slow", "/throttles", "/fails", "/breaks", "/fails", "/fails"] {
        ask(&mut client, "a.test", path).await;
        sleep(Duration::from_secs(1)).await;
    }
    // More at once than may pass, and may wait.
    let crowd = (0..40).map(|_| {
        let mut client = client.clone();
        async move { ask(&mut client, "a.test", "/").await }
    });
    futures_util::future::join_all(crowd).await;
    let breakers = stack.breaker().handles();
    breakers.get("a.test").unwrap().force_open();
    ask(&mut client, "a.test", "/").await;
    breakers.get("a.test").unwrap().disable();
    for _ in 0..10 {
        ask(&mut client, "a.test", "/fails").await;
    }
    // A breaker that was taken in hand gives way to nobody.
    ask(&mut client, "b.test", "/").await;

    let grpc = Stack::production("carts")
        .classify(GrpcClassifier::new())
        .observe(telemetry.metrics().clone())
        .build()
        .unwrap();
    ask(&mut grpc.layer(service_fn(moody)), "carts.test", "/grpc").await;

    let voice = Voice::new(LayerKind::Retry, "carts");
    let voice = voice.with_observer(Arc::new(telemetry.metrics().clone()));
    voice.tell(&Call::new(), clock::now(), || What::Resending {
        attempt: 1,
        outcome: Outcome::failure(FaultKind::Other, Replay::Safe),
        delay: Duration::ZERO,
        reason: Reason::Other("no application saw it"),
    });
    let follow = follow_fn(|percent: u32| match percent {
        100 => Ok(Progress::Done(())),
        _ => Ok::<_, BoxError>(Progress::Pending(Next::new(percent + 50))),
    });
    let poll = PollLayer::builder("render", follow).observe(telemetry.metrics().clone());
    let echo = service_fn(|percent: u32| async move { Ok::<_, BoxError>(percent) });
    let mut render = poll.max_polls(3).build().unwrap().layer(echo);
    send(&mut render, 0).await.unwrap();
    // It never is what it should be; and here nobody waits to see.
    send(&mut render, 1).await.unwrap_err();
    poll_k(&mut Box::pin(send(&mut render, 1)), 3).await;
    processes(telemetry).await;
    recorder.flush().await;
}

/// Processes that end in every way there is.
async fn processes(telemetry: &Telemetry) {
    // They live by the real clock.
    tokio::time::resume();
    let convert = Process::builder("convert", "sh").arg("-c");
    let mut convert = convert.observe(telemetry.metrics().clone()).build().unwrap();
    for script in ["echo done", "echo 'unknown format' >&2; exit 3", "kill -KILL $$"] {
        send(&mut convert, Invocation::new().arg(script)).await.unwrap();
    }
    let missing = Process::builder("convert", "a program that is not there");
    let mut missing = missing.observe(telemetry.metrics().clone()).build().unwrap();
    send(&mut missing, Invocation::new()).await.unwrap_err();
}

/// The series of a text for Prometheus.
fn read(text: &str) -> Emitted {
    let mut emitted = Emitted::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let Asked { selectors, .. } = asked(series);
        let [Selector { name, matchers }] = &selectors[..] else { panic!("{line}") };
        let labels = matchers.iter().map(|it| (it.label.clone(), it.value.clone()));
        emitted.entry(name.clone()).or_default().push(labels.collect());
    }
    emitted
}

/// What of an expression nobody emits, a sentence each.
fn unknown(expr: &str, legend: &str, emitted: &Emitted, recorded: &[String]) -> Vec<String> {
    let asked = asked(expr);
    let mut unknown = Vec::new();
    let mut labels: BTreeSet<String> = SCRAPED.iter().map(|it| (*it).to_owned()).collect();
    let mut any_recorded = false;
    for Selector { name, matchers } in &asked.selectors {
        let Some(series) = emitted.get(name) else {
            any_recorded |= recorded.contains(name);
            if !recorded.contains(name) {
                unknown.push(format!("no metric {name}"));
            }
            continue;
        };
        labels.extend(series.iter().flat_map(BTreeMap::keys).cloned());
        for Matcher { label, value, .. } in matchers {
            let known: BTreeSet<_> = series.iter().filter_map(|it| it.get(label)).collect();
            if !labels.contains(label) {
                unknown.push(format!("{name} has no label {label}"));
            }
            let literal = !value.contains('$');
            for word in
                value.split('|').filter(|word| literal && !known.contains(&(*word).to_owned()))
            {
                unknown.push(format!("no {name} with {label} {word}, but {known:?}"));
            }
        }
    }
    if any_recorded {
        labels.insert("portcullis_target".to_owned());
    }
    let missing = |label: &&String| !labels.contains(*label);
    unknown.extend(
        asked.grouped.iter().filter(missing).map(|it| format!("no label {it} to group by")),
    );
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    let shown = shown.filter(|(label, _)| !asked.grouped.contains(label.trim()));
    unknown.extend(shown.map(|(label, _)| format!("the legend shows {label}, which is summed up")));
    unknown
}

async fn emitted() -> Emitted {
    let spans = InMemorySpanExporter::default();
    let telemetry = Telemetry::builder("shop").prometheus().keys(10).spans(spans).build().unwrap();
    everything(&telemetry).await;
    telemetry.flush();
    read(&telemetry.prometheus().unwrap())
}

#[tokio::test(start_paused = true)]
async fn dashboards_and_rules_ask_for_what_is_emitted_and_nothing_else() {
    let emitted = emitted().await;
    let rules = rules();
    let recorded: Vec<_> = rules.iter().map(|(name, _)| name.clone()).collect();
    let panels = asked_by_panels();
    assert!(panels.len() > 40 && rules.len() > 15, "{} and {}", panels.len(), rules.len());
    let mut wrong = Vec::new();
    for panel in &panels {
        let of_panel = unknown(&panel.expr, &panel.legend, &emitted, &[]);
        wrong.extend(of_panel.into_iter().map(|it| format!("{}: {it}", panel.place)));
    }
    for (name, expr) in &rules {
        let of_rule = unknown(expr, "", &emitted, &recorded);
        wrong.extend(of_rule.into_iter().map(|it| format!("{name}: {it}")));
    }
    for dashboard in dashboards() {
        for variable in dashboard.json["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (metric, label) = inner.rsplit_once(", ").unwrap();
            let as_group = format!("sum by ({label}) ({metric})");
            let of_variable = unknown(&as_group, "", &emitted, &[]);
            wrong.extend(of_variable.into_iter().map(|it| format!("{}: {it}", dashboard.file)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A metric that nobody looks at is one that could as well be left out.
#[tokio::test(start_paused = true)]
async fn every_metric_has_its_panel() {
    let shown: BTreeSet<_> = asked_by_panels()
        .iter()
        .flat_map(|panel| asked(&panel.expr).selectors)
        .map(|selector| base(&selector.name).to_owned())
        .collect();
    let emitted = emitted().await;
    let names: BTreeSet<_> = emitted.keys().map(|name| base(name).to_owned()).collect();
    let unseen: Vec<_> =
        names.difference(&shown).filter(|name| name.as_str() != "target_info").collect();
    assert!(unseen.is_empty(), "{unseen:?}");
    assert!(names.len() > 25, "{names:?}");
}

/// A histogram by its own name.
fn base(name: &str) -> &str {
    let suffixes = ["_bucket", "_count", "_sum"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// And the program exercises all there is: what the page lists is emitted.
#[tokio::test(start_paused = true)]
async fn every_metric_of_the_page_is_emitted() {
    let page = include_str!("../../../../docs/opentelemetry.md");
    let emitted = emitted().await;
    let rows = page.lines().filter(|line| {
        ["| `portcullis.", "| `http.client.", "| `rpc.client."]
            .iter()
            .any(|it| line.starts_with(it))
    });
    let mut checked = 0;
    for row in rows {
        let name = row.split('`').nth(1).unwrap().replace('.', "_");
        // Attributes of spans have their own table, and rows that begin the same way.
        let kind = row.split('|').nth(2).unwrap().trim();
        if !["histogram", "counter", "gauge", "up-down counter"].contains(&kind) {
            continue;
        }
        checked += 1;
        assert!(emitted.keys().any(|it| it.starts_with(&name)), "{name} is not emitted");
    }
    assert!(checked > 20, "{checked}");
}
