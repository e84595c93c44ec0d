//! The part of a breaker that is not on the healthy path: opening, probing, closing. Kept under a
//! lock, so that plain code can say what happens.

use std::time::{Duration, Instant};

use portcullis_core::{FaultKind, Hint, Outcome, Reason, State, clock};

use super::{
    Changes, Permit, Refusal, Transition,
    word::{Phase, Word},
};
use crate::{BreakerConfig, Mode};

#[derive(Debug)]
pub(super) struct Circuit {
    /// The word the call path reads is a copy of this one, published before the lock is given back.
    pub(super) word: Word,
    rng: fastrand::Rng,
    /// The exponent of the next open time: how often it opened since it last was healthy.
    pub(super) backoff: u32,
    pub(super) closed_since: Instant,
    pub(super) open_for: Duration,
    pub(super) open_until: Instant,
    /// Why it opened last.
    pub(super) tripped_by: Option<Reason>,
    /// The probes that hold a slot, in the order they went out.
    pub(super) probes: Vec<Probe>,
    last_probe: u64,
    /// Probes that succeeded in this half-open cycle.
    pub(super) succeeded: u32,
}

#[derive(Debug)]
pub(super) struct Probe {
    id: u64,
    since: Instant,
    /// Its head has arrived and was good so far.
    good_head: bool,
}

/// What a result means to the circuit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    /// Nothing: it is as if the call had not been made.
    Nothing,
}

// ===== impl Circuit =====

impl Circuit {
    pub(super) fn new(config: &BreakerConfig, now: Instant) -> Self {
        Self {
            word: Word::first(config.mode),
            rng: config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            backoff: 0,
            closed_since: now,
            open_for: Duration::ZERO,
            open_until: now,
            tripped_by: None,
            probes: Vec::new(),
            last_probe: 0,
            succeeded: 0,
        }
    }

    /// Judges the probes whose time was up by `now`, each as of the moment it was: the circuit has no
    /// timer, but ends up where one would have brought it.
    pub(super) fn advance(&mut self, config: &BreakerConfig, now: Instant, changes: &mut Changes) {
        while self.word.phase() == Phase::HalfOpen {
            let overdue = self
                .probes
                .iter()
                .enumerate()
                .map(|(nth, probe)| (clock::after(probe.since, config.max_wait), nth))
                .min()
                .filter(|&(due, _)| due <= now);
            let Some((due, nth)) = overdue else { return };
            if self.probes.remove(nth).good_head {
                // A stream that is well under way: it proves as much as one that ended.
                self.probe_succeeded(config, due, changes);
            } else {
                let why = Reason::ProbeTimedOut { max_wait: config.max_wait };
                self.open(config, why, Hint::None, due, changes);
            }
        }
    }

    /// Admits or refuses by the rules, whatever the mode says.
    pub(super) fn admit(
        &mut self,
        config: &BreakerConfig,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<Permit, Refusal> {
        self.advance(config, now, changes);
        self.half_open_if_due(now, changes);
        let generation = self.word.generation();
        if let Some(refusal) = self.refusal(config, now) {
            return Err(refusal);
        }
        match self.word.phase() {
            Phase::Closed => {
                self.ramp(config, now)?;
                Ok(Permit::call(generation))
            }
            Phase::Open | Phase::HalfOpen => {
                // Never zero, which is no probe; unique, so that a slot is given back only once.
                self.last_probe += 1;
                self.probes.push(Probe { id: self.last_probe, since: now, good_head: false });
                Ok(Permit::probe(generation, self.last_probe))
            }
        }
    }

    /// What an admission would be refused for, but for the ramp. Takes nothing.
    pub(super) fn refusal(&self, config: &BreakerConfig, now: Instant) -> Option<Refusal> {
        let tripped_by = self.tripped_by.unwrap_or(Reason::Manual);
        match self.word.phase() {
            Phase::Open if now < self.open_until => Some(Refusal {
                state: State::Open,
                reason: tripped_by,
                tripped_by,
                retry_at: Some(self.open_until),
            }),
            Phase::HalfOpen if self.probes.len() >= config.probes as usize => Some(Refusal {
                state: State::HalfOpen,
                reason: Reason::ProbesBusy { limit: config.probes },
                tripped_by,
                // A slot is free by then at the latest.
                retry_at: self
                    .probes
                    .iter()
                    .map(|probe| clock::after(probe.since, config.max_wait))
                    .min(),
            }),
            _ => None,
        }
    }

    fn ramp(&mut self, config: &BreakerConfig, now: Instant) -> Result<(), Refusal> {
        if !self.word.ramps() {
            return Ok(());
        }
        let after = now.saturating_duration_since(self.closed_since);
        let Some(share) = config.ramp.and_then(|ramp| ramp.share(after)) else {
            self.word = self.word.with_ramp(false);
            return Ok(());
        };
        if self.rng.f64() < share {
            return Ok(());
        }
        let tripped_by = self.tripped_by.unwrap_or(Reason::Manual);
        let reason = Reason::Ramp { share };
        // The next call may well be among those that pass: there is no time to wait for.
        Err(Refusal { state: State::Closed, reason, tripped_by, retry_at: None })
    }

    /// Notes that the head of a probe has arrived and is good so far.
    pub(super) fn good_head(&mut self, permit: &Permit) {
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.id == permit.number()) {
            probe.good_head = true;
        }
    }

    /// Takes the result of a call of this generation while half-open. Says whether it was a probe
    /// that held a slot: if not, its part in the cycle was settled when `max_wait` had passed.
    pub(super) fn probe_ended(
        &mut self,
        config: &BreakerConfig,
        probe: u64,
        verdict: Verdict,
        hint: Hint,
        now: Instant,
        changes: &mut Changes,
    ) -> bool {
        let Some(nth) = self.probes.iter().position(|out| out.id == probe) else {
            return false;
        };
        self.probes.remove(nth);
        match verdict {
            Verdict::Good => self.probe_succeeded(config, now, changes),
            Verdict::Bad => self.probe_failed(config, hint, now, changes),
            Verdict::Nothing => {}
        }
        true
    }

    fn probe_succeeded(&mut self, config: &BreakerConfig, at: Instant, changes: &mut Changes) {
        self.succeeded += 1;
        if self.succeeded < config.probe_successes {
            return;
        }
        let why = Reason::ProbesSucceeded {
            succeeded: self.succeeded,
            threshold: config.probe_successes,
        };
        // The generation goes on: the peer these probes saw is the one that is trusted now, so the
        // results of those still out count like any call's.
        let from = self.word;
        self.word = from.with_phase(Phase::Closed).with_ramp(config.ramp.is_some());
        self.closed_since = at;
        self.probes.clear();
        changes.push(Transition::new(from, self.word, why, None, at));
    }

    pub(super) fn probe_failed(
        &mut self,
        config: &BreakerConfig,
        hint: Hint,
        at: Instant,
        changes: &mut Changes,
    ) {
        let why =
            Reason::ProbeFailed { succeeded: self.succeeded, threshold: config.probe_successes };
        self.open(config, why, hint, at, changes);
    }

    pub(super) fn open(
        &mut self,
        config: &BreakerConfig,
        why: Reason,
        hint: Hint,
        at: Instant,
        changes: &mut Changes,
    ) {
        self.open_for = self.draw_open_time(config);
        if let Some(asked) = hint.wait() {
            self.open_for = self.open_for.max(asked.min(config.max_hint));
        }
        self.backoff = self.backoff.saturating_add(1);
        self.open_until = clock::after(at, self.open_for);
        self.tripped_by = Some(why);
        self.probes.clear();
        let from = self.word;
        self.word = from.next_generation().with_phase(Phase::Open);
        changes.push(Transition::new(from, self.word, why, Some(self.open_for), at));
    }

    /// min(initial·2^k, cap), the upper half of it at random.
    fn draw_open_time(&mut self, config: &BreakerConfig) -> Duration {
        let factor = 1_u32.checked_shl(self.backoff).unwrap_or(u32::MAX);
        let most = config.open_initial.saturating_mul(factor).min(config.open_cap);
        if !config.jitter {
            return most;
        }
        let half = most / 2;
        half + half.mul_f64(self.rng.f64())
    }

    /// Begins a half-open cycle, with all its slots free, if the open time is over.
    pub(super) fn half_open_if_due(&mut self, now: Instant, changes: &mut Changes) {
        if now >= self.open_until {
            self.half_open(Reason::OpenTimeOver { open_for: self.open_for }, now, changes);
        }
    }

    /// Begins a half-open cycle, with all its slots free, if it is open.
    pub(super) fn half_open(&mut self, why: Reason, now: Instant, changes: &mut Changes) {
        let from = self.word;
        if from.phase() != Phase::Open {
            return;
        }
        // A generation of its own: what was admitted before the trip is not a probe's result.
        self.word = from.next_generation().with_phase(Phase::HalfOpen);
        self.succeeded = 0;
        changes.push(Transition::new(from, self.word, why, None, now));
    }

    /// Starts over from closed, in a mode.
    pub(super) fn start_over(&mut self, mode: Mode, now: Instant, changes: &mut Changes) {
        let from = self.word;
        self.word = from.next_generation().with_phase(Phase::Closed).with_mode(mode);
        self.closed_since = now;
        self.probes.clear();
        self.succeeded = 0;
        let (from, to) = (from.state(), self.word.state());
        let why = Reason::Manual;
        changes.push(Transition { from, to, why, open_for: None, at: now });
    }
}

// ===== impl BreakerConfig =====

impl BreakerConfig {
    /// What a result means: to the window, or as that of a probe.
    #[inline]
    pub(super) fn verdict(&self, outcome: Outcome, slow: bool, probe: bool) -> Verdict {
        match outcome {
            // A peer that is tripped for being slow has not recovered while it still is.
            Outcome::Success if probe && slow && self.slow_rate.is_some() => Verdict::Bad,
            Outcome::Success => Verdict::Good,
            // The peer never saw it.
            Outcome::Failure(fault) if fault.kind == FaultKind::Rejected => Verdict::Nothing,
            Outcome::Failure(_) => Verdict::Bad,
            Outcome::Throttled(throttle)
                if throttle.unhealthy
                    || self.throttled_is_failure
                    || probe && self.throttled_fails_probe =>
            {
                Verdict::Bad
            }
            Outcome::Throttled(_) | Outcome::Cancelled | Outcome::Ignored => Verdict::Nothing,
        }
    }
}
