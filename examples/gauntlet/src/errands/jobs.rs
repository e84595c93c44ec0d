//! Jobs that take longer than a request, of which some fail and some never end.

use std::time::Duration;

use portcullis::{
    Backoff, BoxError, Next, Progress, follow_fn, poll::PollLayer, trace::TraceLayer,
};
use portcullis_core::{Error, Invalid};
use portcullis_testkit::Seed;
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, service_fn};

use crate::{serve::Shown, stack::Handle};

/// A job is asked about so often.
const ASKED: Duration = Duration::from_millis(200);
/// However far it has come by then, nobody waits any longer.
const LIMIT: Duration = Duration::from_secs(3);

/// What is asked of whoever renders.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// To begin a job, which fares as decided here.
    Begin(Fate),
    /// How far it is: it has been asked so often.
    Look(Fate, u32),
}

/// How a job fares.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
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

/// Whoever begins jobs, and asks on until they are done.
pub(super) fn client(
    shown: &Shown,
    handle: &Handle,
) -> Result<
    impl Service<Request, Response = (), Error = Error, Future: Send> + Clone + Send + use<>,
    Invalid,
> {
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
    Ok(ServiceBuilder::new()
        .layer(trace.observe(metrics.clone()).observe(page.clone()).build()?)
        .layer(poll.observe(metrics.clone()).observe(page).build()?)
        .service(service_fn(|request| async move { Ok::<_, BoxError>(answer(request).await) })))
}

/// Any job: most go well.
pub(super) fn any(seed: &mut Seed) -> Request {
    let asked = seed.within(1..7) as u32;
    Request::Begin(match seed.within(0..8) {
        0 => Fate::Stuck,
        1 => Fate::Fails(asked),
        _ => Fate::Done(asked),
    })
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
