//! The sliding windows: constant cost per call, exact, and without locks.
//!
//! No word is ever cleared. Every count carries a tag that says which bucket, or which generation,
//! it belongs to, in the same atomic word: a writer that finds an older tag starts from zero, a
//! reader passes over what is not of its window. So a stale count can never be taken for a fresh
//! one, however long a thread slept between reading the state and adding to the window.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use portcullis_core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::Counts;

/// How many buckets a time window has.
const BUCKETS: u64 = 10;

/// How far the serial numbers of a generation's buckets are ahead of the earlier one's: a window's
/// length, and room for threads that are up to 5 buckets apart in what they think the time is.
const STRIDE: u64 = 16;
const SKEW: u32 = (STRIDE - BUCKETS - 1) as u32;

/// A late writer may find a bucket newer than its own. Further ahead than this it is not newer but
/// left over from before the 32 bits of the tag came round.
const NEWER: u32 = 1 << 20;

/// The calls that ended within a time, in ten buckets on boundaries of a tenth of it.
///
/// Threads count in stripes of their own, so that they do not fight over a line of the cache; a
/// reader adds them up.
pub(super) struct TimeWindow {
    epoch: Instant,
    /// The width of a bucket, in nanoseconds.
    width: u64,
    /// A power of two of them.
    stripes: Box<[Stripe]>,
    /// The latest bucket in which the rates were looked at with enough calls and were in order. Until
    /// the next bucket begins, a good call can only lower them: it need not look again.
    quiet: AtomicU64,
}

/// Two lines, since processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Stripe([Bucket; BUCKETS as usize]);

/// Each word: the low 32 bits of the bucket's serial number, then a count of 32 bits.
#[derive(Default)]
struct Bucket {
    total: AtomicU64,
    failures: AtomicU64,
    slow: AtomicU64,
}

/// A bucket of one generation, by a number that only ever grows.
pub(super) type Serial = u64;

/// The last N outcomes, with running totals.
pub(super) struct CountWindow {
    /// Each: the low 30 bits of the generation, then whether it failed and whether it was slow.
    outcomes: Box<[AtomicU32]>,
    /// How many outcomes were ever recorded; where the next one goes, modulo N.
    next: AtomicU64,
    /// `next` as it was when the current generation began to count.
    began_at: AtomicU64,
    /// From the low end: 16 bits of the generation, then total, failures and slow of 16 bits each.
    /// The generation lies lowest, where no borrow of the counts can reach it.
    totals: AtomicU64,
}

/// Failures in a row: the low 32 bits of the generation, then the run.
#[derive(Default)]
pub(super) struct Run(AtomicU64);

// ===== impl TimeWindow =====

impl TimeWindow {
    pub(super) fn new(window: Duration, epoch: Instant, stripes: usize) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self {
            epoch,
            width: (nanos / BUCKETS).max(1),
            stripes: (0..stripes.next_power_of_two()).map(|_| Stripe::default()).collect(),
            quiet: AtomicU64::new(0),
        }
    }

    /// The bucket that a generation's calls go to at a time.
    #[inline]
    pub(super) fn serial(&self, generation: u64, now: Instant) -> Serial {
        let since = now.saturating_duration_since(self.epoch);
        // Wraps after 584 years of uptime.
        let nanos = since
            .as_secs()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(u64::from(since.subsec_nanos()));
        generation.wrapping_mul(STRIDE).wrapping_add(nanos / self.width)
    }

    #[inline]
    pub(super) fn add(&self, serial: Serial, failed: bool, slow: bool) {
        let stripe = &self.stripes[stripe_of_this_thread() & (self.stripes.len() - 1)];
        let bucket = &stripe.0[(serial % BUCKETS) as usize];
        bump(&bucket.total, serial);
        if failed {
            bump(&bucket.failures, serial);
        }
        if slow {
            bump(&bucket.slow, serial);
        }
    }

    /// Whether a good call need not look at the rates.
    #[inline]
    pub(super) fn is_quiet(&self, serial: Serial) -> bool {
        // Relaxed: it only says that somebody has looked; no other data hangs on it.
        self.quiet.load(Ordering::Relaxed) >= serial
    }

    pub(super) fn set_quiet(&self, serial: Serial) {
        // A look with enough calls that found the rates in order; both facts last for the bucket.
        if !self.is_quiet(serial) {
            self.quiet.fetch_max(serial, Ordering::Relaxed);
        }
    }

    /// What the window that ends with this bucket holds.
    pub(super) fn sum(&self, serial: Serial) -> Counts {
        // Of two threads that each add on their own stripe and then sum, at least one must see both:
        // else neither would trip. The fence orders this thread's own addition before its loads in
        // the single order of all such fences.
        fence(Ordering::SeqCst);
        let mut counts = Counts::default();
        for stripe in &self.stripes {
            for bucket in &stripe.0 {
                // Parts before the whole, see `bump`.
                counts.failures += count(&bucket.failures, serial);
                counts.slow += count(&bucket.slow, serial);
                counts.total += count(&bucket.total, serial);
            }
        }
        counts
    }
}

/// Counts one more in a word of a bucket.
#[inline]
fn bump(word: &AtomicU64, serial: Serial) {
    let tag = serial as u32;
    // Release, with the Acquire in `count`: a call is added to the total first and to the failures
    // second, and who sees it among the failures must see it in the total, or would find a rate that
    // never was. That no sum misses a call which nobody else looks at is the work of the fence there.
    let mut old = word.load(Ordering::Relaxed);
    loop {
        let (found, counted) = ((old >> 32) as u32, old as u32);
        let ahead = found.wrapping_sub(tag);
        let counted = match ahead {
            0 => counted.saturating_add(1),
            // The window has moved on by more than its length: too late to count.
            1..NEWER => return,
            _ => 1,
        };
        let new = u64::from(tag) << 32 | u64::from(counted);
        match word.compare_exchange_weak(old, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

/// What a word of a bucket counts towards the window that ends with `serial`.
fn count(word: &AtomicU64, serial: Serial) -> u64 {
    let word = word.load(Ordering::Acquire);
    let age = (serial as u32).wrapping_sub((word >> 32) as u32);
    // A thread whose clock was read a little later may have moved the ring on already: its calls
    // belong to this generation's window too. Another generation's are further off either way.
    let within = age < BUCKETS as u32 || age.wrapping_neg() <= SKEW;
    if within { word & 0xffff_ffff } else { 0 }
}

// ===== impl CountWindow =====

impl CountWindow {
    const GENERATION: u32 = u32::MAX >> 2;
    const FAILED: u32 = 1 << 30;
    const SLOW: u32 = 1 << 31;

    pub(super) fn new(calls: u32) -> Self {
        Self {
            outcomes: (0..calls.max(1)).map(|_| AtomicU32::new(0)).collect(),
            next: AtomicU64::new(0),
            began_at: AtomicU64::new(0),
            totals: AtomicU64::new(0),
        }
    }

    /// Begins to count for a generation. Called by one thread at a time, before the generation is
    /// made known.
    pub(super) fn restart(&self, generation: u64) {
        // Release is had from the store that makes the generation known.
        self.began_at.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
        self.totals.store(generation & 0xffff, Ordering::Relaxed);
    }

    /// Counts an outcome. Says what the window then holds, or nothing if the generation is over.
    #[inline]
    pub(super) fn add(&self, generation: u64, failed: bool, slow: bool) -> Option<Counts> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let cell = &self.outcomes[(at % self.outcomes.len() as u64) as usize];
        let generation_bits = generation as u32 & Self::GENERATION;
        let new = generation_bits
            | if failed { Self::FAILED } else { 0 }
            | if slow { Self::SLOW } else { 0 };

        // A newer generation's outcome is part of that one's totals: to displace it without taking
        // it out of them would leave it there for ever. A writer so late gives way.
        let displaced = cell
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                let ahead =
                    (old & Self::GENERATION).wrapping_sub(generation_bits) & Self::GENERATION;
                (ahead == 0 || ahead >= NEWER).then_some(new)
            })
            .ok()?;
        let replaces = displaced & Self::GENERATION == generation_bits;

        // Differences are added as whole words, modulo 2^64, so that the order in which two writers
        // of the same cell come here does not matter in the end.
        let field = |shift: u32, now: bool, before: bool| {
            (u64::from(now) << shift).wrapping_sub(u64::from(replaces && before) << shift)
        };
        let change = field(16, true, true)
            .wrapping_add(field(32, failed, displaced & Self::FAILED != 0))
            .wrapping_add(field(48, slow, displaced & Self::SLOW != 0));
        // Relaxed: all writers change this one word, so the last of them sees the others' share. If
        // it has passed on to another generation, so has the window.
        let before = self
            .totals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |totals| {
                (totals & 0xffff == generation & 0xffff).then_some(totals.wrapping_add(change))
            })
            .ok()?;
        let counts = Self::unpack(before.wrapping_add(change));
        // Not so for a moment only if a writer was overtaken by a whole lap between its two steps;
        // it will look at the rates itself when it is done.
        let possible = counts.failures <= counts.total
            && counts.slow <= counts.total
            && counts.total <= self.outcomes.len() as u64;
        possible.then_some(counts)
    }

    /// What the window holds.
    pub(super) fn sum(&self) -> Counts {
        Self::unpack(self.totals.load(Ordering::Relaxed))
    }

    /// Whether more calls were counted than fit the window, since the generation began to count.
    pub(super) fn has_turned_over(&self) -> bool {
        let calls = self.next.load(Ordering::Relaxed) - self.began_at.load(Ordering::Relaxed);
        calls > self.outcomes.len() as u64
    }

    fn unpack(totals: u64) -> Counts {
        Counts { total: totals >> 16 & 0xffff, failures: totals >> 32 & 0xffff, slow: totals >> 48 }
    }
}

// ===== impl Run =====

impl Run {
    /// Counts a failure. Says how many came in a row, or 0 if the generation is over.
    pub(super) fn failed(&self, generation: u64) -> u32 {
        let tag = generation as u32;
        let more = |word: u64| {
            let ahead = (word as u32).wrapping_sub(tag);
            let run = match ahead {
                0 => ((word >> 32) as u32).saturating_add(1),
                1..NEWER => return None,
                _ => 1,
            };
            Some(u64::from(run) << 32 | u64::from(tag))
        };
        // Relaxed: generation and run are one word, and all writers change that word.
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(before) => more(before).map_or(0, |after| (after >> 32) as u32),
            Err(_) => 0,
        }
    }

    /// Ends a run. In good health this is one load of a line that nobody writes to.
    #[inline]
    pub(super) fn succeeded(&self, generation: u64) {
        let ended = |word: u64| {
            let ours = word as u32 == generation as u32;
            (ours && word >> 32 != 0).then_some(word & 0xffff_ffff)
        };
        if ended(self.0.load(Ordering::Relaxed)).is_some() {
            // An error means that there is nothing to end any more.
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, ended);
        }
    }

    pub(super) fn get(&self, generation: u64) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        match word as u32 == generation as u32 {
            true => (word >> 32) as u32,
            false => 0,
        }
    }
}

// ===== stripes =====

/// Which stripe this thread counts in, before it is brought into range.
#[inline]
pub(crate) fn stripe_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // While a thread ends its locals are gone; any stripe will do.
    STRIPE.try_with(|stripe| *stripe).unwrap_or(0)
}

/// How many stripes a breaker that many threads share is given: two for each processor, so that
/// threads which are numbered in turn seldom meet, but at most 16.
pub(crate) fn stripes() -> usize {
    static STRIPES: OnceLock<usize> = OnceLock::new();
    *STRIPES.get_or_init(|| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).next_power_of_two().min(16)
    })
}
