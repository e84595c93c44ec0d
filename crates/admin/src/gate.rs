//! Reading that blocks, kept off the threads that serve: a few at once, for a bounded time.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::problem::Problem;

/// Lets a few through at once.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

/// At once: one that hangs leaves room for others.
const AT_ONCE: usize = 4;
/// How long one who asks waits, both for a place and for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

// ===== impl Gate =====

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Does what blocks. The place is held until it is done, whether or not anybody still waits.
    ///
    /// # Errors
    ///
    /// 503 if it takes too long, 500 if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let until = Instant::now() + PATIENCE;
        let busy = |_| {
            let detail = format!("What was asked for was not there within {PATIENCE:?}.");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        let failed = || {
            let detail = "What was asked for could not be made.";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        };
        let place = timeout_at(until, self.0.clone().acquire_owned()).await.map_err(busy)?;
        // It is never closed.
        let place = place.map_err(|_| failed())?;
        let work = spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        timeout_at(until, work).await.map_err(busy)?.map_err(|_| failed())
    }
}
