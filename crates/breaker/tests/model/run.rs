//! Runs one history on the engine and on the model.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use portcullis_breaker::{Admission, BreakerConfig, Changes, Engine, Permit, Transition, Window};
use portcullis_core::{Outcome, Reason, State, clock};
use proptest::prelude::*;

use crate::{
    history::{Pick, Step, Time},
    reference::{Answer, Model, Ticket},
    shot::Shot,
};

/// Compares all that can be seen, after every step.
pub(crate) fn run(config: BreakerConfig, steps: Vec<Step>) -> Result<Seen, TestCaseError> {
    let start = clock::now();
    let mut both = Both {
        now: start,
        engine: Engine::new(config.clone(), start).expect("the strategy makes valid settings"),
        model: Model::new(config, start),
        out: Vec::new(),
        seen: Seen::default(),
    };
    for step in steps {
        let mut changes = Changes::default();
        both.step(step, &mut changes)?;
        let told: Vec<_> = changes.iter().copied().collect();
        prop_assert_eq!(&told, &both.model.told);
        told.iter().for_each(|change| both.seen.note_change(change));
        both.model.told.clear();
        prop_assert_eq!(both.engine.state(), both.model.state());
        prop_assert_eq!(both.engine.counts(both.now), both.model.counts(both.now));
    }
    Ok(both.seen)
}

struct Both {
    now: Instant,
    engine: Engine,
    model: Model,
    /// The calls that are out, with what each of the two gave them.
    out: Vec<(Permit, Ticket)>,
    seen: Seen,
}

impl Both {
    fn step(&mut self, step: Step, changes: &mut Changes) -> Result<(), TestCaseError> {
        let Self { now, engine, model, out, .. } = self;
        let now = *now;
        match step {
            Step::Admit => return self.admit(changes),
            Step::Outlook => {
                let refusal = engine.outlook(|| now, changes);
                prop_assert_eq!(refusal, model.outlook(now));
                if refusal.is_some() {
                    self.seen.note("refusal foreseen");
                }
            }
            Step::End(..) | Step::Cancel(_) | Step::Lose(_) | Step::Head(..) if out.is_empty() => {}
            Step::End(pick, outcome, slow) => {
                let (permit, ticket) = self.take(pick);
                self.engine.record(permit, outcome, slow, now, changes);
                let before = self.model.calls.len();
                self.model.end(ticket, outcome, slow, now);
                if self.model.judged == State::HalfOpen && self.model.calls.len() > before {
                    self.seen.note("end of a stream counted while half-open");
                }
            }
            Step::Cancel(pick) => {
                let (permit, ticket) = self.take(pick);
                self.engine.cancel(permit, now, changes);
                self.model.end(ticket, Outcome::Cancelled, false, now);
            }
            Step::Lose(pick) => drop(self.take(pick)),
            Step::Head(pick, good) => {
                let (permit, ticket) = &out[pick.of(out.len())];
                engine.head(permit, good, now, changes);
                model.head(*ticket, good, now);
            }
            Step::NotReady(outcome) => {
                engine.fail(outcome, now, changes);
                model.not_ready(outcome, now);
            }
            Step::Pass(time) => self.pass(time),
            Step::Order(mode) => {
                engine.order(mode, now, changes);
                model.order(mode, now);
            }
            Step::Reset => {
                engine.reset(now, changes);
                model.reset(now);
            }
            Step::Inspect => {
                let shot = engine.snapshot(now, changes);
                prop_assert_eq!(Shot::from(shot), model.inspect(now));
            }
        }
        Ok(())
    }

    fn admit(&mut self, changes: &mut Changes) -> Result<(), TestCaseError> {
        let expected = self.model.admit(self.now);
        let admission = self.engine.admit(self.now, changes);
        match (admission, expected) {
            (Admission::Admitted(permit), Answer::Admitted(ticket)) => {
                prop_assert_eq!(permit.is_probe(), ticket.probe.is_some());
                self.out.push((permit, ticket));
            }
            (Admission::WouldReject(refusal), Answer::WouldReject(expected)) => {
                prop_assert_eq!(refusal, expected);
                self.seen.note("refused in shadow");
            }
            (Admission::Rejected(refusal), Answer::Rejected(expected)) => {
                prop_assert_eq!(refusal, expected);
                self.seen.note(match refusal.reason {
                    Reason::Ramp { .. } => "refused by the ramp",
                    Reason::ProbesBusy { .. } => "refused for probes",
                    Reason::Manual => "refused by order",
                    _ => "refused while open",
                });
            }
            (admission, expected) => prop_assert!(false, "{:?}, not {:?}", admission, expected),
        }
        Ok(())
    }

    fn take(&mut self, pick: Pick) -> (Permit, Ticket) {
        let (permit, ticket) = self.out.swap_remove(pick.of(self.out.len()));
        if ticket.generation != self.model.generation {
            self.seen.note("late");
        }
        (permit, ticket)
    }

    fn pass(&mut self, time: Time) {
        let config = &self.model.config;
        self.now += match (time, config.window) {
            (Time::Of(time), _) => time,
            (Time::Tenths(tenths), Window::Time(window)) => {
                // From the edge of a bucket to the edge of another.
                let width = window / 10;
                let since = (self.now - self.model.start).as_nanos();
                let into = (since % width.as_nanos()) as u64;
                width * tenths - Duration::from_nanos(into)
            }
            (Time::Tenths(_) | Time::UntilHealthy, Window::Count(_)) => return,
            (Time::UntilDue, _) => self.model.open_until.saturating_duration_since(self.now),
            (Time::MaxWait, _) => config.max_wait,
            (Time::UntilHealthy, Window::Time(window)) => {
                (self.model.closed_at + window).saturating_duration_since(self.now)
            }
        };
    }
}

/// What came about in a history, and how often: that it was worth its while.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn note_change(&mut self, change: &Transition) {
        self.note(match change.why {
            Reason::ConsecutiveFailures { .. } => "tripped by a row",
            Reason::FailureRate { .. } => "tripped by failures",
            Reason::SlowRate { .. } => "tripped by slowness",
            Reason::OpenTimeOver { .. } => "half-open",
            Reason::ProbeFailed { .. } => "probe failed",
            Reason::ProbeTimedOut { .. } => "probe timed out",
            Reason::ProbesSucceeded { .. } => "closed by probes",
            _ => "ordered",
        });
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (what, times) in other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// How many different things came about at least so often.
    pub(crate) fn that_often(&self, least: u32) -> usize {
        self.0.values().filter(|times| **times >= least).count()
    }
}
