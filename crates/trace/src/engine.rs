//! Sampling: what is kept, decided at a trace's end and told what the trace was like.

use std::time::Duration;

use portcullis_core::{Invalid, TraceId};

use crate::TraceConfig;

/// Decides which traces are kept.
///
/// The decision falls at the end of a trace, so nothing that went wrong is ever missing. Of the
/// others a share is kept; the trace's id says which, so that every process that has a part in a trace
/// decides alike.
///
/// ```
/// use portcullis_core::TraceId;
/// use portcullis_trace::{Kept, Sampler, Summary, TraceConfig};
/// use std::time::Duration;
///
/// let sampler = Sampler::new(&TraceConfig::default())?;
/// let mut trace = Summary::new(TraceId::new(u128::MAX).unwrap(), Duration::from_millis(40));
/// assert_eq!(sampler.keeps(&trace), None);
/// trace.retried = true;
/// assert_eq!(sampler.keeps(&trace), Some(Kept::Retried));
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    rate: f64,
    threshold: u64,
    slow: Option<Duration>,
    keep_retried: bool,
}

/// What the decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The trace.
    pub id: TraceId,
    /// How long it took.
    pub duration: Duration,
    /// Whether it, or any call in it, ended other than well.
    pub failed: bool,
    /// Whether an attempt was repeated in it.
    pub retried: bool,
    /// Whether a layer told of a slow call in it.
    pub slow: bool,
}

/// Why a trace was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Kept {
    /// Something in it failed, timed out, was rejected or cancelled.
    Failed,
    /// An attempt was repeated.
    Retried,
    /// It took long.
    Slow,
    /// Nothing of the kind: it is one of the share.
    Share,
}

/// The bits of a trace's id that are random by W3C Trace Context Level 2: the lowest seven bytes.
const RANDOM_BITS: u32 = 56;

// ===== impl Sampler =====

impl Sampler {
    /// A sampler with these settings.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: &TraceConfig) -> Result<Self, Invalid> {
        config.validate()?;
        Ok(Self {
            rate: config.sample_rate,
            // Exact: a power of two times a share of at most 1.
            threshold: (config.sample_rate * (1_u64 << RANDOM_BITS) as f64) as u64,
            slow: config.slow,
            keep_retried: config.keep_retried,
        })
    }

    /// Whether a trace with nothing remarkable in it is one of the share. It is also what
    /// `traceparent` says of a trace that begins here.
    #[must_use]
    #[inline]
    pub fn is_of_the_share(&self, id: TraceId) -> bool {
        let random = id.get() as u64 & ((1 << RANDOM_BITS) - 1);
        random < self.threshold
    }

    /// Whether a trace is kept, and why.
    #[must_use]
    #[inline]
    pub fn keeps(&self, trace: &Summary) -> Option<Kept> {
        if trace.failed {
            Some(Kept::Failed)
        } else if trace.retried && self.keep_retried {
            Some(Kept::Retried)
        } else if self.slow.is_some_and(|slow| trace.slow || trace.duration >= slow) {
            Some(Kept::Slow)
        } else {
            self.is_of_the_share(trace.id).then_some(Kept::Share)
        }
    }

    /// The share of traces like this one that are kept; what was kept stands for `1 / rate`.
    #[must_use]
    pub fn rate(&self, kept: Kept) -> f64 {
        match kept {
            Kept::Failed | Kept::Retried | Kept::Slow => 1.0,
            Kept::Share => self.rate,
        }
    }
}

// ===== impl Summary =====

impl Summary {
    /// A trace of this length with nothing remarkable in it.
    #[must_use]
    pub const fn new(id: TraceId, duration: Duration) -> Self {
        Self { id, duration, failed: false, retried: false, slow: false }
    }
}

// ===== impl Kept =====

impl Kept {
    /// One bounded word, fit for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Slow => "slow",
            Self::Share => "share",
        }
    }
}
