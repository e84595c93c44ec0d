//! The retry budget: a bucket of tokens in one atomic word.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};

use portcullis_core::{
    Invalid, Reason,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::BudgetConfig;

/// Keeps retries from amplifying an outage: a bucket of tokens, of which each retry takes one.
///
/// In any interval of `t` seconds with `n` first attempts, at most
/// `capacity + ratio · n + reserve · t` retries are sent (to a thousandth of a token, the budget's
/// unit). A retry that waits in backoff has its token already: it counts as spent, but its place in
/// the bucket fills only once it is sent. So the retries that wait at one time are no more than the
/// capacity, and those that a hint sends off at one moment are bounded like any others. One that is
/// cancelled before it was sent gives its token back.
///
/// # Clone
///
/// Clones share one bucket. Several layers may: then the bound holds for all of them together.
///
/// ```
/// use portcullis_core::clock;
/// use portcullis_retry::{Budget, BudgetConfig};
///
/// # fn main() -> Result<(), portcullis_core::Invalid> {
/// let mut config = BudgetConfig::default();
/// config.capacity = 1;
/// let budget = Budget::new(config)?;
///
/// let now = clock::now();
/// let waiting = budget.withdraw(now).expect("the bucket starts full");
/// assert!(budget.withdraw(now).is_err());
/// drop(waiting); // cancelled before it was sent
/// assert_eq!(budget.balance(now), 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Budget {
    bucket: Arc<Bucket>,
}

struct Bucket {
    config: BudgetConfig,
    capacity_milli: u64,
    ratio_milli: u64,
    /// Thousandths of a token per second.
    reserve_milli: u64,
    /// The first instant anybody told of: the reserve is summed from then on. The bucket was full
    /// until then.
    epoch: OnceLock<Instant>,
    /// A [`Word`]. That a token is never spent twice needs no ordering: updates of one atomic are
    /// totally ordered anyway. What needs one is `latest`.
    word: AtomicU64,
    /// The largest sum of the reserve that anybody meant to write, whole. It is raised before the
    /// word is written, so whoever sees a word sees a `latest` that is not behind it: the word's own
    /// sum is the largest that is not beyond this one and has the same low bits. However long nobody
    /// came, the inflow is exact; only where two come at once after the sum has wrapped, the later may
    /// find less of it, and never more.
    latest: AtomicU64,
}

/// The bucket's state, packed from the top:
///
/// - 34 bits: what the reserve has paid in since the epoch, in thousandths, modulo 2³⁴: see
///   [`Bucket::latest`]. Noting the sum and not the time makes the inflow exact: no fraction is lost
///   however often it is looked at.
/// - 20 bits: `held`, the tokens in the bucket, in thousandths, those of waiting retries included.
/// - 10 bits: `waiting`, the retries that wait with a token of theirs.
///
/// Always `1000 · waiting ≤ held ≤ 1000 · capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    paid_in: u64,
    held: u64,
    waiting: u64,
}

/// A retry's token, from the decision until the retry is sent. Dropped before that, it goes back.
#[must_use = "a token that is dropped goes back to the budget"]
pub struct Withdrawal {
    /// `None` once spent.
    bucket: Option<Arc<Bucket>>,
}

const TOKEN: u64 = 1_000;

const WAITING_BITS: u32 = 10;
const HELD_BITS: u32 = 20;
const PAID_IN_MASK: u64 = (1 << (64 - WAITING_BITS - HELD_BITS)) - 1;

const ONE_WAITING: u64 = 1;

const _: () = assert!(BudgetConfig::MAX_CAPACITY < 1 << WAITING_BITS);
const _: () = assert!((BudgetConfig::MAX_CAPACITY as u64) * TOKEN < 1 << HELD_BITS);

// ===== impl Budget =====

impl Budget {
    /// A full bucket.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: BudgetConfig) -> Result<Self, Invalid> {
        config.validate()?;
        let capacity_milli = u64::from(config.capacity) * TOKEN;
        let word = Word { paid_in: 0, held: capacity_milli, waiting: 0 };
        Ok(Self {
            bucket: Arc::new(Bucket {
                config,
                capacity_milli,
                ratio_milli: milli(config.ratio),
                reserve_milli: milli(config.reserve),
                epoch: OnceLock::new(),
                word: AtomicU64::new(word.pack()),
                latest: AtomicU64::new(0),
            }),
        })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BudgetConfig {
        &self.bucket.config
    }

    /// Tokens a retry could take now; those of waiting retries are not among them.
    #[must_use]
    pub fn balance(&self, now: Instant) -> f64 {
        self.bucket.look(now).free() as f64 / TOKEN as f64
    }

    /// How many retries wait with a token of theirs.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let word = Word::unpack(self.bucket.word.load(Ordering::Relaxed));
        u32::try_from(word.waiting).unwrap_or(u32::MAX)
    }

    /// Pays in for a first attempt.
    ///
    /// It needs no time. What the reserve has paid in meanwhile is added by whoever takes something
    /// out: two payments into one bucket come to the same in either order, even where it runs over.
    #[inline]
    pub fn deposit(&self) {
        let bucket = &*self.bucket;
        let word = Word::unpack(bucket.word.load(Ordering::Relaxed));
        // A full bucket stays as it is: as long as all goes well, first attempts only read the word,
        // and threads do not fight over its cache line.
        if word.held < bucket.capacity_milli {
            bucket.pay_in();
        }
    }

    /// Takes a token for a retry.
    ///
    /// # Errors
    ///
    /// [`Reason::BudgetSpent`] if there is none.
    pub fn withdraw(&self, now: Instant) -> Result<Withdrawal, Reason> {
        let bucket = &*self.bucket;
        bucket.update(now, |word| {
            let free = word.free();
            if free < TOKEN {
                return Err(Reason::BudgetSpent { balance_milli: free });
            }
            word.waiting += 1;
            Ok(())
        })?;
        Ok(Withdrawal { bucket: Some(self.bucket.clone()) })
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("config", &self.bucket.config)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

// ===== impl Bucket =====

impl Bucket {
    fn look(&self, now: Instant) -> Word {
        let mut word = Word::unpack(self.word.load(Ordering::Acquire));
        self.refill(&mut word, self.paid_in(now));
        word
    }

    fn pay_in(&self) {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let mut word = Word::unpack(seen);
            word.held = self.capacity_milli.min(word.held + self.ratio_milli);
            // Relaxed: the sum stays as it is, and a read-modify-write hands on what the writer of
            // that sum released.
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.word.compare_exchange_weak(seen, word.pack(), set, fetch) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Changes the word as it is `now`, in one step with whatever `change` looks at: should somebody
    /// be faster, it is asked again about what is left.
    fn update<E>(
        &self,
        now: Instant,
        mut change: impl FnMut(&mut Word) -> Result<(), E>,
    ) -> Result<(), E> {
        let paid_in = self.paid_in(now);
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let mut word = Word::unpack(seen);
            self.refill(&mut word, paid_in);
            change(&mut word)?;
            self.latest.fetch_max(paid_in, Ordering::Relaxed);
            // Release, with the acquire of whoever sees this word: they see `latest` as well.
            let (set, fetch) = (Ordering::Release, Ordering::Acquire);
            match self.word.compare_exchange(seen, word.pack(), set, fetch) {
                Ok(_) => return Ok(()),
                Err(changed) => seen = changed,
            }
        }
    }

    /// What the reserve has paid in by `now`, in thousandths.
    fn paid_in(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(*self.epoch.get_or_init(|| now));
        let paid_in = elapsed.as_nanos() * u128::from(self.reserve_milli) / 1_000_000_000;
        u64::try_from(paid_in).unwrap_or(u64::MAX)
    }

    /// Adds what the reserve has paid in since the word was last written: nothing for a thread that
    /// read the clock before the last writer did, and comes to the word after it.
    fn refill(&self, word: &mut Word, paid_in: u64) {
        // Relaxed: the acquire that the word was read with has seen to it.
        let latest = self.latest.load(Ordering::Relaxed);
        let noted = latest - (latest.wrapping_sub(word.paid_in) & PAID_IN_MASK);
        if let Some(since) = paid_in.checked_sub(noted) {
            word.paid_in = paid_in & PAID_IN_MASK;
            word.held = self.capacity_milli.min(word.held.saturating_add(since));
        }
    }
}

// ===== impl Word =====

impl Word {
    const fn pack(self) -> u64 {
        (self.paid_in << (HELD_BITS + WAITING_BITS)) | (self.held << WAITING_BITS) | self.waiting
    }

    const fn unpack(word: u64) -> Self {
        Self {
            paid_in: word >> (HELD_BITS + WAITING_BITS),
            held: (word >> WAITING_BITS) & ((1 << HELD_BITS) - 1),
            waiting: word & ((1 << WAITING_BITS) - 1),
        }
    }

    /// What no waiting retry has, in thousandths.
    const fn free(self) -> u64 {
        self.held.saturating_sub(self.waiting * TOKEN)
    }
}

// ===== impl Withdrawal =====

impl Withdrawal {
    /// The retry is being sent: the token is gone, and its place in the bucket fills again.
    pub fn spend(mut self, now: Instant) {
        let Some(bucket) = self.bucket.take() else {
            return;
        };
        // Whatever flowed in until now comes first, so that what ran over a full bucket is lost and
        // not found again in the room that this token leaves.
        let Ok(()) = bucket.update(now, |word| {
            word.waiting = word.waiting.saturating_sub(1);
            word.held = word.held.saturating_sub(TOKEN);
            Ok::<_, Infallible>(())
        });
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(bucket) = self.bucket.take() {
            // No borrow reaches the next field: this withdrawal is one of those counted.
            bucket.word.fetch_sub(ONE_WAITING, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").finish_non_exhaustive()
    }
}

/// Thousandths; the settings were validated to be small and not negative.
fn milli(tokens: f64) -> u64 {
    (tokens * TOKEN as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_core::clock;

    use super::*;

    fn budget(capacity: u32, ratio: f64, reserve: f64) -> Budget {
        Budget::new(BudgetConfig { capacity, ratio, reserve }).unwrap()
    }

    #[test]
    fn a_sum_that_another_thread_is_about_to_write_takes_nothing_from_the_inflow() {
        let budget = budget(2, 0.0, 1.0);
        let start = clock::now();
        for _ in 0..2 {
            budget.withdraw(start).unwrap().spend(start);
        }
        // It has raised `latest` for its own time, and not come to the word yet.
        budget.bucket.latest.fetch_max(1_500, Ordering::Relaxed);
        assert_eq!(budget.balance(start + Duration::from_millis(1_250)), 1.25);
        assert_eq!(budget.balance(start + Duration::from_millis(1_750)), 1.75);
    }

    #[test]
    fn the_settings_can_be_read_back() {
        let config = BudgetConfig { capacity: 7, ratio: 0.25, reserve: 2.0 };
        assert_eq!(*Budget::new(config).unwrap().config(), config);
    }

    #[test]
    fn the_word_holds_the_largest_of_everything() {
        let word = Word {
            paid_in: PAID_IN_MASK,
            held: u64::from(BudgetConfig::MAX_CAPACITY) * TOKEN,
            waiting: u64::from(BudgetConfig::MAX_CAPACITY),
        };
        assert_eq!(Word::unpack(word.pack()), word);
    }

    #[test]
    fn the_reserve_loses_no_fraction_however_often_it_is_looked_at() {
        let start = clock::now();
        let budget = budget(2, 0.0, 0.003);
        budget.withdraw(start).unwrap().spend(start);
        for ms in 0..=333_333 {
            // What goes back leaves the inflow written down.
            drop(budget.withdraw(start + Duration::from_millis(ms)).unwrap());
        }
        assert_eq!(budget.balance(start + Duration::from_millis(333_333)), 1.999);
        assert_eq!(budget.balance(start + Duration::from_millis(333_334)), 2.0);
    }

    #[test]
    fn a_time_that_is_older_than_the_last_pays_nothing_in() {
        let start = clock::now();
        let budget = budget(5, 0.0, 1.0);
        for _ in 0..5 {
            budget.withdraw(start).unwrap().spend(start);
        }
        let later = start + Duration::from_secs(2);
        budget.withdraw(later).unwrap().spend(later);
        let second = budget.withdraw(start).unwrap();
        assert!(budget.withdraw(start).is_err());
        second.spend(start);
        assert!(budget.withdraw(later).is_err());
    }

    #[test]
    fn the_sum_of_the_reserve_may_wrap() {
        let start = clock::now();
        let budget = budget(2, 0.0, 100.0);
        for day in 1..20 {
            let now = start + Duration::from_secs(86_400 / 2) * day;
            budget.withdraw(now).unwrap().spend(now);
            budget.withdraw(now).unwrap().spend(now);
            assert!(budget.withdraw(now).is_err());
            assert_eq!(budget.balance(now + Duration::from_millis(10)), 1.0);
        }
    }

    #[test]
    fn however_long_nobody_came_the_reserve_has_filled_the_bucket_and_goes_on() {
        // The sum wraps after 47 hours; a gap may be of any length.
        let hour = Duration::from_secs(3_600);
        for gap in 1..200 {
            let start = clock::now();
            let budget = budget(2, 0.0, 100.0);
            budget.withdraw(start).unwrap().spend(start);
            budget.withdraw(start).unwrap().spend(start);
            let mut now = start + hour * gap;
            assert_eq!(budget.balance(now), 2.0, "{gap} h");
            for _ in 0..3 {
                budget.withdraw(now).unwrap().spend(now);
                budget.withdraw(now).unwrap().spend(now);
                assert!(budget.withdraw(now).is_err(), "{gap} h");
                now += Duration::from_millis(20);
            }
        }
    }

    #[test]
    fn what_runs_over_while_retries_wait_is_lost() {
        let start = clock::now();
        let budget = budget(3, 0.0, 1.0);
        let waiting: Vec<_> = (0..3).map(|_| budget.withdraw(start).unwrap()).collect();
        assert_eq!((budget.balance(start), budget.waiting()), (0.0, 3));

        let later = start + Duration::from_secs(10);
        assert!(budget.withdraw(later).is_err());
        for one in waiting {
            one.spend(later);
        }
        assert_eq!((budget.balance(later), budget.waiting()), (0.0, 0));
    }

    #[test]
    fn a_full_bucket_loses_nothing_by_not_being_written() {
        let start = clock::now();
        let budget = budget(1, 0.2, 1.0);
        let later = start + Duration::from_secs(3_600);
        budget.withdraw(later).unwrap().spend(later);
        assert_eq!(budget.balance(later), 0.0);
        assert_eq!(budget.balance(later + Duration::from_millis(250)), 0.25);
    }
}
