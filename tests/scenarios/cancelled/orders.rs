//! The five layers in all 120 orders, over a service that has nothing of HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portcullis::{
    ByClone, Error, FaultKind, Outcome, Replay, State,
    breaker::BreakerLayer,
    call, clock,
    ratelimit::RateLimitLayer,
    retry::{Backoff, Jitter, RetryLayer},
    timeout::TimeoutLayer,
    trace::{Recorder, Status, TraceLayer},
};
use portcullis_testkit::{
    Journal, Leave, Readiness, ScriptedService, Step, TestError, effort, give_up,
};
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, Service, ServiceExt, util::BoxCloneService};

use super::{
    ear::Ear,
    shelf::{Shelf, status_of},
};

type Service_ = BoxCloneService<u32, u32, Error>;

/// The limit lets one pass in this time, and two at one moment.
const SPACING: Duration = millis(10);
const BURST: u32 = 2;
/// How long the breaker is open.
const OPEN: Duration = millis(50);
/// Longer than any call may take.
const FOREVER: Duration = Duration::from_secs(60);

/// A layer of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Trace,
    Timeout,
    Retry,
    Limit,
    Breaker,
}

/// What happened before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The call must wait for the limit.
    LimitUsedUp,
    /// The call is the probe of a half-open breaker.
    Probe,
    /// Both.
    ProbeInLine,
    /// The inner service is not ready.
    NotReady,
}

/// The layers of one stack, and what lies below.
struct Bench {
    trace: TraceLayer,
    timeout: TimeoutLayer,
    retry: RetryLayer<ByClone>,
    limit: RateLimitLayer,
    breaker: BreakerLayer,
    ear: Ear,
    inner: Option<ScriptedService<u32, u32>>,
    journal: Journal<u32>,
    readiness: Readiness,
    /// Whether the inner service answers well from now on, whatever its script says.
    well: Arc<AtomicBool>,
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const ALL: [Kind; 5] = [Kind::Trace, Kind::Timeout, Kind::Retry, Kind::Limit, Kind::Breaker];

const BEFORE: [Before; 5] =
    [Before::Nothing, Before::LimitUsedUp, Before::Probe, Before::ProbeInLine, Before::NotReady];

/// What the inner service does on each attempt; afterwards it answers well.
fn scripts() -> Vec<Vec<Step<u32>>> {
    let (ok, error) = (|| Step::Ok(7), || Step::Err(TestError("reset")));
    vec![
        vec![error().after(millis(5)), ok().after(millis(20))],
        vec![Step::Hang, Step::Hang],
        vec![error(), error(), error()],
        vec![ok()],
        vec![ok().pending_once().after(millis(20))],
        vec![error().pending_once(), Step::Hang],
    ]
}

/// All orders of these, the outermost first.
fn orders(of: &[Kind]) -> Vec<Vec<Kind>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let led_by = |first: &Kind| {
        let rest: Vec<_> = of.iter().copied().filter(|kind| kind != first).collect();
        let first = *first;
        orders(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    of.iter().flat_map(led_by).collect()
}

// ===== impl Bench =====

impl Bench {
    fn new(recorder: &Recorder, name: &str, script: &[Step<u32>]) -> Self {
        let ear = Ear::default();
        let well = Arc::new(AtomicBool::new(false));
        let (script, is_well) = (script.to_vec(), well.clone());
        let inner = ScriptedService::respond_with(move |_, n| {
            let step = script.get(n as usize).filter(|_| !is_well.load(Ordering::Relaxed));
            step.cloned().unwrap_or(Step::Ok(7))
        });
        let trace = TraceLayer::builder(name).recorder(recorder).observe(ear.clone());
        let timeout = TimeoutLayer::builder(name).total(millis(100)).observe(ear.clone());
        let retry = RetryLayer::builder(name, ByClone::idempotent())
            .backoff(Backoff::fixed(millis(8)))
            .jitter(Jitter::None)
            .observe(ear.clone());
        let limit = RateLimitLayer::builder(name)
            .rate(1, SPACING)
            .burst(BURST)
            .max_wait(FOREVER)
            .observe(ear.clone());
        let breaker = BreakerLayer::builder(name)
            .consecutive_failures(2)
            .open_time(OPEN, OPEN)
            .jitter(false)
            .probes(1, 1)
            .observe(ear.clone());
        Self {
            trace: trace.build().unwrap(),
            timeout: timeout.build().unwrap(),
            retry: retry.build().unwrap(),
            limit: limit.build().unwrap(),
            breaker: breaker.build().unwrap(),
            ear,
            journal: inner.journal(),
            readiness: inner.readiness(),
            inner: Some(inner),
            well,
        }
    }

    /// The stack in this order. The bench keeps nothing of it.
    fn stack(&mut self, order: &[Kind]) -> Service_ {
        let inner = self.inner.take().expect("one stack for each bench");
        let mut stack = BoxCloneService::new(inner.map_err(Error::inner));
        for kind in order.iter().rev() {
            stack = match kind {
                Kind::Trace => {
                    let ear = self.ear.clone();
                    let traced = self.trace.layer(stack);
                    BoxCloneService::new(traced.map_request(move |request| ear.passes(request)))
                }
                Kind::Timeout => BoxCloneService::new(self.timeout.layer(stack)),
                Kind::Retry => BoxCloneService::new(self.retry.layer(stack)),
                Kind::Limit => BoxCloneService::new(self.limit.layer(stack)),
                Kind::Breaker => BoxCloneService::new(self.breaker.layer(stack)),
            };
        }
        stack
    }

    async fn prepare(&self, before: Before) {
        if matches!(before, Before::Probe | Before::ProbeInLine) {
            for _ in 0..2 {
                let failure = Outcome::failure(FaultKind::Other, Replay::Safe);
                self.breaker.handle().admit().unwrap().settle(failure);
            }
            advance(OPEN).await;
        }
        if matches!(before, Before::LimitUsedUp | Before::ProbeInLine) {
            for _ in 0..BURST {
                self.limit.limiter().try_acquire().unwrap();
            }
        }
        if before == Before::NotReady {
            self.readiness.hold();
            let readiness = self.readiness.clone();
            tokio::spawn(async move {
                sleep(millis(15)).await;
                readiness.release();
            });
        }
    }

    /// What is wrong now that the call has ended, or was given up.
    fn complaint(&self) -> Option<String> {
        let heard = self.ear.heard();
        let (limit, now) = (self.limit.limiter().snapshot(), clock::now());
        // What passed, and nothing else, is what the limit has counted: by the algorithm's own rule.
        let start = heard.passed.first().copied().unwrap_or(now);
        let drained = heard.passed.iter().fold(start, |tat, at| tat.max(*at) + SPACING).max(now);
        let tolerance = SPACING * (BURST - 1);
        let wait = drained.saturating_duration_since(now).saturating_sub(tolerance);
        let budget = self.retry.budget().unwrap().waiting();
        let wrong = [
            ("in flight below", self.journal.in_flight() != 0),
            ("probe out", self.breaker.handle().snapshot().probes != 0),
            ("permit out", heard.permits_out() != 0),
            ("token out", budget != 0),
            ("a trace goes on", heard.traced.len() != heard.asked),
            ("the limit counts what did not pass", limit.wait != wait),
            ("ended other than cancelled", !heard.dropped_as(|_, it| it == Outcome::Cancelled)),
        ];
        let wrong: Vec<_> = wrong.iter().filter(|it| it.1).map(|it| it.0).collect();
        (!wrong.is_empty()).then(|| format!("{wrong:?}: {heard:?}, {limit:?}"))
    }

    /// A call that follows must pass at once, or once the breaker's open time is over.
    async fn next_works(&self, mut stack: Service_) {
        self.well.store(true, Ordering::Relaxed);
        self.readiness.release();
        if self.breaker.handle().state() == State::Open {
            advance(OPEN).await;
        }
        let next = async { stack.ready().await?.call(2).await };
        let answer = timeout(FOREVER, next).await.expect("it hangs");
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(self.breaker.handle().state(), State::Closed);
        advance(SPACING * BURST).await;
        assert_eq!(self.limit.limiter().snapshot().left, BURST);
        drop(stack);
        assert_eq!((self.journal.in_flight(), self.journal.instances()), (0, 0));
    }
}

/// Gives one call up after so many polls. Whether it was over by then; and how its traces ended.
async fn give_up_after(
    polls: usize,
    leave: Leave,
    bench: &mut Bench,
    order: &[Kind],
    before: Before,
) -> (bool, Vec<Status>) {
    bench.prepare(before).await;
    let stack = bench.stack(order);
    let mut service = stack.clone();
    let mut whole = Box::pin(call::with().run(async move { service.ready().await?.call(1).await }));
    let giving_up = give_up(whole.as_mut(), polls, leave);
    let over = timeout(FOREVER, giving_up).await.expect("it is not woken");
    bench.ear.begin_drop();
    drop(whole);
    bench.ear.end_drop();
    if let Some(complaint) = bench.complaint() {
        panic!("{complaint}");
    }
    bench.next_works(stack).await;
    let traced = bench.ear.heard().traced.into_iter().map(status_of).collect();
    (over.is_some(), traced)
}

#[tokio::test(start_paused = true)]
async fn in_every_order_of_the_layers_a_call_may_be_given_up_at_every_stage() {
    let shelf = Shelf::default();
    let recorder = shelf.recorder();
    let scripts = scripts();
    let scripts = &scripts[..effort(2, 6) as usize];
    let (mut dropped, mut stages) = (0, 0);
    let orders = orders(&ALL);
    assert_eq!(orders.len(), 120);
    for order in &orders {
        for (before, script) in BEFORE.iter().flat_map(|it| scripts.iter().map(move |s| (*it, s))) {
            for leave in [Leave::AtOnce, Leave::Woken] {
                for polls in 0.. {
                    let case = format!("{order:?} {before:?} {script:?} {leave:?} {polls}");
                    assert!(polls < 50, "it never ends: {case}");
                    let watched = Watched(&case);
                    let name = format!("{before:?} {leave:?} {polls}");
                    let mut bench = Bench::new(&recorder, &name, script);
                    let (over, mut told) =
                        give_up_after(polls, leave, &mut bench, order, before).await;
                    drop(bench);
                    recorder.flush().await;
                    let mut traced = shelf.take(&name);
                    let by_word = |status: &Status| format!("{status:?}");
                    told.sort_by_key(by_word);
                    traced.sort_by_key(by_word);
                    assert_eq!(traced, told, "the traces say something else");
                    watched.no_more();
                    dropped += usize::from(!over);
                    if over {
                        stages += polls;
                        break;
                    }
                }
            }
        }
    }
    assert!(dropped >= stages, "{dropped} of {stages}");
    assert!(stages > 120 * 10, "{stages}");
}

/// Says which case it was when a test fails somewhere within.
struct Watched<'a>(&'a str);

impl Watched<'_> {
    fn no_more(self) {
        std::mem::forget(self);
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        eprintln!("in the case: {}", self.0);
    }
}
