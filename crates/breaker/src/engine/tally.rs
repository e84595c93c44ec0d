//! What the calls of a generation came to, and whether that is a reason to trip.

use std::time::Instant;

use portcullis_core::{
    Reason,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    Counts, circuit::Circuit, count_window::CountWindow, run::Run, time_window::TimeWindow,
    word::Word,
};
use crate::{BreakerConfig, Mode, Window};

/// Counts calls, and holds them against the rules.
pub(super) struct Tally {
    run: Run,
    calls: Calls,
    /// Where the rates were last found in order with enough calls: a bucket, or a generation. There,
    /// a good call can only lower them, and need not look again.
    quiet: AtomicU64,
}

/// What of a call that counts is held against the rules.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

enum Calls {
    Time(TimeWindow),
    Count(CountWindow),
}

// ===== impl Tally =====

impl Tally {
    pub(super) fn new(config: &BreakerConfig, start: Instant, stripes: usize) -> Self {
        let calls = match config.window {
            Window::Time(time) => Calls::Time(TimeWindow::new(time, start, stripes)),
            Window::Count(calls) => Calls::Count(CountWindow::new(calls, stripes)),
        };
        Self { run: Run::default(), calls, quiet: AtomicU64::new(0) }
    }

    /// Begins to count for a generation. Called by one thread at a time, before the generation is
    /// made known.
    pub(super) fn restart(&self, generation: u64) {
        match &self.calls {
            // Its buckets carry their generation.
            Calls::Time(_) => {}
            Calls::Count(window) => window.restart(generation),
        }
    }

    /// Counts a good call, if the rates need not be looked at for it: it can only lower them. Says
    /// whether it did.
    #[inline]
    pub(super) fn count_while_quiet(&self, generation: u64, now: Instant) -> bool {
        match &self.calls {
            Calls::Time(window) => {
                let serial = window.serial(generation, now);
                if !self.is_quiet(serial) {
                    return false;
                }
                window.add(serial, Mark::GOOD);
            }
            Calls::Count(window) => {
                if !self.is_quiet(generation) {
                    return false;
                }
                // If the generation is over by now, nothing is to be counted.
                let _ = window.add_good(generation);
            }
        }
        self.run.succeeded(generation);
        true
    }

    /// Counts a call. Says why to trip, if that was one too many.
    pub(super) fn count(
        &self,
        config: &BreakerConfig,
        word: Word,
        mark: Mark,
        now: Instant,
    ) -> Option<Reason> {
        let generation = word.generation();
        if mark.is_good() && self.count_while_quiet(generation, now) {
            return None;
        }
        let in_a_row = match mark.failed {
            true => self.run.failed(generation),
            false => {
                self.run.succeeded(generation);
                0
            }
        };
        let minimum = u64::from(config.minimum_calls);
        let judged = word.mode() != Mode::ForcedClosed;
        let (at, counts) = match &self.calls {
            Calls::Time(window) => {
                let serial = window.serial(generation, now);
                window.add(serial, mark);
                (serial, judged.then(|| window.sum(serial)))
            }
            Calls::Count(window) if mark.is_good() => {
                let judged = window.add_good(generation) && judged;
                (generation, judged.then(|| window.sum_from(minimum, generation)).flatten())
            }
            Calls::Count(window) => {
                (generation, window.add_bad(generation, mark).filter(|_| judged))
            }
        };
        let counts = counts?;
        if let Some(threshold) = config.consecutive_failures.filter(|most| in_a_row >= *most) {
            return Some(Reason::ConsecutiveFailures { count: in_a_row, threshold });
        }
        if counts.total < minimum {
            return None;
        }
        let why = config.trips_by_rate(&counts);
        if why.is_none() && !self.is_quiet(at) {
            self.quiet.fetch_max(at, Ordering::Relaxed);
        }
        why
    }

    #[inline]
    fn is_quiet(&self, at: u64) -> bool {
        // Relaxed: it only says that somebody has looked; no other data hangs on it.
        self.quiet.load(Ordering::Relaxed) >= at
    }

    /// What the window holds.
    pub(super) fn counts(&self, generation: u64, now: Instant) -> Counts {
        match &self.calls {
            Calls::Time(window) => window.sum(window.serial(generation, now)),
            Calls::Count(window) => window.sum(generation),
        }
    }

    /// The same for who only tells of it, and must not take long.
    pub(super) fn counts_to_tell(&self, generation: u64, now: Instant) -> Counts {
        match &self.calls {
            Calls::Time(window) => window.sum_to_tell(window.serial(generation, now)),
            Calls::Count(window) => window.sum(generation),
        }
    }

    pub(super) fn failures_in_a_row(&self, generation: u64) -> u32 {
        self.run.get(generation)
    }

    /// Whether the circuit has been closed for a whole window.
    pub(super) fn was_healthy(&self, circuit: &Circuit, now: Instant) -> bool {
        match &self.calls {
            Calls::Time(window) => {
                now.saturating_duration_since(circuit.closed_since) >= window.length()
            }
            Calls::Count(window) => window.has_turned_over(circuit.word.generation()),
        }
    }
}

// ===== impl Mark =====

impl Mark {
    pub(super) const GOOD: Self = Self { failed: false, slow: false };

    #[inline]
    pub(super) fn is_good(self) -> bool {
        !self.failed && !self.slow
    }
}

// ===== impl BreakerConfig =====

impl BreakerConfig {
    /// Which rate is too high in a window of enough calls.
    fn trips_by_rate(&self, counts: &Counts) -> Option<Reason> {
        let Counts { total, failures, slow } = *counts;
        // A quotient, not a product: 7 of 100 is then exactly a rate of 0.07.
        let reached = |part: u64, threshold: &f64| part as f64 / total as f64 >= *threshold;
        if let Some(threshold) = self.failure_rate.filter(|rate| reached(failures, rate)) {
            return Some(Reason::FailureRate { failures, total, threshold });
        }
        let threshold = self.slow_rate.filter(|rate| reached(slow, rate))?;
        Some(Reason::SlowRate { slow, total, threshold })
    }
}
