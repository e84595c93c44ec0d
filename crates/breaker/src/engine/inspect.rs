//! What an engine tells of itself.

use std::time::{Duration, Instant};

use super::{Changes, Counts, Engine, word::Phase};
use crate::Snapshot;

// ===== impl Engine =====

impl Engine {
    /// What the window holds.
    #[must_use]
    pub fn counts(&self, now: Instant) -> Counts {
        self.hot.tally.counts(self.word().generation(), now)
    }

    /// The same for who only tells of it, and must not take long.
    pub(crate) fn counts_to_tell(&self, now: Instant) -> Counts {
        self.hot.tally.counts_to_tell(self.word().generation(), now)
    }

    /// Whether its open time is over and no probe is out.
    pub(crate) fn has_done_its_time(&self, now: Instant) -> bool {
        let circuit = self.circuit.lock();
        now >= circuit.open_until && circuit.probes.is_empty()
    }

    /// How long it was to stay open, when it last was.
    pub(crate) fn last_open_time(&self) -> Duration {
        self.circuit.lock().open_for
    }

    /// Everything there is to know, at `now`.
    #[must_use]
    pub fn snapshot(&self, now: Instant, changes: &mut Changes) -> Snapshot {
        let tally = &self.hot.tally;
        self.with_circuit(|circuit| {
            circuit.advance(&self.config, now, changes);
            let (word, generation) = (circuit.word, circuit.word.generation());
            let open = word.phase() == Phase::Open;
            let healthy = word.phase() == Phase::Closed && tally.was_healthy(circuit, now);
            Snapshot {
                state: word.state(),
                judged: word.phase().state(),
                mode: word.mode(),
                generation,
                counts: tally.counts(generation, now),
                failures_in_a_row: tally.failures_in_a_row(generation),
                tripped_by: circuit.tripped_by,
                open_for: open.then_some(circuit.open_for),
                open_until: open.then_some(circuit.open_until),
                backoff: if healthy { 0 } else { circuit.backoff },
                probes: circuit.probes.len() as u32,
                probes_succeeded: match word.phase() {
                    Phase::HalfOpen => circuit.succeeded,
                    Phase::Closed | Phase::Open => 0,
                },
                ramp_share: self
                    .config
                    .ramp
                    .filter(|_| word.ramps())
                    .and_then(|r| r.share(now.saturating_duration_since(circuit.closed_since))),
                config: self.config.clone(),
            }
        })
    }
}
