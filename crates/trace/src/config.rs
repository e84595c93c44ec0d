//! Settings: plain data, validated once when a recorder is built.

use std::time::Duration;

use portcullis_core::Invalid;

/// The settings of a [`Recorder`](crate::Recorder).
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `30s`, unknown
/// fields are errors, and missing ones take their defaults.
///
/// ```
/// use portcullis_trace::TraceConfig;
/// use std::time::Duration;
///
/// let mut config = TraceConfig::default();
/// config.sample_rate = 0.01;
/// config.slow = Some(Duration::from_secs(2));
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct TraceConfig {
    /// The share of traces without anything remarkable that is kept, from 0 to 1; 0.1 by default.
    /// Which ones follows from their ids. All others are kept.
    pub sample_rate: f64,
    /// Traces that take at least so long are all kept. Above 0; 10 s by default. `None` (a file that
    /// leaves it out has the default): no trace is kept for being slow.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub slow: Option<Duration>,
    /// Whether all traces are kept in which an attempt was repeated. They are by default.
    pub keep_retried: bool,
    /// Calls and nested scopes kept of one trace. From 1 to 10 000; 256 by default.
    pub max_calls: usize,
    /// Events kept of one call. From 1 to 1000; 64 by default.
    pub max_events: usize,
    /// Attributes kept of one scope. From 0 to 1000; 32 by default.
    pub max_attributes: usize,
    /// Characters kept of an output, an error's text or an attribute's value. From 0 to 100 000; 500
    /// by default.
    pub max_text: usize,
    /// Bytes kept of a name, target or key. From 8 to 1000; 128 by default.
    pub max_name: usize,
    /// Traces that may wait to be stored. From 1 to 1 000 000; 1024 by default.
    pub queue: usize,
    /// Bytes that the traces which wait to be stored may take together, about. From 64 KiB to 64 GiB;
    /// 64 MiB by default.
    pub queue_bytes: u64,
    /// How long the writer lets traces gather before it stores them. A full batch, or half of what may
    /// wait, is stored at once. From 0 to 60 s; 100 ms by default.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub batch_interval: Duration,
}

// ===== impl TraceConfig =====

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            sample_rate: 0.1,
            slow: Some(Duration::from_secs(10)),
            keep_retried: true,
            max_calls: 256,
            max_events: 64,
            max_attributes: 32,
            max_text: 500,
            max_name: 128,
            queue: 1024,
            queue_bytes: 64 << 20,
            batch_interval: Duration::from_millis(100),
        }
    }
}

impl TraceConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        const LONGEST_BATCH: Duration = Duration::from_secs(60);
        const LEAST_BYTES: u64 = 64 << 10;
        const MOST_BYTES: u64 = 64 << 30;

        if !(0.0..=1.0).contains(&self.sample_rate) {
            return Err(Invalid::new("sample_rate", self.sample_rate, "from 0 to 1"));
        }
        if self.slow.is_some_and(|slow| slow.is_zero()) {
            return Err(Invalid::new("slow", self.slow, "above 0"));
        }
        for (field, value, least, most) in [
            ("max_calls", self.max_calls, 1, 10_000),
            ("max_events", self.max_events, 1, 1_000),
            ("max_attributes", self.max_attributes, 0, 1_000),
            ("max_text", self.max_text, 0, 100_000),
            ("max_name", self.max_name, 8, 1_000),
            ("queue", self.queue, 1, 1_000_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Invalid::new(field, value, format!("from {least} to {most}")));
            }
        }
        if !(LEAST_BYTES..=MOST_BYTES).contains(&self.queue_bytes) {
            return Err(Invalid::new("queue_bytes", self.queue_bytes, "from 64 KiB to 64 GiB"));
        }
        if self.batch_interval > LONGEST_BATCH {
            return Err(Invalid::new("batch_interval", self.batch_interval, "from 0 to 60 s"));
        }
        Ok(())
    }
}
