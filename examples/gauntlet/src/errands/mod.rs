//! What a program does beside its requests, so that a gauntlet that serves has some of it to show: jobs
//! that take longer than a request, and child processes.

mod children;
mod jobs;

use std::time::Duration;

use portcullis_core::Invalid;
use portcullis_testkit::Seed;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tower::{Service, ServiceExt};

use crate::{serve::Shown, stack::Handle, stop::Stop};

/// Each errand is run so often.
const EVERY: Duration = Duration::from_millis(500);

/// What runs errands until it is told to stop, and then waits for those under way.
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
    let mut seed = Seed::new(seed);
    let jobs = again(jobs::client(shown, handle)?, jobs::any, seed.split(), stop.clone());
    let children = again(children::client(shown, handle)?, children::any, seed.split(), stop);
    Ok(async move {
        tokio::join!(jobs, children);
    })
}

/// Calls `client` with one request after the other.
async fn again<S, R>(client: S, any: fn(&mut Seed) -> R, mut seed: Seed, stop: Stop)
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: Send,
    S::Future: Send,
    R: Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // However it ended: the metrics and the traces have it.
            Some(_) = under_way.join_next() => {}
            _ = ticks.tick() => {
                under_way.spawn(client.clone().oneshot(any(&mut seed)));
            }
            () = stop.told() => break,
        }
    }
    while under_way.join_next().await.is_some() {}
}
