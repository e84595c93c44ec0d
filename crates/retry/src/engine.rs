//! The decision: whether another attempt is made, when, and why.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_core::{
    Call, FaultKind, Hint, Invalid, Operations, Outcome, Reason, Replay,
    backoff::{CustomDelay, Delays},
};

use crate::{
    Attempt, Budget, Decision, OperationConfig, Opinion, Plan, Progress, RetryConfig, Throttling,
    Waits, config::Set,
};

/// Decides whether a failed attempt is followed by another. It is told the time and the chance; it
/// neither waits nor sends.
///
/// [`Retry`](crate::Retry) asks it on live calls. It can as well be asked in a test with invented
/// time, or beside recorded traffic.
///
/// ```
/// use portcullis_core::{Call, FaultKind, Outcome, Reason, Replay, clock};
/// use portcullis_retry::{Attempt, Decision, Policy, Progress, RetryConfig};
///
/// # fn main() -> Result<(), portcullis_core::Invalid> {
/// let policy = Policy::new(&RetryConfig::default())?;
/// let refused = Outcome::failure(FaultKind::Connect, Replay::Safe);
/// let decision = policy.decide(
///     &Attempt::new(1, refused),
///     &Call::new(),
///     clock::now(),
///     Progress::default(),
///     |attempt| Some(format!("the request once more, for attempt {attempt}")),
///     || u64::MAX / 2,
/// );
/// match decision {
///     Decision::Retry(plan) => assert_eq!(plan.reason, Reason::Backoff { retry: 1 }),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Policy {
    rules: Rules,
    /// `None` where no operation has rules of its own, which spares a call the look at its name.
    operations: Option<Arc<Operations<Rules>>>,
    brake: Brake,
    opinion: Option<OpinionFn>,
}

/// What keeps retries from amplifying an outage.
#[derive(Clone, Debug)]
pub(crate) enum Brake {
    None,
    Budget(Budget),
    Throttling(Throttling),
}

/// What differs from operation to operation.
#[derive(Clone, Debug)]
struct Rules {
    max_attempts: u32,
    delays: Delays,
    max_hint: Duration,
}

pub(crate) type OpinionFn = Arc<dyn Fn(&Attempt<'_>) -> Opinion + Send + Sync>;

/// How often a request that never leaves the client is sent again in a call that has no deadline to end
/// it. After that the ordinary rules decide.
const MOST_UNSENT: u32 = 10;

/// The shortest wait before such a request is sent again for the second time and more often, whatever
/// the backoff. A client that gives it back at once would otherwise keep a processor busy, and all to no
/// end, until the deadline.
const UNSENT_WAIT: Duration = Duration::from_millis(10);

// ===== impl Policy =====

impl Policy {
    /// A policy with these settings, and a budget of its own.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: &RetryConfig) -> Result<Self, Invalid> {
        Self::with_delays(config, None)
    }

    /// The same, with a function of the user's in place of the layer's backoff.
    pub(crate) fn with_delays(
        config: &RetryConfig,
        custom: Option<&(Duration, CustomDelay)>,
    ) -> Result<Self, Invalid> {
        config.validate()?;
        let rules = |operation: &OperationConfig| -> Result<Rules, Invalid> {
            let Set { max_attempts, backoff, jitter, max_hint } = config.of(operation);
            let delays = match custom {
                Some((cap, delay)) if operation.backoff.is_none() => {
                    Delays::custom(*cap, delay.clone(), jitter)?
                }
                _ => Delays::new(backoff, jitter)?,
            };
            Ok(Rules { max_attempts, delays, max_hint })
        };
        let named = config.operations.iter();
        let named = named.map(|(name, operation)| Ok((name.as_str(), rules(operation)?)));
        let named: Operations<Rules> = named.collect::<Result<_, Invalid>>()?;
        Ok(Self {
            rules: rules(&OperationConfig::new())?,
            operations: (!config.operations.is_empty()).then(|| Arc::new(named)),
            brake: match (config.throttling, config.budget) {
                (Some(throttling), _) => Brake::Throttling(Throttling::new(throttling)?),
                (None, Some(budget)) => Brake::Budget(Budget::new(budget)?),
                (None, None) => Brake::None,
            },
            opinion: None,
        })
    }

    pub(crate) fn with_brake(mut self, brake: Brake) -> Self {
        self.brake = brake;
        self
    }

    pub(crate) fn with_opinion(mut self, opinion: Option<OpinionFn>) -> Self {
        self.opinion = opinion;
        self
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        match &self.brake {
            Brake::Budget(budget) => Some(budget),
            Brake::None | Brake::Throttling(_) => None,
        }
    }

    /// The throttling, if that is what there is in place of a budget.
    #[must_use]
    pub fn throttling(&self) -> Option<&Throttling> {
        match &self.brake {
            Brake::Throttling(throttling) => Some(throttling),
            Brake::None | Brake::Budget(_) => None,
        }
    }

    /// How many attempts `call` may have, the first included: the caller's word, else the settings' for
    /// its operation.
    #[must_use]
    #[inline]
    pub fn max_attempts(&self, call: &Call) -> u32 {
        let attempts = call.overrides().max_attempts;
        attempts.unwrap_or_else(|| self.rules(call).max_attempts).max(1)
    }

    /// The longest wait that a hint of the peer may ask for, of an operation that has no settings of its
    /// own.
    #[must_use]
    pub fn max_hint(&self) -> Duration {
        self.rules.max_hint
    }

    /// No wait that the backoff computes is longer, jitter aside, for an operation that has no settings of
    /// its own.
    #[must_use]
    pub fn longest_backoff(&self) -> Duration {
        self.rules.delays.longest()
    }

    /// How long the wait before each retry can be, from the first on, however many are allowed, for an
    /// operation that has no settings of its own.
    ///
    /// ```
    /// use portcullis_retry::{Policy, RetryConfig};
    /// use std::time::Duration;
    ///
    /// let policy = Policy::new(&RetryConfig::default())?;
    /// let waits: Vec<_> = policy.waits().take(3).map(|waits| waits.longest.as_secs()).collect();
    /// assert_eq!(waits, [1, 2, 4]);
    /// # Ok::<_, portcullis_core::Invalid>(())
    /// ```
    pub fn waits(&self) -> impl Iterator<Item = Waits> {
        (1..).scan(None, |previous, retry| {
            let spread = self.rules.delays.before(retry, *previous);
            let longest = spread.draw(u64::MAX);
            *previous = Some(longest);
            Some(Waits {
                shortest: spread.draw(u64::MIN),
                longest,
                hinted: spread.draw_after(self.rules.max_hint, u64::MAX),
            })
        })
    }

    /// Whether a request must be kept for `call`: it may be sent again, were it only because no
    /// application saw it. Where the caller said that there be one attempt, it is not.
    #[must_use]
    #[inline]
    pub fn keeps(&self, call: &Call) -> bool {
        !matches!(call.overrides().max_attempts, Some(0 | 1))
    }

    /// Notes that a first attempt is made.
    #[inline]
    pub fn first(&self) {
        if let Brake::Budget(budget) = &self.brake {
            budget.deposit();
        }
    }

    /// Notes that an attempt succeeded, as far as its head tells.
    #[inline]
    pub fn succeeded(&self) {
        if let Brake::Throttling(throttling) = &self.brake {
            throttling.succeeded();
        }
    }

    /// Decides what follows an attempt that came to its head, or failed, at `now`.
    ///
    /// `progress` is what the [last plan](Plan::progress) for this call said. `again` makes
    /// the request once more, for the attempt of this number, and `chance` gives 64 random bits; both are
    /// asked once at most, and `again` last of all: only when there is nothing else in the way.
    pub fn decide<T>(
        &self,
        attempt: &Attempt<'_>,
        call: &Call,
        now: Instant,
        progress: Progress,
        again: impl FnOnce(u32) -> Option<T>,
        chance: impl FnOnce() -> u64,
    ) -> Decision<T> {
        match self.plan(attempt, call, now, progress, again, chance) {
            Ok(Some(plan)) => Decision::Retry(plan),
            Ok(None) => Decision::Done,
            Err(reason) => Decision::GiveUp(reason),
        }
    }

    fn plan<T>(
        &self,
        attempt: &Attempt<'_>,
        call: &Call,
        now: Instant,
        mut progress: Progress,
        again: impl FnOnce(u32) -> Option<T>,
        chance: impl FnOnce() -> u64,
    ) -> Result<Option<Plan<T>>, Reason> {
        let Some(replay) = attempt.outcome.replay() else {
            return Ok(None);
        };
        let opinion = match &self.opinion {
            Some(opinion) => opinion(attempt),
            None => Opinion::None,
        };
        let allowed = may_be_sent_again(replay, opinion, attempt, call);
        let same = match &allowed {
            Ok(()) => self.same_again(attempt, call, &mut progress),
            Err(_) => None,
        };
        let throttled = match same {
            None => self.failed(attempt.outcome, call),
            Some(_) => Ok(()),
        };
        allowed?;
        let (delay, reason, number) = match same {
            Some(Reason::Unsent { times: times @ 2.. }) => {
                let spread = self.rules(call).delays.before(times - 1, None);
                (spread.draw(chance()).max(UNSENT_WAIT), Reason::Unsent { times }, attempt.number)
            }
            Some(reason) => (Duration::ZERO, reason, attempt.number),
            None => {
                self.has_attempts_left(attempt, call)?;
                let rules = self.rules(call);
                rules.accept(attempt.outcome)?;
                let (delay, reason) = rules.wait(attempt, &mut progress, chance);
                (delay, reason, attempt.number.saturating_add(1))
            }
        };

        if let Some(left) = call.remaining(now)
            && delay >= left
        {
            return Err(Reason::DeadlineTooClose { left, needed: delay });
        }
        throttled?;
        let budget = self.budget().filter(|_| number > attempt.number);
        let withdrawal = budget.map(|budget| budget.withdraw(now)).transpose()?;
        // Last, for it ends whatever is still being sent of the request. A token that was withdrawn
        // in vain goes back by itself.
        let request = again(number).ok_or(Reason::NotReplayable)?;
        Ok(Some(Plan { request, attempt: number, delay, reason, progress, withdrawal }))
    }

    /// Notes that an attempt failed, where that is of consequence: another might mend it, or the peer asked
    /// for none. Whether there may be another.
    fn failed(&self, outcome: Outcome, call: &Call) -> Result<(), Reason> {
        let Brake::Throttling(throttling) = &self.brake else { return Ok(()) };
        // An operation that has one attempt by the settings has nothing that qualifies as retryable; that a
        // caller wants no retry takes nothing from what its failure tells of the peer.
        let retries = self.rules(call).max_attempts > 1 || self.max_attempts(call) > 1;
        let retryable = retries && outcome.replay() != Some(Replay::Forbidden);
        let counts = retryable || outcome.hint() == Hint::Never;
        // What a layer of ours refused, the peer never saw.
        if !counts || outcome.kind() == Some(FaultKind::Rejected) {
            return Ok(());
        }
        throttling.failed()
    }

    /// Why the same attempt is made once more, if no application can have seen it (gRFC A6, "Transparent
    /// Retries").
    fn same_again(
        &self,
        attempt: &Attempt<'_>,
        call: &Call,
        progress: &mut Progress,
    ) -> Option<Reason> {
        let outcome = attempt.outcome;
        // A layer of ours that refuses, and a peer that says when to come back, have their own rules.
        if outcome.kind() == Some(FaultKind::Rejected) || outcome.hint() != Hint::None {
            return None;
        }
        match outcome.replay()? {
            _ if !self.keeps(call) => None,
            Replay::Unprocessed if !progress.unprocessed => {
                progress.unprocessed = true;
                Some(Reason::Unprocessed)
            }
            Replay::Unsent if call.deadline().is_some() || progress.unsent < MOST_UNSENT => {
                progress.unsent = progress.unsent.saturating_add(1);
                Some(Reason::Unsent { times: progress.unsent })
            }
            _ => None,
        }
    }

    fn has_attempts_left(&self, attempt: &Attempt<'_>, call: &Call) -> Result<(), Reason> {
        let max = self.max_attempts(call);
        if attempt.number < max {
            return Ok(());
        }
        match call.overrides().max_attempts {
            Some(0 | 1) => Err(Reason::RetryDisabled),
            _ => Err(Reason::AttemptsUsed { max }),
        }
    }

    /// What holds for the operation that `call` is of.
    #[inline]
    fn rules(&self, call: &Call) -> &Rules {
        let named = self.operations.as_ref().and_then(|operations| operations.of(call));
        named.unwrap_or(&self.rules)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("rules", &self.rules)
            .field("operations", &self.operations)
            .field("brake", &self.brake)
            .field("opinion", &self.opinion.is_some())
            .finish()
    }
}

// ===== impl Rules =====

impl Rules {
    /// How long to wait before the next attempt, and what that rests on.
    fn wait(
        &self,
        attempt: &Attempt<'_>,
        progress: &mut Progress,
        chance: impl FnOnce() -> u64,
    ) -> (Duration, Reason) {
        let (number, hint) = (attempt.number, attempt.outcome.hint());
        let delay = self.delays.wait(number, hint, &mut progress.reached, chance);
        let reason = match hint.wait() {
            Some(hint) => Reason::Hinted { hint },
            // `accept` let no `Never` through.
            None => Reason::Backoff { retry: number },
        };
        (delay, reason)
    }

    fn accept(&self, outcome: Outcome) -> Result<(), Reason> {
        // A layer below that refuses at once means to spare the caller a wait: no longer one than
        // the backoff's is put in its place.
        let max = match outcome.kind() {
            Some(FaultKind::Rejected) => self.max_hint.min(self.delays.longest()),
            _ => self.max_hint,
        };
        match outcome.hint() {
            Hint::Never => Err(Reason::HintNever),
            Hint::After(hint) | Hint::Exactly(hint) if hint > max => {
                Err(Reason::HintTooLong { hint, max })
            }
            Hint::After(_) | Hint::Exactly(_) | Hint::None => Ok(()),
        }
    }
}

fn may_be_sent_again(
    replay: Replay,
    opinion: Opinion,
    attempt: &Attempt<'_>,
    call: &Call,
) -> Result<(), Reason> {
    match (opinion, replay) {
        (Opinion::Forbid, _) => Err(Reason::NotRetryable),
        (Opinion::Retry, Replay::Unsent | Replay::Unprocessed | Replay::Safe) => Ok(()),
        (Opinion::Retry, _) if call.overrides().idempotent == Some(false) => {
            Err(Reason::NotIdempotent)
        }
        (Opinion::Retry, _) => Ok(()),
        (Opinion::None, Replay::Forbidden) => Err(Reason::NotRetryable),
        (Opinion::None, Replay::IfIdempotent) if !attempt.idempotent => Err(Reason::NotIdempotent),
        // A breaker or a limiter of our own that says not when: asking it again at once is of no
        // use, and a backoff would only hold the caller up.
        (Opinion::None, _)
            if attempt.outcome.kind() == Some(FaultKind::Rejected)
                && attempt.outcome.hint() == Hint::None =>
        {
            Err(Reason::RefusedBelow)
        }
        (Opinion::None, _) => Ok(()),
    }
}
