//! Stores, and what is found in them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_core::{SpanId, TraceId, clock};
use portcullis_testkit::{ScriptedService, Seed, Step, TestError, call as send};
use portcullis_trace::{
    About, Cursor, MemoryStore, Query, Recorder, Status, Trace, TraceLayer, TraceScope, TraceStore,
};
use tower_layer::Layer;

use crate::fakes::{Inner, SECOND, config, recorder};

/// Copies of one trace that started at different times, so many seconds ago.
async fn aged(ages: &[u64]) -> Vec<Arc<Trace>> {
    let recorder = recorder();
    TraceScope::start("copy").recorder(&recorder).run(async {}).await;
    let original = crate::fakes::one(&recorder).await;
    let now = clock::wall();
    let copy = |(index, age): (usize, &u64)| {
        let mut trace = Trace::clone(&original);
        trace.started_at = now - Duration::from_secs(*age);
        trace.span = SpanId::new(index as u64 + 1).unwrap();
        trace.id = TraceId::new(index as u128 + 1).unwrap();
        Arc::new(trace)
    };
    ages.iter().enumerate().map(copy).collect()
}

#[tokio::test(start_paused = true)]
async fn traces_are_found_by_what_they_were() {
    let store = MemoryStore::new();
    let recorder = Recorder::builder().config(config()).store(store.clone()).build().unwrap();
    let inner: Inner = ScriptedService::respond_with(|target, _| match target {
        "db" => Step::Err(TestError("Connection REFUSED by peer")),
        "slow" => Step::Ok(200).after(3 * SECOND),
        _ => Step::Ok(200),
    });
    let layer = TraceLayer::builder("client").recorder(&recorder).describe(
        |target: &&'static str, about: &mut About<'_>| {
            about.target(target);
        },
    );
    let mut client = layer.build().unwrap().layer(inner);
    let start = clock::wall();
    for target in ["db", "slow", "web"] {
        let scope = TraceScope::start(format!("ask {target}"));
        let _ = scope.try_run(send(&mut client, target)).await;
        tokio::time::advance(SECOND).await;
    }
    recorder.flush().await;

    let found = |query: Query| -> Vec<String> {
        store.query(&query).unwrap().traces.iter().map(|trace| trace.name.clone()).collect()
    };
    assert_eq!(found(Query::new()), ["ask web", "ask slow", "ask db"], "newest first");
    assert_eq!(found(Query::new().status(Status::Error)), ["ask db"]);
    assert_eq!(found(Query::new().name("ask slow")), ["ask slow"]);
    assert_eq!(found(Query::new().name("client")).len(), 3, "the name of a call will do");
    assert_eq!(found(Query::new().target("web")), ["ask web"]);
    assert_eq!(found(Query::new().min_duration(SECOND)), ["ask slow"]);
    assert_eq!(found(Query::new().text("connection refused")), ["ask db"]);
    assert!(found(Query::new().text("refused").status(Status::Success)).is_empty());
    assert_eq!(found(Query::new().until(start + SECOND / 2)), ["ask db"]);
    assert_eq!(found(Query::new().since(start + 3 * SECOND)), ["ask web"]);
    assert!(found(Query::new().since(start + 9 * SECOND).until(start)).is_empty());

    let db = &store.query(&Query::new().status(Status::Error)).unwrap().traces[0];
    assert_eq!(store.get(db.id).unwrap(), std::slice::from_ref(db));
    assert!(store.get(TraceId::new(1).unwrap()).unwrap().is_empty());
}

#[tokio::test]
async fn pages_show_each_trace_once_while_others_arrive() {
    let store = MemoryStore::new();
    let mut seed = Seed::new(5);
    // Some start in the same second, and some arrive late.
    let ages: Vec<u64> = (0..300).map(|_| seed.within(10..60)).collect();
    let traces = aged(&ages).await;
    let (first, late) = traces.split_at(200);
    store.put(first).unwrap();

    let mut late = late.iter();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let query = Query::new().limit(7).after(cursor);
        let page = store.query(&query).unwrap();
        assert!(page.traces.len() <= 7);
        seen.extend(page.traces.iter().map(|trace| (trace.started_at, trace.span)));
        // As it goes to a client and comes back.
        cursor = page.next.map(|next| next.to_string().parse::<Cursor>().unwrap());
        if cursor.is_none() {
            break;
        }
        store.put(&late.by_ref().take(3).cloned().collect::<Vec<_>>()).unwrap();
    }
    assert!(seen.windows(2).all(|two| two[0] > two[1]), "newest first, none twice");
    let missing = first.iter().filter(|t| !seen.contains(&(t.started_at, t.span))).count();
    assert_eq!(missing, 0, "what was there from the start is shown");

    for bad in ["", "x", &"0".repeat(31), &"g".repeat(32), "+0000000000000000000000000000000"] {
        assert!(bad.parse::<Cursor>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn memory_is_bounded_by_bytes_and_the_oldest_go_first() {
    let traces = aged(&(0..1000).collect::<Vec<_>>()).await;
    let each = traces[0].size() + 200;
    let store = MemoryStore::new().with_max_bytes(100 * each);
    for trace in traces.iter().rev() {
        store.put(std::slice::from_ref(trace)).unwrap();
        assert!(store.counts().unwrap().bytes <= 100 * each as u64);
    }
    let counts = store.counts().unwrap();
    assert!(counts.traces >= 95 && counts.evicted == 1000 - counts.traces, "{counts:?}");
    let left = store.query(&Query::new().limit(1000)).unwrap().traces;
    assert_eq!(left[0].span, traces[0].span);
    assert_eq!(left.last().unwrap().span, traces[left.len() - 1].span);
    assert!(store.get(traces[999].id).unwrap().is_empty(), "nothing refers to what is gone");

    let tiny = MemoryStore::new().with_max_bytes(10);
    tiny.put(&traces[..3]).unwrap();
    assert_eq!(tiny.counts().unwrap().traces, 0);
    assert_eq!(tiny.counts().unwrap().bytes, 0);
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_not_shown_and_forgotten() {
    let day = 86_400;
    let traces = aged(&[0, 6 * day, 8 * day]).await;
    let store = MemoryStore::new();
    store.put(&traces).unwrap();
    assert_eq!(store.counts().unwrap().traces, 2, "seven days unless set");
    assert!(store.get(traces[2].id).unwrap().is_empty());

    let in_two_days = clock::wall() + Duration::from_secs(2 * day);
    assert_eq!(store.expire(in_two_days).unwrap(), 1);
    assert_eq!(store.delete_older_than(in_two_days).unwrap(), 1);
    assert_eq!(store.counts().unwrap().bytes, 0);
    assert_eq!(store.delete_older_than(SystemTime::UNIX_EPOCH).unwrap(), 0);

    let short = MemoryStore::new().with_retention(60 * SECOND);
    short.put(&aged(&[10, 100]).await).unwrap();
    assert_eq!(short.query(&Query::new()).unwrap().traces.len(), 1);
    let forever = MemoryStore::new().with_retention(Duration::MAX);
    forever.put(&traces).unwrap();
    assert_eq!(forever.counts().unwrap().traces, 3);
}

#[tokio::test]
async fn a_trace_that_comes_again_replaces_itself() {
    let traces = aged(&[1]).await;
    let store = MemoryStore::new();
    store.put(&traces).unwrap();
    let bytes = store.counts().unwrap();
    store.put(&traces).unwrap();
    assert_eq!(store.counts().unwrap(), bytes);
    assert_eq!(store.get(traces[0].id).unwrap().len(), 1);
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn the_record_survives_being_written_and_read() {
    use crate::fakes::{answering, by_status, keep};
    use portcullis_retry::RetryLayer;

    let recorder = recorder();
    let layer = TraceLayer::builder("c").recorder(&recorder).classify(by_status());
    let retry = RetryLayer::builder("r", keep()).classify(by_status()).build().unwrap();
    let mut client = layer.build().unwrap().layer(retry.layer(answering([503, 0, 200])));
    TraceScope::start("s").attribute("k", "v").run(send(&mut client, "x")).await.unwrap();
    let trace = crate::fakes::one(&recorder).await;
    let text = serde_json::to_string(&*trace).unwrap();
    assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), *trace);
    assert!(text.contains(&format!("\"id\":\"{}\"", trace.id)), "{text}");
}

#[cfg(feature = "conformance")]
#[test]
fn memory_does_what_every_store_must() {
    use portcullis_trace::conformance;

    conformance::check(MemoryStore::new);
    for seed in 0..20 {
        conformance::history(&MemoryStore::new(), seed, 100);
    }
}
