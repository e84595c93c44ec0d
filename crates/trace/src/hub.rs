//! The bounded hand-over between calls and the writer.

use std::{
    borrow::Cow,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use portcullis_core::{
    Invalid,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
};
use tokio::sync::oneshot;

use crate::{
    Counts, Kept, Sampler, TraceConfig, TraceStore,
    buffer::{Buffer, Head},
    pool::Pool,
    room::{Load, Room},
    sync::{ArrayQueue, Bell, Thread},
};

pub(crate) type Redact = Arc<dyn for<'a> Fn(&'a str) -> Cow<'a, str> + Send + Sync>;

/// What users and the writer share.
pub(crate) struct Hub {
    pub(crate) config: TraceConfig,
    pub(crate) sampler: Sampler,
    pub(crate) redact: Option<Redact>,
    pub(crate) store: Arc<dyn TraceStore>,
    pub(crate) tally: Tally,
    /// What the two queues hold and may hold, and the first of them alone.
    room: Room,
    urgent_room: Room,
    /// What failed in some way; never displaced by a success.
    urgent: ArrayQueue<Finished>,
    /// All else.
    usual: ArrayQueue<Finished>,
    pool: Pool,
    /// What the writer does, so that who hands something over knows whether to ring.
    writer: AtomicU32,
    /// What is worth being stored before it has gathered for long: a batch, or half of what may wait.
    enough: Load,
    flushes: Mutex<Flushes>,
    /// Wakes the writer.
    bell: Bell,
}

/// The writer works, and looks for more before it rests.
const AWAKE: u32 = 0;
/// It waits for something to come.
const ASLEEP: u32 = 1;
/// It lets traces gather until there are enough.
const GATHERING: u32 = 2;

/// A trace that is over and to be kept.
pub(crate) struct Finished {
    pub(crate) root: Box<Buffer>,
    pub(crate) kept: Kept,
    /// What it takes, about.
    pub(crate) bytes: u64,
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
    panics: AtomicU64,
}

#[derive(Default)]
struct Flushes {
    waiting: Vec<oneshot::Sender<()>>,
    /// The writer has ended: nobody would answer.
    over: bool,
}

// ===== impl Hub =====

impl Hub {
    pub(crate) fn new(
        config: TraceConfig,
        store: Arc<dyn TraceStore>,
        redact: Option<Redact>,
        batch: Load,
    ) -> Result<Self, Invalid> {
        let sampler = Sampler::new(&config)?;
        let queue = config.queue;
        let most = Load { traces: queue as u64, bytes: config.queue_bytes };
        let enough = Load {
            traces: batch.traces.min(most.traces / 2).max(1),
            bytes: batch.bytes.min(most.bytes / 2),
        };
        Ok(Self {
            config,
            sampler,
            redact,
            store,
            tally: Tally::default(),
            room: Room::new(most),
            urgent_room: Room::new(most),
            urgent: ArrayQueue::new(queue),
            usual: ArrayQueue::new(queue),
            pool: Pool::new(),
            writer: AtomicU32::new(AWAKE),
            enough,
            flushes: Mutex::default(),
            bell: Bell::default(),
        })
    }

    /// Says whom to wake: before anything is handed over.
    pub(crate) fn written_by(&self, writer: &Thread) {
        self.bell.wakes(writer);
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.room.load();
        Counts {
            seen: read(&self.tally.seen),
            kept: read(&self.tally.kept),
            dropped_successes: read(&self.tally.dropped_successes),
            dropped_others: read(&self.tally.dropped_others),
            stored: read(&self.tally.stored),
            lost: read(&self.tally.lost),
            store_errors: read(&self.tally.store_errors),
            waiting: waiting.traces,
            waiting_bytes: waiting.bytes,
            panics: read(&self.tally.panics),
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
        self.bell.ring();
        Some(done)
    }

    /// A buffer as good as new.
    #[inline]
    pub(crate) fn buffer(&self, head: Head) -> Box<Buffer> {
        self.pool.take(head, self.config.notes())
    }

    /// Takes a trace that is over: it is kept or not, and neither waits.
    #[inline]
    pub(crate) fn submit(&self, root: Box<Buffer>) {
        self.tally.seen.fetch_add(1, Ordering::Relaxed);
        match self.sampler.keeps(&root.summary()) {
            Some(kept) => self.enqueue(root, kept),
            None => self.pool.give_back(root),
        }
    }

    fn enqueue(&self, root: Box<Buffer>, kept: Kept) {
        self.tally.kept.fetch_add(1, Ordering::Relaxed);
        let bytes = root.bytes_of_all() as u64;
        let finished = Finished { root, kept, bytes };
        if !self.room_for(&finished) {
            return self.leave_out(finished);
        }
        let queue = if finished.is_urgent() { &self.urgent } else { &self.usual };
        if let Err(finished) = queue.push(finished) {
            self.let_go(&finished);
            self.leave_out(finished);
        }
        // Only a failure crowds the room: it takes the places of successes.
        while self.room.is_crowded()
            && let Some(success) = self.usual.pop()
        {
            self.let_go(&success);
            self.leave_out(success);
        }
        // At last, for it may be the end of what the writer waits for that something was left out.
        self.wake_if_waiting();
    }

    /// A success needs room in all; a failure only among its like, so that none is left out but for
    /// failures.
    fn room_for(&self, finished: &Finished) -> bool {
        let bytes = finished.bytes;
        if !finished.is_urgent() {
            return self.room.take(bytes);
        }
        if !self.urgent_room.take(bytes) {
            return false;
        }
        let taken = self.room.take_anyway(bytes);
        if !taken {
            self.urgent_room.give_back(bytes);
        }
        taken
    }

    /// Gives back the room of what is out of its queue.
    fn let_go(&self, finished: &Finished) {
        if finished.is_urgent() {
            self.urgent_room.give_back(finished.bytes);
        }
        self.room.give_back(finished.bytes);
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
                    self.let_go(&finished);
                    return Some(finished);
                }
                *left = 0;
            }
        }
        None
    }

    /// For the writer: what is in the store by now is not needed any more.
    pub(crate) fn recycle(&self, root: Box<Buffer>) {
        self.pool.give_to_others(root);
    }

    /// Does what a callback of the user's does. One that panics costs what it was to do, not the
    /// call: `None`, and it is counted.
    #[inline]
    pub(crate) fn guarded<R>(&self, ask: impl FnOnce() -> R) -> Option<R> {
        let done = catch_unwind(AssertUnwindSafe(ask)).ok();
        if done.is_none() {
            self.tally.panics.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// Lets no trace in any more. What waits is stored, and the writer ends.
    pub(crate) fn stop(&self) {
        self.room.close();
        self.bell.ring();
    }

    /// Whether nothing waits and nothing will.
    pub(crate) fn is_over(&self) -> bool {
        self.room.is_over()
    }

    /// For the writer: waits until something comes, or for `longest`.
    pub(crate) fn sleep(&self, longest: Duration) {
        self.writer.store(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `wake_if_waiting`: either we see what was pushed before it, or they
        // see that we are asleep. Both being blind would leave a trace lying until the next comes.
        // Who stops us or waits for a flush wakes us in any case.
        fence(Ordering::SeqCst);
        let idle = self.backlog() == [0, 0] && self.flushes.lock().waiting.is_empty();
        if idle && !self.is_over() {
            self.bell.sleep(longest);
        }
        self.writer.store(AWAKE, Ordering::Relaxed);
    }

    /// For the writer: lets traces gather until there are enough, unless somebody waits for them.
    pub(crate) fn gather(&self) {
        let interval = self.config.batch_interval;
        if interval.is_zero() || self.room.is_closed() {
            return;
        }
        self.writer.store(GATHERING, Ordering::Relaxed);
        // As in `sleep`.
        fence(Ordering::SeqCst);
        if !self.is_enough() && self.flushes.lock().waiting.is_empty() {
            self.bell.sleep(interval);
        }
        self.writer.store(AWAKE, Ordering::Relaxed);
    }

    fn is_enough(&self) -> bool {
        let waiting = self.room.load();
        waiting.traces >= self.enough.traces || waiting.bytes >= self.enough.bytes
    }

    /// For the writer: who waits for what is in the queue by now.
    pub(crate) fn take_flushes(&self) -> Vec<oneshot::Sender<()>> {
        mem::take(&mut self.flushes.lock().waiting)
    }

    /// For the writer: nobody need wait any more.
    pub(crate) fn end(&self) {
        let mut flushes = self.flushes.lock();
        flushes.over = true;
        flushes.waiting.clear();
    }

    fn leave_out(&self, finished: Finished) {
        let dropped = if finished.is_urgent() {
            &self.tally.dropped_others
        } else {
            &self.tally.dropped_successes
        };
        dropped.fetch_add(1, Ordering::Relaxed);
        self.pool.give_back(finished.root);
    }

    fn wake_if_waiting(&self) {
        // See `sleep`.
        fence(Ordering::SeqCst);
        let rings = match self.writer.load(Ordering::Relaxed) {
            ASLEEP => true,
            GATHERING => self.is_enough(),
            _ => false,
        };
        if rings && self.writer.swap(AWAKE, Ordering::Relaxed) != AWAKE {
            self.bell.ring();
        }
    }
}

// ===== impl Finished =====

impl Finished {
    fn is_urgent(&self) -> bool {
        self.kept == Kept::Failed
    }
}
