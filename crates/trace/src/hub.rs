//! The bounded hand-over between calls and the writer.

use std::{
    borrow::Cow,
    sync::Arc,
    thread::{self, Thread},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use portcullis_core::{
    Invalid,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
};
use tokio::sync::oneshot;

use crate::{
    Counts, Kept, Sampler, TraceConfig, TraceStore,
    buffer::{Buffer, Head},
};

pub(crate) type Redact = Arc<dyn for<'a> Fn(&'a str) -> Cow<'a, str> + Send + Sync>;

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

// ===== impl Hub =====

impl Hub {
    pub(crate) fn new(
        config: TraceConfig,
        store: Arc<dyn TraceStore>,
        redact: Option<Redact>,
    ) -> Result<Self, Invalid> {
        let sampler = Sampler::new(&config)?;
        let room = config.queue;
        Ok(Self {
            config,
            sampler,
            redact,
            store,
            tally: Tally::default(),
            urgent: ArrayQueue::new(room),
            usual: ArrayQueue::new(room),
            pool: ArrayQueue::new(POOL),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            flushes: Mutex::default(),
            writer: Mutex::default(),
        })
    }

    /// Says whom to wake.
    pub(crate) fn woken_by(&self, writer: Thread) {
        *self.writer.lock() = Some(writer);
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            seen: read(&self.tally.seen),
            kept: read(&self.tally.kept),
            dropped_successes: read(&self.tally.dropped_successes),
            dropped_others: read(&self.tally.dropped_others),
            stored: read(&self.tally.stored),
            lost: read(&self.tally.lost),
            store_errors: read(&self.tally.store_errors),
            waiting: self.waiting() as u64,
        }
    }

    /// Asks the writer to say when what is over by now is stored; `None` if there is no writer.
    pub(crate) fn ask_for_flush(&self) -> Option<oneshot::Receiver<()>> {
        let (told, done) = oneshot::channel();
        {
            let mut flushes = self.flushes.lock();
            if flushes.over {
                return None;
            }
            flushes.waiting.push(told);
        }
        self.wake();
        Some(done)
    }

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

    /// How many failures and how many others wait by now.
    pub(crate) fn backlog(&self) -> [usize; 2] {
        [self.urgent.len(), self.usual.len()]
    }

    /// The next of a [`backlog`](Self::backlog) to store, failures first.
    pub(crate) fn next(&self, backlog: &mut [usize; 2]) -> Option<Finished> {
        for (left, queue) in backlog.iter_mut().zip([&self.urgent, &self.usual]) {
            if *left > 0 {
                *left -= 1;
                if let Some(finished) = queue.pop() {
                    return Some(finished);
                }
                *left = 0;
            }
        }
        None
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
    pub(crate) fn gather(&self, enough: usize) {
        if self.waiting() < enough && !self.is_stopped() && self.flushes.lock().waiting.is_empty() {
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

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }
}
