//! What is counted of one breaker.

use std::time::Duration;

use portcullis_core::{
    Outcome,
    sync::atomic::{AtomicU64, Ordering},
};

use super::ring::Ring;

/// What became of calls, by second, and when the state changed last.
#[derive(Debug)]
pub(crate) struct Breaker {
    ok: Ring,
    failed: Ring,
    rejected: Ring,
    /// In milliseconds since counting began, from 1; 0 if no change was seen.
    changed: AtomicU64,
}

/// For each of the last sixty seconds, the oldest first: well, failed, rejected.
pub(crate) type Spark = Vec<[u64; 3]>;

// ===== impl Breaker =====

impl Breaker {
    pub(crate) fn new() -> Self {
        let changed = AtomicU64::new(0);
        Self { ok: Ring::new(), failed: Ring::new(), rejected: Ring::new(), changed }
    }

    #[inline]
    pub(crate) fn settled(&self, second: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Failure(_) => self.failed.add(second),
            Outcome::Throttled(throttle) if throttle.unhealthy => self.failed.add(second),
            Outcome::Success | Outcome::Throttled(_) | Outcome::Ignored => self.ok.add(second),
            Outcome::Cancelled => {}
        }
    }

    pub(crate) fn rejected(&self, second: u64) {
        self.rejected.add(second);
    }

    pub(crate) fn changed(&self, after: Duration) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX - 1);
        self.changed.fetch_max(millis + 1, Ordering::Relaxed);
    }

    /// When the state changed last, since counting began, if it was seen to.
    pub(crate) fn last_change(&self) -> Option<Duration> {
        let millis = self.changed.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(millis))
    }

    pub(crate) fn spark(&self, second: u64) -> Spark {
        let refused = self.rejected.look(second);
        let answered = self.ok.look(second).zip(self.failed.look(second));
        answered.zip(refused).map(|((ok, failed), rejected)| [ok, failed, rejected]).collect()
    }

    /// The change of state is no figure: it stays.
    pub(crate) fn reset(&self) {
        for ring in [&self.ok, &self.failed, &self.rejected] {
            ring.reset();
        }
    }
}
