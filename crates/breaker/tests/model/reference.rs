//! A breaker as one would explain it: it keeps every call, and counts them anew each time.

use std::time::{Duration, Instant};

use portcullis_breaker::{BreakerConfig, Counts, Mode, Ramp, Refusal, Transition, Window};
use portcullis_core::{FaultKind, Hint, Outcome, Reason, State};

use crate::shot::Shot;

pub(crate) struct Model {
    pub(crate) config: BreakerConfig,
    pub(crate) start: Instant,
    rng: fastrand::Rng,
    mode: Mode,
    pub(crate) judged: State,
    pub(crate) generation: u64,
    /// All results of this generation that were not those of probes: when, whether bad, whether slow.
    pub(crate) calls: Vec<(Instant, bool, bool)>,
    /// The probes that hold a slot: number, since when, whether a good head was seen.
    probes: Vec<(u64, Instant, bool)>,
    next_probe: u64,
    succeeded: u32,
    pub(crate) closed_at: Instant,
    ramping: bool,
    pub(crate) open_until: Instant,
    open_for: Duration,
    backoff: u32,
    tripped_by: Option<Reason>,
    pub(crate) told: Vec<Transition>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) generation: u64,
    pub(crate) probe: Option<u64>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Admitted(Ticket),
    WouldReject(Refusal),
    Rejected(Refusal),
}

impl Model {
    pub(crate) fn new(config: BreakerConfig, start: Instant) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(config.seed.unwrap()),
            mode: config.mode,
            config,
            start,
            judged: State::Closed,
            generation: 1,
            calls: Vec::new(),
            probes: Vec::new(),
            next_probe: 0,
            succeeded: 0,
            closed_at: start,
            ramping: false,
            open_until: start,
            open_for: Duration::ZERO,
            backoff: 0,
            tripped_by: None,
            told: Vec::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.mode {
            Mode::Automatic => self.judged,
            Mode::ForcedOpen => State::ForcedOpen,
            Mode::ForcedClosed => State::ForcedClosed,
            Mode::Disabled => State::Disabled,
        }
    }

    fn tell(&mut self, from: State, why: Reason, open_for: Option<Duration>, at: Instant) {
        self.told.push(Transition { from, to: self.judged, why, open_for, at });
    }

    fn new_generation(&mut self) {
        self.generation += 1;
        self.calls.clear();
        self.probes.clear();
        self.ramping = false;
    }

    fn open(&mut self, why: Reason, hint: Hint, at: Instant) {
        let config = &self.config;
        let mut most = config.open_initial;
        for _ in 0..self.backoff {
            most = (most * 2).min(config.open_cap);
        }
        let mut open_for = most;
        if config.jitter {
            open_for = most / 2 + (most / 2).mul_f64(self.rng.f64());
        }
        if let Hint::After(hint) | Hint::Exactly(hint) = hint {
            open_for = open_for.max(hint.min(config.max_hint));
        }
        let from = self.judged;
        self.backoff += 1;
        self.tripped_by = Some(why);
        self.new_generation();
        self.judged = State::Open;
        self.open_for = open_for;
        self.open_until = at + open_for;
        self.tell(from, why, Some(open_for), at);
    }

    fn probe_succeeded(&mut self, at: Instant) {
        self.succeeded += 1;
        if self.succeeded == self.config.probe_successes {
            self.judged = State::Closed;
            self.closed_at = at;
            self.probes.clear();
            self.ramping = self.config.ramp.is_some();
            let (succeeded, threshold) = (self.succeeded, self.config.probe_successes);
            let why = Reason::ProbesSucceeded { succeeded, threshold };
            self.tell(State::HalfOpen, why, None, at);
        }
    }

    fn probe_failed(&mut self, hint: Hint, at: Instant) {
        let (succeeded, threshold) = (self.succeeded, self.config.probe_successes);
        self.open(Reason::ProbeFailed { succeeded, threshold }, hint, at);
    }

    /// What a timer for each probe would have done by now.
    fn run_timers(&mut self, now: Instant) {
        let max_wait = self.config.max_wait;
        self.probes.sort_by_key(|&(number, since, _)| (since, number));
        while let Some(&(_, since, good_head)) = self.probes.first() {
            if since + max_wait > now {
                return;
            }
            self.probes.remove(0);
            match good_head {
                true => self.probe_succeeded(since + max_wait),
                false => {
                    self.open(Reason::ProbeTimedOut { max_wait }, Hint::None, since + max_wait);
                }
            }
        }
    }

    fn half_open_if_due(&mut self, now: Instant) {
        if self.judged == State::Open && now >= self.open_until {
            self.new_generation();
            self.judged = State::HalfOpen;
            self.succeeded = 0;
            let why = Reason::OpenTimeOver { open_for: self.open_for };
            self.tell(State::Open, why, None, now);
        }
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Answer {
        match self.mode {
            Mode::ForcedOpen => return Answer::Rejected(self.forced()),
            Mode::ForcedClosed => {
                return Answer::Admitted(Ticket { generation: self.generation, probe: None });
            }
            Mode::Automatic | Mode::Disabled => {}
        }
        self.run_timers(now);
        self.half_open_if_due(now);
        let refusal = self.refusal(now).or_else(|| self.ramp(now));
        match refusal {
            Some(refusal) if self.mode == Mode::Disabled => Answer::WouldReject(refusal),
            Some(refusal) => Answer::Rejected(refusal),
            None if self.judged == State::HalfOpen => {
                self.next_probe += 1;
                self.probes.push((self.next_probe, now, false));
                Answer::Admitted(Ticket {
                    generation: self.generation,
                    probe: Some(self.next_probe),
                })
            }
            None => Answer::Admitted(Ticket { generation: self.generation, probe: None }),
        }
    }

    /// What a call would be refused for, the ramp aside. An open time that is over is left to who comes.
    pub(crate) fn outlook(&mut self, now: Instant) -> Option<Refusal> {
        match self.mode {
            Mode::ForcedOpen => Some(self.forced()),
            Mode::Automatic => {
                self.run_timers(now);
                self.refusal(now)
            }
            Mode::ForcedClosed | Mode::Disabled => None,
        }
    }

    fn forced(&self) -> Refusal {
        let (state, manual) = (State::ForcedOpen, Reason::Manual);
        Refusal { state, reason: manual, tripped_by: manual, retry_at: None }
    }

    fn refusal(&self, now: Instant) -> Option<Refusal> {
        let (reason, retry_at) = match self.judged {
            State::Open if now < self.open_until => (self.tripped_by.unwrap(), self.open_until),
            State::HalfOpen if self.probes.len() as u32 == self.config.probes => {
                let first = self.probes.iter().map(|&(_, since, _)| since).min().unwrap();
                let why = Reason::ProbesBusy { limit: self.config.probes };
                (why, first + self.config.max_wait)
            }
            _ => return None,
        };
        Some(self.refuse(reason, Some(retry_at)))
    }

    fn ramp(&mut self, now: Instant) -> Option<Refusal> {
        let ramp = self.config.ramp.filter(|_| self.judged == State::Closed && self.ramping)?;
        let t = now - self.closed_at;
        if t >= ramp.over {
            self.ramping = false;
            return None;
        }
        let share = ramp_share(ramp, t);
        (self.rng.f64() >= share).then(|| self.refuse(Reason::Ramp { share }, None))
    }

    fn refuse(&self, reason: Reason, retry_at: Option<Instant>) -> Refusal {
        let tripped_by = self.tripped_by.unwrap_or(Reason::Manual);
        Refusal { state: self.judged, reason, tripped_by, retry_at }
    }

    pub(crate) fn head(&mut self, ticket: Ticket, good: bool, now: Instant) {
        if ticket.generation != self.generation || ticket.probe.is_none() {
            return;
        }
        self.run_timers(now);
        if ticket.generation == self.generation && good {
            for probe in &mut self.probes {
                probe.2 |= Some(probe.0) == ticket.probe;
            }
        }
    }

    pub(crate) fn end(&mut self, ticket: Ticket, outcome: Outcome, slow: bool, now: Instant) {
        if ticket.generation != self.generation {
            return;
        }
        if self.judged == State::HalfOpen {
            self.run_timers(now);
            if ticket.generation != self.generation {
                return;
            }
        }
        let slot = self.probes.iter().position(|&(number, ..)| Some(number) == ticket.probe);
        match slot {
            Some(slot) => {
                self.probes.remove(slot);
                match self.probe_verdict(outcome, slow) {
                    Some(true) => self.probe_succeeded(now),
                    Some(false) => self.probe_failed(outcome.hint(), now),
                    None => {}
                }
            }
            None => self.count(outcome, slow, now),
        }
    }

    pub(crate) fn not_ready(&mut self, outcome: Outcome, now: Instant) {
        if self.judged == State::Closed {
            return self.count(outcome, false, now);
        }
        if self.probe_verdict(outcome, false) == Some(false) {
            self.run_timers(now);
            self.half_open_if_due(now);
            if self.judged == State::HalfOpen {
                self.probe_failed(outcome.hint(), now);
            }
        }
    }

    fn probe_verdict(&self, outcome: Outcome, slow: bool) -> Option<bool> {
        match outcome {
            Outcome::Success => Some(!(slow && self.config.slow_rate.is_some())),
            Outcome::Throttled(_) if self.config.throttled_fails_probe => Some(false),
            _ => self.call_verdict(outcome),
        }
    }

    fn call_verdict(&self, outcome: Outcome) -> Option<bool> {
        match outcome {
            Outcome::Success => Some(true),
            Outcome::Failure(fault) if fault.kind == FaultKind::Rejected => None,
            Outcome::Failure(_) => Some(false),
            Outcome::Throttled(throttle) => {
                (throttle.unhealthy || self.config.throttled_is_failure).then_some(false)
            }
            Outcome::Cancelled | Outcome::Ignored => None,
        }
    }

    fn in_window(&self, now: Instant) -> Vec<(Instant, bool, bool)> {
        match self.config.window {
            Window::Time(time) => {
                let bucket = |at: Instant| (at - self.start).as_nanos() / (time.as_nanos() / 10);
                let within = |&&(at, ..): &&(Instant, _, _)| bucket(now) - bucket(at) < 10;
                self.calls.iter().filter(within).copied().collect()
            }
            Window::Count(n) => self.calls.iter().rev().take(n as usize).copied().collect(),
        }
    }

    pub(crate) fn counts(&self, now: Instant) -> Counts {
        let window = self.in_window(now);
        let count = |f: fn(&(Instant, bool, bool)) -> bool| {
            window.iter().filter(|call| f(call)).count() as u64
        };
        Counts {
            total: count(|_| true),
            failures: count(|call| call.1),
            slow: count(|call| call.2),
        }
    }

    fn in_a_row(&self) -> u32 {
        self.calls.iter().rev().take_while(|&&(_, bad, _)| bad).count() as u32
    }

    fn healthy(&self, now: Instant) -> bool {
        match self.config.window {
            Window::Time(time) => now - self.closed_at >= time,
            Window::Count(n) => self.calls.len() > n as usize,
        }
    }

    fn count(&mut self, outcome: Outcome, slow: bool, now: Instant) {
        let Some(good) = self.call_verdict(outcome) else { return };
        self.calls.push((now, !good, slow));
        if self.judged != State::Closed || self.mode == Mode::ForcedClosed {
            return;
        }
        let Counts { total, failures, slow, .. } = self.counts(now);
        let enough = total >= u64::from(self.config.minimum_calls);
        let (count, share) = (self.in_a_row(), |part: u64| part as f64 / total as f64);
        let why = match &self.config {
            BreakerConfig { consecutive_failures: Some(threshold), .. }
                if !good && count >= *threshold =>
            {
                Reason::ConsecutiveFailures { count, threshold: *threshold }
            }
            BreakerConfig { failure_rate: Some(threshold), .. }
                if enough && share(failures) >= *threshold =>
            {
                Reason::FailureRate { failures, total, threshold: *threshold }
            }
            BreakerConfig { slow_rate: Some(threshold), .. }
                if enough && share(slow) >= *threshold =>
            {
                Reason::SlowRate { slow, total, threshold: *threshold }
            }
            _ => return,
        };
        if self.healthy(now) {
            self.backoff = 0;
        }
        self.open(why, outcome.hint(), now);
    }

    pub(crate) fn order(&mut self, mode: Mode, now: Instant) {
        if self.mode != mode {
            self.start_over(mode, now);
        }
    }

    pub(crate) fn reset(&mut self, now: Instant) {
        self.start_over(Mode::Automatic, now);
        self.backoff = 0;
    }

    fn start_over(&mut self, mode: Mode, now: Instant) {
        let from = self.state();
        self.new_generation();
        self.mode = mode;
        self.judged = State::Closed;
        self.closed_at = now;
        self.succeeded = 0;
        let to = self.state();
        self.told.push(Transition { from, to, why: Reason::Manual, open_for: None, at: now });
    }

    /// All there is to know. Whoever looks finds overdue probes judged.
    pub(crate) fn inspect(&mut self, now: Instant) -> Shot {
        self.run_timers(now);
        let closed = self.judged == State::Closed;
        let open = self.judged == State::Open;
        let ramp = self.config.ramp.filter(|_| self.ramping);
        let t = now - self.closed_at;
        Shot {
            state: self.state(),
            judged: self.judged,
            mode: self.mode,
            generation: self.generation,
            counts: self.counts(now),
            failures_in_a_row: self.in_a_row(),
            tripped_by: self.tripped_by,
            open_for: open.then_some(self.open_for),
            open_until: open.then_some(self.open_until),
            backoff: if closed && self.healthy(now) { 0 } else { self.backoff },
            probes: self.probes.len() as u32,
            probes_succeeded: if self.judged == State::HalfOpen { self.succeeded } else { 0 },
            ramp_share: ramp.filter(|ramp| t < ramp.over).map(|ramp| ramp_share(ramp, t)),
        }
    }
}

fn ramp_share(ramp: Ramp, t: Duration) -> f64 {
    (t.as_secs_f64() / ramp.over.as_secs_f64()).powf(1.0 / ramp.aggression).max(0.1)
}
