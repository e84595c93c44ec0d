//! The engine against a naive model that keeps everything and counts it anew each time, over random
//! histories: both windows, probes, late results, drops, jumps of time, orders and resets.

use std::time::{Duration, Instant};

use portcullis_breaker::{
    Admission, BreakerConfig, Changes, Engine, Mode, Permit, Ramp, Transition, Window,
};
use portcullis_core::{Fault, FaultKind, Hint, Outcome, Reason, Replay, State, Throttle, clock};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Admit,
    /// Ends one of the calls that are out.
    End(prop::sample::Index, Outcome, bool),
    Head(prop::sample::Index, bool),
    NotReady(Outcome),
    Pass(Duration),
    Order(Mode),
    Reset,
    Inspect,
}

/// A breaker as one would explain it.
struct Model {
    config: BreakerConfig,
    start: Instant,
    rng: fastrand::Rng,
    mode: Mode,
    judged: State,
    generation: u64,
    /// All results of this generation that were not those of probes: when, whether bad, whether slow.
    calls: Vec<(Instant, bool, bool)>,
    /// The probes that hold a slot: number, since when, whether a good head was seen.
    probes: Vec<(u64, Instant, bool)>,
    next_probe: u64,
    succeeded: u32,
    closed_at: Instant,
    ramping: bool,
    open_until: Instant,
    open_for: Duration,
    backoff: u32,
    tripped_by: Option<Reason>,
    told: Vec<Transition>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticket {
    generation: u64,
    probe: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Admitted(Ticket),
    WouldReject(State, Reason, Option<Instant>),
    Rejected(State, Reason, Option<Instant>),
}

impl Model {
    fn new(config: BreakerConfig, start: Instant) -> Self {
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

    fn state(&self) -> State {
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
        if let Hint::After(hint) = hint {
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

    fn admit(&mut self, now: Instant) -> Answer {
        match self.mode {
            Mode::ForcedOpen => {
                return Answer::Rejected(State::ForcedOpen, Reason::Manual, None);
            }
            Mode::ForcedClosed => {
                return Answer::Admitted(Ticket { generation: self.generation, probe: None });
            }
            Mode::Automatic | Mode::Disabled => {}
        }
        self.run_timers(now);
        self.half_open_if_due(now);
        let refusal = match self.judged {
            State::Open => Some((self.tripped_by.unwrap(), Some(self.open_until))),
            State::HalfOpen if self.probes.len() as u32 == self.config.probes => {
                let first = self.probes.iter().map(|&(_, since, _)| since).min().unwrap();
                let why = Reason::ProbesBusy { limit: self.config.probes };
                Some((why, Some(first + self.config.max_wait)))
            }
            State::Closed if self.ramping => {
                let Ramp { over, aggression } = self.config.ramp.unwrap();
                let t = now - self.closed_at;
                if t >= over {
                    self.ramping = false;
                    None
                } else {
                    let share =
                        (t.as_secs_f64() / over.as_secs_f64()).powf(1.0 / aggression).max(0.1);
                    (self.rng.f64() >= share).then_some((Reason::Ramp { share }, None))
                }
            }
            _ => None,
        };
        match refusal {
            Some((why, at)) if self.mode == Mode::Disabled => {
                Answer::WouldReject(self.judged, why, at)
            }
            Some((why, at)) => Answer::Rejected(self.judged, why, at),
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

    fn head(&mut self, ticket: Ticket, good: bool, now: Instant) {
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

    fn end(&mut self, ticket: Ticket, outcome: Outcome, slow: bool, now: Instant) {
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

    fn not_ready(&mut self, outcome: Outcome, now: Instant) {
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

    fn numbers(&self, now: Instant) -> (u64, u64, u64) {
        let window = self.in_window(now);
        let failures = window.iter().filter(|&&(_, bad, _)| bad).count();
        let slow = window.iter().filter(|&&(_, _, slow)| slow).count();
        (window.len() as u64, failures as u64, slow as u64)
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
        let (total, failures, slow) = self.numbers(now);
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
}

/// Runs one history on both, and compares all that can be seen.
fn run(config: BreakerConfig, ops: Vec<Op>) -> Result<Seen, TestCaseError> {
    let start = clock::now();
    let mut now = start;
    let engine = Engine::new(config.clone(), start).expect("the strategy makes valid settings");
    let mut model = Model::new(config, start);
    let mut out: Vec<(Permit, Ticket)> = Vec::new();
    let mut seen = Seen::default();

    for op in ops {
        let mut changes = Changes::default();
        match op {
            Op::Admit => {
                let expected = model.admit(now);
                let answer = engine.admit(now, &mut changes);
                match (answer, &expected) {
                    (Admission::Admitted(permit), Answer::Admitted(ticket)) => {
                        prop_assert_eq!(permit.is_probe(), ticket.probe.is_some());
                        out.push((permit, *ticket));
                    }
                    (Admission::WouldReject(r), Answer::WouldReject(state, why, at))
                    | (Admission::Rejected(r), Answer::Rejected(state, why, at)) => {
                        prop_assert_eq!((r.state, r.reason, r.retry_at), (*state, *why, *at));
                        seen.refused += 1;
                    }
                    (answer, _) => prop_assert!(false, "{:?}, not {:?}", answer, expected),
                }
            }
            Op::End(index, outcome, slow) if !out.is_empty() => {
                let (permit, ticket) = out.swap_remove(index.index(out.len()));
                seen.late += u32::from(ticket.generation != model.generation);
                engine.record(permit, outcome, slow, now, &mut changes);
                model.end(ticket, outcome, slow, now);
            }
            Op::Head(index, good) if !out.is_empty() => {
                let (permit, ticket) = &out[index.index(out.len())];
                engine.head(permit, good, now, &mut changes);
                model.head(*ticket, good, now);
            }
            Op::End(..) | Op::Head(..) => {}
            Op::NotReady(outcome) => {
                engine.fail(outcome, now, &mut changes);
                model.not_ready(outcome, now);
            }
            Op::Pass(time) => now += time,
            Op::Order(mode) => {
                engine.order(mode, now, &mut changes);
                if model.mode != mode {
                    model.start_over(mode, now);
                }
            }
            Op::Reset => {
                engine.reset(now, &mut changes);
                model.start_over(Mode::Automatic, now);
                model.backoff = 0;
            }
            Op::Inspect => {
                let shot = engine.snapshot(now, &mut changes);
                model.run_timers(now);
                let (total, failures, slow) = model.numbers(now);
                let healthy = model.judged == State::Closed && model.healthy(now);
                prop_assert_eq!(
                    (shot.counts.total, shot.counts.failures, shot.counts.slow),
                    (total, failures, slow)
                );
                prop_assert_eq!(shot.failures_in_a_row, model.in_a_row());
                prop_assert_eq!(shot.generation, model.generation);
                prop_assert_eq!(shot.probes as usize, model.probes.len());
                prop_assert_eq!(shot.backoff, if healthy { 0 } else { model.backoff });
                prop_assert_eq!(shot.judged, model.judged);
                prop_assert_eq!(shot.tripped_by, model.tripped_by);
            }
        }
        let told: Vec<_> = changes.iter().copied().collect();
        prop_assert_eq!(&told, &model.told);
        prop_assert_eq!(engine.state(), model.state());
        seen.note(&told);
        model.told.clear();
    }
    Ok(seen)
}

/// That a history was worth its while.
#[derive(Debug, Default)]
struct Seen {
    opened: u32,
    reopened: u32,
    closed: u32,
    timed_out: u32,
    refused: u32,
    late: u32,
}

impl Seen {
    fn note(&mut self, told: &[Transition]) {
        for change in told {
            match (change.from, change.to) {
                (State::Closed, State::Open) => self.opened += 1,
                (State::HalfOpen, State::Open) => self.reopened += 1,
                (State::HalfOpen, State::Closed) => self.closed += 1,
                _ => {}
            }
            self.timed_out += u32::from(matches!(change.why, Reason::ProbeTimedOut { .. }));
        }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let other = Fault::new(FaultKind::Other, Replay::Safe);
    let hint = |secs| Hint::After(Duration::from_secs(secs));
    prop_oneof![
        10 => Just(Outcome::Success),
        6 => Just(Outcome::Failure(other)),
        1 => (0_u64..60).prop_map(move |secs| Outcome::Failure(other.with_hint(hint(secs)))),
        1 => Just(Outcome::Failure(Fault::new(FaultKind::Rejected, Replay::Safe))),
        1 => Just(Outcome::Throttled(Throttle::new(FaultKind::Status(429)))),
        1 => (0_u64..60).prop_map(move |secs| {
            Outcome::Throttled(
                Throttle::new(FaultKind::Status(503)).with_hint(hint(secs)).unhealthy(),
            )
        }),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::Ignored),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![
        4 => Just(Mode::Automatic),
        1 => Just(Mode::ForcedOpen),
        1 => Just(Mode::ForcedClosed),
        1 => Just(Mode::Disabled),
    ];
    prop_oneof![
        400 => Just(Op::Admit),
        380 => (any::<prop::sample::Index>(), outcome(), prop::bool::weighted(0.2))
            .prop_map(|(index, outcome, slow)| Op::End(index, outcome, slow)),
        60 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, good)| Op::Head(i, good)),
        10 => outcome().prop_map(Op::NotReady),
        100 => (0_u64..300).prop_map(|ms| Op::Pass(Duration::from_millis(ms))),
        30 => (0_u64..20_000).prop_map(|ms| Op::Pass(Duration::from_millis(ms))),
        2 => (0_u64..2_000).prop_map(|secs| Op::Pass(Duration::from_secs(secs))),
        4 => mode.prop_map(Op::Order),
        2 => Just(Op::Reset),
        60 => Just(Op::Inspect),
    ]
}

fn config() -> impl Strategy<Value = BreakerConfig> {
    let window = prop_oneof![
        (1_u64..20_000).prop_map(|ms| Window::Time(Duration::from_millis(100 + ms))),
        (1_u32..40).prop_map(Window::Count),
    ];
    let rate = || prop::option::of(prop_oneof![Just(0.07), Just(0.3), Just(0.5), Just(1.0)]);
    let rules = (window, 1_u32..20, prop::option::of(1_u32..8), rate(), rate());
    let opening = (any::<bool>(), 0_u64..40, 1_u32..5, 1_u32..5, 1_u64..8_000);
    let ramp = (1_u64..20_000, prop_oneof![Just(1.0), Just(0.5), Just(3.0)]);
    let flags = (any::<bool>(), any::<bool>(), any::<u64>());
    (rules, opening, prop::option::of(ramp), flags).prop_map(|(rules, opening, ramp, flags)| {
        let mut config = BreakerConfig::default();
        (config.window, config.minimum_calls, _, config.failure_rate, config.slow_rate) = rules;
        config.consecutive_failures = rules.2;
        if let Window::Count(n) = config.window {
            config.minimum_calls = config.minimum_calls.min(n);
        }
        config.slow_threshold = config.slow_rate.map(|_| Duration::from_secs(1));
        config.open_initial = Duration::from_secs(2);
        config.open_cap = Duration::from_secs(20);
        config.jitter = opening.0;
        config.max_hint = Duration::from_secs(opening.1);
        (config.probes, config.probe_successes) = (opening.2, opening.3);
        config.max_wait = Duration::from_millis(opening.4);
        config.ramp =
            ramp.map(|(ms, aggression)| Ramp { over: Duration::from_millis(ms), aggression });
        (config.throttled_is_failure, config.throttled_fails_probe) = (flags.0, flags.1);
        config.seed = Some(flags.2);
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_does(
        config in config(),
        ops in prop::collection::vec(op(), 500..3_000),
    ) {
        run(config, ops)?;
    }
}

#[test]
fn the_histories_reach_everything() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let mut all = Seen::default();
    for _ in 0..40 {
        let strategy = (config(), prop::collection::vec(op(), 2_000));
        let (config, ops) = strategy.new_tree(&mut runner).unwrap().current();
        let Seen { opened, reopened, closed, timed_out, refused, late } = run(config, ops).unwrap();
        all.opened += opened;
        all.reopened += reopened;
        all.closed += closed;
        all.timed_out += timed_out;
        all.refused += refused;
        all.late += late;
    }
    let Seen { opened, reopened, closed, timed_out, refused, late } = all;
    for count in [opened, reopened, closed, timed_out, refused, late] {
        assert!(count >= 30, "{all:?}");
    }
}
