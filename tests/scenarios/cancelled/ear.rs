//! Whoever listens to a stack whose callers give up.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis::{Event, FaultKind, LayerKind, Observer, Outcome, What, clock, sync::Mutex};

/// Hears what the layers tell. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Ear(Arc<Mutex<Heard>>);

/// What was heard so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Permits that a breaker gave, less those that were settled, by attempt.
    permits: HashMap<u32, i32>,
    /// Calls of the trace layer that began.
    pub(super) asked: usize,
    /// How those that are over ended.
    pub(super) traced: Vec<Outcome>,
    /// When the limit let something pass, and since when that had had its place in the line.
    pub(super) passed: Vec<Instant>,
    waited: Duration,
    /// Attempts that began.
    pub(super) attempts: u32,
    /// Whether what is told from now on is told by a drop.
    dropping: bool,
    /// What was told by a drop: how calls ended, and whether their deadline had passed.
    dropped: Vec<(LayerKind, Outcome, bool)>,
    /// What no drop may tell.
    odd: Vec<String>,
}

// ===== impl Ear =====

impl Ear {
    /// A request comes to the trace layer.
    pub(super) fn passes<R>(&self, request: R) -> R {
        self.0.lock().asked += 1;
        request
    }

    /// From now on whatever is told is told by a drop.
    pub(super) fn begin_drop(&self) {
        self.0.lock().dropping = true;
    }

    /// The drop is over.
    pub(super) fn end_drop(&self) {
        self.0.lock().dropping = false;
    }

    /// What was heard so far.
    pub(super) fn heard(&self) -> Heard {
        self.0.lock().clone()
    }
}

impl Observer for Ear {
    fn on_event(&self, event: &Event<'_>) {
        let mut heard = self.0.lock();
        let permit = event.call.attempt();
        match event.what {
            What::Admitted { .. } => *heard.permits.entry(permit).or_default() += 1,
            What::Settled { outcome, .. } => {
                match event.layer {
                    LayerKind::Breaker => *heard.permits.entry(permit).or_default() -= 1,
                    LayerKind::Trace => heard.traced.push(outcome),
                    _ => {}
                }
                if heard.dropping {
                    let overdue = event.call.is_overdue(clock::now());
                    heard.dropped.push((event.layer, outcome, overdue));
                }
            }
            What::Waited { waited, .. } => heard.waited = waited,
            What::Acquired { .. } => {
                let waited = std::mem::take(&mut heard.waited);
                heard.passed.push(event.at - waited);
            }
            What::Attempting { .. } => heard.attempts += 1,
            _ => {}
        }
        let known = matches!(
            event.what,
            // That a limit had run out on an attempt is its end, too.
            What::Settled { .. } | What::StateChanged { .. } | What::Answered { .. }
        );
        if heard.dropping && !known {
            heard.odd.push(event.to_string());
        }
    }
}

// ===== impl Heard =====

impl Heard {
    /// Permits that were given and not settled, or settled and not given.
    pub(super) fn permits_out(&self) -> i32 {
        self.permits.values().map(|out| out.abs()).sum()
    }

    /// Whether a drop told of ends alone, and of each as `wanted`, or as a timeout where the call's
    /// deadline had passed.
    pub(super) fn dropped_as(&self, wanted: impl Fn(LayerKind, Outcome) -> bool) -> bool {
        let ended = self.dropped.iter().all(|&(layer, outcome, overdue)| {
            wanted(layer, outcome) || (overdue && outcome.kind() == Some(FaultKind::Timeout))
        });
        ended && self.odd.is_empty()
    }
}
