//! What a limit is held to.

use std::time::{Duration, Instant};

use portcullis_core::{Invalid, Reason, clock};

use super::Charge;
use crate::RateLimitConfig;

/// A rate and a burst, as a [`Bucket`](crate::Bucket) is held against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: u32,
    per: Duration,
    burst: u32,
    /// T, in nanoseconds.
    pub(super) spacing: u64,
    /// τ, in nanoseconds.
    pub(super) tolerance: u64,
    /// What words count nanoseconds from.
    epoch: Instant,
}

/// The longest that calls wait for a debt to be paid off, in nanoseconds: a day, as for hints.
const LONGEST_DEBT: u64 = 86_400 * 1_000_000_000;

// ===== impl Quota =====

impl Quota {
    /// The quota of these settings. `epoch` is the earliest instant that will be told; earlier ones are
    /// taken for it.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: &RateLimitConfig, epoch: Instant) -> Result<Self, Invalid> {
        config.validate()?;
        // The settings were validated to fit by far.
        let spacing = u64::try_from(config.spacing()).unwrap_or(u64::MAX);
        let tolerance = spacing.saturating_mul(u64::from(config.burst - 1));
        let RateLimitConfig { limit, per, burst, .. } = *config;
        Ok(Self { limit, per, burst, spacing, tolerance, epoch })
    }

    /// What may pass in each [period](Self::per).
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The period.
    #[must_use]
    pub fn per(&self) -> Duration {
        self.per
    }

    /// What may pass at one moment.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// T: the time between two calls at the full rate, rounded up to a nanosecond.
    #[must_use]
    pub fn spacing(&self) -> Duration {
        Duration::from_nanos(self.spacing)
    }

    /// Why a call of this cost may not pass.
    pub(crate) fn limited(&self, cost: u32) -> Reason {
        let Self { limit, per, burst, .. } = *self;
        Reason::Limited { limit, per, burst, cost }
    }

    /// An instant before the epoch is taken for it: a clock that jumps back makes calls wait.
    #[inline]
    pub(super) fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
    }

    pub(super) fn instant(&self, nanos: u64) -> Instant {
        clock::after(self.epoch, Duration::from_nanos(nanos))
    }

    /// What `cost` takes of the backlog. No debt grows beyond what a word can hold.
    #[inline]
    pub(super) fn span(&self, cost: u32) -> u64 {
        self.spacing.saturating_mul(u64::from(cost))
    }

    /// TAT with a call more, that comes at `at` and costs 1 at least.
    #[inline]
    pub(super) fn with_call(&self, tat: u64, cost: u32, at: u64) -> u64 {
        tat.max(at).saturating_add(self.span(cost.max(1)))
    }

    /// When a call may pass whose piece of the backlog ends at `end`.
    #[inline]
    pub(super) fn ready(&self, end: u64) -> u64 {
        end.saturating_sub(self.spacing).saturating_sub(self.tolerance)
    }

    /// TAT with a debt more. What a peer says a call cost is not to close a limit for good.
    pub(super) fn with_debt(&self, tat: u64, cost: u32, at: u64) -> u64 {
        let most = at.saturating_add(LONGEST_DEBT).max(tat);
        tat.max(at).saturating_add(self.span(cost)).min(most)
    }

    /// What could pass at `now`, had nothing been taken since this was.
    pub(crate) fn left_behind(&self, charge: &Charge, now: Instant) -> u32 {
        self.left(charge.end, self.nanos(now))
    }

    /// What could pass at `at`, with TAT so.
    pub(super) fn left(&self, tat: u64, at: u64) -> u32 {
        let full = at.saturating_add(self.tolerance).saturating_add(self.spacing);
        let left = full.saturating_sub(tat.max(at)) / self.spacing;
        u32::try_from(left).unwrap_or(u32::MAX).min(self.burst)
    }
}
