//! Waits that grow, with chance in them: what retries wait between attempts, and polls between looks.

mod chance;
mod delays;

use std::time::Duration;

pub use self::{
    chance::Chance,
    delays::{CustomDelay, Delays, Reached, Spread},
};
use crate::Invalid;

/// The longest wait that any setting may ask for: one day.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// How long the wait before each retry, or before each poll, is, before [`Jitter`].
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `30s`.
///
/// ```
/// use portcullis_core::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::exponential(Duration::from_millis(200), Duration::from_secs(10));
/// # let _ = backoff;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Backoff {
    /// Before retry n (from 1): `min(max, initial · multiplierⁿ⁻¹)`.
    Exponential {
        /// The wait before the first retry. Above 0 and at most `max`; 1 s by default.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde", default = "initial"))]
        initial: Duration,
        /// What each wait is multiplied by for the next. Above 0; below 1 the waits become shorter. 2
        /// by default.
        #[cfg_attr(feature = "serde", serde(default = "multiplier"))]
        multiplier: f64,
        /// No wait is longer, jitter included but for [`Jitter::Around`]. At most 1 day; 30 s by
        /// default.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde", default = "max"))]
        max: Duration,
    },
    /// The same before each retry.
    Fixed {
        /// The wait. From 0 to 1 day. There is no other cap: [`Jitter::Fraction`] lengthens it.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        delay: Duration,
    },
    /// Each wait is drawn: `min(max, U(initial, 3 · previous))`, where the first `previous` is
    /// `initial` ("decorrelated jitter", Brooker, *Exponential Backoff and Jitter*, AWS 2015). It is
    /// its own jitter: [`Jitter`] does not apply.
    Decorrelated {
        /// No wait is shorter. Above 0 and at most `max`; 1 s by default.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde", default = "initial"))]
        initial: Duration,
        /// No wait is longer. At most 1 day; 30 s by default.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde", default = "max"))]
        max: Duration,
    },
}

/// What chance does to a computed wait `d`, so that clients which failed together do not come back
/// together. Every form but [`Around`](Self::Around) stays within the backoff's cap.
///
/// A hint of the peer is a floor: the random part comes on top of it. Nothing comes on top of one that is
/// [exact](crate::Hint::Exactly).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Jitter {
    /// `U(0, d)` ("full jitter", Brooker 2015). Spreads best and keeps the least load.
    #[default]
    Full,
    /// `d/2 + U(0, d/2)`.
    Equal,
    /// `d + U(0, f·d)` for a fraction f from 0 to 1. Near the cap, d is shortened so that the
    /// longest wait is the cap and the spread remains.
    Fraction(f64),
    /// `d − f·d + U(0, 2·f·d)` for a fraction f from 0 to 1, as gRPC's clients have it with 0.2 (gRFC A6).
    /// The longest wait exceeds the cap by that fraction.
    Around(f64),
    /// `d` exactly. For a single client only.
    None,
}

// ===== impl Backoff =====

impl Backoff {
    /// Doubling from `initial` up to `max`.
    #[must_use]
    pub const fn exponential(initial: Duration, max: Duration) -> Self {
        Self::Exponential { initial, multiplier: multiplier(), max }
    }

    /// The same wait before each retry.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self::Fixed { delay }
    }

    /// Drawn between `initial` and three times the wait before, up to `max`.
    #[must_use]
    pub const fn decorrelated(initial: Duration, max: Duration) -> Self {
        Self::Decorrelated { initial, max }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range, as `backoff.max`.
    pub fn validate(&self) -> Result<(), Invalid> {
        let (initial, max) = match *self {
            Self::Fixed { delay } => return at_most_longest("backoff.delay", delay),
            Self::Exponential { initial, multiplier, max } => {
                if !(multiplier > 0.0 && multiplier.is_finite()) {
                    return Err(Invalid::new("backoff.multiplier", multiplier, "above 0"));
                }
                (initial, max)
            }
            Self::Decorrelated { initial, max } => (initial, max),
        };
        at_most_longest("backoff.max", max)?;
        if initial.is_zero() || initial > max {
            return Err(Invalid::new(
                "backoff.initial",
                initial,
                format!("above 0 and at most backoff.max, {max:?}"),
            ));
        }
        Ok(())
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(initial(), max())
    }
}

// ===== impl Jitter =====

impl Jitter {
    /// Checks the fraction, where there is one.
    ///
    /// # Errors
    ///
    /// If it is out of its range, as `jitter.fraction`.
    pub fn validate(&self) -> Result<(), Invalid> {
        let (field, fraction) = match *self {
            Self::Fraction(fraction) => ("jitter.fraction", fraction),
            Self::Around(fraction) => ("jitter.around", fraction),
            Self::Full | Self::Equal | Self::None => return Ok(()),
        };
        if !(0.0..=1.0).contains(&fraction) {
            return Err(Invalid::new(field, fraction, "from 0 to 1"));
        }
        Ok(())
    }
}

const fn initial() -> Duration {
    Duration::from_secs(1)
}

const fn multiplier() -> f64 {
    2.0
}

const fn max() -> Duration {
    Duration::from_secs(30)
}

fn at_most_longest(field: &'static str, value: Duration) -> Result<(), Invalid> {
    if value > LONGEST {
        return Err(Invalid::new(field, value, "at most 1 day"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_each_range_are_allowed_and_what_is_beyond_is_named() {
        let beyond = LONGEST + Duration::from_nanos(1);
        assert_eq!(Backoff::exponential(LONGEST, LONGEST).validate(), Ok(()));
        assert_eq!(Backoff::decorrelated(LONGEST, LONGEST).validate(), Ok(()));
        assert_eq!(Backoff::fixed(LONGEST).validate(), Ok(()));
        assert_eq!(Backoff::fixed(Duration::ZERO).validate(), Ok(()));
        let field = |backoff: Backoff| backoff.validate().unwrap_err().field();
        assert_eq!(field(Backoff::fixed(beyond)), "backoff.delay");
        assert_eq!(field(Backoff::exponential(LONGEST, beyond)), "backoff.max");
        assert_eq!(field(Backoff::exponential(Duration::ZERO, LONGEST)), "backoff.initial");
        for fraction in [0.0, 1.0] {
            assert_eq!(Jitter::Fraction(fraction).validate(), Ok(()));
            assert_eq!(Jitter::Around(fraction).validate(), Ok(()));
        }
        assert_eq!(Jitter::Around(1.01).validate().unwrap_err().field(), "jitter.around");
    }
}
