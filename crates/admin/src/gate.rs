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
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    patience: Duration,
}

/// At once: one that hangs leaves room for others.
const AT_ONCE: usize = 4;
/// How long one who asks waits, both for a place and for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

// ===== impl Gate =====

impl Gate {
    pub(crate) fn new() -> Self {
        Self::with(AT_ONCE, PATIENCE)
    }

    fn with(at_once: usize, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)), patience }
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
        let Self { places, patience } = self;
        let until = Instant::now() + *patience;
        let busy = |_| {
            let detail = format!("What was asked for was not there within {patience:?}.");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        let failed = || {
            let detail = "What was asked for could not be made.";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        };
        let place = timeout_at(until, places.clone().acquire_owned()).await.map_err(busy)?;
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_waits_too_long_is_told_so_and_the_place_is_free_once_the_work_is_done() {
        let gate = Gate::with(1, Duration::from_millis(20));
        let (release, released) = mpsc::channel::<()>();
        let (done, was_done) = mpsc::channel();
        let hanging = gate.run(move || {
            let _ = released.recv();
            done.send(()).unwrap();
        });
        // It hangs itself, and whoever comes after it finds no place.
        let timed_out = |problem: Problem| format!("{problem:?}").contains("503");
        assert!(timed_out(hanging.await.unwrap_err()));
        assert!(timed_out(gate.run(|| ()).await.unwrap_err()));

        drop(release);
        was_done.recv().unwrap();
        let patient = Gate { patience: PATIENCE, ..gate };
        assert_eq!(patient.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_panics_is_a_problem_and_gives_its_place_back() {
        let gate = Gate::with(1, PATIENCE);
        let problem = gate.run::<()>(|| panic!("secret")).await.unwrap_err();
        let text = format!("{problem:?}");
        assert!(text.contains("500") && !text.contains("secret"), "{text}");
        assert_eq!(gate.run(|| 7).await.unwrap(), 7);
    }
}
