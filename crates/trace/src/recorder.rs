//! Where traces go: the decision at their end, the bounded hand-over, and what was counted.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread::{self, Thread},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use portcullis_core::{Invalid, clock, sync::Mutex};
use tokio::sync::oneshot;

use crate::{
    Kept, MemoryStore, Sampler, TraceConfig, TraceStore,
    buffer::{Buffer, Head},
    writer::{self, Anchor},
};

/// Decides which traces are kept and has them stored, behind a bounded queue and on one thread of
/// its own. Clones are the same recorder.
///
/// A call never waits for it: what finds the queue full is dropped, a success before a failure, and
/// counted.
///
/// ```
/// use portcullis_trace::{MemoryStore, Query, Recorder, TraceStore};
/// use std::{sync::Arc, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), portcullis_core::BoxError> {
/// let recorder = Recorder::builder()
///     .store(MemoryStore::new())
///     .sample_rate(0.05)
///     .slow(Duration::from_secs(2))
///     .build()?;
///
/// // … calls, through layers that were given the recorder …
///
/// recorder.flush().await;
/// let failed = recorder.store().query(&Query::new().text("connection refused"))?;
/// assert!(failed.traces.is_empty());
/// recorder.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Recorder(Arc<Handle>);

/// A [`Recorder`] in the making: see [`Recorder::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct RecorderBuilder {
    config: TraceConfig,
    store: Arc<dyn TraceStore>,
    redact: Option<Redact>,
}

/// What a recorder has seen since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Traces that came to their end.
    pub seen: u64,
    /// Traces that the sampling chose to keep.
    pub kept: u64,
    /// Of those, successes that found no room in the queue.
    pub dropped_successes: u64,
    /// Of those, others that found no room in the queue.
    pub dropped_others: u64,
    /// Of those, traces the store took.
    pub stored: u64,
    /// Of those, traces lost because the store failed.
    pub lost: u64,
    /// How often the store failed.
    pub store_errors: u64,
    /// Traces that wait to be stored.
    pub waiting: u64,
}

pub(crate) type Redact = Arc<dyn for<'a> Fn(&'a str) -> Cow<'a, str> + Send + Sync>;

/// Held by users. When the last one is gone the writer stores what waits, and ends.
struct Handle {
    hub: Arc<Hub>,
}

/// What users and the writer share.
pub(crate) struct Hub {
    pub(crate) config: TraceConfig,
    pub(crate) sampler: Sampler,
    pub(crate) redact: Option<Redact>,
    pub(crate) store: Arc<dyn TraceStore>,
    pub(crate) tally: Tally,
    /// What failed in some way; never displaced by a success.
    urgent: ArrayQueue<Finished>,
    /// All else.
    usual: ArrayQueue<Finished>,
    /// Buffers to use again.
    pool: ArrayQueue<Box<Buffer>>,
    /// Whether the writer waits for something to come.
    asleep: AtomicBool,
    stopped: AtomicBool,
    flushes: Mutex<Flushes>,
    writer: Mutex<Option<Thread>>,
}

/// A trace that is over and to be kept.
pub(crate) struct Finished {
    pub(crate) root: Box<Buffer>,
    pub(crate) kept: Kept,
}

/// Statistics only, so every access is relaxed: nothing is published with them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    seen: AtomicU64,
    kept: AtomicU64,
    dropped_successes: AtomicU64,
    dropped_others: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) store_errors: AtomicU64,
}

#[derive(Default)]
struct Flushes {
    waiting: Vec<oneshot::Sender<()>>,
    /// The writer has ended: nobody would answer.
    over: bool,
}

/// Buffers kept to be used again; some five kilobytes each.
const POOL: usize = 256;

// ===== impl Recorder =====

impl Recorder {
    /// Begins a recorder with the default settings, which keeps traces in memory.
    pub fn builder() -> RecorderBuilder {
        RecorderBuilder {
            config: TraceConfig::default(),
            store: Arc::new(MemoryStore::new()),
            redact: None,
        }
    }

    /// Where the traces are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn TraceStore> {
        &self.0.hub.store
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &TraceConfig {
        &self.0.hub.config
    }

    /// What it has seen so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let hub = self.hub();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            seen: read(&hub.tally.seen),
            kept: read(&hub.tally.kept),
            dropped_successes: read(&hub.tally.dropped_successes),
            dropped_others: read(&hub.tally.dropped_others),
            stored: read(&hub.tally.stored),
            lost: read(&hub.tally.lost),
            store_errors: read(&hub.tally.store_errors),
            waiting: hub.waiting() as u64,
        }
    }

    /// Waits until every trace that is over by now is stored, or lost to a failing store. It waits
    /// for as long as the store takes: set a limit to it.
    pub async fn flush(&self) {
        let (told, done) = oneshot::channel();
        {
            let mut flushes = self.0.hub.flushes.lock();
            if flushes.over {
                return;
            }
            flushes.waiting.push(told);
        }
        self.0.hub.wake();
        // An error means that the writer has ended, after storing all there was.
        let _ = done.await;
    }

    /// Stores what waits and ends the writer, for all clones. Traces that end later are counted as
    /// dropped.
    pub async fn shutdown(&self) {
        self.0.hub.stop();
        self.flush().await;
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

// ===== impl RecorderBuilder =====

impl RecorderBuilder {
    /// All settings at once, in place of those made so far.
    pub fn config(mut self, config: TraceConfig) -> Self {
        self.config = config;
        self
    }

    /// Where traces are kept. A [`MemoryStore`] unless set.
    pub fn store(self, store: impl TraceStore) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Where traces are kept, shared with others.
    pub fn shared_store(mut self, store: Arc<dyn TraceStore>) -> Self {
        self.store = store;
        self
    }

    /// The share of traces without anything remarkable that is kept, from 0 to 1; 0.1 unless set.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.config.sample_rate = rate;
        self
    }

    /// Traces that take at least so long are all kept. Above 0; 10 s unless set.
    pub fn slow(mut self, threshold: Duration) -> Self {
        self.config.slow = Some(threshold);
        self
    }

    /// What is put in place of an output, an error's text or an attribute's value before it is cut
    /// and kept. It runs on the path of calls that have one.
    ///
    /// ```
    /// use portcullis_trace::Recorder;
    ///
    /// let recorder = Recorder::builder().redact(|text| text.replace("s3cret", "***").into());
    /// # let _ = recorder;
    /// ```
    pub fn redact(
        mut self,
        redact: impl for<'a> Fn(&'a str) -> Cow<'a, str> + Send + Sync + 'static,
    ) -> Self {
        self.redact = Some(Arc::new(redact));
        self
    }

    /// The recorder. Its writer's thread is started.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range; or `writer`, if no thread can be started.
    pub fn build(self) -> Result<Recorder, Invalid> {
        let sampler = Sampler::new(&self.config)?;
        let room = self.config.queue;
        let hub = Arc::new(Hub {
            sampler,
            redact: self.redact,
            store: self.store,
            tally: Tally::default(),
            urgent: ArrayQueue::new(room),
            usual: ArrayQueue::new(room),
            pool: ArrayQueue::new(POOL),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            flushes: Mutex::default(),
            writer: Mutex::default(),
            config: self.config,
        });
        // Here, where a paused clock is seen; the thread sees none.
        let anchor = Anchor::new(clock::now(), clock::wall());
        let of_writer = hub.clone();
        let writer = thread::Builder::new()
            .name("portcullis-trace".into())
            .spawn(move || writer::run(&of_writer, anchor))
            .map_err(|error| Invalid::new("writer", error, "a thread that can be started"))?;
        *hub.writer.lock() = Some(writer.thread().clone());
        Ok(Recorder(Arc::new(Handle { hub })))
    }
}

impl fmt::Debug for RecorderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecorderBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

// ===== impl Handle =====

impl Drop for Handle {
    fn drop(&mut self) {
        // Not joined: a store that hangs must not hang whoever lets go of a client.
        self.hub.stop();
    }
}

// ===== impl Hub =====

impl Hub {
    /// A buffer as good as new.
    #[inline]
    pub(crate) fn buffer(&self, head: Head) -> Box<Buffer> {
        match self.pool.pop() {
            Some(mut buffer) => {
                buffer.begin(head);
                buffer
            }
            None => Box::new(Buffer::new(head)),
        }
    }

    /// Takes a trace that is over: it is kept or not, and neither waits.
    pub(crate) fn submit(&self, root: Box<Buffer>) {
        self.tally.seen.fetch_add(1, Ordering::Relaxed);
        let Some(kept) = self.sampler.keeps(&root.summary()) else {
            self.recycle(root);
            return;
        };
        self.tally.kept.fetch_add(1, Ordering::Relaxed);
        let finished = Finished { root, kept };
        let left_out = if self.stopped.load(Ordering::Relaxed) {
            Some(finished)
        } else if kept == Kept::Failed {
            // Room for it is made at the expense of a success.
            if self.waiting() >= self.config.queue
                && let Some(success) = self.usual.pop()
            {
                self.drop_for_room(success);
            }
            self.urgent.push(finished).err()
        } else if self.waiting() < self.config.queue {
            self.usual.push(finished).err()
        } else {
            Some(finished)
        };
        match left_out {
            Some(left_out) => self.drop_for_room(left_out),
            None => self.wake_if_asleep(),
        }
    }

    /// The next trace to store, failures first.
    pub(crate) fn next(&self) -> Option<Finished> {
        self.urgent.pop().or_else(|| self.usual.pop())
    }

    pub(crate) fn recycle(&self, mut root: Box<Buffer>) {
        for child in root.children.drain(..) {
            // A full pool lets go of it.
            let _ = self.pool.push(child);
        }
        let _ = self.pool.push(root);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Pairs with the release in `stop`: what was handed over before it is seen.
        self.stopped.load(Ordering::Acquire)
    }

    /// For the writer: waits until something comes, or for `longest`.
    pub(crate) fn sleep(&self, longest: Duration) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake_if_asleep`: either we see what was pushed before it, or they
        // see that we are asleep. Both being blind would leave a trace lying until the next comes.
        fence(Ordering::SeqCst);
        if self.waiting() == 0 && !self.is_stopped() && self.flushes.lock().waiting.is_empty() {
            thread::park_timeout(longest);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// For the writer: lets traces gather, unless somebody waits for them.
    pub(crate) fn gather(&self) {
        if !self.is_stopped() && self.flushes.lock().waiting.is_empty() {
            thread::park_timeout(self.config.batch_interval);
        }
    }

    /// For the writer: who waits for what is in the queue by now.
    pub(crate) fn take_flushes(&self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut self.flushes.lock().waiting)
    }

    /// For the writer: nobody need wait any more.
    pub(crate) fn end(&self) {
        let mut flushes = self.flushes.lock();
        flushes.over = true;
        flushes.waiting.clear();
    }

    fn waiting(&self) -> usize {
        self.urgent.len() + self.usual.len()
    }

    fn drop_for_room(&self, finished: Finished) {
        let dropped = match finished.kept {
            Kept::Failed => &self.tally.dropped_others,
            _ => &self.tally.dropped_successes,
        };
        dropped.fetch_add(1, Ordering::Relaxed);
        self.recycle(finished.root);
    }

    fn wake_if_asleep(&self) {
        // See `sleep`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(writer) = &*self.writer.lock() {
            writer.unpark();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }
}
