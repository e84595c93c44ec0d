//! Settings: plain data, validated once when a service is built.

use std::time::Duration;

use portcullis_core::Invalid;

/// The longest that any time may be set to.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The most of one stream that may be kept.
const MOST: usize = 1 << 30;

/// The settings of a [`Process`](crate::Process).
///
/// With the feature `serde` it reads from a file; durations are written as `250ms` or `30s`, unknown
/// fields are errors, and missing ones take their defaults.
///
/// ```
/// use portcullis_process::{Overflow, ProcessConfig};
///
/// let mut config = ProcessConfig::default();
/// config.stdout_limit = 4 * 1024 * 1024;
/// config.overflow = Overflow::Kill;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
#[non_exhaustive]
pub struct ProcessConfig {
    /// How much of the standard output is kept, in bytes: at most 1 GiB. 1 MiB.
    pub stdout_limit: usize,
    /// How much of the standard error is kept, in bytes: at most 1 GiB. 64 KiB.
    pub stderr_limit: usize,
    /// What becomes of a process that puts out more. [`Overflow::Truncate`].
    pub overflow: Overflow,
    /// How long a process that is to end has to end by itself, from 0 to 1 h: it is asked to
    /// (`SIGTERM`), and killed after that. 0, which kills it at once. Of no effect where there are no
    /// signals.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub grace: Duration,
    /// How long is waited, once the process has exited, for what others still write to its pipes: what
    /// it started and left behind has them, too. From 0 to 1 h. 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub linger: Duration,
    /// Whether a process learns the trace its call belongs to, by `TRACEPARENT` and `TRACESTATE` in its
    /// environment (OpenTelemetry, "Environment Variables as Context Propagation Carriers"). Yes.
    pub propagate: bool,
}

/// What becomes of a process that puts out more than is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Overflow {
    /// It goes on. What comes after the limit is read, counted and thrown away.
    #[default]
    Truncate,
    /// It is killed, and the call fails.
    Kill,
}

// ===== impl ProcessConfig =====

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            stdout_limit: 1 << 20,
            stderr_limit: 64 << 10,
            overflow: Overflow::Truncate,
            grace: Duration::ZERO,
            linger: Duration::from_secs(1),
            propagate: true,
        }
    }
}

impl ProcessConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        for (field, limit) in
            [("stdout_limit", self.stdout_limit), ("stderr_limit", self.stderr_limit)]
        {
            if limit > MOST {
                return Err(Invalid::new(field, limit, "at most 1073741824 (1 GiB)"));
            }
        }
        for (field, time) in [("grace", self.grace), ("linger", self.linger)] {
            if time > LONGEST {
                return Err(Invalid::new(field, time, "at most 1 h"));
            }
        }
        Ok(())
    }
}
