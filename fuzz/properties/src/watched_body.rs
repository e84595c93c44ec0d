//! The watched body: whatever comes, waits, runs out and is dropped when, each layer is told one end,
//! and it is the one that `docs/http.md` promises.

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Buf;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use portcullis_core::{
    Call, Classify, Elapsed, FaultKind, How, Outcome, Phase, Replay, Until, Watch, clock,
};
use portcullis_http::{Body, GRPC_STATUS, GrpcClassifier, HttpClassifier};

use crate::script::{Polled, Script, Seen, Step, next};

#[derive(Debug)]
struct Input {
    grpc: bool,
    status: StatusCode,
    body: Script,
    /// The absolute limit.
    until: Option<(Phase, Duration)>,
    idle: Option<Duration>,
    deadline: Option<Duration>,
    moves: Vec<Move>,
}

#[derive(Debug)]
enum Move {
    Poll,
    Wait(Duration),
}

/// What is known of the body by its script and the clock alone.
struct Model {
    grpc: bool,
    script: Script,
    /// The verdict if the body ends and brings none.
    at_end: Outcome,
    /// The verdict on a body that nobody reads to its end.
    unread: Outcome,
    until: Option<Until>,
    idle: Option<Duration>,
    deadline: Option<Instant>,
    /// Since when somebody has been waiting for a frame.
    waiting: Option<Instant>,
    end: Option<(Outcome, How)>,
    /// A limit has ended it.
    cut: bool,
}

/// What a poll has to give.
enum Expected {
    Pending,
    Passed(Option<Step>),
    Cut(Until),
    Over,
}

/// A response with its limits, and what its reader does and when.
pub fn watched_body(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(read(input));
}

async fn read(input: Input) {
    let start = clock::now();
    let mut model = Model::new(&input, start);
    let call = Call::new().with_deadline(input.deadline.map(|after| start + after));
    let watch = Watch { until: model.until, idle: input.idle };
    let mut response = Response::new(input.body);
    *response.status_mut() = input.status;

    // Two layers, of which the inner one keeps the limits.
    let seen = Seen::new();
    let inner = seen.completion(0, call.clone()).with_watch(watch);
    let outer = seen.completion(1, call);
    let mut body = match input.grpc {
        true => {
            let grpc = GrpcClassifier::new();
            grpc.classify(Ok(response), inner)
                .and_then(|response| grpc.classify(Ok(response), outer))
        }
        false => {
            let http = HttpClassifier::new();
            http.classify(Ok(response), inner)
                .and_then(|response| http.classify(Ok(response), outer))
        }
    }
    .expect("no answer is made an error")
    .into_body();

    model.told(&seen);
    for step in input.moves {
        match step {
            Move::Wait(time) => tokio::time::advance(time).await,
            Move::Poll => {
                let expected = model.poll(clock::now());
                let polled = next(&mut body);
                model.gave(&body, polled, expected);
            }
        }
        model.told(&seen);
    }
    model.dropped(clock::now());
    drop(body);
    model.told(&seen);
    assert!(model.end.is_some());
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let grpc = u.arbitrary()?;
        let statuses = [StatusCode::OK, StatusCode::BAD_GATEWAY, StatusCode::TOO_MANY_REQUESTS];
        let status = if grpc { StatusCode::OK } else { *u.choose(&statuses)? };
        let phases = [Phase::Total, Phase::Attempt, Phase::Body, Phase::Inherited];
        let until = match u.arbitrary()? {
            true => Some((*u.choose(&phases)?, time(u)?)),
            false => None,
        };
        let idle = if u.arbitrary()? { Some(time(u)?) } else { None };
        let deadline = if u.arbitrary()? { Some(time(u)?) } else { None };
        let body = u.arbitrary()?;
        let mut moves = Vec::new();
        for _ in 0..u.int_in_range(0..=24)? {
            moves.push(if u.ratio(1, 3)? { Move::Wait(time(u)?) } else { Move::Poll });
        }
        Ok(Self { grpc, status, body, until, idle, deadline, moves })
    }
}

/// Whole milliseconds, as tokio's timers have them; few, so that points in time coincide.
fn time(u: &mut Unstructured<'_>) -> Result<Duration> {
    u.int_in_range(0..=40).map(Duration::from_millis)
}

// ===== impl Model =====

impl Model {
    fn new(input: &Input, start: Instant) -> Self {
        let unknown = Outcome::failure(FaultKind::Grpc(2), Replay::Forbidden);
        let mut head = Response::new(input.body.clone());
        *head.status_mut() = input.status;
        let head = HttpClassifier::new().at_head(Ok(&head)).outcome();
        let (at_end, unread) =
            if input.grpc { (unknown, Outcome::Cancelled) } else { (head, head) };
        let over = input.body.is_end_stream();
        Self {
            grpc: input.grpc,
            script: input.body.clone(),
            at_end,
            unread,
            until: input.until.map(|(phase, limit)| Until::new(start, phase, limit)),
            idle: input.idle,
            deadline: input.deadline.map(|after| start + after),
            waiting: None,
            end: over.then_some((at_end, How::Reported)),
            cut: false,
        }
    }

    fn poll(&mut self, now: Instant) -> Expected {
        if self.cut {
            return Expected::Over;
        }
        let step = self.script.steps.pop_front();
        if self.end.is_some() {
            return if step == Some(Step::Pending) {
                Expected::Pending
            } else {
                Expected::Passed(step)
            };
        }
        if step == Some(Step::Pending) {
            let since = *self.waiting.get_or_insert(now);
            let idle = self.idle.map(|limit| Until::new(since, Phase::Idle, limit));
            let limits = [self.until, idle].into_iter().flatten();
            let first = limits.filter(|until| until.at <= now).min_by_key(|until| until.at);
            return match first {
                Some(until) => self.cut(until),
                None => Expected::Pending,
            };
        }
        // An end that is there is not taken away, unless a layer below made it of our own limit.
        let ends = match &step {
            Some(Step::Data(_)) => false,
            Some(Step::Trailers(trailers)) => {
                let ours = self.until.is_some_and(|until| until.phase != Phase::Inherited);
                !(self.grpc && ours && ended_below(trailers))
            }
            Some(Step::Elapsed(Phase::Inherited)) => {
                self.until.is_none_or(|until| until.phase == Phase::Inherited)
            }
            _ => true,
        };
        if let Some(until) = self.until.filter(|until| !ends && until.at <= now) {
            return self.cut(until);
        }
        let waited = self.waiting.take().is_some();
        let outcome = match &step {
            Some(Step::Data(_)) if !self.script.is_end_stream() => None,
            Some(Step::Trailers(trailers)) if self.grpc => Some(self.status(trailers, waited)),
            Some(Step::Broken) => Some(Outcome::failure(FaultKind::Body, Replay::IfIdempotent)),
            Some(Step::Elapsed(_)) if !waited => Some(self.unread),
            Some(Step::Elapsed(Phase::Readiness)) => {
                Some(Outcome::failure(FaultKind::Timeout, Replay::Safe))
            }
            Some(Step::Elapsed(_)) => Some(Outcome::timeout()),
            _ => Some(self.at_end),
        };
        self.end = outcome.map(|outcome| (outcome, How::Reported));
        Expected::Passed(step)
    }

    fn status(&self, trailers: &HeaderMap, waited: bool) -> Outcome {
        if ended_below(trailers) && !waited {
            return self.unread;
        }
        let mut head = Response::new(Script::new([]));
        *head.headers_mut() = trailers.clone();
        let status = trailers.contains_key(GRPC_STATUS);
        if status { GrpcClassifier::new().at_head(Ok(&head)).outcome() } else { self.at_end }
    }

    /// A limit ends the body: the server's failure only if somebody was waiting when it ran out.
    fn cut(&mut self, until: Until) -> Expected {
        let waited = self.waiting.is_some_and(|since| since < until.at);
        let outcome = if waited { Outcome::timeout() } else { self.unread };
        let how = How::Elapsed { phase: until.phase, limit: until.limit };
        self.end = Some((outcome, how));
        self.cut = true;
        Expected::Cut(until)
    }

    fn dropped(&mut self, now: Instant) {
        let passed = self.deadline.filter(|deadline| *deadline <= now);
        let waited = passed.zip(self.waiting).is_some_and(|(deadline, since)| since < deadline);
        let outcome = if waited { Outcome::timeout() } else { self.unread };
        self.end.get_or_insert((outcome, How::Dropped));
    }

    /// Holds what the layers were told to what they should know by now.
    fn told(&self, seen: &Seen) {
        let ends = seen.ends();
        let Some((outcome, how)) = self.end else { return assert_eq!(ends, []) };
        let [(0, inner, inner_how), (1, outer, outer_how)] = ends[..] else {
            panic!("{ends:?}: both layers, once, from the inside out")
        };
        assert_eq!((inner, inner_how), (outcome, how));
        // To the layer outside, a limit is an end like any other.
        let outer_expected = if self.cut { How::Reported } else { how };
        assert_eq!(outer_how, outer_expected);
        // The trailers that a limit of ours wrote are not the server's word.
        assert_eq!(outer, outcome);
    }

    /// Holds what a poll gave to what it had to give.
    fn gave<B: Buf>(&self, body: &Body<Body<Script>>, polled: Polled<B>, expected: Expected) {
        match (polled, expected) {
            (Poll::Pending, Expected::Pending) => {}
            (Poll::Ready(None), Expected::Over | Expected::Passed(None)) => {}
            (Poll::Ready(Some(Ok(frame))), Expected::Passed(Some(Step::Data(expected)))) => {
                let mut data = frame.into_data().ok().expect("data");
                assert_eq!(data.copy_to_bytes(data.remaining()), expected);
            }
            (Poll::Ready(Some(Ok(frame))), Expected::Passed(Some(Step::Trailers(expected)))) => {
                assert_eq!(frame.into_trailers().ok(), Some(expected));
            }
            (Poll::Ready(Some(Err(error))), Expected::Passed(Some(Step::Broken))) => {
                assert!(error.rejection().is_none(), "{error:?}");
            }
            (Poll::Ready(Some(Err(error))), Expected::Passed(Some(Step::Elapsed(phase)))) => {
                assert_eq!(error.find::<Elapsed>().map(Elapsed::phase), Some(phase));
            }
            (Poll::Ready(Some(Ok(frame))), Expected::Cut(_)) if self.grpc => {
                let trailers = frame.into_trailers().ok().expect("the status in trailers");
                assert_eq!(trailers[GRPC_STATUS], "4");
            }
            (Poll::Ready(Some(Err(error))), Expected::Cut(until)) if !self.grpc => {
                let elapsed = error.find::<Elapsed>().expect("the limit that ran out");
                assert_eq!((elapsed.phase(), elapsed.limit()), (until.phase, until.limit));
            }
            (polled, _) => panic!("pending: {}, cut: {}", polled.is_pending(), self.cut),
        }
        assert_eq!(body.is_end_stream(), self.cut || self.script.is_end_stream());
        if self.cut {
            assert_eq!(body.size_hint().exact(), Some(0), "nothing comes after a limit");
        }
    }
}

/// Whether a status says that a body below was ended by a limit here, not by the server.
fn ended_below(trailers: &HeaderMap) -> bool {
    trailers.get(GRPC_STATUS).is_some_and(http::HeaderValue::is_sensitive)
}
