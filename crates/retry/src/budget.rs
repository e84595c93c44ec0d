//! The retry budget: a bucket of tokens in one atomic word.

use std::{
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
    /// A [`Word`]. All accesses are relaxed: the word is the whole state, so there is nothing else
    /// to be published with it, and updates of one atomic are totally ordered whatever their
    /// ordering. That is all that "never spent twice" needs.
    word: AtomicU64,
}

/// The bucket's state, packed from the top:
///
/// - 34 bits: what the reserve has paid in since the epoch, in thousandths, modulo 2³⁴. Noting the
///   sum and not the time makes the inflow exact: no fraction is lost however often it is looked at.
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
/// A difference this close below the modulus is a negative one: threads read the clock before they
/// come to the word, so one may come with a time that is older than the last. It is 45 minutes of
/// the largest reserve.
const OLDER: u64 = PAID_IN_MASK - (1 << 28);

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
    pub fn deposit(&self, now: Instant) {
        let bucket = &*self.bucket;
        let mut seen = bucket.word.load(Ordering::Relaxed);
        loop {
            let mut word = Word::unpack(seen);
            // A full bucket stays as it is: as long as all goes well, first attempts only read the
            // word, and threads do not fight over its cache line.
            if word.held == bucket.capacity_milli {
                return;
            }
            bucket.refill(&mut word, now);
            word.held = bucket.capacity_milli.min(word.held + bucket.ratio_milli);
            match bucket.replace(seen, word) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Takes a token for a retry.
    ///
    /// # Errors
    ///
    /// [`Reason::BudgetSpent`] if there is none.
    pub fn withdraw(&self, now: Instant) -> Result<Withdrawal, Reason> {
        let bucket = &*self.bucket;
        let mut seen = bucket.word.load(Ordering::Relaxed);
        loop {
            let mut word = Word::unpack(seen);
            bucket.refill(&mut word, now);
            let free = word.free();
            if free < TOKEN {
                return Err(Reason::BudgetSpent { balance_milli: free });
            }
            word.waiting += 1;
            // The check and the taking are one step: whoever was faster made this one fail, and it
            // looks again at what is left.
            match bucket.replace(seen, word) {
                Ok(_) => {
                    return Ok(Withdrawal { bucket: Some(self.bucket.clone()) });
                }
                Err(changed) => seen = changed,
            }
        }
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
        let mut word = Word::unpack(self.word.load(Ordering::Relaxed));
        self.refill(&mut word, now);
        word
    }

    /// Adds what the reserve has paid in since the word was last written.
    fn refill(&self, word: &mut Word, now: Instant) {
        let elapsed = now.saturating_duration_since(*self.epoch.get_or_init(|| now));
        let paid_in = elapsed.as_nanos() * u128::from(self.reserve_milli) / 1_000_000_000;
        // The sum wraps, and is only ever compared with another one.
        let paid_in = paid_in as u64 & PAID_IN_MASK;
        let since = paid_in.wrapping_sub(word.paid_in) & PAID_IN_MASK;
        if since < OLDER {
            word.paid_in = paid_in;
            word.held = self.capacity_milli.min(word.held.saturating_add(since));
        }
    }

    fn replace(&self, seen: u64, word: Word) -> Result<u64, u64> {
        self.word.compare_exchange_weak(seen, word.pack(), Ordering::Relaxed, Ordering::Relaxed)
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
        let mut seen = bucket.word.load(Ordering::Relaxed);
        loop {
            let mut word = Word::unpack(seen);
            // First of all what flowed in until now, so that what ran over a full bucket is lost and
            // not found again in the room that this token leaves.
            bucket.refill(&mut word, now);
            word.waiting = word.waiting.saturating_sub(1);
            word.held = word.held.saturating_sub(TOKEN);
            match bucket.replace(seen, word) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
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
        let budget = budget(1, 0.0, 0.003);
        budget.withdraw(start).unwrap().spend(start);
        for ms in 0..333_333 {
            budget.deposit(start + Duration::from_millis(ms));
        }
        assert!(budget.withdraw(start + Duration::from_millis(333_333)).is_err());
        assert!(budget.withdraw(start + Duration::from_millis(333_334)).is_ok());
    }

    #[test]
    fn a_time_that_is_older_than_the_last_pays_nothing_in() {
        let start = clock::now();
        let budget = budget(5, 0.0, 1.0);
        budget.deposit(start);
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
        budget.deposit(start);
        for day in 1..20 {
            let now = start + Duration::from_secs(86_400 / 2) * day;
            budget.withdraw(now).unwrap().spend(now);
            budget.withdraw(now).unwrap().spend(now);
            assert!(budget.withdraw(now).is_err());
            assert_eq!(budget.balance(now + Duration::from_millis(10)), 1.0);
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
        budget.deposit(start);
        let later = start + Duration::from_secs(3_600);
        budget.withdraw(later).unwrap().spend(later);
        assert_eq!(budget.balance(later), 0.0);
        assert_eq!(budget.balance(later + Duration::from_millis(250)), 0.25);
    }
}
