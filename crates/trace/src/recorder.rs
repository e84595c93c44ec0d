//! Where traces go: the decision at their end, the bounded hand-over, and what was counted.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use portcullis_core::{Invalid, clock};

use crate::{
    MemoryStore, TraceConfig, TraceStore,
    hub::{Hub, Redact},
    sync::Builder,
    writer::{self, Anchor, BATCH},
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
    /// Bytes that these take, about.
    pub waiting_bytes: u64,
    /// How often a callback that describes, captures or redacts panicked, or an error that was asked
    /// for its text. Nothing is kept of what it was to say.
    pub panics: u64,
}

/// Held by users. When the last one is gone the writer stores what waits, and ends.
struct Handle {
    hub: Arc<Hub>,
}

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
        self.hub().counts()
    }

    /// Whether this is a clone of the other.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until every trace that is over by now is stored, or lost to a failing store. It waits
    /// for as long as the store takes: set a limit to it.
    pub async fn flush(&self) {
        let Some(done) = self.hub().ask_for_flush() else { return };
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
        let hub = Arc::new(Hub::new(self.config, self.store, self.redact, BATCH)?);
        // Here, where a paused clock is seen; the thread sees none.
        let anchor = Anchor::new(clock::now(), clock::wall());
        let of_writer = hub.clone();
        let writer = Builder::new()
            .name("portcullis-trace".into())
            .spawn(move || writer::run(&of_writer, anchor))
            .map_err(|error| Invalid::new("writer", error, "a thread that can be started"))?;
        hub.written_by(writer.thread());
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
