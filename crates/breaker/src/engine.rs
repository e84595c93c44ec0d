//! The state machine: told the time and the results, it says who may pass, and why.
//!
//! It reads no clock, sleeps never, and calls nobody. While closed, admitting and counting take no
//! lock and allocate nothing.
//!
//! # Generations
//!
//! Every opening, every half-open cycle and every order by hand begins a new generation; closing
//! continues that of the probes. A permit carries the generation it was issued in, and a result of an
//! earlier one changes nothing.

mod answer;
mod circuit;
mod window;
mod word;

use std::{
    fmt,
    time::{Duration, Instant},
};

use portcullis_core::{
    FaultKind, Hint, Invalid, Outcome, Reason, State, Ticket,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::answer::{Admission, Changes, Counts, Permit, Refusal, Transition};
pub(crate) use self::window::{stripe_of_this_thread, stripes};
use self::{
    circuit::{Circuit, Verdict},
    window::{CountWindow, Run, TimeWindow},
    word::{Phase, Word},
};
use crate::{BreakerConfig, Mode, Snapshot, Window};

/// A circuit breaker without I/O.
///
/// ```
/// use portcullis_breaker::{Admission, BreakerConfig, Changes, Engine};
/// use portcullis_core::Outcome;
/// use std::time::{Duration, Instant};
///
/// let mut config = BreakerConfig::default();
/// config.consecutive_failures = Some(1);
/// # #[expect(clippy::disallowed_methods, reason = "an example has no other clock")]
/// let start = Instant::now();
/// let engine = Engine::new(config, start)?;
/// let mut changes = Changes::default();
///
/// let Admission::Admitted(permit) = engine.admit(start, &mut changes) else { panic!() };
/// engine.record(permit, Outcome::timeout(), false, start, &mut changes);
/// let tripped = changes.iter().next().unwrap();
/// assert_eq!(tripped.why.to_string(), "1 failures in a row (limit 1)");
///
/// let later = start + Duration::from_secs(1);
/// assert!(matches!(engine.admit(later, &mut changes), Admission::Rejected(_)));
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
pub struct Engine {
    hot: Hot,
    config: BreakerConfig,
    window: Calls,
    circuit: Mutex<Circuit>,
}

/// What every call reads and hardly any writes, away from what is written often.
#[repr(align(128))]
struct Hot {
    word: AtomicU64,
    run: Run,
}

enum Calls {
    Time(TimeWindow, Duration),
    Count(CountWindow),
}

// ===== impl Engine =====

impl Engine {
    /// An engine that begins closed, or as `config.mode` says. No time it is told should lie before
    /// `start`.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn new(config: BreakerConfig, start: Instant) -> Result<Self, Invalid> {
        config.validate()?;
        Ok(Self::with_stripes(config, start, stripes()))
    }

    /// For settings that were validated.
    pub(crate) fn with_stripes(config: BreakerConfig, start: Instant, stripes: usize) -> Self {
        let circuit = Circuit::new(&config, start);
        let window = match config.window {
            Window::Time(time) => Calls::Time(TimeWindow::new(time, start, stripes), time),
            Window::Count(calls) => Calls::Count(CountWindow::new(calls)),
        };
        window.restart(circuit.word.generation());
        Self {
            hot: Hot { word: AtomicU64::new(circuit.word.bits()), run: Run::default() },
            config,
            window,
            circuit: Mutex::new(circuit),
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BreakerConfig {
        &self.config
    }

    /// The state, as of the last call.
    #[must_use]
    pub fn state(&self) -> State {
        self.word().state()
    }

    /// Whether a call may pass at `now`.
    #[inline]
    pub fn admit(&self, now: Instant, changes: &mut Changes) -> Admission {
        let word = self.word();
        if word.is_plainly_closed() {
            return Admission::Admitted(Permit::call(word.generation()));
        }
        self.admit_by_rules(word, now, changes)
    }

    #[cold]
    fn admit_by_rules(&self, word: Word, now: Instant, changes: &mut Changes) -> Admission {
        match word.mode() {
            Mode::ForcedOpen => Admission::Rejected(Refusal::forced()),
            Mode::ForcedClosed => Admission::Admitted(Permit::call(word.generation())),
            // The mode may have changed since: what counts is what the lock protects.
            Mode::Automatic | Mode::Disabled => self.with_circuit(|circuit| {
                match (circuit.word.mode(), circuit.admit(&self.config, now, changes)) {
                    (Mode::ForcedOpen, _) => Admission::Rejected(Refusal::forced()),
                    (_, Ok(permit)) => Admission::Admitted(permit),
                    (Mode::Automatic, Err(refusal)) => Admission::Rejected(refusal),
                    (_, Err(refusal)) => Admission::WouldReject(refusal),
                }
            }),
        }
    }

    /// What a call at `now` would be refused for, the ramp aside. Takes no slot and begins no
    /// half-open cycle.
    #[must_use]
    pub fn outlook(&self, now: impl FnOnce() -> Instant, changes: &mut Changes) -> Option<Refusal> {
        let word = self.word();
        match (word.mode(), word.phase()) {
            (Mode::ForcedOpen, _) => Some(Refusal::forced()),
            (Mode::ForcedClosed | Mode::Disabled, _) | (_, Phase::Closed) => None,
            (Mode::Automatic, _) => self.with_circuit(|circuit| {
                let now = now();
                circuit.advance(&self.config, now, changes);
                circuit.refusal(&self.config, now)
            }),
        }
    }

    /// Notes that the head of a response has arrived, and whether it is good so far. Only probes
    /// need it: one with a good head is a success when `max_wait` has passed.
    pub fn head(&self, permit: &Permit, good: bool, now: Instant, changes: &mut Changes) {
        if !permit.is_probe() || permit.generation() != self.word().generation() {
            return;
        }
        self.with_circuit(|circuit| {
            circuit.advance(&self.config, now, changes);
            if good && circuit.word.generation() == permit.generation() {
                circuit.good_head(permit);
            }
        });
    }

    /// Counts a call's result, unless its generation is over.
    #[inline]
    pub fn record(
        &self,
        permit: Permit,
        outcome: Outcome,
        slow: bool,
        now: Instant,
        changes: &mut Changes,
    ) {
        let word = self.word();
        let permit = Ticket::from(permit);
        if word.generation() != permit.0 {
            return;
        }
        if word.phase() == Phase::HalfOpen {
            return self.record_while_half_open(permit, outcome, slow, now, changes);
        }
        self.count(word, outcome, slow, now, changes);
    }

    /// A call that came to nothing: a probe's slot is free again, and nothing is counted.
    pub fn cancel(&self, permit: Permit, now: Instant, changes: &mut Changes) {
        self.record(permit, Outcome::Cancelled, false, now, changes);
    }

    /// Counts a failure that no permit was asked for: the inner service did not become ready. In a
    /// half-open cycle it is a failed probe.
    pub fn fail(&self, outcome: Outcome, now: Instant, changes: &mut Changes) {
        let word = self.word();
        if word.phase() == Phase::Closed {
            return self.count(word, outcome, false, now, changes);
        }
        if self.verdict(outcome, false, true) == Verdict::Bad {
            self.with_circuit(|circuit| {
                circuit.advance(&self.config, now, changes);
                circuit.half_open_if_due(now, changes);
                if circuit.word.phase() == Phase::HalfOpen {
                    circuit.probe_failed(&self.config, outcome.hint(), now, changes);
                }
            });
        }
    }

    #[cold]
    fn record_while_half_open(
        &self,
        Ticket(generation, probe): Ticket,
        outcome: Outcome,
        slow: bool,
        now: Instant,
        changes: &mut Changes,
    ) {
        let verdict = self.verdict(outcome, slow, true);
        let counts_as_call = self.with_circuit(|circuit| {
            circuit.advance(&self.config, now, changes);
            // Others may have opened it meanwhile, or closed it: then it is a call like any other.
            if circuit.word.generation() != generation {
                return None;
            }
            let was_probe = circuit.word.phase() == Phase::HalfOpen
                && circuit.probe_ended(&self.config, probe, verdict, outcome.hint(), now, changes);
            (!was_probe).then_some(circuit.word)
        });
        if let Some(word) = counts_as_call {
            self.count(word, outcome, slow, now, changes);
        }
    }

    /// Adds a result to the window, and trips if that was one too many.
    #[inline]
    fn count(&self, word: Word, outcome: Outcome, slow: bool, now: Instant, changes: &mut Changes) {
        let failed = match self.verdict(outcome, false, false) {
            Verdict::Good => false,
            Verdict::Bad => true,
            Verdict::Nothing => return,
        };
        let generation = word.generation();
        let tripped = match failed {
            false => {
                self.hot.run.succeeded(generation);
                self.look_at_rates(generation, false, slow, now)
            }
            true => {
                let count = self.hot.run.failed(generation);
                // Counted in the window in any case.
                let by_rate = self.look_at_rates(generation, true, slow, now);
                match self.config.consecutive_failures {
                    Some(threshold) if count >= threshold => {
                        Some(Reason::ConsecutiveFailures { count, threshold })
                    }
                    _ => by_rate,
                }
            }
        };
        if let Some(why) = tripped {
            self.trip(generation, why, outcome.hint(), now, changes);
        }
    }

    #[inline]
    fn look_at_rates(
        &self,
        generation: u64,
        failed: bool,
        slow: bool,
        now: Instant,
    ) -> Option<Reason> {
        let config = &self.config;
        match &self.window {
            Calls::Time(window, _) => {
                let serial = window.serial(generation, now);
                window.add(serial, failed, slow);
                if !failed && !slow && window.is_quiet(serial) {
                    return None;
                }
                config.look_closer(window, serial)
            }
            Calls::Count(window) => config.trips_by_rate(&window.add(generation, failed, slow)?),
        }
    }

    #[cold]
    fn trip(&self, generation: u64, why: Reason, hint: Hint, now: Instant, changes: &mut Changes) {
        self.with_circuit(|circuit| {
            // Of several calls that each found it is time, the first one trips. An order that came
            // in between stands, and so does one to stay closed.
            let word = circuit.word;
            if word.generation() != generation
                || word.phase() != Phase::Closed
                || word.mode() == Mode::ForcedClosed
            {
                return;
            }
            if self.window.was_healthy(circuit, now) {
                circuit.backoff = 0;
            }
            circuit.open(&self.config, why, hint, now, changes);
        });
    }

    /// What a result means: to the window, or as that of a probe.
    fn verdict(&self, outcome: Outcome, slow: bool, probe: bool) -> Verdict {
        match outcome {
            // A peer that is tripped for being slow has not recovered while it still is.
            Outcome::Success if probe && slow && self.config.slow_rate.is_some() => Verdict::Bad,
            Outcome::Success => Verdict::Good,
            // The peer never saw it.
            Outcome::Failure(fault) if fault.kind == FaultKind::Rejected => Verdict::Nothing,
            Outcome::Failure(_) => Verdict::Bad,
            Outcome::Throttled(throttle)
                if throttle.unhealthy
                    || self.config.throttled_is_failure
                    || probe && self.config.throttled_fails_probe =>
            {
                Verdict::Bad
            }
            Outcome::Throttled(_) | Outcome::Cancelled | Outcome::Ignored => Verdict::Nothing,
        }
    }

    /// Follows an order. Nothing changes if it was in force already.
    pub fn order(&self, mode: Mode, now: Instant, changes: &mut Changes) {
        self.with_circuit(|circuit| {
            if circuit.word.mode() != mode {
                circuit.start_over(mode, now, changes);
            }
        });
    }

    /// Starts over, in every state: closed, automatic, nothing counted, the open time at its initial
    /// length.
    pub fn reset(&self, now: Instant, changes: &mut Changes) {
        self.with_circuit(|circuit| {
            circuit.start_over(Mode::Automatic, now, changes);
            circuit.backoff = 0;
        });
    }

    /// What the window holds.
    #[must_use]
    pub fn counts(&self, now: Instant) -> Counts {
        self.window.sum(self.word().generation(), now)
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
        self.with_circuit(|circuit| {
            circuit.advance(&self.config, now, changes);
            let (word, generation) = (circuit.word, circuit.word.generation());
            let open = word.phase() == Phase::Open;
            let healthy = word.phase() == Phase::Closed && self.window.was_healthy(circuit, now);
            Snapshot {
                state: word.state(),
                judged: word.phase().state(),
                mode: word.mode(),
                generation,
                counts: self.window.sum(generation, now),
                failures_in_a_row: self.hot.run.get(generation),
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

    /// The settled word.
    #[inline]
    fn word(&self) -> Word {
        // Acquire: whoever sees a generation sees a count window that has begun to count for it.
        Word::from_bits(self.hot.word.load(Ordering::Acquire))
    }

    /// Changes the circuit under its lock, and makes the outcome known.
    fn with_circuit<R>(&self, change: impl FnOnce(&mut Circuit) -> R) -> R {
        let mut circuit = self.circuit.lock();
        let before = circuit.word;
        let result = change(&mut circuit);
        let after = circuit.word;
        if after != before {
            if after.generation() != before.generation() {
                self.window.restart(after.generation());
            }
            // Release: see `word`. Plain stores do, as only the lock's holder writes.
            self.hot.word.store(after.bits(), Ordering::Release);
        }
        result
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("state", &self.state())
            .field("generation", &self.word().generation())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// ===== impl Calls =====

impl Calls {
    fn restart(&self, generation: u64) {
        match self {
            // Its buckets carry their generation.
            Self::Time(..) => {}
            Self::Count(window) => window.restart(generation),
        }
    }

    fn sum(&self, generation: u64, now: Instant) -> Counts {
        match self {
            Self::Time(window, _) => window.sum(window.serial(generation, now)),
            Self::Count(window) => window.sum(),
        }
    }

    /// Whether the circuit has been closed for a whole window.
    fn was_healthy(&self, circuit: &Circuit, now: Instant) -> bool {
        match self {
            Self::Time(_, time) => now.saturating_duration_since(circuit.closed_since) >= *time,
            Self::Count(window) => window.has_turned_over(),
        }
    }
}

// ===== impl BreakerConfig =====

impl BreakerConfig {
    /// Adds the window up. Not on the way of a good call among good ones.
    #[cold]
    fn look_closer(&self, window: &TimeWindow, serial: u64) -> Option<Reason> {
        let counts = window.sum(serial);
        let tripped = self.trips_by_rate(&counts);
        if tripped.is_none() && counts.total >= u64::from(self.minimum_calls) {
            window.set_quiet(serial);
        }
        tripped
    }

    fn trips_by_rate(&self, counts: &Counts) -> Option<Reason> {
        let Counts { total, failures, slow } = *counts;
        if total < u64::from(self.minimum_calls) {
            return None;
        }
        // A quotient, not a product: 7 of 100 is then exactly a rate of 0.07.
        let reached = |part: u64, threshold: &f64| part as f64 / total as f64 >= *threshold;
        if let Some(threshold) = self.failure_rate.filter(|rate| reached(failures, rate)) {
            return Some(Reason::FailureRate { failures, total, threshold });
        }
        let threshold = self.slow_rate.filter(|rate| reached(slow, rate))?;
        Some(Reason::SlowRate { slow, total, threshold })
    }
}
