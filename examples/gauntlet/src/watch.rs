//! The observer of the stack: what its layers tell, kept for the judgement.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{
    Event, LayerKind, Observer, Reason, RejectionKind, State, What, sync::Mutex,
};
use portcullis_testkit::Bound;

/// What the stack's side knows of itself, for the report and the judgement.
#[derive(Clone, Debug)]
pub(crate) struct StackReport {
    /// The limit of a whole call, its body included.
    pub(crate) deadline: Duration,
    /// Probes that may be out at once.
    pub(crate) probe_limit: usize,
    /// The retry budget.
    pub(crate) budget: Bound,
    /// The limit by host; there is one host.
    pub(crate) quota: Bound,
    /// What the layers told.
    pub(crate) told: Told,
    /// The breaker's state once all calls were over.
    pub(crate) state_at_end: State,
    /// Retries that still held a token then.
    pub(crate) tokens_at_end: usize,
    /// Probes that were still out then.
    pub(crate) probes_at_end: usize,
}

/// What the layers told, in the order they told it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The breaker's changes of state.
    pub(crate) transitions: Vec<Transition>,
    /// Refusals of any layer.
    pub(crate) rejections: Vec<Rejected>,
    /// Retries, at the time their token was taken.
    pub(crate) retries: Vec<Retry>,
    /// Failures that were handed up although retries were configured, and why.
    pub(crate) gave_up: Vec<(Instant, &'static str)>,
    /// Time limits that ran out.
    pub(crate) timed_out: Vec<(Instant, &'static str)>,
    /// What the limit let pass, at the times it decided by, or at which those that waited came through.
    pub(crate) passed: Vec<Instant>,
    /// Those of them that had waited: when they came through, and how long they had waited.
    pub(crate) waited: Vec<(Instant, Duration)>,
    /// How often a hint of the upstream's held everything back.
    pub(crate) held_back: usize,
    /// Calls that the breaker admitted while half-open.
    pub(crate) probes: Vec<Probe>,
    /// Calls that the breaker admitted, and those of them whose end it learnt.
    pub(crate) permits: (usize, usize),
}

/// A breaker's change of state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) at: Instant,
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) reason: Reason,
    pub(crate) open_for: Option<Duration>,
}

/// A refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejected {
    pub(crate) at: Instant,
    pub(crate) by: LayerKind,
    pub(crate) kind: RejectionKind,
}

/// A retry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) at: Instant,
    /// Whether the delay followed a hint: the server's, or the breaker's word on when it will probe.
    pub(crate) hinted: bool,
}

/// A call that the breaker admitted while half-open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) admitted: Instant,
    /// Which half-open cycle it was admitted in.
    pub(crate) cycle: usize,
    /// When its slot was free again, and how many probes had been told of by then: calls read the
    /// clock before they are admitted, so the two orders can differ.
    pub(crate) settled: Option<(Instant, usize)>,
}

/// Listens to the layers of one stack. Clones write into the same record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Told>>);

// ===== impl Watch =====

impl Watch {
    /// What was told since this was asked last.
    pub(crate) fn take(&self) -> Told {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Observer for Watch {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().note(event);
    }
}

// ===== impl Told =====

impl Told {
    fn note(&mut self, event: &Event<'_>) {
        let (at, by) = (event.at, event.layer);
        match event.what {
            What::Admitted { .. } if by == LayerKind::Breaker => self.permits.0 += 1,
            What::Settled { .. } if by == LayerKind::Breaker => self.permits.1 += 1,
            _ => {}
        }
        match event.what {
            What::StateChanged { from, to, reason, open_for } => {
                self.transitions.push(Transition { at, from, to, reason, open_for });
            }
            What::Rejected { rejection } => {
                let kind = rejection.kind();
                self.rejections.push(Rejected { at, by, kind });
            }
            What::Retrying { reason, .. } => {
                let hinted = matches!(reason, Reason::Hinted { .. });
                self.retries.push(Retry { at, hinted });
            }
            What::GaveUp { reason, .. } => self.gave_up.push((at, in_a_word(reason))),
            What::Acquired { .. } => self.passed.push(at),
            What::Waited { waited, .. } => self.waited.push((at, waited)),
            What::HeldBack { .. } => self.held_back += 1,
            What::TimedOut { phase, .. } => self.timed_out.push((at, phase.as_str())),
            What::Admitted { state: State::HalfOpen, .. } => {
                let half_open = |change: &&Transition| change.to == State::HalfOpen;
                let cycle = self.transitions.iter().filter(half_open).count();
                self.probes.push(Probe { admitted: at, cycle, settled: None });
            }
            What::Settled { elapsed, .. } if by == LayerKind::Breaker => {
                let told = self.probes.len();
                // A call is told of by its start alone, which is when it was admitted.
                let started = at.checked_sub(elapsed);
                let out =
                    |probe: &&mut Probe| probe.settled.is_none() && Some(probe.admitted) == started;
                if let Some(probe) = self.probes.iter_mut().rev().find(out) {
                    probe.settled = Some((at, told));
                }
            }
            _ => {}
        }
    }
}

/// Why there was no other attempt, short enough to be counted by.
fn in_a_word(reason: Reason) -> &'static str {
    match reason {
        Reason::AttemptsUsed { .. } => "attempts used",
        Reason::BudgetSpent { .. } => "budget spent",
        Reason::DeadlineTooClose { .. } => "deadline too close",
        Reason::NotRetryable => "not retryable",
        Reason::NotIdempotent => "not idempotent",
        Reason::NotReplayable => "not replayable",
        Reason::HintNever => "server said never",
        Reason::HintTooLong { .. } => "hint too long",
        Reason::RetryDisabled => "retries off",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::{Call, Outcome, Voice, clock};

    use super::*;

    /// Tells `what` as a layer of this kind would, so many milliseconds after `start`.
    fn tell(watch: &Watch, layer: LayerKind, start: Instant, ms: u64, what: What<'static>) {
        let voice = Voice::new(layer, "search").with_observer(Arc::new(watch.clone()));
        voice.tell(&Call::new(), start + Duration::from_millis(ms), || what);
    }

    fn told(watch: &Watch) -> Told {
        watch.0.lock().clone()
    }

    fn settled(elapsed: u64) -> What<'static> {
        What::Settled {
            outcome: Outcome::Success,
            head_after: None,
            elapsed: Duration::from_millis(elapsed),
        }
    }

    #[test]
    fn a_probe_is_settled_by_the_call_that_started_with_it() {
        let (watch, start) = (Watch::default(), clock::now());
        let tell = |layer, ms, what| tell(&watch, layer, start, ms, what);
        let admitted = |state| What::Admitted { state, reason: Reason::Manual };
        tell(LayerKind::Breaker, 0, admitted(State::Closed));
        tell(LayerKind::Breaker, 10, admitted(State::HalfOpen));
        tell(LayerKind::Breaker, 20, admitted(State::HalfOpen));
        // Another layer's end of the same call, and the end of a call from before.
        tell(LayerKind::Timeout, 30, settled(20));
        tell(LayerKind::Breaker, 30, settled(30));
        let out = |told: Told| told.probes.iter().map(|probe| probe.settled).collect::<Vec<_>>();
        assert_eq!(out(told(&watch)), [None, None]);

        assert_eq!(told(&watch).permits, (3, 1));

        tell(LayerKind::Breaker, 40, settled(20));
        let until = Some((start + Duration::from_millis(40), 2));
        assert_eq!(out(told(&watch)), [None, until]);
        tell(LayerKind::Breaker, 50, settled(40));
        let later = Some((start + Duration::from_millis(50), 2));
        assert_eq!(out(told(&watch)), [later, until]);
    }

    #[test]
    fn what_layers_tell_is_kept_by_kind() {
        let (watch, start) = (Watch::default(), clock::now());
        let opened = What::StateChanged {
            from: State::Closed,
            to: State::Open,
            reason: Reason::Manual,
            open_for: None,
        };
        let retrying = |reason| What::Retrying {
            attempt: 1,
            outcome: Outcome::timeout(),
            delay: Duration::ZERO,
            reason,
        };
        let hint = Duration::from_secs(1);
        let spent = Reason::BudgetSpent { balance_milli: 1 };
        let gave_up = What::GaveUp { attempt: 1, outcome: Outcome::timeout(), reason: spent };
        tell(&watch, LayerKind::Breaker, start, 1, opened);
        tell(&watch, LayerKind::Retry, start, 2, retrying(Reason::Backoff { retry: 1 }));
        tell(&watch, LayerKind::Retry, start, 3, retrying(Reason::Hinted { hint }));
        tell(&watch, LayerKind::Retry, start, 4, gave_up);

        let told = watch.take();
        let hinted: Vec<_> = told.retries.iter().map(|retry| retry.hinted).collect();
        assert_eq!(hinted, [false, true]);
        assert_eq!(told.gave_up[0].1, "budget spent");
        assert_eq!(told.transitions[0].to, State::Open);
        assert!(watch.take().transitions.is_empty(), "it was told already");
    }
}
