//! The settings: plain data, checked once when something is built from them.

use std::{fmt, time::Duration};

use portcullis_core::Invalid;

/// How a breaker decides. Ranges are checked when a breaker is built.
///
/// ```
/// use portcullis_breaker::{BreakerConfig, Window};
///
/// let mut config = BreakerConfig::default();
/// config.window = Window::Count(100);
/// config.failure_rate = Some(0.3);
/// assert!(config.validate().is_ok());
///
/// config.minimum_calls = 200;
/// assert_eq!(config.validate().unwrap_err().field(), "minimum_calls");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Whether it judges by itself or follows an order from the start. [`Mode::Automatic`].
    pub mode: Mode,
    /// Which calls the rates are taken over: 100 ms to 1 day, or 1 to 1 000 000 calls. 120 s.
    pub window: Window,
    /// No rate trips while the window holds fewer calls than this: at least 1, and at most N for a
    /// window of N calls. 20.
    pub minimum_calls: u32,
    /// So many failures in a row trip, however few calls there were: at least 1; `None` is off. 5.
    #[cfg_attr(feature = "serde", serde(with = "portcullis_core::off"))]
    pub consecutive_failures: Option<u32>,
    /// This share of failures in the window trips: above 0, at most 1; `None` is off. 0.5.
    #[cfg_attr(feature = "serde", serde(with = "portcullis_core::off"))]
    pub failure_rate: Option<f64>,
    /// This share of slow calls in the window trips: above 0, at most 1; `None` is off. Off.
    #[cfg_attr(feature = "serde", serde(with = "portcullis_core::off"))]
    pub slow_rate: Option<f64>,
    /// A call that takes longer than this is slow: above 0. Must be set if `slow_rate` is. Unset.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub slow_threshold: Option<Duration>,
    /// Which part of a call is held against `slow_threshold`. [`SlowPhase::Head`].
    pub slow_phase: SlowPhase,
    /// How long it stays open the first time: 1 ms to `open_cap`. 30 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_initial: Duration,
    /// What the open time, doubled at each reopening, may grow to: at most 1 day. 5 min.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub open_cap: Duration,
    /// Whether an open time d is drawn from [d/2, d), so that a fleet does not probe in step. Yes.
    pub jitter: bool,
    /// What a peer's hint may lengthen the open time to: 0 (hints are ignored) to 1 day. 5 min.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_hint: Duration,
    /// How many probes may be out at once while half-open: 1 to 1000. 3.
    pub probes: u32,
    /// How many probes must succeed, within one half-open cycle, to close: at least 1. 2.
    pub probe_successes: u32,
    /// How long a probe may wait for its head, or hold its slot while its body streams: 1 ms to
    /// 1 day. 10 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_wait: Duration,
    /// Whether a throttled call (429) counts as a failure. One that also speaks of the peer's health
    /// (503 with `Retry-After`) always does. No.
    pub throttled_is_failure: bool,
    /// Whether a throttled probe is a failed probe; otherwise it gives its slot back. Yes.
    pub throttled_fails_probe: bool,
    /// Which calls that were dropped before their head count as timeouts. [`Abandoned::Auto`].
    pub abandoned: Abandoned,
    /// How admission grows after closing; `None` is at once. At once.
    pub ramp: Option<Ramp>,
    /// What `poll_ready` answers while open. [`WhenOpen::Reject`].
    pub when_open: WhenOpen,
    /// How many keys a keyed breaker holds state for: at least 1. 1024.
    pub max_keys: usize,
    /// Makes the jitter and the ramp the same in every run. For tests. Unset.
    pub seed: Option<u64>,
}

/// Whether a breaker judges by itself or follows an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Mode {
    /// It trips, probes and closes by its rules.
    #[default]
    Automatic,
    /// It refuses every call.
    ForcedOpen,
    /// It counts and admits every call.
    ForcedClosed,
    /// It admits every call and goes by its rules in shadow, telling what it would have done.
    Disabled,
}

/// Which calls a rate is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Window {
    /// The calls that ended within this time, to a tenth of it.
    Time(#[cfg_attr(feature = "serde", serde(with = "humantime_serde"))] Duration),
    /// The last so many calls.
    Count(u32),
}

/// Which part of a call must not be slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum SlowPhase {
    /// From the call to the response's head. A long stream is not slow.
    #[default]
    Head,
    /// From the call to its end.
    Total,
}

/// Which calls that were dropped before their response's head count as timeouts.
///
/// Under somebody else's timeout layer nothing tells a caller who gave up from a limit that ran out,
/// so how long the call had run decides. A call dropped after its own deadline is always a timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Abandoned {
    /// Those that ran for the slow threshold if one is set, else for 1 s.
    #[default]
    Auto,
    /// Those that ran for so long.
    After(#[cfg_attr(feature = "serde", serde(with = "humantime_serde"))] Duration),
    /// All.
    Always,
    /// None.
    Never,
}

/// How admission grows after closing: at time t the share max(0.1, (t/`over`)^(1/`aggression`)) of
/// calls is admitted. The curve is that of Envoy's slow start.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Ramp {
    /// How long until every call is admitted: above 0.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub over: Duration,
    /// 1 is linear; above 1 most of the growth comes early. Above 0.
    #[cfg_attr(feature = "serde", serde(default = "Ramp::linear"))]
    pub aggression: f64,
}

/// What `poll_ready` answers while the breaker is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WhenOpen {
    /// Ready; the call is refused.
    #[default]
    Reject,
    /// Not ready, so that a balancer looks elsewhere. The task is woken when the open time is over
    /// or somebody closes the breaker. Needs a tokio runtime with time. Keyed breakers refuse in any
    /// case: which key it is about is not known before the call.
    NotReady,
}

/// A setting that may be unset, as a person reads it.
struct Set<T>(Option<T>);

impl<T: fmt::Debug> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("unset"),
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

// ===== impl BreakerConfig =====

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Automatic,
            window: Window::Time(Duration::from_secs(120)),
            minimum_calls: 20,
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_rate: None,
            slow_threshold: None,
            slow_phase: SlowPhase::Head,
            open_initial: Duration::from_secs(30),
            open_cap: Duration::from_secs(300),
            jitter: true,
            max_hint: Duration::from_secs(300),
            probes: 3,
            probe_successes: 2,
            max_wait: Duration::from_secs(10),
            throttled_is_failure: false,
            throttled_fails_probe: true,
            abandoned: Abandoned::Auto,
            ramp: None,
            when_open: WhenOpen::Reject,
            max_keys: 1024,
            seed: None,
        }
    }
}

impl BreakerConfig {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    ///
    /// Names the first that is not, and its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        fn check(
            field: &'static str,
            value: impl fmt::Debug,
            ok: bool,
            allowed: &str,
        ) -> Result<(), Invalid> {
            match ok {
                true => Ok(()),
                false => Err(Invalid::new(field, value, allowed)),
            }
        }
        let share = |rate: Option<f64>| rate.is_none_or(|rate| rate > 0.0 && rate <= 1.0);
        let millis = |n| Duration::from_millis(n);

        match self.window {
            Window::Time(time) => {
                check("window", time, time >= millis(100) && time <= DAY, "100 ms to 1 day")?;
            }
            Window::Count(calls) => {
                check("window", calls, (1..=1_000_000).contains(&calls), "1 to 1000000 calls")?;
            }
        }
        let most = match self.window {
            Window::Time(_) => u32::MAX,
            Window::Count(calls) => calls,
        };
        check(
            "minimum_calls",
            self.minimum_calls,
            (1..=most).contains(&self.minimum_calls),
            &format!("1 to {most}, what the window can hold"),
        )?;
        check(
            "consecutive_failures",
            Set(self.consecutive_failures),
            self.consecutive_failures != Some(0),
            "at least 1, or off",
        )?;
        let allowed = "above 0 and at most 1, or off";
        check("failure_rate", Set(self.failure_rate), share(self.failure_rate), allowed)?;
        check("slow_rate", Set(self.slow_rate), share(self.slow_rate), allowed)?;
        check(
            "slow_threshold",
            Set(self.slow_threshold),
            self.slow_threshold != Some(Duration::ZERO)
                && (self.slow_rate.is_none() || self.slow_threshold.is_some()),
            "above 0, and set if slow_rate is",
        )?;
        check(
            "open_cap",
            self.open_cap,
            self.open_cap >= millis(1) && self.open_cap <= DAY,
            "1 ms to 1 day",
        )?;
        check(
            "open_initial",
            self.open_initial,
            self.open_initial >= millis(1) && self.open_initial <= self.open_cap,
            &format!("1 ms to open_cap, which is {:?}", self.open_cap),
        )?;
        check("max_hint", self.max_hint, self.max_hint <= DAY, "0 to 1 day")?;
        check("probes", self.probes, (1..=1000).contains(&self.probes), "1 to 1000")?;
        check("probe_successes", self.probe_successes, self.probe_successes >= 1, "at least 1")?;
        check(
            "max_wait",
            self.max_wait,
            self.max_wait >= millis(1) && self.max_wait <= DAY,
            "1 ms to 1 day",
        )?;
        if let Some(ramp) = self.ramp {
            check("ramp.over", ramp.over, ramp.over > Duration::ZERO, "above 0")?;
            check(
                "ramp.aggression",
                ramp.aggression,
                ramp.aggression > 0.0 && ramp.aggression.is_finite(),
                "above 0",
            )?;
        }
        check("max_keys", self.max_keys, self.max_keys >= 1, "at least 1")
    }

    /// How long a call must have run to be a timeout if it is dropped before its head; `None` if it
    /// never is one.
    pub(crate) fn abandoned_after(&self) -> Option<Duration> {
        match self.abandoned {
            Abandoned::Auto => Some(self.slow_threshold.unwrap_or(Duration::from_secs(1))),
            Abandoned::After(after) => Some(after),
            Abandoned::Always => Some(Duration::ZERO),
            Abandoned::Never => None,
        }
    }
}

// ===== impl Ramp =====

impl Ramp {
    /// A ramp that grows in a straight line.
    #[must_use]
    pub const fn new(over: Duration) -> Self {
        Self { over, aggression: 1.0 }
    }

    /// The share of calls to admit, so long after closing; `None` once that is all.
    pub(crate) fn share(&self, after: Duration) -> Option<f64> {
        const LEAST: f64 = 0.1;
        (after < self.over).then(|| {
            let progress = after.as_secs_f64() / self.over.as_secs_f64();
            progress.powf(1.0 / self.aggression).max(LEAST)
        })
    }

    #[cfg(feature = "serde")]
    const fn linear() -> f64 {
        1.0
    }
}
