//! gRPC's retry throttling: tokens in one atomic word.

use std::{fmt, sync::Arc};

use portcullis_core::{
    Invalid, Reason,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::ThrottlingConfig;

/// Switches retries off while too large a share of the attempts fails, as a gRPC service config has it
/// (gRFC A6, "Throttling Retry Attempts"). It takes the place of a [`Budget`](crate::Budget).
///
/// Each attempt that fails so that another might mend it, where the settings or the caller allow others, or
/// that the peer asked not to repeat, takes a token; each success gives back a part of one. There are retries as long as more than half of the tokens
/// are left. Unlike a budget, it bounds nothing before failures have come: a burst of calls that all fail at
/// one moment are all retried.
///
/// # Clone
///
/// Clones share the tokens. Several layers may: then they count together, as those of one server should.
///
/// ```
/// use portcullis_retry::{Throttling, ThrottlingConfig};
///
/// let throttling = Throttling::new(ThrottlingConfig::new(4, 0.5))?;
/// assert!(throttling.failed().is_ok()); // 3 of 4 are left
/// assert!(throttling.failed().is_err()); // 2 are no more than half
/// throttling.succeeded();
/// assert_eq!(throttling.tokens(), 2.5);
/// assert!(throttling.allows());
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Throttling {
    count: Arc<Count>,
}

struct Count {
    config: ThrottlingConfig,
    max_milli: u64,
    ratio_milli: u64,
    /// The tokens left, in thousandths, from 0 to `max_milli`. Whoever changes it does so in one step that
    /// depends on nothing else, and nothing else is published by it; so no ordering is needed.
    left_milli: AtomicU64,
}

const TOKEN: u64 = 1_000;

// ===== impl Throttling =====

impl Throttling {
    /// All tokens are there.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: ThrottlingConfig) -> Result<Self, Invalid> {
        config.validate()?;
        let max_milli = u64::from(config.max_tokens) * TOKEN;
        let count = Count {
            config,
            max_milli,
            ratio_milli: config.ratio_milli(),
            left_milli: AtomicU64::new(max_milli),
        };
        Ok(Self { count: Arc::new(count) })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ThrottlingConfig {
        &self.count.config
    }

    /// The tokens that are left, from 0 to `max_tokens`.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        self.count.left_milli.load(Ordering::Relaxed) as f64 / TOKEN as f64
    }

    /// Whether there are retries: more than half of the tokens are left.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.count.allows(self.count.left_milli.load(Ordering::Relaxed))
    }

    /// Notes that an attempt succeeded.
    #[inline]
    pub fn succeeded(&self) {
        let count = &*self.count;
        // As long as all goes well, threads only read the word.
        if count.left_milli.load(Ordering::Relaxed) < count.max_milli {
            count.update(|left| count.max_milli.min(left.saturating_add(count.ratio_milli)));
        }
    }

    /// Notes that an attempt failed.
    ///
    /// # Errors
    ///
    /// [`Reason::RetriesThrottled`], if there is to be no other for it.
    pub fn failed(&self) -> Result<(), Reason> {
        let count = &*self.count;
        let left = count.update(|left| left.saturating_sub(TOKEN));
        if count.allows(left) {
            return Ok(());
        }
        let threshold_milli = count.max_milli / 2;
        Err(Reason::RetriesThrottled { tokens_milli: left, threshold_milli })
    }
}

impl fmt::Debug for Throttling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttling")
            .field("config", &self.count.config)
            .field("tokens", &self.tokens())
            .finish()
    }
}

// ===== impl Count =====

impl Count {
    fn allows(&self, left_milli: u64) -> bool {
        left_milli > self.max_milli / 2
    }

    /// Changes what is left, and says what is left then.
    fn update(&self, change: impl Fn(u64) -> u64) -> u64 {
        let mut seen = self.left_milli.load(Ordering::Relaxed);
        loop {
            let left = change(seen);
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.left_milli.compare_exchange_weak(seen, left, set, fetch) {
                Ok(_) => return left,
                Err(changed) => seen = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_gives_back_all_there_can_be_however_much_it_is_worth() {
        for ratio in [1_000.5, 1e17, 1e300, f64::MAX] {
            let throttling = Throttling::new(ThrottlingConfig::new(10, ratio)).unwrap();
            let _ = (throttling.failed(), throttling.failed());
            throttling.succeeded();
            assert_eq!(throttling.tokens(), 10.0, "{ratio}");
        }
    }

    #[test]
    fn decimals_beyond_the_third_are_ignored() {
        for (ratio, milli) in [(0.5466, 546), (0.1, 100), (0.001, 1), (0.0019, 1), (2.5, 2_500)] {
            assert_eq!(ThrottlingConfig::new(10, ratio).ratio_milli(), milli, "{ratio}");
        }
        // Whatever a thousandth is in binary.
        for milli in 1..=1_000 {
            let config = ThrottlingConfig::new(10, milli as f64 / 1_000.0);
            assert_eq!(config.ratio_milli(), milli);
        }
    }
}
