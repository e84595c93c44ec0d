//! Records as JSON for a page: every time in milliseconds, every outcome as a sentence.

use portcullis_core::Hint;
use portcullis_trace::{
    Status, Trace,
    record::{Attempt, Call, Event, Kind, Omitted, Output},
};
use serde::Serialize;

use crate::words::{date, millis};

/// What a list shows of a trace.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    id: String,
    span: String,
    name: &'a str,
    started_at: String,
    duration_ms: f64,
    status: Status,
    kept: &'static str,
    sampling_rate: f64,
    calls: usize,
    attempts: usize,
    targets: Vec<&'a str>,
    error: Option<&'a str>,
    error_kind: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct OfTrace<'a> {
    id: String,
    span: String,
    parent: Option<String>,
    name: &'a str,
    started_at: String,
    duration_ms: f64,
    status: Status,
    attributes: &'a [(String, String)],
    output: Option<OfOutput<'a>>,
    error: Option<&'a str>,
    kept: &'static str,
    sampling_rate: f64,
    omitted: OfOmitted,
    events: Vec<OfEvent<'a>>,
    calls: Vec<OfCall<'a>>,
}

#[derive(Serialize)]
struct OfOmitted {
    calls: u32,
    events: u32,
    attributes: u32,
}

#[derive(Serialize)]
struct OfOutput<'a> {
    text: &'a str,
    omitted: usize,
}

#[derive(Serialize)]
struct OfCall<'a> {
    kind: Kind,
    span: String,
    parent: Option<String>,
    name: &'a str,
    operation: Option<&'a str>,
    target: Option<&'a str>,
    key: Option<&'a str>,
    started_ms: f64,
    duration_ms: f64,
    head_after_ms: Option<f64>,
    status: Status,
    error_kind: Option<&'a str>,
    error: Option<&'a str>,
    attributes: &'a [(String, String)],
    output: Option<OfOutput<'a>>,
    attempts: Vec<OfAttempt>,
    events: Vec<OfEvent<'a>>,
    omitted: OfOmittedInCall,
}

#[derive(Serialize)]
struct OfOmittedInCall {
    attempts: u32,
    events: u32,
    attributes: u32,
}

#[derive(Serialize)]
struct OfAttempt {
    number: u32,
    span: String,
    started_ms: f64,
    head_after_ms: Option<f64>,
    ended_after_ms: f64,
    outcome: String,
    status: Status,
    hint: Option<String>,
    http_status: Option<u16>,
    port: Option<u16>,
}

#[derive(Serialize)]
struct OfEvent<'a> {
    offset_ms: f64,
    layer: &'a str,
    name: &'a str,
    key: Option<&'a str>,
    attempt: u32,
    what: &'a str,
    why: &'a str,
    wait_ms: Option<f64>,
}

/// Targets that a list shows of one trace.
const TARGETS: usize = 5;

// ===== impl Summary =====

impl<'a> Summary<'a> {
    pub(super) fn of(trace: &'a Trace) -> Self {
        let mut targets = Vec::new();
        for target in trace.calls.iter().filter_map(|call| call.target.as_deref()) {
            if targets.len() < TARGETS && !targets.contains(&target) {
                targets.push(target);
            }
        }
        let calls = trace.calls.iter().filter(|call| call.kind == Kind::Call);
        let attempts = calls.clone().map(|it| it.attempts.len() + it.omitted_attempts as usize);
        Self {
            id: trace.id.to_string(),
            span: trace.span.to_string(),
            name: &trace.name,
            started_at: date(trace.started_at),
            duration_ms: millis(trace.duration),
            status: trace.status,
            kept: trace.kept.as_str(),
            sampling_rate: trace.sampling_rate,
            attempts: attempts.sum(),
            calls: calls.count() + trace.omitted.calls as usize,
            targets,
            error: trace.errors().next(),
            error_kind: trace.calls.iter().find_map(|call| call.error_kind.as_deref()),
        }
    }
}

// ===== impl OfTrace =====

impl<'a> OfTrace<'a> {
    pub(super) fn of(trace: &'a Trace) -> Self {
        let Omitted { calls, events, attributes, .. } = trace.omitted;
        Self {
            id: trace.id.to_string(),
            span: trace.span.to_string(),
            parent: trace.parent.map(|span| span.to_string()),
            name: &trace.name,
            started_at: date(trace.started_at),
            duration_ms: millis(trace.duration),
            status: trace.status,
            attributes: &trace.attributes,
            output: trace.output.as_ref().map(OfOutput::of),
            error: trace.error.as_deref(),
            kept: trace.kept.as_str(),
            sampling_rate: trace.sampling_rate,
            omitted: OfOmitted { calls, events, attributes },
            events: trace.events.iter().map(OfEvent::of).collect(),
            calls: trace.calls.iter().map(OfCall::of).collect(),
        }
    }
}

// ===== impl OfCall =====

impl<'a> OfCall<'a> {
    fn of(call: &'a Call) -> Self {
        Self {
            kind: call.kind,
            span: call.span.to_string(),
            parent: call.parent.map(|span| span.to_string()),
            name: &call.name,
            operation: call.operation.as_deref(),
            target: call.target.as_deref(),
            key: call.key.as_deref(),
            started_ms: millis(call.started),
            duration_ms: millis(call.duration),
            head_after_ms: call.head_after.map(millis),
            status: call.status,
            error_kind: call.error_kind.as_deref(),
            error: call.error.as_deref(),
            attributes: &call.attributes,
            output: call.output.as_ref().map(OfOutput::of),
            attempts: call.attempts.iter().map(OfAttempt::of).collect(),
            events: call.events.iter().map(OfEvent::of).collect(),
            omitted: OfOmittedInCall {
                attempts: call.omitted_attempts,
                events: call.omitted_events,
                attributes: call.omitted_attributes,
            },
        }
    }
}

// ===== impl OfAttempt =====

impl OfAttempt {
    fn of(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            span: attempt.span.to_string(),
            started_ms: millis(attempt.started),
            head_after_ms: attempt.head_after.map(millis),
            ended_after_ms: millis(attempt.ended_after),
            outcome: attempt.outcome.to_string(),
            status: Status::of(&attempt.outcome),
            hint: match attempt.hint {
                Hint::None => None,
                Hint::After(wait) => Some(format!("not before {wait:?} have passed")),
                Hint::Exactly(wait) => Some(format!("in exactly {wait:?}")),
                Hint::Never => Some("never again".to_owned()),
            },
            http_status: attempt.status,
            port: attempt.port,
        }
    }
}

// ===== impl OfEvent =====

impl<'a> OfEvent<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            offset_ms: millis(event.offset),
            layer: &event.layer,
            name: &event.name,
            key: event.key.as_deref(),
            attempt: event.attempt,
            what: &event.what,
            why: &event.why,
            wait_ms: event.wait.map(millis),
        }
    }
}

// ===== impl OfOutput =====

impl<'a> OfOutput<'a> {
    fn of(output: &'a Output) -> Self {
        Self { text: &output.text, omitted: output.omitted }
    }
}
