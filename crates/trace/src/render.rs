//! Notes made into records, off the call's path.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use portcullis_core::{
    Answer, Course, FaultKind, LayerKind, Note, Noted, Outcome, Refusal, RejectionKind, Replay,
    SpanId, What,
};

use crate::{
    Sampler, TraceConfig,
    buffer::{Buffer, Finish},
    hub::Finished,
    record::{Attempt, Call, Event, Kind, Omitted, Status, Trace},
    text::truncate,
};

/// The record of a trace that began at `started_at`.
pub(crate) fn trace(
    finished: &Finished,
    started_at: SystemTime,
    config: &TraceConfig,
    sampler: &Sampler,
) -> Trace {
    let root = &*finished.root;
    let start = root.head.started;
    let end = end_of(root);
    let is_scope = root.head.kind == Kind::Scope;

    // They came in the order of their ends.
    let mut buffers: Vec<&Buffer> = root.family.children.iter().map(|child| &**child).collect();
    buffers.sort_by_key(|buffer| (buffer.head.started, buffer.head.number));
    let whole = Some(root).filter(|_| !is_scope);
    let calls = whole.into_iter().chain(buffers);
    let calls = calls.map(|buffer| call(buffer, start, config)).collect();

    Trace {
        id: root.head.context.trace_id,
        span: root.head.context.span_id,
        parent: root.head.parent,
        name: name(root),
        started_at,
        duration: since(start, end.ended),
        status: Status::of(&end.outcome),
        attributes: if is_scope { root.attributes.clone() } else { Vec::new() },
        output: root.output.clone().filter(|_| is_scope),
        error: error(root, config).filter(|_| is_scope),
        events: if is_scope { events(root, start) } else { Vec::new() },
        sampling_rate: sampler.rate(finished.kept),
        kept: finished.kept,
        calls,
        omitted: Omitted {
            calls: root.family.omitted,
            events: if is_scope { root.notes.omitted() } else { 0 },
            attributes: if is_scope { root.omitted_attributes } else { 0 },
        },
    }
}

fn call(buffer: &Buffer, start: Instant, config: &TraceConfig) -> Call {
    let end = end_of(buffer);
    let word = |word| buffer.word(word).map(str::to_owned);
    let attempts = match buffer.head.kind {
        Kind::Call => attempts(buffer, start, &end),
        Kind::Scope => Vec::new(),
    };
    Call {
        kind: buffer.head.kind,
        span: buffer.head.context.span_id,
        parent: buffer.head.parent,
        name: name(buffer),
        operation: word(buffer.operation),
        target: word(buffer.target),
        key: word(buffer.key),
        started: since(start, buffer.head.started),
        duration: since(buffer.head.started, end.ended),
        head_after: end.head.map(|head| since(buffer.head.started, head)),
        status: Status::of(&end.outcome),
        error_kind: error_kind(&end.outcome, buffer.notes.rejection()),
        error: error(buffer, config),
        attributes: buffer.attributes.clone(),
        omitted_attempts: match buffer.head.kind {
            Kind::Call => buffer.notes.attempts().saturating_sub(attempts.len() as u32),
            Kind::Scope => 0,
        },
        attempts,
        events: events(buffer, start),
        output: buffer.output.clone(),
        omitted_events: buffer.notes.omitted(),
        omitted_attributes: buffer.omitted_attributes,
    }
}

/// What is known of one attempt.
#[derive(Default)]
struct Seen {
    started: Option<Instant>,
    head: Option<Instant>,
    ended: Option<Instant>,
    /// What retry judged by.
    judged: Option<Outcome>,
    /// What a layer inside said in the end.
    settled: Option<Outcome>,
    /// What the client said.
    answer: Option<Answer>,
}

/// The attempts, as the layers' events tell of them.
///
/// Retry says when each begins, and of each that it repeats or gives up on, when it was over. What
/// became of the last one is known from a layer inside, or else from the call.
fn attempts(buffer: &Buffer, start: Instant, end: &Finish) -> Vec<Attempt> {
    let mut seen = BTreeMap::<u32, Seen>::new();
    for note in buffer.notes.as_slice().iter().filter(|note| note.attempt > 0) {
        let attempt = seen.entry(note.attempt).or_default();
        attempt.started.get_or_insert(note.at);
        match note.what() {
            // Giving up may come twice: after the attempt, and when the wait leads nowhere.
            Noted::Told(What::Retrying { outcome, .. } | What::GaveUp { outcome, .. })
                if attempt.judged.is_none() =>
            {
                attempt.judged = Some(outcome);
                attempt.ended = Some(note.at);
            }
            // Nobody saw it, and it is made again: what was known of it so far is not how it went.
            Noted::Told(What::Resending { .. }) => {
                (attempt.settled, attempt.head, attempt.ended) = (None, None, None);
                attempt.answer = None;
            }
            Noted::Told(What::Settled { outcome, head_after, elapsed }) => {
                attempt.settled = Some(outcome);
                if let (Some(after), Some(began)) = (head_after, note.at.checked_sub(elapsed)) {
                    // Any layer may tell anything.
                    attempt.head = began.checked_add(after);
                }
                if attempt.judged.is_none() {
                    attempt.ended = Some(note.at);
                }
            }
            Noted::Told(What::Answered { answer, .. }) => attempt.answer = Some(answer),
            Noted::Refused(_) if attempt.settled.is_none() => {
                attempt.settled = Some(Outcome::failure(FaultKind::Rejected, Replay::Safe));
                attempt.ended = Some(note.at);
            }
            _ => {}
        }
    }
    let refused = Status::of(&end.outcome) == Status::Rejected;
    if seen.is_empty() && !refused {
        // Nobody retries: the call is its one attempt, and has the call's own span on the wire.
        // It began when it had its turn.
        let waits = buffer
            .notes
            .as_slice()
            .iter()
            .filter(|note| matches!(note.what(), Noted::Told(What::Waited { .. })));
        let started = waits.map(|note| note.at).max().unwrap_or(buffer.head.started);
        let answer = buffer.notes.as_slice().iter().rev().find_map(|note| match note.what() {
            Noted::Told(What::Answered { answer, .. }) => Some(answer),
            _ => None,
        });
        let whole = Seen { started: Some(started), answer, ..Seen::default() };
        let span = buffer.head.context.span_id;
        return vec![attempt(1, span, &whole, start, end)];
    }
    seen.iter()
        // Only of the last one is the call's end its own. One of which there was no room to keep how it
        // ended is left out, and counted.
        .filter(|&(&number, seen)| {
            number == buffer.notes.attempts() || seen.judged.or(seen.settled).is_some()
        })
        .map(|(&number, seen)| {
            let span = buffer.head.context.span_id.of_attempt(number);
            attempt(number, span, seen, start, end)
        })
        .collect()
}

fn attempt(number: u32, span: SpanId, seen: &Seen, start: Instant, end: &Finish) -> Attempt {
    let started = seen.started.unwrap_or(start);
    let outcome = seen.judged.or(seen.settled);
    // The last one's end is the call's, where nobody inside told of it.
    let head = seen.head.or(if outcome.is_none() { end.head } else { None });
    let outcome = outcome.unwrap_or(end.outcome);
    Attempt {
        number,
        span,
        started: since(start, started),
        head_after: head.map(|head| since(started, head)),
        ended_after: since(started, seen.ended.unwrap_or(end.ended)),
        outcome,
        replay: outcome.replay(),
        hint: outcome.hint(),
        status: seen.answer.and_then(|answer| answer.status),
        port: seen.answer.and_then(|answer| answer.port),
    }
}

fn events(buffer: &Buffer, start: Instant) -> Vec<Event> {
    let mut notes: Vec<&Note> = buffer.notes.as_slice().iter().collect();
    // Told in this order, but for what two threads told at once.
    notes.sort_by_key(|note| note.at);
    notes.into_iter().map(|note| event(note, buffer, start)).collect()
}

fn event(note: &Note, buffer: &Buffer, start: Instant) -> Event {
    let (what, why) = match note.what() {
        Noted::Told(what) => (what.as_str(), what.to_string()),
        Noted::Refused(Refusal { kind, reason, retry_after }) => {
            let mut why = format!("rejected ({}): {reason}", kind.as_str());
            if let Some(after) = retry_after {
                why.push_str(&format!("; worth another try in {after:.1?}"));
            }
            ("rejected", why)
        }
    };
    Event {
        offset: since(start, note.at),
        layer: Cow::Borrowed(LayerKind::as_str(&note.layer)),
        name: buffer.name(note.name).unwrap_or_else(|| "…".to_owned()),
        key: note.key.and_then(|key| buffer.word(Some(key))).map(str::to_owned),
        attempt: note.attempt,
        what: Cow::Borrowed(what),
        why,
        wait: wait(note),
    }
}

/// How long the wait is that an event begins or ends.
fn wait(note: &Note) -> Option<Duration> {
    match note.what() {
        Noted::Told(
            What::Retrying { delay: wait, .. }
            | What::Resending { delay: wait, .. }
            | What::Waited { waited: wait, .. }
            | What::Polled { course: Course::Pending { delay: wait, .. }, .. },
        ) => Some(wait),
        _ => None,
    }
}

fn error_kind(outcome: &Outcome, rejection: Option<RejectionKind>) -> Option<String> {
    match (outcome, outcome.kind()) {
        (_, Some(FaultKind::Rejected)) => Some(match rejection {
            Some(kind) => format!("rejected: {}", kind.as_str()),
            None => "rejected".to_owned(),
        }),
        (_, Some(kind)) => Some(kind.to_string()),
        (Outcome::Cancelled, None) => Some("cancelled".to_owned()),
        _ => None,
    }
}

fn error(buffer: &Buffer, config: &TraceConfig) -> Option<String> {
    let (text, omitted) = truncate(&buffer.error, config.max_text);
    if text.is_empty() {
        return None;
    }
    Some(if omitted > 0 { format!("{text}…") } else { text.to_owned() })
}

fn name(buffer: &Buffer) -> String {
    buffer.name(buffer.name).unwrap_or_default()
}

fn end_of(buffer: &Buffer) -> Finish {
    // Nobody saw its end: a panic.
    let started = buffer.head.started;
    buffer.end.unwrap_or(Finish { outcome: Outcome::Cancelled, head: None, ended: started })
}

fn since(start: Instant, at: Instant) -> Duration {
    at.saturating_duration_since(start)
}
