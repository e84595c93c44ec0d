//! What these tests share.

use std::{sync::Arc, time::Duration};

use portcullis_core::{Call, Elapsed, Error, Event, Observer, Phase, What, clock, sync::Mutex};
use portcullis_testkit::{Readiness, Script, ScriptedService, Step, poll_k, ready};
use tokio::time::advance;
use tower_service::Service;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Writes events down, one word and the numbers each.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// What was told since this was asked last.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event.what {
            What::TimedOut { phase, limit, elapsed } => {
                format!("timed out: {phase} {limit:?} after {elapsed:?}")
            }
            What::Slow { elapsed, threshold } => format!("slow: {elapsed:?} of {threshold:?}"),
            What::Settled { outcome, head_after, elapsed } => {
                format!("settled: {outcome}, head {head_after:?}, end {elapsed:?}")
            }
            ref what => format!("unexpected: {what}"),
        };
        self.0.lock().push(line);
    }
}

/// The phase and the limit of a timeout.
pub(crate) fn elapsed<T>(result: Result<T, Error>) -> (Phase, Duration) {
    let error = result.err().expect("there is an answer");
    let elapsed = error.find::<Elapsed>().unwrap_or_else(|| panic!("no timeout: {error:?}"));
    (elapsed.phase(), elapsed.limit())
}

/// Readies the service, with a wait of so long.
pub(crate) async fn ready_after<S: Service<()>>(
    service: &mut S,
    readiness: &Readiness,
    wait: Duration,
) where
    S::Error: std::fmt::Debug,
{
    readiness.hold();
    for part in [wait / 2, wait - wait / 2] {
        assert!(poll_k(ready(service), 1).await.is_none());
        advance(part).await;
    }
    readiness.release();
    ready(service).await.unwrap();
}

pub(crate) type Inner = ScriptedService<(), u32>;

/// Never answers.
pub(crate) fn hanging() -> Inner {
    Inner::new(Script::repeat(Step::Hang))
}

/// Answers `200` after so long.
pub(crate) fn answering_after(delay: Duration) -> Inner {
    Inner::new(Script::repeat(Step::Ok(200).after(delay)))
}

/// An inner service that tells the deadline it sees, as time left.
pub(crate) fn telling_time_left() -> ScriptedService<(), Option<Duration>> {
    ScriptedService::respond_with(|(), _| Step::Ok(Call::current().remaining(clock::now())))
}
