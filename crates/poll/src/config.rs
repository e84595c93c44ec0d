//! Settings: plain data, validated once when a layer is built.

use std::time::Duration;

use portcullis_core::{Backoff, Invalid, Jitter};

/// The longest that an operation may be followed.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The settings of a poll layer.
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `30s`, unknown
/// fields are errors, and missing ones take their defaults.
///
/// ```
/// use portcullis_core::Backoff;
/// use portcullis_poll::PollConfig;
/// use std::time::Duration;
///
/// let mut config = PollConfig::default();
/// config.backoff = Backoff::fixed(Duration::from_secs(5));
/// config.limit = Duration::from_secs(3600);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct PollConfig {
    /// How long the wait before each poll is, before jitter. Exponential by default: 500 ms, doubled
    /// each time, at most 10 s.
    pub backoff: Backoff,
    /// What chance does to those waits. [`Jitter::Equal`] by default: half of a wait is certain, for to
    /// ask again at once is of no use.
    pub jitter: Jitter,
    /// Polls of one operation: the requests that follow the first. At least 1; 1000 by default.
    pub max_polls: u32,
    /// How long an operation is followed, from the call that begins it. Above 0 and at most 30 days; 10
    /// minutes by default.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub limit: Duration,
}

// ===== impl PollConfig =====

impl Default for PollConfig {
    fn default() -> Self {
        Self {
            backoff: Backoff::exponential(Duration::from_millis(500), Duration::from_secs(10)),
            jitter: Jitter::Equal,
            max_polls: 1_000,
            limit: Duration::from_secs(600),
        }
    }
}

impl PollConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.backoff.validate()?;
        self.jitter.validate()?;
        if self.max_polls == 0 {
            return Err(Invalid::new("max_polls", 0, "at least 1"));
        }
        if self.limit.is_zero() || self.limit > LONGEST {
            return Err(Invalid::new("limit", self.limit, "above 0 and at most 30 days"));
        }
        Ok(())
    }
}
