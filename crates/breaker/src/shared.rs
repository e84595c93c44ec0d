//! What all handles to one breaker share, and what each call holds of it.

use std::{sync::Arc, time::Instant};

use portcullis_core::{
    Call, End, FaultKind, How, Outcome, Reason, Settle, State, Ticket, Voice, What,
};

use crate::{BreakerConfig, Changes, Engine, Permit, waiting::Waiters};

/// A way to a breaker that few threads share: each call holds its breaker until its end, and all
/// threads counting those holds in one word would be what limits them.
#[repr(align(128))]
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) voice: Voice,
    /// The key whose breaker it is, if it is one of many.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) engine: Engine,
    pub(crate) waiters: Waiters,
}

// ===== impl Lane =====

impl Lane {
    #[cold]
    pub(crate) fn probe_head(&self, permit: &Permit, call: &Call, good: bool, now: Instant) {
        let mut changes = Changes::default();
        self.shared.engine.head(permit, good, now, &mut changes);
        self.shared.tell_of(&changes, call);
    }
}

impl Settle for Lane {
    fn name(&self) -> &Arc<str> {
        self.shared.voice.name()
    }

    #[inline]
    fn settle(&self, ticket: Ticket, end: &End<'_>) {
        let shared = &*self.shared;
        let engine = &shared.engine;
        let permit = Permit::from(ticket);
        let good = end.outcome.is_success() && !engine.config().is_slow(end);
        if good && engine.record_while_quiet(&permit, end.ended) {
            shared.tell_of_end(end.outcome, end);
        } else {
            shared.settle_by_rules(permit, end);
        }
    }
}

// ===== impl Shared =====

impl Shared {
    #[inline]
    pub(crate) fn tell(&self, call: &Call, at: Instant, what: impl FnOnce() -> What<'static>) {
        self.voice.tell_of(self.key.as_deref(), call, at, what);
    }

    #[cold]
    fn settle_by_rules(&self, permit: Permit, end: &End<'_>) {
        let config = self.engine.config();
        let was_probe = permit.is_probe();
        let outcome = config.outcome_of(end);
        let mut changes = Changes::default();
        self.engine.record(permit, outcome, config.is_slow(end), end.ended, &mut changes);
        self.tell_of_end(outcome, end);
        self.tell_of(&changes, end.call);
        if was_probe {
            // Its slot may be free.
            self.waiters.wake();
        }
    }

    #[inline]
    fn tell_of_end(&self, outcome: Outcome, end: &End<'_>) {
        if self.voice.is_heard(end.call) {
            self.told_of_end(outcome, end);
        }
    }

    // Not inlined, to keep the path of who is not heard short; so is the admission.
    #[inline(never)]
    fn told_of_end(&self, outcome: Outcome, end: &End<'_>) {
        self.voice.tell_of_end(self.key.as_deref(), outcome, end);
    }

    #[inline]
    pub(crate) fn tell_of(&self, changes: &Changes, call: &Call) {
        if !changes.is_empty() {
            self.tell_of_some(changes, call);
        }
    }

    #[cold]
    fn tell_of_some(&self, changes: &Changes, call: &Call) {
        for change in changes.iter() {
            self.tell(call, change.at, || What::StateChanged {
                from: change.from,
                to: change.to,
                reason: change.why,
                open_for: change.open_for,
            });
        }
        self.waiters.wake();
    }

    #[inline]
    pub(crate) fn tell_of_admission(&self, permit: &Permit, call: &Call, now: Instant) {
        // One that is not counted was told of as a call that should not pass.
        if permit.is_counted() && self.voice.is_heard(call) {
            self.told_of_admission(permit, call, now);
        }
    }

    #[inline(never)]
    fn told_of_admission(&self, permit: &Permit, call: &Call, now: Instant) {
        self.tell(call, now, || self.admitted(permit, now));
    }

    #[inline]
    fn admitted(&self, permit: &Permit, now: Instant) -> What<'static> {
        if permit.is_probe() {
            return self.probe_admitted();
        }
        let counts = self.engine.counts_to_tell(now);
        What::Admitted {
            state: self.engine.state(),
            reason: Reason::Window {
                failures: counts.failures,
                slow: counts.slow,
                total: counts.total,
            },
        }
    }

    /// A lock and a look, but only for probes somebody wants to hear of.
    #[cold]
    fn probe_admitted(&self) -> What<'static> {
        let open_for = self.engine.last_open_time();
        What::Admitted { state: State::HalfOpen, reason: Reason::OpenTimeOver { open_for } }
    }
}

// ===== impl BreakerConfig =====

impl BreakerConfig {
    /// The verdict, in view of how the call ended.
    #[inline]
    fn outcome_of(&self, end: &End<'_>) -> Outcome {
        let dropped = end.outcome == Outcome::Cancelled && end.how == How::Dropped;
        let abandoned = dropped
            && end.head.is_none()
            && self.abandoned_after().is_some_and(|after| end.elapsed() >= after);
        // Its time was up when it came: a limit below refuses it unsent, and a peer that was asked all
        // the same had no time to answer.
        let stillborn =
            end.outcome.kind() == Some(FaultKind::Timeout) && end.call.is_overdue(end.started);
        match stillborn {
            true => Outcome::Ignored,
            false if abandoned => Outcome::timeout(),
            false => end.outcome,
        }
    }

    #[inline]
    fn is_slow(&self, end: &End<'_>) -> bool {
        use crate::SlowPhase::{Head, Total};
        self.slow_threshold.is_some_and(|threshold| {
            let took = match self.slow_phase {
                Head => end.head_after().unwrap_or_else(|| end.elapsed()),
                Total => end.elapsed(),
            };
            took > threshold
        })
    }
}
