//! What a person or a page is shown of a breaker.

use std::time::{Duration, Instant};

use portcullis_core::{Reason, State};

use crate::{BreakerConfig, Counts, Mode};

/// A breaker at one moment: its state, its numbers and the thresholds they are held against.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state.
    pub state: State,
    /// Closed, open or half-open by its own rules; differs from `state` under an order.
    pub judged: State,
    /// Whether it judges by itself or follows an order.
    pub mode: Mode,
    /// Grows with every opening, half-open cycle and order.
    pub generation: u64,
    /// What the window holds.
    pub counts: Counts,
    /// Failures in a row.
    pub failures_in_a_row: u32,
    /// Why it opened last.
    pub tripped_by: Option<Reason>,
    /// How long it was to stay open, while it is.
    pub open_for: Option<Duration>,
    /// Until when it refuses calls, while it is open. It stays open beyond that until a call comes to
    /// be the first probe.
    pub open_until: Option<Instant>,
    /// k: the next open time is `open_initial`·2^k, before cap and jitter.
    pub backoff: u32,
    /// Probes that hold a slot.
    pub probes: u32,
    /// Probes that succeeded in this half-open cycle.
    pub probes_succeeded: u32,
    /// The share of calls that is admitted, while that grows after closing.
    pub ramp_share: Option<f64>,
    /// The thresholds.
    pub config: BreakerConfig,
}
