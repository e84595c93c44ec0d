//! Settings: plain data, validated once when a layer is built.

use std::{collections::BTreeMap, time::Duration};

use portcullis_core::{Backoff, Invalid, Jitter, backoff::LONGEST};

/// The settings of a retry layer.
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `30s`, unknown
/// fields are errors, and missing ones take their defaults.
///
/// ```
/// use portcullis_retry::{Backoff, Jitter, RetryConfig};
/// use std::time::Duration;
///
/// let mut config = RetryConfig::default();
/// config.max_attempts = 5;
/// config.backoff = Backoff::exponential(Duration::from_millis(200), Duration::from_secs(10));
/// config.jitter = Jitter::Fraction(0.25);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Attempts for one call, the first included. At least 1, which means no retries; 3 by default.
    pub max_attempts: u32,
    /// How long the wait before each retry is, before jitter. Exponential by default: 1 s, doubled
    /// each time, at most 30 s.
    pub backoff: Backoff,
    /// What chance does to those waits. [`Jitter::Full`] by default.
    pub jitter: Jitter,
    /// The longest wait that a hint of the peer may ask for; a longer one ends the retries. From 0
    /// to 1 day; 60 s by default.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max_hint: Duration,
    /// What keeps retries from amplifying an outage; `None` (in a file: `"off"`) for no such limit.
    #[cfg_attr(feature = "serde", serde(with = "portcullis_core::off"))]
    pub budget: Option<BudgetConfig>,
    /// gRPC's way to keep retries from amplifying an outage. Where it is set, it takes the place of the
    /// [`budget`](Self::budget), which is not used then. Unset by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub throttling: Option<ThrottlingConfig>,
    /// Settings by the name of the operation, as the caller gives it: `call::with().name("search")`. A
    /// name that is not listed has the settings above. One that ends in a slash, `shop.Cart/`, stands
    /// for all the operations named so up to their last slash that are not listed themselves. None by
    /// default.
    pub operations: BTreeMap<String, OperationConfig>,
}

/// What differs for one operation. What is unset is as for the layer; the budget is always the layer's.
///
/// ```
/// use portcullis_retry::OperationConfig;
///
/// let charge = OperationConfig::new().with_max_attempts(1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct OperationConfig {
    /// See [`RetryConfig::max_attempts`].
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_attempts: Option<u32>,
    /// See [`RetryConfig::backoff`].
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub backoff: Option<Backoff>,
    /// See [`RetryConfig::jitter`].
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub jitter: Option<Jitter>,
    /// See [`RetryConfig::max_hint`].
    #[cfg_attr(
        feature = "serde",
        serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")
    )]
    pub max_hint: Option<Duration>,
}

/// The settings in force for one operation, or for those that have none of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) jitter: Jitter,
    pub(crate) max_hint: Duration,
}

/// The settings of a [`Budget`](crate::Budget): a bucket of tokens, of which a retry takes one.
///
/// In any interval of `t` seconds with `n` first attempts, at most
/// `capacity + ratio · n + reserve · t` retries are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Tokens the bucket holds, and starts with: the burst of retries when everything fails at
    /// once, and the number of retries that may wait at one time. From 1 to 1000; 100 by default.
    pub capacity: u32,
    /// Tokens that each first attempt pays in: the share of calls that may be retried for as long as
    /// it lasts. From 0 to 1, in thousandths; 0.2 by default.
    pub ratio: f64,
    /// Tokens that flow in per second, so that a quiet client can retry at all. From 0 to 100, in
    /// thousandths; 1 by default.
    pub reserve: f64,
}

/// The settings of [`Throttling`](crate::Throttling): tokens, of which a failed attempt takes one.
///
/// ```
/// use portcullis_retry::ThrottlingConfig;
///
/// // Retries stop once some 10 % of the attempts fail.
/// let throttling = ThrottlingConfig::new(10, 0.1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ThrottlingConfig {
    /// Tokens there are at first, and at most. There are retries while more than half of them are left.
    /// From 1 to 1000.
    pub max_tokens: u32,
    /// The part of a token that each success gives back. At least 0.001; further decimals are ignored.
    pub token_ratio: f64,
}

// ===== impl RetryConfig =====

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::default(),
            jitter: Jitter::default(),
            max_hint: Duration::from_secs(60),
            budget: Some(BudgetConfig::default()),
            throttling: None,
            operations: BTreeMap::new(),
        }
    }
}

impl RetryConfig {
    /// Checks every field, those of the budget, of the throttling and of the operations included.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range; of an operation's, with its name.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.of(&OperationConfig::new()).validate()?;
        for (name, operation) in &self.operations {
            let set = self.of(operation);
            set.validate().map_err(|invalid| invalid.within(format!("operation `{name}`")))?;
        }
        self.throttling.as_ref().map_or(Ok(()), ThrottlingConfig::validate)?;
        self.budget.as_ref().map_or(Ok(()), BudgetConfig::validate)
    }

    /// The settings in force for an operation.
    pub(crate) fn of(&self, operation: &OperationConfig) -> Set {
        Set {
            max_attempts: operation.max_attempts.unwrap_or(self.max_attempts),
            backoff: operation.backoff.unwrap_or(self.backoff),
            jitter: operation.jitter.unwrap_or(self.jitter),
            max_hint: operation.max_hint.unwrap_or(self.max_hint),
        }
    }
}

// ===== impl OperationConfig =====

impl OperationConfig {
    /// Everything as for the layer.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_attempts: None, backoff: None, jitter: None, max_hint: None }
    }

    /// Attempts for one call, the first included: at least 1.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// How long the wait before each retry is.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// What chance does to the waits.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// The longest wait that a hint of the peer may ask for.
    #[must_use]
    pub const fn with_max_hint(mut self, longest: Duration) -> Self {
        self.max_hint = Some(longest);
        self
    }
}

// ===== impl Set =====

impl Set {
    fn validate(&self) -> Result<(), Invalid> {
        if self.max_attempts == 0 {
            return Err(Invalid::new("max_attempts", 0, "at least 1"));
        }
        self.backoff.validate()?;
        self.jitter.validate()?;
        if self.max_hint > LONGEST {
            return Err(Invalid::new("max_hint", self.max_hint, "at most 1 day"));
        }
        Ok(())
    }
}

// ===== impl ThrottlingConfig =====

impl ThrottlingConfig {
    /// The most tokens there may be.
    pub const MAX_TOKENS: u32 = 1_000;

    /// So many tokens, and what part of one each success gives back.
    #[must_use]
    pub const fn new(max_tokens: u32, token_ratio: f64) -> Self {
        Self { max_tokens, token_ratio }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        if !(1..=Self::MAX_TOKENS).contains(&self.max_tokens) {
            let tokens = self.max_tokens;
            return Err(Invalid::new("throttling.max_tokens", tokens, "from 1 to 1000"));
        }
        if !(self.token_ratio.is_finite() && self.ratio_milli() > 0) {
            let ratio = self.token_ratio;
            return Err(Invalid::new("throttling.token_ratio", ratio, "at least 0.001"));
        }
        Ok(())
    }

    /// Whole thousandths of a token.
    pub(crate) fn ratio_milli(&self) -> u64 {
        // What is a thousandth in decimals is just below one in binary as often as not.
        const ROUNDING: f64 = 1e-6;
        (self.token_ratio * 1e3 + ROUNDING) as u64
    }
}

// ===== impl BudgetConfig =====

impl BudgetConfig {
    /// The most tokens a bucket may hold. The budget's packed word has room for no more.
    pub const MAX_CAPACITY: u32 = 1_000;
    /// The most tokens that may flow in per second.
    pub const MAX_RESERVE: f64 = 100.0;

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        if !(1..=Self::MAX_CAPACITY).contains(&self.capacity) {
            return Err(Invalid::new("budget.capacity", self.capacity, "from 1 to 1000"));
        }
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(Invalid::new("budget.ratio", self.ratio, "from 0 to 1"));
        }
        if !(0.0..=Self::MAX_RESERVE).contains(&self.reserve) {
            return Err(Invalid::new("budget.reserve", self.reserve, "from 0 to 100"));
        }
        Ok(())
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { capacity: 100, ratio: 0.2, reserve: 1.0 }
    }
}
