//! Traces to store, made of a seed.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use portcullis_core::{Fault, FaultKind, Hint, Outcome, Replay, SpanId, Throttle, TraceId};

use crate::{
    Kept,
    record::{Attempt, Call, Event, Kind, Omitted, Output, Status, Trace},
};

const STATUSES: [Status; 5] =
    [Status::Success, Status::Error, Status::Timeout, Status::Rejected, Status::Cancelled];

/// Texts that a store may trip over.
#[must_use]
pub fn hostile_texts() -> Vec<String> {
    let texts = [
        "",
        "it's \"quoted\" `here`; DROP TABLE traces; --",
        "<script>alert('x')</script>",
        "a NUL \0 and \u{1} a control",
        "100 % of _all\\",
        "two\nlines\r\n\tand a tab",
        "😀 👩\u{200d}👩\u{200d}👧 ñ n\u{303} \u{202e}turned",
        "\u{feff}\u{fffd}\u{10ffff}",
        "{\"error\":\"nested\"}",
        "Straße ÀÉÎ àéî",
    ];
    let mut texts: Vec<String> = texts.map(str::to_owned).into();
    texts.push("long, ".repeat(1_667) + "é");
    texts.push("\"".repeat(10_000));
    texts
}

/// A trace that started at this date; all else follows from the seed. Its names, targets and errors are
/// drawn from few, so that questions for them find something. Every part of a record occurs.
#[must_use]
pub fn sample(seed: u64, started_at: SystemTime) -> Trace {
    let mut rng = Rng::with_seed(seed);
    let calls = rng.usize(0..4);
    let parent = span(&mut rng);
    Trace {
        id: TraceId::new(rng.u128(1..)).expect("above 0"),
        span: parent,
        parent: rng.bool().then(|| span(&mut rng)),
        name: pick(&mut rng, &["answer question", "plan", "<b>&amp;\"'", "naïve 😀"]),
        started_at,
        duration: duration(&mut rng),
        status: status(&mut rng),
        attributes: attributes(&mut rng),
        output: output(&mut rng),
        error: error(&mut rng),
        events: (0..rng.usize(0..2)).map(|_| event(&mut rng)).collect(),
        // Shares whose decimal form is long.
        sampling_rate: rng.f64().max(1e-9),
        kept: *choose(&mut rng, &[Kept::Failed, Kept::Retried, Kept::Slow, Kept::Share]),
        calls: (0..calls).map(|_| call(&mut rng, parent)).collect(),
        omitted: Omitted { calls: rng.u32(0..2), events: rng.u32(..), attributes: 0 },
    }
}

fn call(rng: &mut Rng, parent: SpanId) -> Call {
    Call {
        kind: *choose(rng, &[Kind::Call, Kind::Scope]),
        span: span(rng),
        parent: rng.bool().then_some(parent),
        name: pick(rng, &["search", "plan", "model", "it's"]),
        operation: rng.bool().then(|| pick(rng, &["GET", "say \"hi\""])),
        target: rng.bool().then(|| pick(rng, &["db", "web", "a%b_c\\d"])),
        key: rng.bool().then(|| "tenant-7".to_owned()),
        started: duration(rng),
        duration: duration(rng),
        head_after: rng.bool().then(|| duration(rng)),
        status: status(rng),
        error_kind: rng.bool().then(|| "status 503".to_owned()),
        error: error(rng),
        attributes: attributes(rng),
        attempts: (1..rng.u32(1..4)).map(|number| attempt(rng, number)).collect(),
        events: (0..rng.usize(0..4)).map(|_| event(rng)).collect(),
        output: output(rng),
        omitted_attempts: rng.u32(0..2),
        omitted_events: rng.u32(0..2),
        omitted_attributes: rng.u32(0..2),
    }
}

fn attempt(rng: &mut Rng, number: u32) -> Attempt {
    let hint = *choose(rng, &[Hint::None, Hint::Never, Hint::After(Duration::new(1, 999_999_999))]);
    let replay = *choose(rng, &[Replay::Safe, Replay::IfIdempotent, Replay::Forbidden]);
    let kind = *choose(
        rng,
        &[FaultKind::Connect, FaultKind::Status(503), FaultKind::Grpc(14), FaultKind::Other],
    );
    let outcomes = [
        Outcome::Success,
        Outcome::Failure(Fault { kind, replay, hint }),
        Outcome::Throttled(Throttle { kind, replay, hint, unhealthy: true }),
        Outcome::Cancelled,
        Outcome::Ignored,
    ];
    Attempt {
        number,
        span: span(rng),
        started: duration(rng),
        head_after: rng.bool().then(|| duration(rng)),
        ended_after: duration(rng),
        outcome: *choose(rng, &outcomes),
        replay: rng.bool().then_some(replay),
        hint,
        status: rng.bool().then(|| rng.u16(100..600)),
        port: rng.bool().then(|| rng.u16(..)),
    }
}

fn event(rng: &mut Rng) -> Event {
    Event {
        offset: duration(rng),
        layer: Cow::Borrowed(*choose(rng, &["breaker", "retry"])),
        name: "payments".to_owned(),
        key: rng.bool().then(|| "host:443".to_owned()),
        attempt: rng.u32(0..3),
        what: Cow::Borrowed(*choose(rng, &["admitted", "retrying"])),
        why: "12 of 20 failed ≥ 50 %".to_owned(),
        wait: rng.bool().then(|| duration(rng)),
    }
}

fn error(rng: &mut Rng) -> Option<String> {
    let errors = ["Connection REFUSED by peer", "100 % of _ went 'wrong'\n\0", "É kaputt"];
    (rng.u8(0..3) == 0).then(|| pick(rng, &errors))
}

fn output(rng: &mut Rng) -> Option<Output> {
    rng.bool().then(|| Output { text: "Because of Rayleigh scattering.".to_owned(), omitted: 3 })
}

fn attributes(rng: &mut Rng) -> Vec<(String, String)> {
    (0..rng.usize(0..3)).map(|n| (format!("key {n}"), "value".to_owned())).collect()
}

fn status(rng: &mut Rng) -> Status {
    *choose(rng, &STATUSES)
}

fn span(rng: &mut Rng) -> SpanId {
    SpanId::new(rng.u64(1..)).expect("above 0")
}

fn duration(rng: &mut Rng) -> Duration {
    Duration::from_nanos(rng.u64(0..4_000_000_000))
}

fn pick(rng: &mut Rng, texts: &[&str]) -> String {
    (*choose(rng, texts)).to_owned()
}

fn choose<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}
