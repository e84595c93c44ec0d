//! The calls that ended within a time.

use std::time::{Duration, Instant};

use portcullis_core::sync::atomic::{AtomicU64, Ordering, fence};

use super::{Counts, Mark, stripes::Stripes};

/// How many buckets a time window has. An interleaving test has fewer: each is more to interleave,
/// and none differs from the next.
const BUCKETS: u64 = if cfg!(portcullis_loom) { 2 } else { 10 };

/// How far the serial numbers of a generation's buckets are ahead of the earlier one's: a window's
/// length, and room for threads that are up to 5 buckets apart in what they think the time is.
const STRIDE: u64 = BUCKETS + 6;
const SKEW: u32 = (STRIDE - BUCKETS - 1) as u32;

/// A late writer may find a bucket newer than its own. Further ahead than this it is not newer but
/// left over from before the 32 bits of the tag came round.
const NEWER: u32 = 1 << 20;

/// The calls that ended within a time, in ten buckets on boundaries of a tenth of it.
///
/// No word is ever cleared. Every count carries a tag that says which bucket of which generation it
/// belongs to, in the same atomic word: a writer that finds an older tag starts from zero, a reader
/// passes over what is not of its window. So a stale count can never be taken for a fresh one,
/// however long a thread slept between reading the state and adding to the window.
///
/// Threads count in stripes of their own; a reader adds them up.
pub(super) struct TimeWindow {
    epoch: Instant,
    length: Duration,
    width: Width,
    stripes: Stripes<[Bucket; BUCKETS as usize]>,
    /// What the buckets before the one of its tags held in all, when a call in that one was told of
    /// first.
    earlier: Bucket,
}

/// A bucket of one generation, by a number that only ever grows.
pub(super) type Serial = u64;

/// Each word: the low 32 bits of the bucket's serial number, then a count of 32 bits.
#[derive(Default)]
struct Bucket {
    total: AtomicU64,
    failures: AtomicU64,
    slow: AtomicU64,
}

/// The width of a bucket in nanoseconds, with what it takes to divide by it.
struct Width {
    nanos: u64,
    /// 2^64 / `nanos`, rounded down.
    inverse: u64,
}

// ===== impl TimeWindow =====

impl TimeWindow {
    pub(super) fn new(length: Duration, epoch: Instant, stripes: usize) -> Self {
        Self {
            epoch,
            length,
            width: Width::new(nanos(length) / BUCKETS),
            stripes: Stripes::new(stripes),
            earlier: Bucket::default(),
        }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// The bucket that a generation's calls go to at a time.
    #[inline]
    pub(super) fn serial(&self, generation: u64, now: Instant) -> Serial {
        let since = nanos(now.saturating_duration_since(self.epoch));
        generation.wrapping_mul(STRIDE).wrapping_add(self.width.divide(since))
    }

    #[inline]
    pub(super) fn add(&self, serial: Serial, mark: Mark) {
        let bucket = &self.stripes.mine()[nth(serial)];
        bump(&bucket.total, serial);
        if mark.failed {
            bump(&bucket.failures, serial);
        }
        if mark.slow {
            bump(&bucket.slow, serial);
        }
    }

    /// What the window that ends with this bucket holds.
    pub(super) fn sum(&self, serial: Serial) -> Counts {
        // Of two threads that each add on their own stripe and then sum, at least one must see both:
        // else neither would trip. The fence orders this thread's own addition before its loads in
        // the single order of all such fences.
        fence(Ordering::SeqCst);
        // A thread whose clock was read a little later may have moved the ring on already: its calls
        // belong to this generation's window too. Another generation's are further off either way.
        let within = |age: u32| age < BUCKETS as u32 || age.wrapping_neg() <= SKEW;
        let buckets = self.stripes.iter().flatten();
        buckets.map(|bucket| bucket.counts(serial, within)).fold(Counts::default(), Counts::plus)
    }

    /// The same for who only tells of it. What was added to an earlier bucket after a call was first
    /// told of in this one is missing; there is none but from threads that lag behind.
    pub(super) fn sum_to_tell(&self, serial: Serial) -> Counts {
        let latest = |age: u32| age == 0;
        let earlier = self.earlier.counts_tagged(serial).unwrap_or_else(|| self.add_up(serial));
        let present = self.stripes.iter().map(|stripe| &stripe[nth(serial)]);
        present.map(|bucket| bucket.counts(serial, latest)).fold(earlier, Counts::plus)
    }

    #[cold]
    fn add_up(&self, serial: Serial) -> Counts {
        let within = |age: u32| (1..BUCKETS as u32).contains(&age);
        let buckets = self.stripes.iter().flatten();
        let earlier = buckets
            .map(|bucket| bucket.counts(serial, within))
            .fold(Counts::default(), Counts::plus);
        self.earlier.set(serial, earlier);
        earlier
    }
}

fn nth(serial: Serial) -> usize {
    (serial % BUCKETS) as usize
}

/// Wraps after 584 years.
#[inline]
fn nanos(time: Duration) -> u64 {
    time.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(time.subsec_nanos()))
}

// ===== impl Bucket =====

impl Bucket {
    /// What it counts, if its age in buckets is right.
    fn counts(&self, serial: Serial, right: impl Fn(u32) -> bool) -> Counts {
        // Acquire: see `bump`.
        let count = |word: &AtomicU64| {
            let word = word.load(Ordering::Acquire);
            let age = (serial as u32).wrapping_sub((word >> 32) as u32);
            if right(age) { word & 0xffff_ffff } else { 0 }
        };
        // Parts before the whole, see `bump`.
        let (failures, slow) = (count(&self.failures), count(&self.slow));
        Counts { failures, slow, total: count(&self.total) }
    }

    /// What it counts, if all of it was set for this one.
    fn counts_tagged(&self, serial: Serial) -> Option<Counts> {
        let count = |word: &AtomicU64| {
            let word = word.load(Ordering::Acquire);
            ((word >> 32) as u32 == serial as u32).then_some(word & 0xffff_ffff)
        };
        let (failures, slow) = (count(&self.failures)?, count(&self.slow)?);
        Some(Counts { failures, slow, total: count(&self.total)? })
    }

    /// Two that set it at once may leave it with a part from each: both parts were true.
    fn set(&self, serial: Serial, counts: Counts) {
        let word = |count: u64| (serial << 32) | count.min(u64::from(u32::MAX));
        // The whole before the parts, as in `bump`.
        self.total.store(word(counts.total), Ordering::Release);
        self.failures.store(word(counts.failures), Ordering::Release);
        self.slow.store(word(counts.slow), Ordering::Release);
    }
}

/// Counts one more in a word of a bucket.
#[inline]
fn bump(word: &AtomicU64, serial: Serial) {
    let tag = serial as u32;
    // Release, with the Acquire in `counts`: a call is added to the total first and to the failures
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

// ===== impl Width =====

impl Width {
    fn new(nanos: u64) -> Self {
        let nanos = nanos.max(1);
        Self {
            nanos,
            inverse: u64::try_from((1_u128 << 64) / u128::from(nanos)).unwrap_or(u64::MAX),
        }
    }

    /// `time` / `nanos`, by a multiplication: a division of 64 bits takes as long as all the rest
    /// that a window does for a good call.
    #[inline]
    fn divide(&self, time: u64) -> u64 {
        // The inverse lacks less than 1, so this lacks less than time / 2^64 < 1: it is the quotient,
        // or one less.
        let quotient = ((u128::from(time) * u128::from(self.inverse)) >> 64) as u64;
        let rest = time.wrapping_sub(quotient.wrapping_mul(self.nanos));
        quotient + u64::from(rest >= self.nanos)
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_comes_too_late_for_its_bucket_takes_nothing_from_the_newer_one() {
        let counted = |serials: &[Serial]| {
            let bucket = Bucket::default();
            serials.iter().for_each(|&serial| bump(&bucket.total, serial));
            bucket.counts(serials[0], |age| age == 0).total
        };
        assert_eq!(counted(&[30, 30, 20]), 2);
        // What was left over from before the tags came round is no newer one.
        assert_eq!(counted(&[u64::from(NEWER) + 20, 20]), 0);
    }
}
