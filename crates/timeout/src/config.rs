//! Settings: plain data, validated once when a layer is built.

use std::{collections::BTreeMap, fmt, time::Duration};

use portcullis_core::{Invalid, Phase};

/// From here on a limit is none: the clock's arithmetic ends here too, and a timer that far away
/// would only cost.
const NO_LIMIT: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The settings of a timeout layer.
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `30s`, and
/// unknown fields are errors. A file that leaves `limits` out gets the default ones; one that names
/// some of them gets these and no others, so that a layer for streams need not unset a total limit.
///
/// ```
/// use portcullis_timeout::{Limits, TimeoutConfig};
/// use std::time::Duration;
///
/// let mut config = TimeoutConfig::default();
/// assert_eq!(config.limits.total, Some(Duration::from_secs(30)));
/// assert_eq!(config.limits.slow, Some(Duration::from_secs(10)));
///
/// let search = Limits::new().with_total(Duration::from_secs(2));
/// config.operations.insert("search".to_owned(), search);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// The limits of every call. By default 30 s in total, and slow from 10 s on.
    pub limits: Limits,
    /// Limits by the name of the operation, as the caller gives it: `call::with().name("search")`.
    /// What an operation leaves unset is as in [`limits`](Self::limits); a name that is not listed
    /// has just these. A name that ends in a slash, `shop.Cart/`, stands for all the operations named
    /// so up to their last slash that are not listed themselves. None by default.
    pub operations: BTreeMap<String, Limits>,
}

/// The time limits of a call. None is set at first.
///
/// Each is above 0. One of 30 years (of 365 days) or more, such as [`Limits::NEVER`], is no limit at
/// all: with it an operation lifts a limit that it would otherwise take from the layer.
///
/// ```
/// use portcullis_timeout::Limits;
/// use std::time::Duration;
///
/// // For a stream: its head must come soon and its frames must keep coming.
/// let stream = Limits::new()
///     .with_total(Limits::NEVER)
///     .with_head(Duration::from_secs(5))
///     .with_idle(Duration::from_secs(30));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct Limits {
    /// The whole call, from the first time it found the inner service not ready to the end of the
    /// response's body. Becomes the deadline of everything below. Either this or
    /// [`attempt`](Self::attempt).
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub total: Option<Duration>,
    /// The same, for a layer that sees each attempt of a retry by itself. Only the label differs,
    /// and that a caller's `call::with().timeout(…)` leaves it alone.
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub attempt: Option<Duration>,
    /// Waiting for the inner service to become ready. At most the whole limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub readiness: Option<Duration>,
    /// From the call of the inner service to the response's head. At most the whole limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub head: Option<Duration>,
    /// From the response's head to the end of its body. At most the whole limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub body: Option<Duration>,
    /// Between two frames of the response's body, while somebody waits for one. At most the whole
    /// limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub idle: Option<Duration>,
    /// No limit, but a threshold: a call whose head takes at least so long is told as slow. Below the
    /// whole limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub slow: Option<Duration>,
}

/// Whose limits are looked at.
#[derive(Clone, Copy)]
enum Of<'a> {
    Layer,
    Operation(&'a str),
}

// ===== impl TimeoutConfig =====

impl TimeoutConfig {
    /// Settings without any limit, to add some to.
    #[must_use]
    pub fn new() -> Self {
        Self { limits: Limits::new(), operations: BTreeMap::new() }
    }

    /// Checks every setting, as building a layer does.
    ///
    /// # Errors
    ///
    /// Names the first setting that is out of its range: a limit of zero, `total` beside `attempt`,
    /// a limit that can never run out because the whole one is shorter, a threshold that no call can
    /// reach, or none of all.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.limits == Limits::default() && self.operations.is_empty() {
            return Err(Invalid::new("limits", "empty", "at least one limit or `slow`"));
        }
        let limits = self.limits.bounded();
        limits.check(&limits, Of::Layer)?;
        for (name, limits) in &self.operations {
            let all = limits.or(&self.limits).bounded();
            limits.bounded().check(&all, Of::Operation(name))?;
        }
        Ok(())
    }
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        let limits =
            Limits::new().with_total(Duration::from_secs(30)).with_slow(Duration::from_secs(10));
        Self { limits, ..Self::new() }
    }
}

// ===== impl Limits =====

impl Limits {
    /// As good as no limit.
    pub const NEVER: Duration = Duration::MAX;

    /// No limits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            total: None,
            attempt: None,
            readiness: None,
            head: None,
            body: None,
            idle: None,
            slow: None,
        }
    }

    /// Limits the whole call.
    #[must_use]
    pub const fn with_total(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Limits one attempt.
    #[must_use]
    pub const fn with_attempt(mut self, limit: Duration) -> Self {
        self.attempt = Some(limit);
        self
    }

    /// Limits the wait for readiness.
    #[must_use]
    pub const fn with_readiness(mut self, limit: Duration) -> Self {
        self.readiness = Some(limit);
        self
    }

    /// Limits the wait for the response's head.
    #[must_use]
    pub const fn with_head(mut self, limit: Duration) -> Self {
        self.head = Some(limit);
        self
    }

    /// Limits the response's body, from its head on.
    #[must_use]
    pub const fn with_body(mut self, limit: Duration) -> Self {
        self.body = Some(limit);
        self
    }

    /// Limits the wait for each frame of the response's body.
    #[must_use]
    pub const fn with_idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Sets from when on a call is slow.
    #[must_use]
    pub const fn with_slow(mut self, threshold: Duration) -> Self {
        self.slow = Some(threshold);
        self
    }

    /// The whole limit, and what it is called.
    #[inline]
    pub(crate) fn whole(&self) -> Option<(Phase, Duration)> {
        let attempt = self.attempt.map(|limit| (Phase::Attempt, limit));
        attempt.or(self.total.map(|limit| (Phase::Total, limit)))
    }

    /// These limits, and `others` where they are unset.
    pub(crate) fn or(&self, others: &Self) -> Self {
        Self {
            total: self.total.or(others.total),
            attempt: self.attempt.or(others.attempt),
            readiness: self.readiness.or(others.readiness),
            head: self.head.or(others.head),
            body: self.body.or(others.body),
            idle: self.idle.or(others.idle),
            slow: self.slow.or(others.slow),
        }
    }

    /// These limits, but for those that are none.
    pub(crate) fn bounded(&self) -> Self {
        let bounded = |limit: Option<Duration>| limit.filter(|&limit| limit < NO_LIMIT);
        Self {
            total: bounded(self.total),
            attempt: bounded(self.attempt),
            readiness: bounded(self.readiness),
            head: bounded(self.head),
            body: bounded(self.body),
            idle: bounded(self.idle),
            slow: bounded(self.slow),
        }
    }

    /// Checks what is set here. `all` adds what is taken from elsewhere, which may well be moot
    /// beside a shorter limit: an operation of 2 s need not move the layer's threshold of 10 s.
    fn check(&self, all: &Self, of: Of<'_>) -> Result<(), Invalid> {
        let set = [
            ("total", "operations.total", self.total),
            ("attempt", "operations.attempt", self.attempt),
            ("readiness", "operations.readiness", self.readiness),
            ("head", "operations.head", self.head),
            ("body", "operations.body", self.body),
            ("idle", "operations.idle", self.idle),
            ("slow", "operations.slow", self.slow),
        ];
        for (field, in_operation, limit) in set {
            let Some(limit) = limit else { continue };
            let invalid = |allowed: fmt::Arguments<'_>| match of {
                Of::Layer => Invalid::new(field, limit, allowed.to_string()),
                Of::Operation(name) => {
                    Invalid::new(in_operation, limit, format!("{allowed}, in operation `{name}`"))
                }
            };
            if limit.is_zero() {
                return Err(invalid(format_args!("above 0")));
            }
            if let ("total" | "attempt", Some(_), Some(_)) = (field, all.total, all.attempt) {
                return Err(invalid(format_args!("either `total` or `attempt`, not both")));
            }
            let Some((phase, whole)) = all.whole() else { continue };
            match field {
                "slow" if limit >= whole => {
                    return Err(invalid(format_args!(
                        "below the {phase} limit of {whole:?}, or it is never reached"
                    )));
                }
                _ if limit > whole => {
                    return Err(invalid(format_args!(
                        "at most the {phase} limit of {whole:?}, which runs out first"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refusal(limits: Limits) -> String {
        let config = TimeoutConfig { limits, ..TimeoutConfig::new() };
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(TimeoutConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_layer_without_any_limit_is_refused() {
        assert_eq!(
            refusal(Limits::new()),
            "limits is \"empty\", allowed is at least one limit or `slow`"
        );
        let only_slow =
            TimeoutConfig { limits: Limits::new().with_slow(SECOND), ..TimeoutConfig::new() };
        assert_eq!(only_slow.validate(), Ok(()));
    }

    #[test]
    fn each_limit_of_zero_is_refused_by_its_name() {
        let new = Limits::new();
        let zero = Duration::ZERO;
        for (limits, field) in [
            (new.with_total(zero), "total"),
            (new.with_attempt(zero), "attempt"),
            (new.with_readiness(zero), "readiness"),
            (new.with_head(zero), "head"),
            (new.with_body(zero), "body"),
            (new.with_idle(zero), "idle"),
            (new.with_slow(zero), "slow"),
        ] {
            assert_eq!(refusal(limits), format!("{field} is 0ns, allowed is above 0"));
        }
    }

    #[test]
    fn total_and_attempt_exclude_each_other() {
        assert_eq!(
            refusal(Limits::new().with_total(SECOND).with_attempt(SECOND)),
            "total is 1s, allowed is either `total` or `attempt`, not both"
        );
    }

    #[test]
    fn what_can_never_run_out_is_refused_and_what_can_is_not() {
        let whole = Limits::new().with_attempt(SECOND);
        assert_eq!(
            refusal(whole.with_slow(SECOND)),
            "slow is 1s, allowed is below the attempt limit of 1s, or it is never reached"
        );
        let longer = 2 * SECOND;
        for limits in [
            whole.with_readiness(longer),
            whole.with_head(longer),
            whole.with_body(longer),
            whole.with_idle(longer),
        ] {
            let refusal = refusal(limits);
            assert!(
                refusal.ends_with("at most the attempt limit of 1s, which runs out first"),
                "{refusal}"
            );
        }
        let equal = whole.with_head(SECOND).with_body(SECOND).with_idle(SECOND);
        let config = TimeoutConfig { limits: equal, ..TimeoutConfig::new() };
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn an_operation_is_checked_beside_what_it_inherits() {
        let mut config = TimeoutConfig::default();
        // The inherited threshold of 10 s is moot here, and that is nobody's mistake.
        config.operations.insert("search".to_owned(), Limits::new().with_total(2 * SECOND));
        assert_eq!(config.validate(), Ok(()));

        config.operations.insert("report".to_owned(), Limits::new().with_slow(40 * SECOND));
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "operations.slow is 40s, allowed is below the total limit of 30s, or it is never \
             reached, in operation `report`"
        );

        config.operations.insert("report".to_owned(), Limits::new().with_attempt(SECOND));
        assert_eq!(config.validate().unwrap_err().field(), "operations.attempt");

        let lifted = Limits::new().with_total(Limits::NEVER).with_slow(40 * SECOND);
        config.operations.insert("report".to_owned(), lifted.with_idle(Limits::NEVER));
        assert_eq!(config.validate(), Ok(()));
    }
}
