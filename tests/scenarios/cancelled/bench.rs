//! The ready-made stack over a script, and the call that is given up.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Error, FaultKind, Outcome, Replay, ResponseBody, Stack, StackBuilder, State, breaker, clock,
    http::GrpcClassifier,
    ratelimit::Limiter,
    retry::{Backoff, Budget, Jitter},
    trace::{Recorder, Status},
};
use portcullis_testkit::{Journal, Leave, Readiness, give_up};
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, Service, ServiceExt, util::BoxCloneService};

use super::{
    ear::{Ear, Heard},
    reply::{Client, Reply, ReplyBody, millis},
    shelf::{Shelf, status_of},
};

type Stacked = BoxCloneService<Request<Full<Bytes>>, Response<ResponseBody<ReplyBody>>, Error>;

/// What the upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Grpc,
}

/// What happened before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// The call must wait for the limit.
    LimitUsedUp,
    /// The call is the probe of a half-open breaker.
    Probe,
    /// The client is not ready.
    NotReady,
}

/// A stack, and what is known of it from outside.
pub(super) struct Bench {
    speaks: Speaks,
    stack: Stacked,
    breaker: breaker::Handle,
    limit: Limiter,
    budget: Budget,
    ear: Ear,
    journal: Journal<Request<Full<Bytes>>>,
    readiness: Readiness<std::io::Error>,
    bodies: Arc<()>,
    /// Whether all is answered well from now on, whatever the script says.
    well: Arc<AtomicBool>,
}

pub(super) const BEFORE: [Before; 4] =
    [Before::Nothing, Before::LimitUsedUp, Before::Probe, Before::NotReady];

const BURST: u32 = 2;
const SPACING: std::time::Duration = millis(10);
const OPEN: std::time::Duration = millis(50);
/// Longer than any call may take.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(60);

// ===== impl Bench =====

impl Bench {
    /// A stack before an upstream that answers with these, and then with `well`.
    fn new(recorder: &Recorder, name: &str, speaks: Speaks, script: &[Reply], well: Reply) -> Self {
        let (ear, bodies, is_well) =
            (Ear::default(), Arc::new(()), Arc::new(AtomicBool::new(false)));
        let (script, alive, all_well) = (script.to_vec(), bodies.clone(), is_well.clone());
        let client = Client::respond_with(move |_, n| {
            let reply = script.get(n as usize).filter(|_| !all_well.load(Ordering::Relaxed));
            reply.unwrap_or(&well).clone().step(&alive)
        });
        let (journal, readiness) = (client.journal(), client.readiness());
        let settings = settings(name).recorder(recorder).observe(ear.clone());
        // The two stacks are of different types.
        let (stack, breaker, limit, budget) = match speaks {
            Speaks::Http => {
                let stack = settings.build().unwrap();
                let boxed = BoxCloneService::new(stack.layer(client));
                let breaker = stack.breaker().handles().get_or_create("a.test");
                let limit = stack.limit().limiters().limiter("a.test");
                (boxed, breaker, limit, stack.retry().budget().unwrap().clone())
            }
            Speaks::Grpc => {
                let stack = settings.classify(GrpcClassifier::new()).build().unwrap();
                let boxed = BoxCloneService::new(stack.layer(client));
                let breaker = stack.breaker().handles().get_or_create("a.test");
                let limit = stack.limit().limiters().limiter("a.test");
                (boxed, breaker, limit, stack.retry().budget().unwrap().clone())
            }
        };
        let asked = ear.clone();
        let stack = BoxCloneService::new(stack.map_request(move |request| asked.passes(request)));
        Self {
            speaks,
            stack,
            breaker,
            limit,
            budget,
            ear,
            journal,
            readiness,
            bodies,
            well: is_well,
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let request = Request::get("http://a.test/");
        let request = match self.speaks {
            Speaks::Http => request,
            Speaks::Grpc => request.header("content-type", "application/grpc"),
        };
        request.body(Full::default()).unwrap()
    }

    async fn prepare(&self, before: Before) {
        match before {
            Before::Nothing => {}
            Before::LimitUsedUp => {
                for _ in 0..BURST {
                    self.limit.try_acquire().unwrap();
                }
            }
            Before::Probe => {
                for _ in 0..2 {
                    let failure = Outcome::failure(FaultKind::Other, Replay::Safe);
                    self.breaker.admit().unwrap().settle(failure);
                }
                advance(OPEN).await;
            }
            Before::NotReady => {
                self.readiness.hold();
                let readiness = self.readiness.clone();
                tokio::spawn(async move {
                    sleep(millis(15)).await;
                    readiness.release();
                });
            }
        }
    }

    /// The call, its body read to the end or until the reader has had enough.
    async fn call(
        mut stack: Stacked,
        request: Request<Full<Bytes>>,
        enough: usize,
        head: Arc<AtomicBool>,
    ) -> Result<(), Error> {
        let response = stack.ready().await?.call(request).await?;
        head.store(true, Ordering::Relaxed);
        let mut body = response.into_body();
        for _ in 0..enough {
            match body.frame().await {
                Some(frame) => drop(frame?),
                None => break,
            }
        }
        Ok(())
    }

    fn complaint(&self, dropped_as: Outcome) -> Option<String> {
        let heard = self.ear.heard();
        let wrong = [
            ("in flight below", self.journal.in_flight() != 0),
            // One is ours, one the script's.
            ("a body is alive", Arc::strong_count(&self.bodies) != 2),
            ("probe out", self.breaker.snapshot().probes != 0),
            ("permit out", heard.permits_out() != 0),
            ("token out", self.budget.waiting() != 0),
            ("the trace goes on", heard.traced.len() != heard.asked),
            ("ended otherwise", !heard.dropped_as(|_, outcome| outcome == dropped_as)),
        ];
        let wrong: Vec<_> = wrong.iter().filter(|it| it.1).map(|it| it.0).collect();
        (!wrong.is_empty()).then(|| format!("{wrong:?}, expected {dropped_as:?}: {heard:?}"))
    }

    /// A call that follows must succeed at once, or once the breaker's open time is over.
    async fn next_works(&self) {
        self.well.store(true, Ordering::Relaxed);
        self.readiness.release();
        // A server's hint may have lengthened it.
        if let Some(until) = self.breaker.snapshot().open_until {
            advance(until.saturating_duration_since(clock::now())).await;
        }
        let head = Arc::default();
        let next = Self::call(self.stack.clone(), self.request(), usize::MAX, head);
        timeout(FOREVER, next).await.expect("it hangs").unwrap();
        assert_eq!(self.breaker.state(), State::Closed);
        advance(SPACING * BURST).await;
        assert_eq!(self.limit.snapshot().left, BURST);
        let heard = self.ear.heard();
        assert_eq!((heard.permits_out(), self.journal.in_flight()), (0, 0));
        assert_eq!(heard.traced.last(), Some(&Outcome::Success));
    }
}

/// Two at one moment, one more every 10 ms; open after two failures, for 50 ms; an attempt has 100 ms.
fn settings(name: &str) -> StackBuilder {
    Stack::production(name)
        .total(|timeout| timeout.total(millis(3_000)))
        .attempt(|timeout| timeout.attempt(millis(100)))
        .retry(|retry| retry.backoff(Backoff::fixed(millis(8))).jitter(Jitter::None))
        .limit(|limit| {
            let limit = limit.rate(1, SPACING).burst(BURST).max_wait(millis(1_000));
            limit.max_hint(millis(30))
        })
        .breaker(|breaker| {
            let breaker = breaker.consecutive_failures(2).open_time(OPEN, OPEN).jitter(false);
            breaker.probes(1, 1).ramp(None)
        })
}

/// A script, and what a reader's drop comes to once there is a head.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) speaks: Speaks,
    pub(super) script: Vec<Reply>,
    pub(super) well: Reply,
    pub(super) after_head: Outcome,
}

impl Case {
    /// Gives the call up after 0, 1, 2 … polls until it is over, from every state it may begin in. How
    /// often it was given up.
    pub(super) async fn at_every_stage(&self, shelf: &Shelf, recorder: &Recorder) -> usize {
        let mut given_up = 0;
        for before in BEFORE {
            for leave in [Leave::AtOnce, Leave::Woken] {
                for polls in 0.. {
                    let case = format!("{:?} {before:?} {leave:?} {polls}", self.script);
                    assert!(polls < 60, "it never ends: {case}");
                    let name = format!("{before:?} {leave:?} {polls}");
                    let bench = self.bench(recorder, &name);
                    bench.prepare(before).await;
                    let head = Arc::new(AtomicBool::new(false));
                    let stack = bench.stack.clone();
                    let whole = Bench::call(stack, bench.request(), usize::MAX, head.clone());
                    let mut whole = Box::pin(whole);
                    let giving_up = give_up(whole.as_mut(), polls, leave);
                    let over = timeout(FOREVER, giving_up).await;
                    let over = over.unwrap_or_else(|_| panic!("it is not woken: {case}"));
                    bench.ear.begin_drop();
                    drop(whole);
                    bench.ear.end_drop();
                    let dropped_as = match head.load(Ordering::Relaxed) {
                        true => self.after_head,
                        false => Outcome::Cancelled,
                    };
                    if let Some(complaint) = bench.complaint(dropped_as) {
                        panic!("{case}: {complaint}");
                    }
                    bench.next_works().await;
                    let heard = bench.ear.heard();
                    drop(bench);
                    agree(shelf, recorder, &name, &heard).await;
                    if over.is_some() {
                        break;
                    }
                    given_up += 1;
                }
            }
        }
        given_up
    }

    /// Reads 0, 1, 2 … frames and lets go of the body: what the drop comes to each time.
    pub(super) async fn after_frames(&self, frames: usize, recorder: &Recorder) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for enough in 0..=frames {
            let bench = self.bench(recorder, "frames");
            let head = Arc::default();
            let read = Bench::call(bench.stack.clone(), bench.request(), enough, head);
            timeout(FOREVER, read).await.expect("it hangs").unwrap();
            if let Some(complaint) = bench.complaint(Outcome::Cancelled) {
                panic!("after {enough} frames: {complaint}");
            }
            outcomes.extend(bench.ear.heard().traced);
            bench.next_works().await;
        }
        outcomes
    }

    fn bench(&self, recorder: &Recorder, name: &str) -> Bench {
        Bench::new(recorder, name, self.speaks, &self.script, self.well.clone())
    }
}

/// The traces say how the calls ended.
async fn agree(shelf: &Shelf, recorder: &Recorder, name: &str, heard: &Heard) {
    recorder.flush().await;
    let by_word = |status: &Status| format!("{status:?}");
    let mut told: Vec<_> = heard.traced.iter().copied().map(status_of).collect();
    let mut traced = shelf.take(name);
    told.sort_by_key(by_word);
    traced.sort_by_key(by_word);
    assert_eq!(traced, told, "{name}");
}
