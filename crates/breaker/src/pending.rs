//! A call that the breaker let pass, until its end is told.

use std::{mem, sync::Arc, time::Instant};

use portcullis_core::{Call, Completion, End, How, Outcome, Settle, Ticket};

use crate::{Permit, shared::Lane};

/// A call that may pass: on which way, and with which permit.
pub(crate) struct Admitted {
    pub(crate) lane: Arc<Lane>,
    pub(crate) permit: Permit,
}

/// A call that has begun. It becomes a [`Completion`] only at its end: that one is larger, and would
/// be moved about until then. Dropped before, it reports as that one does.
pub(crate) struct Pending {
    /// `None` once there is a completion.
    lane: Option<Arc<Lane>>,
    ticket: Ticket,
    call: Call,
    started: Instant,
}

// ===== impl Admitted =====

impl Admitted {
    /// Begins the call.
    #[inline]
    pub(crate) fn begin(self, call: Call, now: Instant) -> Pending {
        let Self { lane, permit } = self;
        Pending { lane: Some(lane), ticket: permit.into(), call, started: now }
    }
}

// ===== impl Pending =====

impl Pending {
    /// The duty to tell the end of a call that has a result, with its head if it has one; none if it
    /// was had before.
    #[inline]
    pub(crate) fn with_result(&mut self, head: Option<Instant>) -> Completion {
        let done = self.complete();
        match head {
            Some(at) => done.with_head(at),
            None => done,
        }
    }

    #[inline]
    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    /// Tells the end of a call that is over with its result, unless it was told before.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome, head: Option<Instant>, ended: Instant) {
        if let Some(lane) = self.lane.take() {
            let (how, started, call) = (How::Reported, self.started, &self.call);
            lane.settle(self.ticket, &End { outcome, how, started, head, ended, call });
        }
    }

    /// Tells that a probe's head is there and whether it is good so far.
    #[inline]
    pub(crate) fn tell_of_head(&self, good: impl FnOnce() -> bool, now: Instant) {
        let permit = Permit::from(self.ticket);
        if permit.is_probe()
            && let Some(lane) = &self.lane
        {
            lane.probe_head(&permit, &self.call, good(), now);
        }
    }

    fn complete(&mut self) -> Completion {
        let Some(lane) = self.lane.take() else { return Completion::none() };
        Completion::new(lane, self.ticket, mem::take(&mut self.call), self.started)
    }
}

impl Drop for Pending {
    #[inline]
    fn drop(&mut self) {
        if self.lane.is_some() {
            drop(self.complete());
        }
    }
}
