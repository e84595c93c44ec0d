//! What the layer asks of whoever watches a response's body, shown by a body that obeys.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use portcullis_core::{
    Classify, Completion, Error, Outcome, Phase, Verdict, Watch, call, clock, sync::Mutex,
};
use portcullis_testkit::{Script, ScriptedService, Step, call as ask};
use portcullis_timeout::{TimeoutBuilder, TimeoutLayer};
use tokio::time::{Instant, advance, sleep, timeout_at};
use tower_layer::Layer;

use crate::kit::{Log, MS, elapsed};

/// A response: how long each of its frames takes.
type Frames = Vec<Duration>;

/// A body that keeps the limits it is given.
#[derive(Debug)]
struct Body {
    frames: VecDeque<Duration>,
    done: Option<Completion>,
}

/// A classifier that watches bodies, and notes under which limits.
#[derive(Clone, Default)]
struct Watching {
    watches: Arc<Mutex<Vec<Watch>>>,
}

impl Classify<Frames> for Watching {
    type Response = Body;

    fn at_head(&self, result: Result<&Frames, &Error>) -> Verdict {
        result.map_or_else(
            |error| Verdict::Final(error.outcome()),
            |_| Verdict::SoFar(Outcome::Success),
        )
    }

    fn classify(&self, result: Result<Frames, Error>, done: Completion) -> Result<Body, Error> {
        match result {
            Ok(frames) => {
                self.watches.lock().push(done.watch());
                Ok(Body { frames: frames.into(), done: Some(done) })
            }
            Err(error) => {
                done.settle_at_head(error.outcome());
                Err(error)
            }
        }
    }
}

impl Body {
    /// The next frame; `None` at the end.
    async fn frame(&mut self) -> Option<Result<(), Error>> {
        let Some(delay) = self.frames.pop_front() else {
            if let Some(done) = self.done.take() {
                done.settle(Outcome::Success);
            }
            return None;
        };
        let watch = self.done.as_ref().map(Completion::watch).unwrap_or_default();
        let idle = watch.idle.map(|limit| (clock::now() + limit, Phase::Idle, limit));
        let until = watch.until.map(|until| (until.at, until.phase, until.limit));
        let Some((at, phase, limit)) = until.into_iter().chain(idle).min_by_key(|it| it.0) else {
            sleep(delay).await;
            return Some(Ok(()));
        };
        match timeout_at(at.into(), sleep(delay)).await {
            Ok(()) => Some(Ok(())),
            Err(_) => self.done.take().map(|done| Err(done.elapsed(phase, limit))),
        }
    }

    /// All frames, how many there were and what ended it.
    async fn read(mut self) -> (usize, Result<(), Error>) {
        let mut read = 0;
        loop {
            match self.frame().await {
                Some(Ok(())) => read += 1,
                Some(Err(error)) => return (read, Err(error)),
                None => return (read, Ok(())),
            }
        }
    }
}

/// A head after so long, and frames.
fn streaming(head: Duration, frames: Frames) -> ScriptedService<(), Frames> {
    ScriptedService::new(Script::repeat(Step::Ok(frames).after(head)))
}

fn build(builder: TimeoutBuilder) -> (TimeoutLayer<Watching>, Log) {
    let log = Log::default();
    let layer = builder.observe(log.clone()).classify(Watching::default()).build().unwrap();
    (layer, log)
}

#[tokio::test(start_paused = true)]
async fn a_whole_limit_covers_the_body() {
    for (builder, phase) in [
        (TimeoutLayer::builder("chat").total(50 * MS), Phase::Total),
        (TimeoutLayer::builder("chat").attempt(50 * MS), Phase::Attempt),
    ] {
        let (layer, log) = build(builder);
        let mut service = layer.layer(streaming(10 * MS, vec![15 * MS; 4]));
        let start = Instant::now();
        let (read, end) = ask(&mut service, ()).await.unwrap().read().await;
        assert_eq!((read, elapsed(end)), (2, (phase, 50 * MS)));
        assert_eq!(start.elapsed(), 50 * MS);
        assert_eq!(
            log.take(),
            [
                format!("timed out: {phase} 50ms after 50ms"),
                "settled: failure (timeout), head Some(10ms), end 50ms".to_owned()
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bodys_limit_counts_from_its_head() {
    let (layer, _) = build(TimeoutLayer::builder("chat").total(90 * MS).body(20 * MS));
    let mut service = layer.layer(streaming(40 * MS, vec![15 * MS; 4]));
    let start = Instant::now();
    let (read, end) = ask(&mut service, ()).await.unwrap().read().await;
    assert_eq!((read, elapsed(end)), (1, (Phase::Body, 20 * MS)));
    assert_eq!(start.elapsed(), 60 * MS);
}

#[tokio::test(start_paused = true)]
async fn of_the_bodys_and_the_whole_limit_the_earlier_holds() {
    let (layer, _) = build(TimeoutLayer::builder("chat").total(50 * MS).body(20 * MS));
    let mut service = layer.layer(streaming(40 * MS, vec![15 * MS; 4]));
    let (_, end) = ask(&mut service, ()).await.unwrap().read().await;
    assert_eq!(elapsed(end), (Phase::Total, 50 * MS));
}

#[tokio::test(start_paused = true)]
async fn an_idle_limit_covers_each_wait_and_no_more() {
    let (layer, log) = build(TimeoutLayer::builder("chat").head(50 * MS).idle(20 * MS));

    // An hour of frames is no matter.
    let mut service = layer.layer(streaming(40 * MS, vec![19 * MS; 200_000]));
    let (read, end) = ask(&mut service, ()).await.unwrap().read().await;
    assert_eq!((read, end.is_ok()), (200_000, true));
    assert_eq!(log.take(), ["settled: success, head Some(40ms), end 3800.04s"]);

    let mut service = layer.layer(streaming(40 * MS, vec![19 * MS, 21 * MS]));
    let (read, end) = ask(&mut service, ()).await.unwrap().read().await;
    assert_eq!((read, elapsed(end)), (1, (Phase::Idle, 20 * MS)));
    assert_eq!(
        log.take(),
        [
            "timed out: idle 20ms after 79ms",
            "settled: failure (timeout), head Some(40ms), end 79ms"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_inherited_deadline_covers_the_body() {
    let (layer, _) = build(TimeoutLayer::builder("chat").total(90 * MS));
    let mut service = layer.layer(streaming(10 * MS, vec![30 * MS; 4]));
    let deadline = clock::now() + 50 * MS;
    let body = call::with().deadline(deadline).run(ask(&mut service, ())).await.unwrap();
    // Read outside the scope, as bodies are.
    assert_eq!(elapsed(body.read().await.1), (Phase::Inherited, 50 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_heads_limit_ends_with_the_head() {
    let (layer, _) = build(TimeoutLayer::builder("chat").head(20 * MS));
    let mut service = layer.layer(streaming(10 * MS, vec![30 * MS; 4]));
    let (read, end) = ask(&mut service, ()).await.unwrap().read().await;
    assert_eq!((read, end.is_ok()), (4, true));
}

#[tokio::test(start_paused = true)]
async fn the_watch_says_what_is_left_at_the_head() {
    let watching = Watching::default();
    let builder = TimeoutLayer::builder("chat").total(90 * MS).body(60 * MS).idle(20 * MS);
    let layer = builder.classify(watching.clone()).build().unwrap();
    let start = clock::now();
    for (head, at) in [(10, 70), (40, 90)] {
        let start = clock::now();
        let mut service = layer.layer(streaming(head * MS, Vec::new()));
        drop(ask(&mut service, ()).await.unwrap());
        let watch = watching.watches.lock().pop().unwrap();
        assert_eq!(watch.until.map(|until| until.at), Some(start + at * MS));
        assert_eq!(watch.idle, Some(20 * MS));
    }
    assert!(clock::now() > start);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_told_at_the_head_and_a_long_body_is_not_slow() {
    let (layer, log) = build(TimeoutLayer::builder("chat").slow(20 * MS));
    let mut service = layer.layer(streaming(30 * MS, vec![MS]));
    let body = ask(&mut service, ()).await.unwrap();
    assert_eq!(log.take(), ["slow: 30ms of 20ms"]);
    body.read().await.1.unwrap();
    assert_eq!(log.take(), ["settled: success, head Some(30ms), end 31ms"]);

    let mut service = layer.layer(streaming(10 * MS, vec![30 * MS]));
    ask(&mut service, ()).await.unwrap().read().await.1.unwrap();
    assert_eq!(log.take(), ["settled: success, head Some(10ms), end 40ms"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_body_is_told_once() {
    let (layer, log) = build(TimeoutLayer::builder("chat").total(50 * MS));
    let mut service = layer.layer(streaming(10 * MS, vec![30 * MS; 4]));
    drop(ask(&mut service, ()).await.unwrap());
    assert_eq!(log.take(), ["settled: cancelled, head Some(10ms), end 10ms"]);

    let body = ask(&mut service, ()).await.unwrap();
    advance(40 * MS).await;
    drop(body);
    assert_eq!(log.take(), ["settled: failure (timeout), head Some(10ms), end 50ms"]);
}
