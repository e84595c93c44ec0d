//! The settings: plain data, checked once when something is built from them.

use std::{fmt::Debug, time::Duration};

use portcullis_core::Invalid;

/// What may pass, and what becomes of the rest. Ranges are checked when a limiter is built.
///
/// ```
/// use portcullis_ratelimit::RateLimitConfig;
/// use std::time::Duration;
///
/// let mut config = RateLimitConfig::default();
/// (config.limit, config.per, config.burst) = (10, Duration::from_secs(1), 5);
/// assert!(config.validate().is_ok());
///
/// config.burst = 0;
/// assert_eq!(config.validate().unwrap_err().field(), "burst");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// What may pass in each period `per`, in the unit of the calls' cost: at least 1, and at most
    /// one a nanosecond. 100.
    pub limit: u32,
    /// The period: above 0, at most 31 days. 60 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub per: Duration,
    /// What may pass at one moment, after a pause: at least 1; to gather it must take no more than
    /// 10 years. A call that costs more can never pass. 20.
    pub burst: u32,
    /// How long a call may wait for its turn: 0 (it is refused at once) to 1 day. 0.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_wait: Duration,
    /// How long a peer's hint may hold calls back: 0 (hints are ignored) to 1 day. A longer one is cut
    /// down to it. 60 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_hint: Duration,
    /// How many keys a keyed limiter holds state for: at least 1. 10 000.
    pub max_keys: usize,
}

const DAY: Duration = Duration::from_secs(86_400);
const LONGEST_PERIOD: Duration = Duration::from_secs(31 * 86_400);
/// What a burst may take to gather, in nanoseconds. Far below what a word of nanoseconds can count,
/// so that sums of a few of them, and of the time since the start, need no care.
const LONGEST_BURST: u128 = 10 * 365 * 86_400 * 1_000_000_000;

// ===== impl RateLimitConfig =====

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            limit: 100,
            per: Duration::from_secs(60),
            burst: 20,
            max_wait: Duration::ZERO,
            max_hint: Duration::from_secs(60),
            max_keys: 10_000,
        }
    }
}

impl RateLimitConfig {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    ///
    /// Names the first that is not, and its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        let per = self.per;
        check("per", per, !per.is_zero() && per <= LONGEST_PERIOD, "above 0 and at most 31 days")?;
        // Below a nanosecond apart, calls could not be told apart; rounding up would change the rate.
        let densest = per.as_nanos();
        check(
            "limit",
            self.limit,
            self.limit >= 1 && u128::from(self.limit) <= densest,
            "at least 1, and at most one a nanosecond",
        )?;
        check(
            "burst",
            self.burst,
            self.burst >= 1 && u128::from(self.burst) * self.spacing() <= LONGEST_BURST,
            "at least 1, and no more than gathers in 10 years",
        )?;
        check("max_wait", self.max_wait, self.max_wait <= DAY, "0 to 1 day")?;
        check("max_hint", self.max_hint, self.max_hint <= DAY, "0 to 1 day")?;
        check("max_keys", self.max_keys, self.max_keys >= 1, "at least 1")
    }

    /// T, the time between two calls at the full rate, in nanoseconds. Rounded up, so that the rate
    /// is never above what was set.
    pub(crate) fn spacing(&self) -> u128 {
        self.per.as_nanos().div_ceil(u128::from(self.limit.max(1)))
    }
}

fn check(
    field: &'static str,
    value: impl Debug,
    ok: bool,
    allowed: &'static str,
) -> Result<(), Invalid> {
    match ok {
        true => Ok(()),
        false => Err(Invalid::new(field, value, allowed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut RateLimitConfig);

    #[test]
    fn what_is_out_of_its_range_is_named() {
        let cases: [(&str, Change); 9] = [
            ("limit", |c| c.limit = 0),
            ("limit", |c| (c.limit, c.per) = (1_001, Duration::from_micros(1))),
            ("per", |c| c.per = Duration::ZERO),
            ("per", |c| c.per = Duration::MAX),
            ("burst", |c| c.burst = 0),
            ("burst", |c| (c.limit, c.per, c.burst) = (1, DAY, u32::MAX)),
            ("max_wait", |c| c.max_wait = Duration::MAX),
            ("max_hint", |c| c.max_hint = Duration::MAX),
            ("max_keys", |c| c.max_keys = 0),
        ];
        for (field, change) in cases {
            let mut config = RateLimitConfig::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().field(), field);
        }
        assert!(RateLimitConfig::default().validate().is_ok());
    }

    #[test]
    fn the_spacing_is_rounded_up() {
        let mut config = RateLimitConfig::default();
        (config.limit, config.per) = (3, Duration::from_nanos(10));
        assert_eq!(config.spacing(), 4);
        (config.limit, config.per) = (1_000, Duration::from_micros(1));
        assert!(config.validate().is_ok());
        assert_eq!(config.spacing(), 1);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_reads_as_people_write_it() {
        let text = r#"{"limit": 10, "per": "1s", "burst": 5, "max_wait": "250ms"}"#;
        let config: RateLimitConfig = serde_json::from_str(text).unwrap();
        let mut expected = RateLimitConfig::default();
        (expected.limit, expected.per, expected.burst) = (10, Duration::from_secs(1), 5);
        expected.max_wait = Duration::from_millis(250);
        assert_eq!(config, expected);

        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<RateLimitConfig>(&again).unwrap(), config);
        assert!(serde_json::from_str::<RateLimitConfig>(r#"{"rate": 1}"#).is_err());
    }
}
