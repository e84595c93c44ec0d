//! The observer of the stack: everything its layers tell, in the order they tell it.

use std::{sync::Arc, time::Instant};

use portcullis_core::{Event, LayerKind, Observer, RejectionKind, TraceId, What, sync::Mutex};

use crate::{journal::Journal, upstream::Upstream};

/// One event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) by: LayerKind,
    /// The call it was about, if it was about one.
    pub(crate) call: Option<u32>,
    /// The trace that the call is in.
    pub(crate) trace: Option<TraceId>,
    /// The attempt it was about, from 1; 0 for the call as a whole.
    pub(crate) attempt: u32,
    /// The upstream it was decided for, where a layer has state by upstream.
    pub(crate) host: Option<usize>,
    pub(crate) what: Deed,
}

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Rejected(RejectionKind),
    Other(What<'static>),
}

/// Listens to the layers of one stack. Clones write into the same record.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    journal: Journal,
    told: Arc<Mutex<Vec<Told>>>,
}

// ===== impl Watch =====

impl Watch {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, told: Arc::default() }
    }

    /// Hands out what was told.
    pub(crate) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock())
    }
}

impl Observer for Watch {
    fn on_event(&self, event: &Event<'_>) {
        let Event { layer, key, call, at, what, .. } = *event;
        // The simulation names each call by its number.
        let number = call.overrides().name.as_deref().and_then(|name| name.parse().ok());
        let attempt = call.attempt();
        match number {
            Some(number) => {
                let number: u32 = number;
                self.journal.note(at, format_args!("call {number}: attempt {attempt}: {event}"));
            }
            None => self.journal.note(at, format_args!("{event}")),
        }
        self.told.lock().push(Told {
            at,
            by: layer,
            call: number,
            trace: call.record().map(|record| record.context().trace_id),
            attempt,
            host: key.and_then(Upstream::of_host),
            what: match what.detach() {
                Ok(what) => Deed::Other(what),
                Err(rejection) => Deed::Rejected(rejection.kind()),
            },
        });
    }
}
