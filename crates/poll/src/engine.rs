//! The decision: whether an operation is asked about once more, when, and why.

use std::time::{Duration, Instant};

use portcullis_core::{
    Call, Hint, Invalid, Reason,
    backoff::{CustomDelay, Delays, Reached},
    clock,
};

use crate::PollConfig;

/// Decides whether an operation that is not done is asked about once more. It is told the time and the
/// chance; it neither waits nor asks.
///
/// ```
/// use portcullis_core::{Hint, Reason, clock};
/// use portcullis_poll::{Asked, Policy, PollConfig};
/// use std::time::Duration;
///
/// let policy = Policy::new(&PollConfig::default())?;
/// let now = clock::now();
/// let mut asked = Asked::new(3, now);
/// asked.hint = Hint::After(Duration::from_secs(20));
/// asked.deadline = Some(now + Duration::from_secs(15));
/// let refused = policy.decide(&asked, &mut Default::default(), || 0).unwrap_err();
/// assert_eq!(refused.to_string(), "20s to wait, 15s left until the deadline");
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    delays: Delays,
    max_polls: u32,
    limit: Duration,
}

/// An operation that an answer says is not done.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// Polls made so far; 0 if the answer is that to the request which began it.
    pub polls: u32,
    /// When the answer had been looked at.
    pub now: Instant,
    /// The peer's advice on when to ask on.
    pub hint: Hint,
    /// When everything must be over, if there is such a moment.
    pub deadline: Option<Instant>,
}

/// When the next poll is made, and why then.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// How long to wait first; it may be zero.
    pub delay: Duration,
    /// What the delay rests on.
    pub reason: Reason,
}

// ===== impl Policy =====

impl Policy {
    /// A policy with these settings.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: &PollConfig) -> Result<Self, Invalid> {
        Self::with_delays(config, None)
    }

    /// The same, with a function of the user's in place of the backoff.
    pub(crate) fn with_delays(
        config: &PollConfig,
        custom: Option<(Duration, CustomDelay)>,
    ) -> Result<Self, Invalid> {
        config.validate()?;
        let delays = match custom {
            Some((cap, delay)) => Delays::custom(cap, delay, config.jitter)?,
            None => Delays::new(config.backoff, config.jitter)?,
        };
        Ok(Self { delays, max_polls: config.max_polls, limit: config.limit })
    }

    /// Polls of one operation.
    #[must_use]
    pub fn max_polls(&self) -> u32 {
        self.max_polls
    }

    /// How long an operation that `call` begins is followed: the caller's word, else the setting.
    #[must_use]
    pub fn limit(&self, call: &Call) -> Duration {
        call.overrides().timeout.unwrap_or(self.limit)
    }

    /// When an operation that `call` begins at `started` is followed no longer.
    pub(crate) fn until(&self, call: &Call, started: Instant) -> Instant {
        clock::after(started, self.limit(call))
    }

    /// Decides what follows an answer that left the operation where it is.
    ///
    /// `reached` is what the last decision about it left behind; `chance` gives 64 random bits and is
    /// asked once at most.
    ///
    /// # Errors
    ///
    /// Why it is not asked about any more.
    pub fn decide(
        &self,
        asked: &Asked,
        reached: &mut Reached,
        chance: impl FnOnce() -> u64,
    ) -> Result<Plan, Reason> {
        if asked.polls >= self.max_polls {
            return Err(Reason::PollsUsed { max: self.max_polls });
        }
        let poll = asked.polls.saturating_add(1);
        let reason = match asked.hint {
            Hint::Never => return Err(Reason::HintNever),
            Hint::After(hint) | Hint::Exactly(hint) => Reason::Hinted { hint },
            Hint::None => Reason::PollBackoff { poll },
        };
        let delay = self.delays.wait(poll, asked.hint, reached, chance);
        match asked.deadline.map(|at| at.saturating_duration_since(asked.now)) {
            Some(left) if delay >= left => Err(Reason::DeadlineTooClose { left, needed: delay }),
            _ => Ok(Plan { delay, reason }),
        }
    }
}

// ===== impl Asked =====

impl Asked {
    /// An operation that was not done when its answer had been looked at, at `now`, after this many
    /// polls. There is neither a hint nor a deadline.
    #[must_use]
    pub const fn new(polls: u32, now: Instant) -> Self {
        Self { polls, now, hint: Hint::None, deadline: None }
    }
}
