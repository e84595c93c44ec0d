//! Settings that belong together.

use std::time::Duration;

use portcullis_breaker::{BreakerConfig, Mode, Ramp, Window};
use portcullis_ratelimit::RateLimitConfig;
use portcullis_retry::{Backoff, RetryConfig};
use portcullis_timeout::{Limits, TimeoutConfig};
use portcullis_trace::TraceConfig;

/// Settings that belong together: which ones, and why, is in the table.
///
/// | | development | staging | production |
/// |---|---|---|---|
/// | whole call | 60 s | 30 s | 30 s |
/// | one attempt | 30 s | 10 s | 10 s |
/// | attempts | 2 | 3 | 3 |
/// | backoff | 50 ms to 1 s | 100 ms to 5 s | 100 ms to 5 s |
/// | retry budget | 20 % of calls + 1/s, 100 at most | the same | the same |
/// | rate limit, by host | 10 000/s, after waiting 1 s at most | the same | the same |
/// | breaker, by host | tells only | on | on |
/// | trips at | 10 failures in a row, or half of ≥ 20 calls in 10 s | the same, in 10 s | the same, in 60 s |
/// | open | 1 s to 5 s | 5 s to 1 min | 30 s to 5 min |
/// | ramp after closing | none | none | 10 s |
/// | traces kept | all | all | what failed, was slow or retried, and 10 % of the rest |
///
/// The rate limit is a fuse rather than a limit until you set one; but a server's `Retry-After` holds
/// its host's calls back from the start.
///
/// A total limit covers the response's body and so cuts long streams: for those, set `head` and
/// `idle` limits instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// For a program under development.
    Development,
    /// As in production, but quicker to open and to probe.
    Staging,
    /// For production.
    Production,
}

// ===== impl Preset =====

impl Preset {
    /// Limits of the whole call.
    pub(super) fn total(self) -> TimeoutConfig {
        let total = match self {
            Self::Development => 60,
            Self::Staging | Self::Production => 30,
        };
        let mut config = TimeoutConfig::new();
        config.limits = Limits::new().with_total(seconds(total));
        config
    }

    /// Limits of one attempt.
    pub(super) fn attempt(self) -> TimeoutConfig {
        let attempt = match self {
            Self::Development => 30,
            Self::Staging | Self::Production => 10,
        };
        let mut config = TimeoutConfig::new();
        config.limits = Limits::new().with_attempt(seconds(attempt));
        config
    }

    /// When and how often to try again.
    pub(super) fn retry(self) -> RetryConfig {
        let (attempts, initial, longest) = match self {
            Self::Development => (2, Duration::from_millis(50), 1),
            Self::Staging | Self::Production => (3, Duration::from_millis(100), 5),
        };
        let mut config = RetryConfig::default();
        config.max_attempts = attempts;
        config.backoff = Backoff::exponential(initial, seconds(longest));
        config
    }

    /// How much may be sent to one host.
    pub(super) fn limit(self) -> RateLimitConfig {
        let mut config = RateLimitConfig::default();
        (config.limit, config.per, config.burst) = (10_000, seconds(1), 10_000);
        config.max_wait = seconds(1);
        config
    }

    /// Which traces are kept.
    pub(super) fn trace(self) -> TraceConfig {
        let mut config = TraceConfig::default();
        if self != Self::Production {
            config.sample_rate = 1.0;
        }
        config
    }

    /// When to stop calling, and for how long.
    pub(super) fn breaker(self) -> BreakerConfig {
        let (window, open, cap) = match self {
            Self::Development => (10, 1, 5),
            Self::Staging => (10, 5, 60),
            Self::Production => (60, 30, 300),
        };
        let mut config = BreakerConfig::default();
        if self == Self::Development {
            config.mode = Mode::Disabled;
        }
        config.window = Window::Time(seconds(window));
        // Five in a row, which a single breaker takes for a sign, happen every few seconds to a busy
        // target of which a third fails; ten do not.
        config.consecutive_failures = Some(10);
        config.open_initial = seconds(open);
        config.open_cap = seconds(cap);
        if self == Self::Production {
            config.ramp = Some(Ramp::new(seconds(10)));
        }
        config
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
