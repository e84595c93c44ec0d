//! The last N calls.

use portcullis_core::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering, fence},
};

use super::{Counts, Mark, stripes::Stripes};

/// The last N calls of a generation, in the order in which they were counted.
///
/// All calls are numbered in one sequence, and yet no two threads that count good ones write to the
/// same word: each counts in a stripe of its own, and the length of the sequence is the sum of the
/// stripes. Only a bad call has to know its number, which is that sum; it notes the number under a
/// lock, and gives back what has fallen out of the last N since somebody last looked. So the good
/// calls, of which nothing is kept, are whatever is left between the bad ones.
///
/// The sum may be taken while others count. No stripe ever goes back, so it is the length that the
/// sequence had at some moment between the first load and the last.
pub(super) struct CountWindow {
    calls: u64,
    /// How many calls were counted. Each: the low 16 bits of the generation, then a count of 48 bits,
    /// which is room for a million calls a second for nine years.
    counted: Stripes<AtomicU64>,
    /// How many marks there were when somebody last held the lock.
    marked: AtomicU64,
    log: Mutex<Log>,
}

/// Which of the last N calls were bad.
struct Log {
    generation: u64,
    /// How long the sequence was when it was last looked at.
    length: u64,
    failures: Marks,
    slow: Marks,
}

/// One bit for each of the last N calls, in a ring, and how many are set. Only bits of calls that
/// are in the window ever are.
struct Marks {
    bits: Box<[u64]>,
    set: u64,
}

const COUNT_BITS: u32 = 48;

// ===== impl CountWindow =====

impl CountWindow {
    pub(super) fn new(calls: u32, stripes: usize) -> Self {
        let marks = || Marks { bits: vec![0; calls.div_ceil(64) as usize].into(), set: 0 };
        Self {
            calls: u64::from(calls),
            counted: Stripes::new(stripes),
            marked: AtomicU64::new(0),
            log: Mutex::new(Log { generation: 0, length: 0, failures: marks(), slow: marks() }),
        }
    }

    /// Begins to count for a generation. Called by one thread at a time, before the generation is
    /// made known: whoever counts for it finds every stripe ready.
    pub(super) fn restart(&self, generation: u64) {
        let mut log = self.log.lock();
        // Relaxed: the release is had from the store that makes the generation known. Who still
        // counts for the last one finds that its tag is gone.
        for stripe in self.counted.iter() {
            stripe.store(tag(generation), Ordering::Relaxed);
        }
        log.generation = generation;
        log.length = 0;
        log.failures.clear();
        log.slow.clear();
        self.marked.store(0, Ordering::Relaxed);
    }

    /// Counts a call that was neither a failure nor slow. Says whether the generation still is on.
    #[inline]
    pub(super) fn add_good(&self, generation: u64) -> bool {
        let stripe = self.counted.mine();
        let mut old = stripe.load(Ordering::Relaxed);
        // The tag and the count change in one step: a call that was overtaken by a new generation
        // cannot be counted in it.
        while old >> COUNT_BITS == tag(generation) >> COUNT_BITS {
            // Relaxed: what it must be ordered against is the work of the fences below.
            match stripe.compare_exchange_weak(old, old + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
        false
    }

    /// Counts a call that was a failure or slow. Says what the window holds with it, unless the
    /// generation is over.
    pub(super) fn add_bad(&self, generation: u64, mark: Mark) -> Option<Counts> {
        let mut log = self.log.lock();
        if log.generation != generation || !self.add_good(generation) {
            return None;
        }
        // Against the fence of a good call that makes up the minimum: one of the two sees both.
        fence(Ordering::SeqCst);
        let length = self.length(generation);
        log.advance(length, self.calls);
        log.failures.set(length - 1, mark.failed);
        log.slow.set(length - 1, mark.slow);
        Some(self.publish(&log))
    }

    /// What the window holds, if that is at least so many calls.
    pub(super) fn sum_from(&self, minimum: u64, generation: u64) -> Option<Counts> {
        // Of two threads that each count on their own stripe and then look, at least one must see
        // both calls: else neither would trip. The fence orders this thread's own addition before
        // its loads in the single order of all such fences.
        fence(Ordering::SeqCst);
        // A bad call that is part of the length may not be marked yet: the lock waits for it.
        (self.length(generation) >= minimum).then(|| self.sum_under_lock(generation))
    }

    /// What the window holds. Takes no lock while no call in it is bad.
    pub(super) fn sum(&self, generation: u64) -> Counts {
        // Relaxed: should somebody be adding a mark, this was a moment earlier.
        if self.marked.load(Ordering::Relaxed) == 0 {
            let total = self.length(generation).min(self.calls);
            return Counts { total, failures: 0, slow: 0 };
        }
        self.sum_under_lock(generation)
    }

    fn sum_under_lock(&self, generation: u64) -> Counts {
        let mut log = self.log.lock();
        if log.generation != generation {
            return Counts::default();
        }
        log.advance(self.length(generation), self.calls);
        self.publish(&log)
    }

    /// Whether more calls were counted than fit the window, since the generation began to count.
    pub(super) fn has_turned_over(&self, generation: u64) -> bool {
        self.length(generation) > self.calls
    }

    /// How many calls were counted.
    fn length(&self, generation: u64) -> u64 {
        let of = |word: u64| match word >> COUNT_BITS == tag(generation) >> COUNT_BITS {
            true => word - tag(generation),
            false => 0,
        };
        self.counted.iter().map(|stripe| of(stripe.load(Ordering::Relaxed))).sum()
    }

    fn publish(&self, log: &Log) -> Counts {
        let (failures, slow) = (log.failures.set, log.slow.set);
        self.marked.store(failures + slow, Ordering::Relaxed);
        Counts { total: log.length.min(self.calls), failures, slow }
    }
}

/// The word of a stripe that has counted nothing in a generation.
const fn tag(generation: u64) -> u64 {
    generation << COUNT_BITS
}

// ===== impl Log =====

impl Log {
    /// Gives back what is no longer among the last N calls of a sequence so long.
    fn advance(&mut self, length: u64, calls: u64) {
        // Whoever sums the stripes under the lock sees no less than who did so before.
        debug_assert!(length >= self.length);
        let oldest = self.length.saturating_sub(calls);
        let stays_from = length.saturating_sub(calls).min(self.length);
        self.failures.unset(oldest, stays_from);
        self.slow.unset(oldest, stays_from);
        self.length = length;
    }
}

// ===== impl Marks =====

impl Marks {
    fn set(&mut self, number: u64, set: bool) {
        let nth = self.word(number);
        self.bits[nth] |= u64::from(set) << (number % 64);
        self.set += u64::from(set);
    }

    /// Takes the marks of some calls away, 64 at a step, until there is none left.
    fn unset(&mut self, mut from: u64, to: u64) {
        let mut nth = self.word(from);
        while from < to && self.set > 0 {
            let (bit, end) = (from % 64, to.min(from - from % 64 + 64));
            let gone = (u64::MAX << bit) & (u64::MAX >> (64 - (bit + end - from)));
            let marks = self.bits[nth] & gone;
            if marks != 0 {
                self.set -= u64::from(marks.count_ones());
                self.bits[nth] ^= marks;
            }
            from = end;
            // Not by `word`, which divides: there may be thousands of steps.
            nth = if nth + 1 == self.bits.len() { 0 } else { nth + 1 };
        }
    }

    fn clear(&mut self) {
        if self.set > 0 {
            self.bits.fill(0);
            self.set = 0;
        }
    }

    /// Where the mark of a call is. The ring has room for N calls and up to 63 more.
    fn word(&self, number: u64) -> usize {
        ((number / 64) % self.bits.len() as u64) as usize
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_generation_that_is_over_is_not_counted_in_the_next() {
        let window = CountWindow::new(10, 1);
        window.restart(1);
        assert!(window.add_good(1));
        window.restart(2);
        let failed = Mark { failed: true, slow: false };
        assert!(!window.add_good(1) && window.add_bad(1, failed).is_none());
        assert_eq!((window.sum(1), window.sum(2)), (Counts::default(), Counts::default()));
        assert!(window.add_good(2));
        assert_eq!(window.sum(2).total, 1);
    }

    #[test]
    fn marks_on_both_sides_of_the_rings_end_go_in_one_step() {
        let window = CountWindow::new(100, 1);
        window.restart(1);
        let failed = Mark { failed: true, slow: false };
        for call in 0..400 {
            match call {
                120 | 130 => assert!(window.add_bad(1, failed).is_some()),
                _ => assert!(window.add_good(1)),
            }
        }
        assert_eq!(window.sum(1), Counts { total: 100, failures: 0, slow: 0 });
    }
}
