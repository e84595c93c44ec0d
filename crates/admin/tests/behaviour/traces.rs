//! Traces as they are listed and shown.

use std::{
    collections::HashSet,
    sync::{Arc, Condvar},
    time::{Duration, SystemTime},
};

use portcullis::{
    BoxError, Registry, Stack, TraceId,
    trace::{
        MemoryStore, Page, Query, Recorder, Status, StoreCounts, Trace, TraceScope, TraceStore,
        conformance::sample, record::Kind,
    },
};
use portcullis_admin::Admin;
use portcullis_testkit::call as send;
use serde_json::{Value, json};
use tower::Layer;

use crate::{answering, get, outgoing, read};

/// A store with so many traces of all sorts, a second apart, the last of them a second ago.
fn stored(count: u64) -> (MemoryStore, Vec<Arc<Trace>>) {
    let (store, traces) = (MemoryStore::new(), some(0, count));
    store.put(&traces).unwrap();
    (store, traces)
}

fn some(first: u64, count: u64) -> Vec<Arc<Trace>> {
    let began = portcullis::clock::wall() - Duration::from_secs(10_000);
    let one = |seed| Arc::new(sample(seed, began + Duration::from_secs(seed)));
    (first..first + count).map(one).collect()
}

fn showing(store: impl TraceStore) -> Admin {
    Admin::builder().store(store).build().unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    let traces = page["traces"].as_array().unwrap().iter();
    traces.map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// All pages of a list.
async fn pages(admin: &Admin, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut page = read(admin, &format!("/api/traces?{query}")).await;
    loop {
        all.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { return all };
        page = read(admin, &format!("/api/traces?{query}&cursor={next}")).await;
    }
}

#[tokio::test]
async fn a_thousand_traces_are_paged_through_while_others_arrive() {
    let (store, traces) = stored(1000);
    let admin = showing(store.clone());
    let mut seen = Vec::new();
    let mut page = read(&admin, "/api/traces?limit=37").await;
    let mut seed = 1000;
    loop {
        seen.extend(ids(&page));
        store.put(&some(seed, 5)).unwrap();
        seed += 5;
        let Some(next) = page["next"].as_str() else { break };
        page = read(&admin, &format!("/api/traces?limit=37&cursor={next}")).await;
    }
    let newest_first: Vec<_> = traces.iter().rev().map(|trace| trace.id.to_string()).collect();
    assert_eq!(seen, newest_first);
}

#[tokio::test]
async fn what_failed_in_any_way_is_one_list() {
    let (store, traces) = stored(400);
    let admin = showing(store);
    let wanted: Vec<_> = traces.iter().rev().filter(|it| it.status != Status::Success).collect();
    let wanted: Vec<_> = wanted.into_iter().map(|trace| trace.id.to_string()).collect();
    assert!(wanted.len() > 100);
    for limit in [1, 7, 200] {
        assert_eq!(pages(&admin, &format!("status=failed&limit={limit}")).await, wanted);
    }
    for status in ["success", "error", "timeout", "rejected", "cancelled"] {
        let found = pages(&admin, &format!("status={status}&limit=50")).await;
        let wanted = traces.iter().filter(|it| it.status.as_str() == status).count();
        assert_eq!(found.len(), wanted, "{status}");
    }
}

#[tokio::test]
async fn filters_are_those_of_the_store() {
    let (store, traces) = stored(300);
    let admin = showing(store);
    let some = traces.iter().find(|it| it.calls.iter().any(|call| call.target.is_some())).unwrap();
    let target = some.calls.iter().find_map(|call| call.target.clone()).unwrap();
    let encoded: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
    let found = pages(&admin, &format!("target={encoded}&limit=100")).await;
    let query = Query::new().target(target);
    assert_eq!(found.len(), traces.iter().filter(|trace| query.matches(trace)).count());
    assert!(!found.is_empty());

    let least = traces.iter().filter(|it| it.duration >= Duration::from_micros(1500)).count();
    assert_eq!(pages(&admin, "min_ms=1.5&limit=100").await.len(), least);
    let since = humantime::format_rfc3339_millis(traces[100].started_at).to_string();
    let until = humantime::format_rfc3339(traces[200].started_at).to_string();
    let found = pages(&admin, &format!("since={since}&until={until}&limit=100")).await;
    assert_eq!(found.len(), 100);
    // What a form leaves open restricts nothing.
    let open = "status=&target=&name=&min_ms=&since=&until=&q=&limit=&cursor=";
    assert_eq!(ids(&read(&admin, &format!("/api/traces?{open}")).await).len(), 50);
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_what_would_do() {
    let admin = showing(MemoryStore::new());
    for (query, problem) in [
        ("limit=0", "limit is \"0\", allowed is a number from 1 to 200."),
        ("limit=201", "limit is \"201\", allowed is a number from 1 to 200."),
        ("limit=-1", "limit is \"-1\", allowed is a number from 1 to 200."),
        ("min_ms=NaN", "min_ms is \"NaN\", allowed is a number from 0 to 31536000000."),
        ("min_ms=inf", "min_ms is \"inf\", allowed is a number from 0 to 31536000000."),
        (
            "since=yesterday",
            "since is \"yesterday\", allowed is a date such as 2026-01-31T12:00:00Z.",
        ),
        ("until=%00", "until is \"\\0\", allowed is a date such as 2026-01-31T12:00:00Z."),
        ("cursor=xyz", "cursor is \"xyz\", allowed is the `next` of the page before."),
        (
            "status=sad",
            "status is \"sad\", allowed is success, error, timeout, rejected, cancelled or failed.",
        ),
    ] {
        let answer = get(&admin, &format!("/api/traces?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.problem(), problem);
    }
    let long = get(&admin, &format!("/api/traces?q={}", "😀".repeat(201))).await;
    assert_eq!(long.status, 400);
    assert!(long.problem().ends_with("allowed is at most 200 characters."), "{}", long.problem());
    assert!(long.problem().len() < 400);
    for id in ["x", "0", "00000000000000000000000000000000", "%FF"] {
        assert_eq!(get(&admin, &format!("/api/traces/{id}")).await.status, 400, "{id}");
    }
    let nobody = get(&admin, "/api/traces/4bf92f3577b34da6a3ce929d0e0e4736").await;
    assert_eq!(nobody.status, 404);
    assert_eq!(nobody.problem(), "No trace 4bf92f3577b34da6a3ce929d0e0e4736 is kept.");
}

#[tokio::test(start_paused = true)]
async fn a_trace_is_shown_with_its_attempts_and_reasons() {
    let registry = Registry::new();
    let recorder = Recorder::builder().sample_rate(0.25).build().unwrap();
    let admin = Admin::builder().registry(&registry).shared_store(recorder.store().clone());
    let admin = admin.build().unwrap();
    let stack = Stack::production("shop").recorder(&recorder).register_in(&registry);
    let stack = stack.observe(admin.observer()).build().unwrap();
    let mut client = stack.layer(answering([503, 200]));
    TraceScope::start("order")
        .attribute("user", "<b>u-17")
        .recorder(&recorder)
        .run(async { send(&mut client, outgoing("http://shop.test:8080/cart")).await })
        .await
        .unwrap();
    recorder.flush().await;

    let list = read(&admin, "/api/traces").await;
    assert_eq!(list["sampling"], json!({"rate": 0.25}));
    assert_eq!(list["next"], Value::Null);
    let summary = &list["traces"][0];
    assert_eq!((&summary["name"], &summary["status"]), (&json!("order"), &json!("success")));
    assert_eq!((&summary["calls"], &summary["attempts"]), (&json!(1), &json!(2)));
    assert_eq!(
        (&summary["kept"], &summary["targets"]),
        (&json!("retried"), &json!(["shop.test:8080"]))
    );
    assert_eq!(summary["error"], Value::Null);

    let id = summary["id"].as_str().unwrap();
    let all = read(&admin, &format!("/api/traces/{id}")).await;
    let trace = &all["traces"][0];
    assert_eq!(trace["attributes"], json!([["user", "<b>u-17"]]));
    assert_eq!((&trace["parent"], &trace["output"]), (&Value::Null, &Value::Null));
    let call = &trace["calls"][0];
    assert_eq!((&call["kind"], &call["operation"]), (&json!("call"), &json!("GET")));
    let [first, second] = &call["attempts"].as_array().unwrap()[..] else { panic!("{call}") };
    assert_eq!(first["outcome"], "failure (status 503)");
    assert_eq!((&first["status"], &second["status"]), (&json!("error"), &json!("success")));
    assert_eq!((&first["http_status"], &second["http_status"]), (&json!(503), &json!(200)));
    assert_eq!((&first["port"], &first["hint"]), (&json!(8080), &Value::Null));
    let retrying = call["events"].as_array().unwrap();
    let retrying = retrying.iter().find(|event| event["what"] == "retrying").unwrap();
    assert!(retrying["why"].as_str().unwrap().contains("backoff before retry 1"));
    let wait = retrying["wait_ms"].as_f64().unwrap();
    let gap = second["started_ms"].as_f64().unwrap() - first["ended_after_ms"].as_f64().unwrap();
    assert!((gap - wait).abs() < 2.0, "{gap} {wait}");
}

#[tokio::test]
async fn every_part_of_every_record_is_there() {
    let (store, traces) = stored(60);
    let admin = showing(store);
    for trace in traces {
        let all = read(&admin, &format!("/api/traces/{}", trace.id)).await;
        let shown = &all["traces"][0];
        assert_eq!(shown["name"], trace.name);
        assert_eq!(shown["status"], trace.status.as_str());
        assert_eq!(shown["error"], json!(trace.error));
        let rate = shown["sampling_rate"].as_f64().unwrap();
        assert!((rate / trace.sampling_rate - 1.0).abs() < 1e-9);
        assert_eq!(shown["events"].as_array().unwrap().len(), trace.events.len());
        let calls = shown["calls"].as_array().unwrap();
        assert_eq!(calls.len(), trace.calls.len());
        for (call, shown) in trace.calls.iter().zip(calls) {
            assert_eq!(shown["kind"] == "scope", call.kind == Kind::Scope);
            assert_eq!((&shown["key"], &shown["target"]), (&json!(call.key), &json!(call.target)));
            assert_eq!(shown["attempts"].as_array().unwrap().len(), call.attempts.len());
            assert_eq!(shown["duration_ms"], call.duration.as_micros() as f64 / 1000.0);
            assert_eq!(shown["omitted"]["events"], call.omitted_events);
        }
        let keys: HashSet<_> = shown.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 15, "what there is none of is null, and there");
    }
}

#[cfg(feature = "otlp")]
#[tokio::test]
async fn a_trace_is_a_file_for_other_tools() {
    let (store, traces) = stored(1);
    let admin = Admin::builder().title("shop").store(store).build().unwrap();
    let path = format!("/api/traces/{}/otlp", traces[0].id);
    let file = read(&admin, &path).await;
    let resource = &file["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "shop");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    assert!(spans.iter().all(|span| span["traceId"] == traces[0].id.to_string()));
    assert!(!spans.is_empty());
    let nobody = get(&admin, "/api/traces/4bf92f3577b34da6a3ce929d0e0e4736/otlp").await;
    assert_eq!(nobody.status, 404);
}

/// A store that fails, or hangs until it is let go.
#[derive(Clone, Default)]
struct Broken {
    hangs: bool,
    #[expect(clippy::disallowed_types, reason = "a condition variable goes with std's")]
    gate: Arc<(std::sync::Mutex<bool>, Condvar)>,
}

// ===== impl Broken =====

impl Broken {
    fn let_go(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn answer<T>(&self) -> Result<T, BoxError> {
        if self.hangs {
            let open = self.gate.0.lock().unwrap();
            drop(self.gate.1.wait_while(open, |open| !*open).unwrap());
        }
        Err(format!("disk I/O error {}", "x".repeat(1000)).into())
    }
}

impl TraceStore for Broken {
    fn put(&self, _batch: &[Arc<Trace>]) -> Result<(), BoxError> {
        self.answer()
    }

    fn get(&self, _id: TraceId) -> Result<Vec<Arc<Trace>>, BoxError> {
        self.answer()
    }

    fn query(&self, _query: &Query) -> Result<Page, BoxError> {
        self.answer()
    }

    fn delete_older_than(&self, _date: SystemTime) -> Result<u64, BoxError> {
        self.answer()
    }

    fn expire(&self, _now: SystemTime) -> Result<u64, BoxError> {
        self.answer()
    }

    fn counts(&self) -> Result<StoreCounts, BoxError> {
        self.answer()
    }
}

#[tokio::test]
async fn a_store_that_fails_is_a_problem_with_its_text() {
    let admin = showing(Broken::default());
    for path in ["/api/traces", "/api/traces/4bf92f3577b34da6a3ce929d0e0e4736"] {
        let answer = get(&admin, path).await;
        assert_eq!(answer.status, 500);
        let problem = answer.problem();
        assert!(problem.starts_with("The traces could not be read: disk I/O error x"));
        assert!(problem.len() < 300, "{problem}");
    }
}

#[tokio::test]
async fn a_store_that_hangs_holds_up_nothing_but_its_readers() {
    let store = Broken { hangs: true, ..Broken::default() };
    let metrics = || Some("up 1\n".to_owned());
    let admin = Admin::builder().store(store.clone()).prometheus(metrics).build().unwrap();
    // More than are read at once.
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let admin = admin.clone();
            tokio::spawn(async move { get(&admin, "/api/traces").await })
        })
        .collect();
    for reader in &readers {
        tokio::task::yield_now().await;
        assert!(!reader.is_finished());
    }
    assert_eq!(read(&admin, "/api/breakers").await["breakers"], json!([]));
    assert_eq!(get(&admin, "/health").await.status, 200);
    // They are made on a thread that may block, but the store has none of theirs.
    let metrics = get(&admin, "/metrics").await;
    store.let_go();
    assert_eq!((metrics.status.as_u16(), &*metrics.text), (200, "up 1\n"));
    for reader in readers {
        assert_eq!(reader.await.unwrap().status, 500);
    }
}
