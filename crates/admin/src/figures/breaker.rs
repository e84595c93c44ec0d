//! What is counted of one breaker.

use std::time::Duration;

use portcullis_core::{
    FaultKind, Outcome, State,
    sync::atomic::{AtomicU64, Ordering},
};

use super::ring::Ring;

/// What became of calls, by second, and when the state changed last.
#[derive(Debug)]
pub(crate) struct Breaker {
    ok: Ring,
    failed: Ring,
    rejected: Ring,
    /// In milliseconds since counting began, from 1, and below it which state it was to; 0 if no change
    /// was seen.
    changed: AtomicU64,
}

/// For each of the last sixty seconds, the oldest first: well, failed, rejected.
pub(crate) type Spark = Vec<[u64; 3]>;

/// For which state, below the time.
const STATE_BITS: u32 = 3;
/// The latest change that there is room for, in milliseconds.
const LATEST: u64 = (u64::MAX >> STATE_BITS) - 1;

// ===== impl Breaker =====

impl Breaker {
    pub(crate) fn new() -> Self {
        let changed = AtomicU64::new(0);
        Self { ok: Ring::new(), failed: Ring::new(), rejected: Ring::new(), changed }
    }

    #[inline]
    pub(crate) fn settled(&self, second: u64, outcome: &Outcome) {
        match outcome {
            // What says nothing of the peer: it never saw it, or had no time to answer.
            Outcome::Failure(fault) if fault.kind == FaultKind::Rejected => {}
            Outcome::Failure(_) => self.failed.add(second),
            Outcome::Throttled(throttle) if throttle.unhealthy => self.failed.add(second),
            Outcome::Success | Outcome::Throttled(_) => self.ok.add(second),
            Outcome::Cancelled | Outcome::Ignored => {}
        }
    }

    pub(crate) fn rejected(&self, second: u64) {
        self.rejected.add(second);
    }

    pub(crate) fn changed(&self, after: Duration, to: State) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(LATEST).min(LATEST);
        let new = (millis + 1) << STATE_BITS | place(to);
        // Of those at one time the one told last.
        let newer = |old| (old >> STATE_BITS <= millis + 1).then_some(new);
        let _ = self.changed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, newer);
    }

    /// When it changed to the state that it is in, since counting began. Nothing if that was not seen:
    /// it may have been forgotten and made anew.
    pub(crate) fn last_change(&self, state: State) -> Option<Duration> {
        let word = self.changed.load(Ordering::Relaxed);
        let millis = (word >> STATE_BITS).checked_sub(1)?;
        (word & ((1 << STATE_BITS) - 1) == place(state)).then(|| Duration::from_millis(millis))
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

/// A number for a state.
const fn place(state: State) -> u64 {
    match state {
        State::Closed => 0,
        State::Open => 1,
        State::HalfOpen => 2,
        State::ForcedOpen => 3,
        State::ForcedClosed => 4,
        State::Disabled => 5,
    }
}
