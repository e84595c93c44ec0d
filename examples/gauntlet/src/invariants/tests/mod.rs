//! Invented logs: for each promise one that keeps it and one that breaks it.

mod rate;
mod traces;

use std::sync::Arc;

use http::StatusCode;
use portcullis::trace::Kept;
use portcullis_core::{
    FaultKind, LayerKind, Outcome, Reason, RejectionKind, Replay, SpanId, clock,
};
use portcullis_testkit::Bound;

use super::*;
use crate::{
    attempts::{Attempt, AttemptEnd},
    load::Called,
    traces::{Sent, Traced},
    upstream::Access,
    watch::{Rejected, Retry, Told},
    weather::Script,
};

/// A run in which ten requests are made in each weather, and all went as they should.
struct Invented {
    course: Course,
    bare: SideLog,
    stack: SideLog,
    report: StackReport,
}

const TOOK: Duration = Duration::from_millis(20);

impl Invented {
    fn new() -> Self {
        let course = Course { script: Arc::new(Script::new(20, 1)), start: clock::now() };
        let mut run =
            Self { course, bare: SideLog::default(), stack: SideLog::default(), report: report() };
        let phases: Vec<_> = run.course.script.phases().to_vec();
        let mut id = 0;
        for phase in phases {
            for tenth in 0..10 {
                let within = phase.from + (phase.until - phase.from) / 11 * (tenth + 1);
                let at = run.course.start + within;
                match phase.weather {
                    Weather::Flaky if tenth < 3 => {
                        run.bare.answered(id, at, phase.weather, 503);
                        run.stack.answered(id, at, phase.weather, 200);
                    }
                    Weather::Outage => {
                        run.bare.refused(id, at, true);
                        run.stack.refused(id, at, tenth < 2);
                    }
                    weather => {
                        run.bare.answered(id, at, weather, 200);
                        run.stack.answered(id, at, weather, 200);
                    }
                }
                id += 1;
            }
        }
        let at = |weather| run.course.start + run.course.script.phase(weather).from;
        run.report.told.transitions = [
            (Weather::Outage, State::Closed, State::Open),
            (Weather::CutBodies, State::Open, State::HalfOpen),
            (Weather::Hung, State::HalfOpen, State::Closed),
        ]
        .map(|(weather, from, to)| transition(at(weather), from, to))
        .to_vec();
        run
    }

    /// The names of the promises that are broken, where the limit and the traces do as they should.
    fn broken(&self) -> Vec<&'static str> {
        self.broken_where(|_, _| {})
    }

    /// The same, where what the limit let pass or what the traces say was changed.
    fn broken_where(&self, change: fn(&mut Told, &mut TraceLog)) -> Vec<&'static str> {
        let (mut report, mut traced) = (self.report.clone(), self.stack.traced());
        report.told.passed = self.stack.attempts.iter().map(|attempt| attempt.started).collect();
        change(&mut report.told, &mut traced);
        let evidence = Evidence {
            course: &self.course,
            bare: &self.bare,
            stack: &self.stack,
            report: &report,
            traced: &traced,
        };
        let judged = judge(&evidence).into_iter();
        judged.filter(|invariant| !invariant.held).map(|invariant| invariant.name).collect()
    }

    fn first_in(&mut self, weather: Weather) -> &mut Called {
        let mut calls = self.stack.calls.iter_mut();
        calls.find(|call| call.weather == weather).unwrap()
    }
}

impl SideLog {
    fn answered(&mut self, id: u32, at: Instant, weather: Weather, status: u16) {
        let status = StatusCode::from_u16(status).unwrap();
        self.calls.push(Called {
            id,
            weather,
            started: at,
            ended: at + TOOK,
            result: match status.is_success() {
                true => Ok(()),
                false => Err(Failed::Status(status)),
            },
        });
        self.attempts.push(Attempt {
            id,
            number: 1,
            started: at,
            ended: at + TOOK,
            end: AttemptEnd::Head(status),
        });
        self.accesses.push(Access {
            id,
            attempt: 1,
            span: Some(span(id, 1)),
            begun: at,
            ended: at + TOOK,
            status: Some(status),
        });
    }

    /// Traces that agree with the logs: of every call that failed or was repeated, and of each tenth
    /// of the others.
    fn traced(&self) -> TraceLog {
        let traced = self.calls.iter().filter_map(|call| {
            let attempts = self.attempts.iter().filter(|attempt| attempt.id == call.id);
            let sent: Vec<_> = attempts
                .map(|attempt| Sent {
                    span: span(attempt.id, attempt.number),
                    outcome: outcome(attempt.end),
                })
                .collect();
            let failed = call.result.is_err();
            let kept = match failed {
                true => Kept::Failed,
                false if sent.len() > 1 => Kept::Retried,
                false if call.id % 10 == 5 => Kept::Share,
                false => return None,
            };
            Some(Traced { id: Some(call.id), kept, failed, sent })
        });
        let traced = traced.collect();
        TraceLog { traced, seen: self.calls.len(), lost: 0, sampled: 0.1 }
    }

    fn refused(&mut self, id: u32, at: Instant, sent: bool) {
        self.calls.push(Called {
            id,
            weather: Weather::Outage,
            started: at,
            ended: at,
            result: Err(match sent {
                true => Failed::Connect,
                false => Failed::Rejected(RejectionKind::Open),
            }),
        });
        if sent {
            self.attempts.push(Attempt {
                id,
                number: 1,
                started: at,
                ended: at,
                end: AttemptEnd::Refused,
            });
        }
    }
}

fn report() -> StackReport {
    StackReport {
        deadline: Duration::from_secs(1),
        probe_limit: 2,
        quota: Bound { capacity: 5.0, ratio: 0.0, per_second: 20.0 },
        budget: Bound { capacity: 3.0, ratio: 0.1, per_second: 1.0 },
        told: Told::default(),
        state_at_end: State::Closed,
        tokens_at_end: 0,
        probes_at_end: 0,
    }
}

fn span(id: u32, attempt: u32) -> SpanId {
    SpanId::new(u64::from(id) << 8 | u64::from(attempt)).unwrap()
}

fn outcome(end: AttemptEnd) -> Outcome {
    let failure = |kind| Outcome::failure(kind, Replay::Safe);
    match end {
        AttemptEnd::Head(status) if status.is_success() => Outcome::Success,
        AttemptEnd::Head(status) => failure(FaultKind::Status(status.as_u16())),
        AttemptEnd::Refused => failure(FaultKind::Connect),
        AttemptEnd::Broken => failure(FaultKind::Other),
        AttemptEnd::Dropped => Outcome::timeout(),
    }
}

fn transition(at: Instant, from: State, to: State) -> Transition {
    Transition { at, from, to, reason: Reason::Manual, open_for: None }
}

/// A probe of the first cycle; one that settled did so when `told` probes had been told of.
fn probe(start: Instant, from: u64, until: Option<(u64, usize)>) -> Probe {
    let at = |ms| start + Duration::from_millis(ms);
    Probe { admitted: at(from), cycle: 1, settled: until.map(|(until, told)| (at(until), told)) }
}

#[test]
fn a_good_run_keeps_every_promise() {
    assert_eq!(Invented::new().broken(), [""; 0]);
}

#[test]
fn a_rejection_while_healthy_breaks_it_told_or_seen() {
    let name = "healthy: nothing is rejected";

    let mut run = Invented::new();
    let rejected = |at| Rejected { at, by: LayerKind::Breaker, kind: RejectionKind::Open };
    let outage = run.course.start + run.course.script.phase(Weather::Outage).from;
    run.report.told.rejections.push(rejected(outage));
    assert_eq!(run.broken(), [""; 0]);
    run.report.told.rejections.push(rejected(run.course.start));
    assert_eq!(run.broken(), [name]);

    let mut run = Invented::new();
    run.first_in(Weather::Healthy).result = Err(Failed::Rejected(RejectionKind::Open));
    assert!(run.broken().contains(&name));
}

#[test]
fn a_failure_while_healthy_breaks_it_unless_bare_fails_too() {
    let mut run = Invented::new();
    run.first_in(Weather::Healthy).result = Err(Failed::Body);
    assert_eq!(run.broken(), ["healthy: success at least as high as bare"]);
    run.bare.calls[0].result = Err(Failed::Body);
    assert_eq!(run.broken(), [""; 0]);
}

#[test]
fn in_flaky_weather_twenty_points_are_asked_for() {
    let mut run = Invented::new();
    // 90 % against 70 %.
    run.first_in(Weather::Flaky).result = Err(Failed::Body);
    assert_eq!(run.broken(), [""; 0]);
    let mut calls = run.stack.calls.iter_mut();
    let next = calls.find(|call| call.weather == Weather::Flaky && call.result.is_ok());
    next.unwrap().result = Err(Failed::Body);
    assert_eq!(run.broken(), ["30 % 503: success at least 20 points above bare"]);
}

#[test]
fn in_an_outage_a_fifth_of_the_calls_is_allowed() {
    let mut run = Invented::new();
    let outage = run.course.start + run.course.script.phase(Weather::Outage).from;
    // Two of ten were made; a third is one too many.
    let mut third = run.stack.attempts[0];
    (third.id, third.number, third.end) = (0, 2, AttemptEnd::Refused);
    (third.started, third.ended) = (outage, outage);
    run.stack.attempts.push(third);
    run.report.told.retries.push(Retry { at: outage, hinted: false });
    assert_eq!(run.broken(), ["outage: at most 20 % of bare's upstream calls"]);
}

#[test]
fn a_hung_call_may_take_its_deadline_and_the_tolerance() {
    let mut run = Invented::new();
    let call = run.first_in(Weather::Hung);
    call.ended = call.started + Duration::from_millis(1_050);
    assert_eq!(run.broken(), [""; 0]);

    let call = run.first_in(Weather::Hung);
    call.ended = call.started + Duration::from_millis(1_051);
    assert_eq!(
        run.broken(),
        ["hung: p99 within the deadline", "no call longer than its deadline, body included"]
    );
}

#[test]
fn the_upstream_too_must_be_rid_of_a_call_by_its_deadline() {
    let mut run = Invented::new();
    run.stack.accesses[0].ended += Duration::from_millis(1_100);
    assert_eq!(run.broken(), ["no call longer than its deadline, body included"]);
}

#[test]
fn a_cycle_is_whole_and_in_order() {
    let name = "breaker: a full cycle open → half-open → closed";

    let mut run = Invented::new();
    let at = run.report.told.transitions[2].at;
    // A failed probe in between, then a whole cycle.
    let failed = [
        transition(at, State::HalfOpen, State::Open),
        transition(at, State::Open, State::HalfOpen),
    ];
    run.report.told.transitions.splice(2..2, failed);
    assert_eq!(run.broken(), [""; 0]);

    let mut run = Invented::new();
    run.report.told.transitions[2] = transition(at, State::HalfOpen, State::Open);
    run.report.told.transitions.push(transition(at, State::Open, State::Closed));
    assert_eq!(run.broken(), [name]);
}

#[test]
fn the_breaker_must_be_closed_by_its_word_and_by_its_events() {
    let name = "breaker: closed at the end";

    let mut run = Invented::new();
    run.report.state_at_end = State::HalfOpen;
    assert_eq!(run.broken(), [name]);

    let mut run = Invented::new();
    let at = run.report.told.transitions[2].at;
    run.report.told.transitions.push(transition(at, State::Closed, State::Open));
    assert_eq!(run.broken(), [name]);
}

#[test]
fn probes_that_overlap_are_counted() {
    let name = "breaker: probes at once within the limit";
    let mut run = Invented::new();
    let start = run.course.start;
    // The second and third share an instant only: one settles as the other is admitted.
    let three = vec![
        probe(start, 0, Some((30, 3))),
        probe(start, 10, Some((20, 2))),
        probe(start, 20, Some((40, 3))),
    ];
    run.report.told.probes = three.clone();
    assert_eq!(run.broken(), [""; 0]);
    run.report.told.probes.push(probe(start, 25, Some((26, 4))));
    for probe in &mut run.report.told.probes[..3] {
        probe.settled = probe.settled.map(|(at, told)| (at, if told == 2 { 2 } else { 4 }));
    }
    assert_eq!(run.broken(), [name]);

    // One that was admitted after the second was told settled, by a clock read before.
    run.report.told.probes = three.clone();
    run.report.told.probes[2].admitted -= Duration::from_millis(1);
    assert_eq!(run.broken(), [""; 0]);

    // One of the next cycle, while those of the last are still out.
    run.report.told.probes = three;
    for probe in &mut run.report.told.probes[..2] {
        probe.settled = Some((start + Duration::from_secs(1), 3));
    }
    assert_eq!(run.broken(), [name]);
    run.report.told.probes[2].cycle = 2;
    assert_eq!(run.broken(), [""; 0]);
}

#[test]
fn a_permit_or_a_probe_that_is_not_back_breaks_it() {
    let name = "every permit and probe returned at the end";
    let breaks: [fn(&mut StackReport, Instant); 4] = [
        |report, _| report.told.permits = (7, 6),
        |report, _| report.tokens_at_end = 1,
        |report, _| report.probes_at_end = 1,
        |report, start| report.told.probes.push(probe(start, 0, None)),
    ];
    for break_it in breaks {
        let mut run = Invented::new();
        break_it(&mut run.report, run.course.start);
        assert_eq!(run.broken(), [name]);
    }
}

#[test]
fn retries_beyond_the_budget_break_it() {
    let mut run = Invented::new();
    let at = run.course.start + Duration::from_millis(10);
    let retry = Retry { at, hinted: false };
    run.report.told.retries = vec![retry; 3];
    assert_eq!(run.broken(), [""; 0]);
    run.report.told.retries.push(retry);
    assert_eq!(run.broken(), ["retries within the budget in every interval"]);
}

#[test]
fn retries_that_are_told_apart_but_sent_at_once_break_it() {
    let mut run = Invented::new();
    let seconds = |n: u64| run.course.start + Duration::from_secs(n);
    run.report.told.retries = (0..4).map(|n| Retry { at: seconds(3 * n), hinted: true }).collect();
    for (number, id) in (2..6).zip(0..4) {
        let at = run.course.start + Duration::from_secs(9);
        let status = StatusCode::OK;
        let end = AttemptEnd::Head(status);
        run.stack.attempts.push(Attempt { id, number, started: at, ended: at + TOOK, end });
        run.stack.accesses.push(Access {
            id,
            attempt: number,
            span: Some(span(id, number)),
            begun: at,
            ended: at + TOOK,
            status: Some(status),
        });
    }
    assert!(run.broken().contains(&"retries within the budget in every interval"));
}

#[test]
fn an_attempt_that_was_not_told_as_a_retry_breaks_it() {
    let mut run = Invented::new();
    run.stack.attempts[0].number = 2;
    run.stack.accesses[0].attempt = 2;
    assert_eq!(run.broken(), ["every attempt beyond the first was told as a retry"]);
}

#[test]
fn logs_that_differ_break_it() {
    let name = "stack: client's and upstream's log agree";
    let breaks: [fn(&mut SideLog); 7] = [
        // Answered, but never there.
        |side| {
            side.accesses.remove(0);
        },
        // Answered otherwise.
        |side| side.accesses[0].status = Some(StatusCode::CREATED),
        // There twice.
        |side| side.accesses.push(side.accesses[0]),
        // There, but never sent.
        |side| {
            side.attempts.remove(0);
        },
        // Sent for nobody.
        |side| {
            side.attempts[0].id = 1_000;
            side.accesses[0].id = 1_000;
            side.calls[0].result = Err(Failed::Body);
            side.calls[0].weather = Weather::Slow;
        },
        // Broken, where no outage was.
        |side| {
            side.attempts[0].end = AttemptEnd::Broken;
            side.calls[0].result = Err(Failed::Broken);
            side.calls[0].weather = Weather::Slow;
            side.accesses.remove(0);
        },
        // A success that the upstream knows nothing of.
        |side| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            side.attempts[0].end = AttemptEnd::Head(status);
            side.accesses[0].status = Some(status);
        },
    ];
    for (place, break_it) in breaks.into_iter().enumerate() {
        let mut run = Invented::new();
        break_it(&mut run.stack);
        assert_eq!(run.broken(), [name], "break {place}");
    }
}

#[test]
fn a_connection_cut_by_the_outage_is_no_difference() {
    let mut run = Invented::new();
    let outage = run.course.script.phase(Weather::Outage);
    let last = run.stack.attempts.iter_mut().rev();
    let mut before = last.filter(|attempt| attempt.started < run.course.start + outage.from);
    let attempt = before.next().unwrap();
    attempt.ended = run.course.start + outage.from;
    attempt.end = AttemptEnd::Broken;
    let id = attempt.id;
    run.stack.accesses.retain(|access| access.id != id);
    let mut calls = run.stack.calls.iter_mut();
    calls.find(|call| call.id == id).unwrap().result = Err(Failed::Broken);
    assert_eq!(run.broken(), [""; 0]);
}
