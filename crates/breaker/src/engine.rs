//! The state machine: told the time and the results, it says who may pass, and why.
//!
//! It reads no clock, sleeps never, and calls nobody. In good health, which is closed and the rates in
//! order, a call takes no lock, unless it was a bad one in a count window; and allocates nothing.
//!
//! # Generations
//!
//! Every opening, every half-open cycle and every order by hand begins a new generation; closing
//! continues that of the probes. A permit carries the generation it was issued in, and a result of an
//! earlier one changes nothing.

mod answer;
mod circuit;
mod count_window;
mod inspect;
mod run;
mod stripes;
mod tally;
mod time_window;
mod word;

use std::{fmt, time::Instant};

use portcullis_core::{
    Hint, Invalid, Outcome, Reason, State, Ticket,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::answer::{Admission, Changes, Counts, Permit, Refusal, Transition};
pub(crate) use self::stripes::{stripe_of_this_thread, stripes};
use self::{
    circuit::{Circuit, Verdict},
    tally::{Mark, Tally},
    word::{Phase, Word},
};
use crate::{BreakerConfig, Mode};

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
    circuit: Mutex<Circuit>,
}

/// What every call reads and hardly any writes, away from what is written often.
#[repr(align(128))]
struct Hot {
    word: AtomicU64,
    tally: Tally,
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
        let tally = Tally::new(&config, start, stripes);
        tally.restart(circuit.word.generation());
        Self {
            hot: Hot { word: AtomicU64::new(circuit.word.bits()), tally },
            config,
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
        match self.admit_while_closed() {
            Some(permit) => Admission::Admitted(permit),
            None => self.admit_by_rules(self.word(), now, changes),
        }
    }

    /// A permit, while there is nothing that it depends on.
    #[inline]
    pub(crate) fn admit_while_closed(&self) -> Option<Permit> {
        let word = self.word();
        word.is_plainly_closed().then(|| Permit::call(word.generation()))
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

    /// Whether nothing is to be asked of the rules: see [`outlook`](Self::outlook).
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.word().is_plainly_closed()
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

    /// Counts a success that was not slow, if all there is to it is to add it up: then no state
    /// changes. Otherwise it does nothing, and [`record`](Self::record) does it all.
    #[inline]
    pub(crate) fn record_while_quiet(&self, permit: &Permit, now: Instant) -> bool {
        let word = self.word();
        word.is_plainly_closed()
            && word.generation() == permit.generation()
            && self.hot.tally.count_while_quiet(permit.generation(), now)
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
        if self.config.verdict(outcome, false, true) == Verdict::Bad {
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
        let verdict = self.config.verdict(outcome, slow, true);
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
    fn count(&self, word: Word, outcome: Outcome, slow: bool, now: Instant, changes: &mut Changes) {
        let failed = match self.config.verdict(outcome, false, false) {
            Verdict::Good => false,
            Verdict::Bad => true,
            Verdict::Nothing => return,
        };
        if let Some(why) = self.hot.tally.count(&self.config, word, Mark { failed, slow }, now) {
            self.trip(word.generation(), why, outcome.hint(), now, changes);
        }
    }

    #[cold]
    fn trip(&self, generation: u64, why: Reason, hint: Hint, now: Instant, changes: &mut Changes) {
        self.with_circuit(|circuit| {
            // Of several calls that each found it is time, the first one trips. An order that came
            // in between stands: it began a generation of its own.
            let word = circuit.word;
            if word.generation() != generation || word.phase() != Phase::Closed {
                return;
            }
            if self.hot.tally.was_healthy(circuit, now) {
                circuit.backoff = 0;
            }
            circuit.open(&self.config, why, hint, now, changes);
        });
    }

    /// Somebody has seen that the peer is unwell: opens, unless it is open or half-open already, or an
    /// order says what happens.
    pub(crate) fn open(&self, why: Reason, now: Instant, changes: &mut Changes) {
        self.with_circuit(|circuit| {
            let by_rules = matches!(circuit.word.mode(), Mode::Automatic | Mode::Disabled);
            if !by_rules || circuit.word.phase() != Phase::Closed {
                return;
            }
            if self.hot.tally.was_healthy(circuit, now) {
                circuit.backoff = 0;
            }
            circuit.open(&self.config, why, Hint::None, now, changes);
        });
    }

    /// Somebody has seen that the peer is well again: begins a half-open cycle, where it is open by its
    /// own rules.
    pub(crate) fn half_open(&self, why: Reason, now: Instant, changes: &mut Changes) {
        self.with_circuit(|circuit| {
            if matches!(circuit.word.mode(), Mode::Automatic | Mode::Disabled) {
                circuit.half_open(why, now, changes);
            }
        });
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
                self.hot.tally.restart(after.generation());
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
