//! What was told, and what was measured.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use portcullis::{BoxError, Event, Observer, Outcome, What, sync::Mutex};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use super::level::{Any, boxed};

/// Hears what layers tell, and measures them from outside.
#[derive(Clone, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    told: BTreeMap<String, Vec<Duration>>,
    measured: BTreeMap<String, Vec<Duration>>,
    off_clock: Vec<String>,
}

// ===== impl Witness =====

impl Witness {
    /// Measures what `service` takes from its call to its answer.
    pub(super) fn around<S>(&self, name: &str, service: S) -> Any
    where
        S: Service<(), Response = ()> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send,
        BoxError: From<S::Error>,
    {
        let (witness, name) = (self.clone(), name.to_owned());
        boxed(service.map_future(move |future| {
            let (witness, name) = (witness.clone(), name.clone());
            // No time has passed in the call itself: the clock is paused.
            let start = Instant::now();
            async move {
                let result = future.await;
                witness.0.lock().measured.entry(name).or_default().push(start.elapsed());
                result
            }
        }))
    }

    /// What the layer of that name said its calls took, and what was measured.
    pub(super) fn times(&self, name: &str) -> (Vec<Duration>, Vec<Duration>) {
        let mut seen = self.0.lock();
        (seen.told.remove(name).unwrap_or_default(), seen.measured.remove(name).unwrap_or_default())
    }

    /// The events whose time was not that of the clock.
    pub(super) fn off_clock(&self) -> Vec<String> {
        self.0.lock().off_clock.clone()
    }
}

impl Observer for Witness {
    fn on_event(&self, event: &Event<'_>) {
        let mut seen = self.0.lock();
        // Kept for the end: in a spawned task a panic would only be one more failed call.
        let now = Instant::now().into_std();
        if event.at != now {
            let off = now.max(event.at) - now.min(event.at);
            seen.off_clock.push(format!("{} {}, {off:?} off the clock", event.name, event.what));
        }
        if let What::Settled { outcome, elapsed, .. } = event.what
            && outcome != Outcome::Cancelled
        {
            seen.told.entry(event.name.to_owned()).or_default().push(elapsed);
        }
    }
}
