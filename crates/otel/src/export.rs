//! Kept traces on their way to an exporter of spans.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter},
};
use portcullis_core::{
    BoxError, Invalid, TraceId, clock,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use portcullis_trace::{Page, Query, StoreCounts, Trace, TraceStore};

use crate::{
    Metrics,
    names::{attribute, metric},
    spans::{self, Choice},
};

/// Exports kept traces as spans: what the [recorder](portcullis_trace::Recorder) chose to keep, and
/// nothing else, so that which traces are kept stays its decision, made at their end.
///
/// The recorder hands traces over behind the calls' path, through a [store](Self::store); here they
/// wait, in a bounded number, for a thread that makes spans of them and exports these in batches. A
/// collector that hangs holds up neither calls nor what is stored: when the queue is full, traces are
/// dropped and their spans counted.
///
/// Span ids are the record's own, so what a server made of the `traceparent` that an attempt carried
/// is a child of that attempt's span. That header is written whether or not anything is exported.
///
/// # Clone
///
/// Clones are the same export.
///
/// ```
/// use opentelemetry_sdk::{Resource, trace::InMemorySpanExporter};
/// use portcullis::{trace::{MemoryStore, Recorder}};
/// use portcullis_otel::Spans;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis::Invalid> {
/// let resource = Resource::builder().with_service_name("shop").build();
/// let spans = Spans::builder(InMemorySpanExporter::default()).resource(resource).build()?;
/// let recorder = Recorder::builder().store(spans.store(MemoryStore::new())).build()?;
///
/// // … calls, through stacks that were given the recorder …
///
/// recorder.shutdown().await;
/// spans.shutdown();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Spans(Arc<Shared>);

/// [`Spans`] in the making: see [`Spans::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct SpansBuilder<E> {
    exporter: E,
    resource: Option<Resource>,
    queue: usize,
    every: Duration,
    choice: Choice,
}

/// A [`TraceStore`] that has traces exported before another store takes them. Made by
/// [`Spans::store`].
#[derive(Clone, Debug)]
pub struct Exporting<S> {
    spans: Spans,
    inner: S,
}

struct Shared {
    /// `None` after the end.
    sender: Mutex<Option<Sender<Task>>>,
    queue: usize,
    counts: Arc<Counts>,
}

/// Statistics only, so every access is relaxed.
#[derive(Debug, Default)]
struct Counts {
    /// Traces in the queue.
    waiting: AtomicUsize,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

enum Task {
    Export(Arc<Trace>),
    /// Answered when all that came before is exported.
    Flush(SyncSender<()>),
    /// Likewise, and that was all.
    End(SyncSender<()>),
}

/// Spans exported at once.
const BATCH: usize = 512;

/// How long a flush or the end waits for an exporter that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

// ===== impl Spans =====

impl Spans {
    /// Begins an export by an exporter: that of OTLP, or any other.
    pub fn builder<E: SpanExporter + 'static>(exporter: E) -> SpansBuilder<E> {
        let every = Duration::from_secs(1);
        SpansBuilder { exporter, resource: None, queue: 1024, every, choice: Choice::default() }
    }

    /// The store for a recorder: what it is given is exported, and then put into `inner`.
    #[must_use]
    pub fn store<S: TraceStore>(&self, inner: S) -> Exporting<S> {
        Exporting { spans: self.clone(), inner }
    }

    /// Has the numbers of spans that were exported, dropped and failed observed with the metrics.
    pub fn watch(&self, metrics: &Metrics) {
        let counts = self.0.counts.clone();
        metrics
            .meter()
            .u64_observable_counter(metric::SPANS)
            .with_unit("{span}")
            .with_description("Spans that were to be exported.")
            .with_callback(move |counter| {
                let fates = [
                    ("exported", &counts.exported),
                    ("dropped", &counts.dropped),
                    ("failed", &counts.failed),
                ];
                for (fate, count) in fates {
                    let count = count.load(Ordering::Relaxed);
                    counter.observe(count, &[KeyValue::new(attribute::FATE, fate)]);
                }
            })
            .build();
    }

    /// Waits until all that was handed over by now is exported, or failed to be, for half a minute at
    /// most. It blocks the thread. A recorder hands over what waits with it by its own
    /// [`flush`](portcullis_trace::Recorder::flush), which goes first.
    pub fn flush(&self) {
        let sender = self.0.sender.lock().clone();
        if let Some(sender) = sender {
            ask(&sender, Task::Flush);
        }
    }

    /// Exports what waits, ends the thread and shuts the exporter down, for all clones. Traces that
    /// come later are stored and not exported. It blocks the thread, for half a minute at most.
    pub fn shutdown(&self) {
        let sender = self.0.sender.lock().take();
        if let Some(sender) = sender {
            ask(&sender, Task::End);
        }
    }

    fn export(&self, trace: &Arc<Trace>) {
        let Shared { sender, queue, counts } = &*self.0;
        let sender = sender.lock();
        let Some(sender) = &*sender else { return };
        // Only here is anything added, under the lock.
        let room = counts.waiting.load(Ordering::Relaxed) < *queue;
        counts.waiting.fetch_add(usize::from(room), Ordering::Relaxed);
        if !room || sender.send(Task::Export(trace.clone())).is_err() {
            counts.dropped.fetch_add(spans::count(trace) as u64, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("counts", &self.0.counts).finish_non_exhaustive()
    }
}

// ===== impl SpansBuilder =====

impl<E: SpanExporter + 'static> SpansBuilder<E> {
    /// Whose spans they are. What the environment says (`OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`) unless set.
    pub fn resource(mut self, resource: Resource) -> Self {
        self.resource = Some(resource);
        self
    }

    /// How many traces may wait to be exported, 1024 unless set; at least 1.
    pub fn queue(mut self, traces: usize) -> Self {
        self.queue = traces;
        self
    }

    /// How long spans may wait for company, 1 s unless set. 512 of them do not wait.
    pub fn every(mut self, longest: Duration) -> Self {
        self.every = longest;
        self
    }

    /// Exports what was captured of outputs, which is not done unless asked for: it leaves the
    /// machine.
    pub fn outputs(mut self) -> Self {
        self.choice.outputs = true;
        self
    }

    /// The export. Its thread is started.
    ///
    /// # Errors
    ///
    /// `queue`, if it is 0; or `exporter`, if no thread can be started.
    pub fn build(self) -> Result<Spans, Invalid> {
        let Self { mut exporter, resource, queue, every, choice } = self;
        if queue == 0 {
            return Err(Invalid::new("queue", queue, "at least 1"));
        }
        exporter.set_resource(&resource.unwrap_or_else(|| Resource::builder().build()));
        let (sender, tasks) = channel();
        let counts = Arc::new(Counts::default());
        let of_thread = counts.clone();
        thread::Builder::new()
            .name("portcullis-otel".into())
            .spawn(move || Writer { exporter, choice, counts: of_thread }.run(&tasks, every))
            .map_err(|error| Invalid::new("exporter", error, "a thread that can be started"))?;
        Ok(Spans(Arc::new(Shared { sender: Mutex::new(Some(sender)), queue, counts })))
    }
}

impl<E> fmt::Debug for SpansBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpansBuilder")
            .field("resource", &self.resource)
            .field("queue", &self.queue)
            .field("every", &self.every)
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

// ===== impl Exporting =====

impl<S> Exporting<S> {
    /// The store that takes the traces.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: TraceStore> TraceStore for Exporting<S> {
    fn put(&self, batch: &[Arc<Trace>]) -> Result<(), BoxError> {
        batch.iter().for_each(|trace| self.spans.export(trace));
        self.inner.put(batch)
    }

    fn get(&self, id: TraceId) -> Result<Vec<Arc<Trace>>, BoxError> {
        self.inner.get(id)
    }

    fn query(&self, query: &Query) -> Result<Page, BoxError> {
        self.inner.query(query)
    }

    fn delete_older_than(&self, date: SystemTime) -> Result<u64, BoxError> {
        self.inner.delete_older_than(date)
    }

    fn expire(&self, now: SystemTime) -> Result<u64, BoxError> {
        self.inner.expire(now)
    }

    fn counts(&self) -> Result<StoreCounts, BoxError> {
        self.inner.counts()
    }
}

// ===== the thread =====

struct Writer<E> {
    exporter: E,
    choice: Choice,
    counts: Arc<Counts>,
}

impl<E: SpanExporter> Writer<E> {
    /// Exports until it is told to end, or nobody is left to hand anything over.
    fn run(&self, tasks: &Receiver<Task>, every: Duration) {
        let mut waiting = Vec::new();
        let mut due: Option<Instant> = None;
        loop {
            let next = match due {
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => tasks.recv_timeout(due.saturating_duration_since(clock::now())),
            };
            let (told, over) = match next {
                Ok(Task::Export(trace)) => {
                    self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
                    waiting.extend(self.spans(&trace));
                    due = due.or_else(|| clock::now().checked_add(every));
                    if waiting.len() < BATCH {
                        continue;
                    }
                    (None, false)
                }
                Ok(Task::Flush(told)) => (Some(told), false),
                Ok(Task::End(told)) => (Some(told), true),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            self.export(&mut waiting);
            due = None;
            if over {
                let _ = self.exporter.shutdown();
            }
            if let Some(told) = told {
                // Whoever waited may have given up.
                let _ = told.try_send(());
            }
            if over {
                return;
            }
        }
    }

    /// A record that no spans can be made of is lost, and no other for it.
    fn spans(&self, trace: &Trace) -> Vec<SpanData> {
        catch_unwind(AssertUnwindSafe(|| spans::of(trace, self.choice))).unwrap_or_default()
    }

    fn export(&self, waiting: &mut Vec<SpanData>) {
        while !waiting.is_empty() {
            let batch: Vec<_> = waiting.drain(..waiting.len().min(BATCH)).collect();
            let count = batch.len() as u64;
            let export = || futures_executor::block_on(self.exporter.export(batch));
            let done = matches!(catch_unwind(AssertUnwindSafe(export)), Ok(Ok(())));
            let counter = if done { &self.counts.exported } else { &self.counts.failed };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// Asks the thread for something, and waits for it.
fn ask(sender: &Sender<Task>, task: impl FnOnce(SyncSender<()>) -> Task) {
    let (done, told) = sync_channel(1);
    // An error means that the thread is gone.
    if sender.send(task(done)).is_ok() {
        let _ = told.recv_timeout(PATIENCE);
    }
}
