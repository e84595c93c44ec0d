//! What a program does beside its requests: jobs that take longer than one, so that a gauntlet that
//! serves has some to show.

use std::time::Duration;

use portcullis::{
    Backoff, BoxError, Next, Progress, follow_fn, poll::PollLayer, trace::TraceLayer,
};
use portcullis_core::Invalid;
use portcullis_testkit::Seed;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::{serve::Shown, stack::Handle, stop::Stop};

/// A job is begun so often.
const EVERY: Duration = Duration::from_millis(500);
/// And asked about so often.
const ASKED: Duration = Duration::from_millis(200);
/// However far it has come by then, nobody waits any longer.
const LIMIT: Duration = Duration::from_secs(3);

/// What is asked of whoever renders.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// To begin a job, which fares as decided here.
    Begin(Fate),
    /// How far it is: it has been asked so often.
    Look(Fate, u32),
}

/// How a job fares.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is done when asked about so often.
    Done(u32),
    /// It fails then.
    Fails(u32),
    /// It never ends.
    Stuck,
}

/// How far a job is.
#[derive(Clone, Copy, Debug)]
enum Job {
    Running(Fate, u32),
    Finished,
    Failed,
}

/// What begins jobs until it is told to stop, and then waits for those under way.
///
/// # Errors
///
/// When a setting is out of its range.
pub(crate) fn run(
    shown: &Shown,
    handle: &Handle,
    seed: u64,
    stop: Stop,
) -> Result<impl Future<Output = ()> + use<>, Invalid> {
    let (metrics, page) = (shown.telemetry.metrics(), shown.admin.observer());
    let follow = follow_fn(|job: Job| match job {
        Job::Running(fate, asked) => {
            let next = Next::new(Request::Look(fate, asked + 1));
            Ok(Progress::Pending(next.seen(format!("{} frames", 24 * asked))))
        }
        Job::Finished => Ok(Progress::Done(())),
        Job::Failed => Err(BoxError::from("the scene cannot be read")),
    });
    let trace = TraceLayer::builder("render").recorder(handle.recorder());
    let poll = PollLayer::builder("render", follow).backoff(Backoff::fixed(ASKED)).limit(LIMIT);
    let client = ServiceBuilder::new()
        .layer(trace.observe(metrics.clone()).observe(page.clone()).build()?)
        .layer(poll.seed(seed).observe(metrics.clone()).observe(page).build()?)
        .service(service_fn(|request| async move { Ok::<_, BoxError>(answer(request).await) }));

    Ok(all(client, Seed::new(seed), stop))
}

async fn all<S>(client: S, mut seed: Seed, stop: Stop)
where
    S: Service<Request> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: Send,
    S::Future: Send,
{
    let mut jobs = JoinSet::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // However it ended; the metrics and the traces have it.
            Some(_) = jobs.join_next() => {}
            _ = ticks.tick() => {
                let asked = seed.within(1..7) as u32;
                let fate = match seed.within(0..8) {
                    0 => Fate::Stuck,
                    1 => Fate::Fails(asked),
                    _ => Fate::Done(asked),
                };
                jobs.spawn(client.clone().oneshot(Request::Begin(fate)));
            }
            () = stop.told() => break,
        }
    }
    while jobs.join_next().await.is_some() {}
}

/// Who renders; it takes its time over an answer, too.
async fn answer(request: Request) -> Job {
    sleep(Duration::from_millis(5)).await;
    let (fate, asked) = match request {
        Request::Begin(fate) => (fate, 0),
        Request::Look(fate, asked) => (fate, asked),
    };
    match fate {
        Fate::Done(after) if asked >= after => Job::Finished,
        Fate::Fails(after) if asked >= after => Job::Failed,
        _ => Job::Running(fate, asked),
    }
}
