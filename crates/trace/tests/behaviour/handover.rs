//! The way from a call's end to the store, when the store does not do its part.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};

use portcullis_core::{BoxError, TraceId, clock, sync::Mutex};
use portcullis_testkit::{ScriptedService, Step, TestError, call as send};
use portcullis_trace::{
    MemoryStore, Page, Query, Recorder, Status, StoreCounts, Trace, TraceConfig, TraceLayer,
    TraceScope, TraceStore, Traced,
};
use tower_layer::Layer;

use crate::fakes::{Inner, config};

/// Does as it is told with batches, and counts them.
struct Stubborn {
    mode: Mode,
    batches: AtomicUsize,
    kept: MemoryStore,
}

enum Mode {
    Errs,
    Panics,
    /// Ends another trace with each batch, as calls that keep coming do, until it is told to stop.
    Feeds(Arc<(OnceLock<Recorder>, AtomicBool)>),
    /// Takes a batch only when it is let.
    Hangs {
        entered: mpsc::Sender<()>,
        gate: Mutex<mpsc::Receiver<()>>,
        open: AtomicBool,
    },
}

impl TraceStore for Stubborn {
    fn put(&self, batch: &[Arc<Trace>]) -> Result<(), BoxError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        match &self.mode {
            Mode::Errs => return Err("disk full".into()),
            Mode::Panics => panic!("a store's mistake"),
            Mode::Feeds(feed) => {
                if let (Some(recorder), false) = (feed.0.get(), feed.1.load(Ordering::SeqCst)) {
                    let scope = TraceScope::start("another").recorder(recorder);
                    let scope = std::pin::pin!(scope.run(async {}));
                    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                    assert!(scope.poll(&mut cx).is_ready());
                }
            }
            Mode::Hangs { entered, gate, open } => {
                let _ = entered.send(());
                if !open.load(Ordering::SeqCst) {
                    // An error means that the gate is open for good.
                    if gate.lock().recv().is_err() {
                        open.store(true, Ordering::SeqCst);
                    }
                }
            }
        }
        self.kept.put(batch)
    }

    fn get(&self, id: TraceId) -> Result<Vec<Arc<Trace>>, BoxError> {
        self.kept.get(id)
    }

    fn query(&self, query: &Query) -> Result<Page, BoxError> {
        self.kept.query(query)
    }

    fn delete_older_than(&self, date: SystemTime) -> Result<u64, BoxError> {
        self.kept.delete_older_than(date)
    }

    fn expire(&self, now: SystemTime) -> Result<u64, BoxError> {
        self.kept.expire(now)
    }

    fn counts(&self) -> Result<StoreCounts, BoxError> {
        self.kept.counts()
    }
}

fn with_store(mode: Mode, queue: usize) -> (Recorder, Arc<Stubborn>) {
    let mut config = config();
    config.queue = queue;
    with_config(mode, config)
}

fn with_config(mode: Mode, config: TraceConfig) -> (Recorder, Arc<Stubborn>) {
    let kept = MemoryStore::new();
    let store = Arc::new(Stubborn { mode, batches: AtomicUsize::new(0), kept });
    let builder = Recorder::builder().config(config).shared_store(store.clone());
    (builder.build().unwrap(), store)
}

/// Fails for `"fail"`.
fn client(recorder: &Recorder) -> Traced<Inner> {
    let inner = ScriptedService::respond_with(|text: &'static str, _| match text {
        "fail" => Step::Err(TestError("down")),
        _ => Step::Ok(200),
    });
    TraceLayer::builder("c").recorder(recorder).build().unwrap().layer(inner)
}

#[tokio::test]
async fn a_failing_store_costs_traces_and_no_calls() {
    for mode in [Mode::Errs, Mode::Panics] {
        let (recorder, store) = with_store(mode, 16);
        let mut client = client(&recorder);
        for _ in 0..3 {
            send(&mut client, "x").await.unwrap();
            recorder.flush().await;
        }
        let counts = recorder.counts();
        assert_eq!((counts.lost, counts.stored, counts.store_errors), (3, 0, 3));
        assert_eq!(store.batches.load(Ordering::SeqCst), 3, "it is asked again");
    }
}

#[tokio::test]
async fn a_full_queue_drops_successes_first_and_counts_what_it_drops() {
    let (entered, is_in) = mpsc::channel();
    let (gate, closed) = mpsc::channel();
    let hangs = Mode::Hangs { entered, gate: Mutex::new(closed), open: AtomicBool::new(false) };
    let (recorder, store) = with_store(hangs, 4);
    let mut client = client(&recorder);

    // The writer takes the first and hangs; from then on traces only gather.
    send(&mut client, "first").await.unwrap();
    is_in.recv().unwrap();
    for _ in 0..6 {
        send(&mut client, "x").await.unwrap();
    }
    let counts = recorder.counts();
    assert_eq!((counts.waiting, counts.dropped_successes, counts.dropped_others), (4, 2, 0));

    // Failures take the places of successes, then of nobody.
    for _ in 0..6 {
        send(&mut client, "fail").await.unwrap_err();
    }
    let counts = recorder.counts();
    assert_eq!((counts.waiting, counts.dropped_successes, counts.dropped_others), (4, 6, 2));
    send(&mut client, "x").await.unwrap();
    assert_eq!(recorder.counts().dropped_successes, 7);

    drop(gate);
    recorder.shutdown().await;
    let counts = recorder.counts();
    assert_eq!((counts.seen, counts.stored, counts.waiting), (14, 5, 0));
    let failed = store.query(&Query::new().status(Status::Error)).unwrap();
    assert_eq!(failed.traces.len(), 4);
}

#[tokio::test]
async fn what_waits_is_bounded_by_bytes_too_and_failures_are_left_out_for_failures_only() {
    let (entered, is_in) = mpsc::channel();
    let (gate, closed) = mpsc::channel();
    let hangs = Mode::Hangs { entered, gate: Mutex::new(closed), open: AtomicBool::new(false) };
    let mut config = config();
    (config.queue, config.queue_bytes) = (1000, 64 << 10);
    let (recorder, store) = with_config(hangs, config);
    let mut client = client(&recorder);
    send(&mut client, "first").await.unwrap();
    is_in.recv().unwrap();

    for _ in 0..100 {
        send(&mut client, "x").await.unwrap();
    }
    let full = recorder.counts();
    assert!((5..100).contains(&full.waiting), "{full:?}");
    assert!((32 << 10..=64 << 10).contains(&full.waiting_bytes), "{full:?}");
    assert_eq!(full.waiting + full.dropped_successes, 100);

    // Larger by itself than all that may wait: it takes nobody's place.
    let scope = TraceScope::start("large").recorder(&recorder).run(async {
        for _ in 0..100 {
            send(&mut client, "fail").await.unwrap_err();
        }
    });
    scope.await;
    let counts = recorder.counts();
    assert_eq!((counts.dropped_others, counts.waiting), (1, full.waiting));

    for _ in 0..100 {
        send(&mut client, "fail").await.unwrap_err();
    }
    let counts = recorder.counts();
    assert_eq!(counts.dropped_successes, 100, "all made room");
    assert!(counts.waiting_bytes <= 64 << 10);
    assert_eq!(counts.waiting + counts.dropped_others, 101);

    drop(gate);
    recorder.shutdown().await;
    let counts = recorder.counts();
    assert_eq!((counts.waiting, counts.waiting_bytes), (0, 0));
    assert_eq!(counts.stored + counts.dropped_successes + counts.dropped_others, counts.kept);
    assert_eq!(store.counts().unwrap().traces, counts.stored);
}

#[tokio::test]
async fn shutdown_stores_what_waits_and_what_comes_later_is_counted_as_dropped() {
    let mut config = config();
    config.batch_interval = std::time::Duration::from_secs(60);
    let recorder = Recorder::builder().config(config).build().unwrap();
    let mut client = client(&recorder);
    for _ in 0..100 {
        send(&mut client, "x").await.unwrap();
    }
    recorder.shutdown().await;
    assert_eq!(recorder.counts().stored, 100);

    send(&mut client, "x").await.unwrap();
    assert_eq!(recorder.counts().dropped_successes, 1);
    // There is nobody left to wait for.
    recorder.flush().await;
    recorder.shutdown().await;
}

#[tokio::test]
async fn the_last_handle_ends_the_writer_after_what_waits_is_stored() {
    let store = MemoryStore::new();
    let recorder = Recorder::builder().config(config()).store(store.clone()).build().unwrap();
    let mut client = client(&recorder);
    for _ in 0..50 {
        send(&mut client, "x").await.unwrap();
    }
    drop((client, recorder));
    // Nobody can be asked to wait for it any more.
    for _ in 0..2_000_000 {
        if store.counts().unwrap().traces == 50 {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(store.counts().unwrap().traces, 50);
}

#[test]
fn many_threads_hand_over_at_once_and_every_trace_is_accounted_for() {
    let (recorder, _store) = with_store(Mode::Errs, 64);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let mut client = client(&recorder);
                runtime.block_on(async {
                    for n in 0..1000 {
                        let _ = send(&mut client, if n % 3 == 0 { "fail" } else { "x" }).await;
                    }
                });
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(recorder.flush());
    let counts = recorder.counts();
    assert_eq!((counts.seen, counts.kept, counts.waiting), (4000, 4000, 0));
    assert_eq!(counts.lost + counts.dropped_successes + counts.dropped_others, 4000);
}

#[tokio::test]
async fn a_flush_ends_though_calls_keep_coming() {
    let feed = Arc::new((OnceLock::new(), AtomicBool::new(false)));
    let mode = Mode::Feeds(feed.clone());
    let store = Stubborn { mode, batches: AtomicUsize::new(0), kept: MemoryStore::new() };
    let mut config = config();
    config.batch_interval = Duration::ZERO;
    let recorder = Recorder::builder().config(config).store(store).build().unwrap();
    let _ = feed.0.set(recorder.clone());
    TraceScope::start("first").recorder(&recorder).run(async {}).await;

    let flushed = tokio::time::timeout(Duration::from_secs(10), recorder.flush()).await;
    feed.1.store(true, Ordering::SeqCst);
    assert!(flushed.is_ok());
}

#[tokio::test]
async fn traces_gather_on_their_way_until_there_are_enough_or_somebody_waits_for_them() {
    let mut config = config();
    config.batch_interval = Duration::from_secs(60);
    let (recorder, store) = with_config(Mode::Feeds(Arc::default()), config);
    let mut client = client(&recorder);
    for _ in 0..10 {
        send(&mut client, "x").await.unwrap();
        // The writer has every opportunity.
        for _ in 0..50 {
            std::thread::yield_now();
        }
    }
    recorder.flush().await;
    // One, and what a bell that was rung for an earlier sleep lets go before.
    let batches = store.batches.load(Ordering::SeqCst);
    assert!(recorder.counts().stored == 10 && batches <= 3, "{batches}");

    send(&mut client, "x").await.unwrap();
    recorder.shutdown().await;
    assert_eq!(recorder.counts().stored, 11, "nor does the end wait for more");
}

#[tokio::test]
async fn a_batch_or_half_of_what_may_wait_is_stored_at_once() {
    let mut config = config();
    config.batch_interval = Duration::from_secs(60);
    for (queue, enough) in [(1024, 64), (16, 8), (1, 1)] {
        config.queue = queue;
        let (recorder, _) = with_config(Mode::Feeds(Arc::default()), config.clone());
        let mut client = client(&recorder);
        let late = clock::now() + Duration::from_secs(30);
        for n in 1..=5 {
            for _ in 0..enough {
                send(&mut client, "x").await.unwrap();
            }
            while recorder.counts().waiting >= enough {
                assert!(clock::now() < late, "{n} times {enough}: {:?}", recorder.counts());
                std::thread::yield_now();
            }
        }
        assert_eq!(recorder.counts().dropped_successes, 0);
    }

    // Large ones, of which half a megabyte may wait.
    (config.queue, config.queue_bytes, config.max_text) = (1024, 512 << 10, 100_000);
    let (recorder, _) = with_config(Mode::Feeds(Arc::default()), config);
    for _ in 0..20 {
        let late = clock::now() + Duration::from_secs(30);
        let scope = TraceScope::start("large").recorder(&recorder);
        scope.attribute("ballast", "x".repeat(90_000)).run(async {}).await;
        while recorder.counts().waiting_bytes >= 256 << 10 {
            assert!(clock::now() < late, "{:?}", recorder.counts());
            std::thread::yield_now();
        }
    }
    assert_eq!(recorder.counts().dropped_successes, 0);
}
