//! What an engine and the model say of themselves.

use std::time::{Duration, Instant};

use portcullis_breaker::{Counts, Mode, Snapshot};
use portcullis_core::{Reason, State};

/// A [`Snapshot`], but for the settings.
#[derive(Debug, PartialEq)]
pub(crate) struct Shot {
    pub(crate) state: State,
    pub(crate) judged: State,
    pub(crate) mode: Mode,
    pub(crate) generation: u64,
    pub(crate) counts: Counts,
    pub(crate) failures_in_a_row: u32,
    pub(crate) tripped_by: Option<Reason>,
    pub(crate) open_for: Option<Duration>,
    pub(crate) open_until: Option<Instant>,
    pub(crate) backoff: u32,
    pub(crate) probes: u32,
    pub(crate) probes_succeeded: u32,
    pub(crate) ramp_share: Option<f64>,
}

impl From<Snapshot> for Shot {
    fn from(shot: Snapshot) -> Self {
        Self {
            state: shot.state,
            judged: shot.judged,
            mode: shot.mode,
            generation: shot.generation,
            counts: shot.counts,
            failures_in_a_row: shot.failures_in_a_row,
            tripped_by: shot.tripped_by,
            open_for: shot.open_for,
            open_until: shot.open_until,
            backoff: shot.backoff,
            probes: shot.probes,
            probes_succeeded: shot.probes_succeeded,
            ramp_share: shot.ramp_share,
        }
    }
}
