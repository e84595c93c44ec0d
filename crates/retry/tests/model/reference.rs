//! The rules as one would write them down: whole numbers, no packing, no modulus, nothing shared.

use std::time::Duration;

use portcullis_core::{FaultKind, Hint, Outcome, Reason, Replay};
use portcullis_retry::{Backoff, Jitter, Opinion};

const TOKEN: u128 = 1_000;

/// The bucket, in thousandths of a token.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) capacity: u128,
    pub(crate) ratio: u128,
    /// Thousandths per second.
    pub(crate) reserve: u128,
    paid_in: u128,
    held: u128,
    waiting: u128,
}

/// How waits are computed.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) backoff: Delay,
    pub(crate) jitter: Jitter,
}

/// [`Backoff`], with whole multipliers, and the function of the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delay {
    Exponential { initial: Duration, multiplier: u32, max: Duration },
    Fixed(Duration),
    Decorrelated { initial: Duration, max: Duration },
    Custom { cap: Duration, step: Duration },
}

/// What a wait lies between, the random part apart from what it comes on top of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) floor: Duration,
    pub(crate) width: Duration,
    pub(crate) cap: Duration,
}

/// The settings of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) max_attempts: u32,
    pub(crate) waits: Waits,
    pub(crate) max_hint: Duration,
    pub(crate) bucket: Option<Bucket>,
}

/// Everything that one decision looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    pub(crate) opinion: Opinion,
    /// The request's own word, and the caller's for this call.
    pub(crate) idempotent: bool,
    pub(crate) said_idempotent: Option<bool>,
    pub(crate) said_attempts: Option<u32>,
    /// Until the deadline.
    pub(crate) left: Option<Duration>,
    pub(crate) previous: Option<Duration>,
    /// How many attempts there were when the backoff started over.
    pub(crate) restarted_after: u32,
    /// Whether a server has given an attempt back, and how often none left the client.
    pub(crate) unprocessed: bool,
    pub(crate) unsent: u32,
    pub(crate) again: bool,
    pub(crate) word: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Says {
    Done,
    /// The same attempt once more.
    Resend {
        delay: Duration,
        reason: Reason,
    },
    Retry {
        delay: Duration,
        reason: Reason,
        previous: Option<Duration>,
        restarted_after: u32,
    },
    GiveUp(Reason),
}

/// The user's rule in these tests: it goes by the status.
pub(crate) fn opinion(outcome: Outcome) -> Opinion {
    match outcome.kind() {
        Some(FaultKind::Status(500)) => Opinion::Retry,
        Some(FaultKind::Status(501)) => Opinion::Forbid,
        _ => Opinion::None,
    }
}

// ===== impl Bucket =====

impl Bucket {
    pub(crate) fn full(capacity: u32, ratio: u32, reserve: u32) -> Self {
        let capacity = u128::from(capacity) * TOKEN;
        let (ratio, reserve) = (ratio.into(), reserve.into());
        Self { capacity, ratio, reserve, paid_in: 0, held: capacity, waiting: 0 }
    }

    /// Lets flow in what the reserve paid in until `at`, since the beginning.
    pub(crate) fn flow(&mut self, at: Duration) {
        let paid_in = at.as_nanos() * self.reserve / 1_000_000_000;
        self.held = self.capacity.min(self.held + paid_in.saturating_sub(self.paid_in));
        self.paid_in = self.paid_in.max(paid_in);
    }

    pub(crate) fn first(&mut self, at: Duration) {
        self.flow(at);
        self.held = self.capacity.min(self.held + self.ratio);
    }

    pub(crate) fn withdraw(&mut self, at: Duration) -> Result<(), Reason> {
        self.flow(at);
        if self.free() < TOKEN {
            return Err(Reason::BudgetSpent { balance_milli: self.free() as u64 });
        }
        self.waiting += 1;
        Ok(())
    }

    pub(crate) fn spend(&mut self, at: Duration) {
        self.flow(at);
        self.waiting -= 1;
        self.held -= TOKEN;
    }

    pub(crate) fn refund(&mut self) {
        self.waiting -= 1;
    }

    pub(crate) fn free(&self) -> u128 {
        self.held - self.waiting * TOKEN
    }

    pub(crate) fn balance(&self) -> f64 {
        self.free() as f64 / 1_000.0
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting as u32
    }

    /// The most retries, in thousandths, that may be sent in `span` with so many first attempts.
    pub(crate) fn bound(&self, span: Duration, firsts: usize) -> u128 {
        let flowed = span.as_nanos() * self.reserve / 1_000_000_000;
        // One more: the reserve is counted in whole thousandths.
        self.capacity + self.ratio * firsts as u128 + flowed + 1
    }
}

// ===== impl Delay =====

impl Delay {
    /// `None` for what only code can set.
    pub(crate) fn settings(self) -> Option<Backoff> {
        match self {
            Self::Exponential { initial, multiplier, max } => {
                Some(Backoff::Exponential { initial, multiplier: multiplier.into(), max })
            }
            Self::Fixed(delay) => Some(Backoff::fixed(delay)),
            Self::Decorrelated { initial, max } => Some(Backoff::decorrelated(initial, max)),
            Self::Custom { .. } => None,
        }
    }

    /// The user's function of [`Delay::Custom`].
    pub(crate) fn custom(step: Duration, retry: u32) -> Duration {
        step.saturating_mul(retry)
    }

    fn longest(self) -> Duration {
        match self {
            Self::Exponential { max, .. } | Self::Decorrelated { max, .. } => max,
            Self::Fixed(delay) => delay,
            Self::Custom { cap, .. } => cap,
        }
    }
}

// ===== impl Waits =====

impl Waits {
    pub(crate) fn before(&self, retry: u32, previous: Option<Duration>) -> Range {
        let (delay, cap) = match self.backoff {
            Delay::Exponential { initial, multiplier, max } => {
                let mut delay = initial;
                for _ in 1..retry {
                    delay *= multiplier;
                    // It stays above from there on, or where it is.
                    if delay >= max || multiplier == 1 {
                        break;
                    }
                }
                (delay.min(max), max)
            }
            Delay::Fixed(delay) => (delay, Duration::MAX),
            Delay::Decorrelated { initial, max } => {
                let width = previous.unwrap_or(initial) * 3 - initial;
                return Range { floor: initial, width, cap: max };
            }
            Delay::Custom { cap, step } => (Delay::custom(step, retry).min(cap), cap),
        };
        let (floor, width) = match self.jitter {
            Jitter::Full => (Duration::ZERO, delay),
            Jitter::Equal => (delay - delay / 2, delay / 2),
            Jitter::None => (delay, Duration::ZERO),
            Jitter::Fraction(fraction) => {
                // The longest, d + f·d, is no longer than the cap.
                let most = cap.as_secs_f64() / (1.0 + fraction);
                let floor = Duration::from_secs_f64(delay.as_secs_f64().min(most));
                (floor, floor.mul_f64(fraction))
            }
            Jitter::Around(fraction) => {
                let swing = delay.mul_f64(fraction);
                return Range { floor: delay - swing, width: swing * 2, cap: delay + swing };
            }
            other => panic!("{other:?}"),
        };
        Range { floor, width, cap }
    }
}

impl Range {
    /// The share of `width` that the random word stands for: word 0 is nothing, the last is all.
    fn random(self, word: u64) -> Duration {
        let parts = self.width.as_nanos() + 1;
        Duration::from_nanos(((u128::from(word) * parts) >> 64) as u64)
    }

    pub(crate) fn computed(self, word: u64) -> Duration {
        (self.floor + self.random(word)).min(self.cap)
    }

    pub(crate) fn hinted(self, hint: Duration, word: u64) -> Duration {
        hint + self.random(word).min(self.cap)
    }
}

// ===== impl Rules =====

impl Rules {
    /// The table of docs/retry.md, from top to bottom.
    pub(crate) fn decide(&mut self, case: &Case, at: Duration) -> Says {
        let Some(replay) = case.outcome.replay() else {
            return Says::Done;
        };
        if let Some(reason) = self.harm(case, replay) {
            return Says::GiveUp(reason);
        }
        if let Some((delay, reason)) = self.unseen(case, replay) {
            return match case.left {
                Some(left) if delay >= left => {
                    Says::GiveUp(Reason::DeadlineTooClose { left, needed: delay })
                }
                _ if !case.again => Says::GiveUp(Reason::NotReplayable),
                _ => Says::Resend { delay, reason },
            };
        }
        if let Some(reason) = self.refusal(case) {
            return Says::GiveUp(reason);
        }

        let range = self.waits.before(case.attempt - case.restarted_after, case.previous);
        let (mut previous, mut restarted_after) = (case.previous, case.restarted_after);
        let (delay, reason) = match case.outcome.hint() {
            Hint::After(hint) => (range.hinted(hint, case.word), Reason::Hinted { hint }),
            Hint::Exactly(hint) => {
                (previous, restarted_after) = (None, case.attempt);
                (hint, Reason::Hinted { hint })
            }
            _ => {
                let delay = range.computed(case.word);
                previous = Some(delay);
                (delay, Reason::Backoff { retry: case.attempt })
            }
        };
        if let Some(left) = case.left
            && delay >= left
        {
            return Says::GiveUp(Reason::DeadlineTooClose { left, needed: delay });
        }
        let paid = self.bucket.as_mut().map(|bucket| bucket.withdraw(at));
        if let Some(Err(reason)) = paid {
            return Says::GiveUp(reason);
        }
        if !case.again {
            self.bucket.iter_mut().for_each(Bucket::refund);
            return Says::GiveUp(Reason::NotReplayable);
        }
        Says::Retry { delay, reason, previous, restarted_after }
    }

    /// What no application saw is sent again: from a server once, and from the client itself until the
    /// deadline, or ten times if there is none. At once the first time, and then after a wait.
    fn unseen(&self, case: &Case, replay: Replay) -> Option<(Duration, Reason)> {
        let plain = case.outcome.kind() != Some(FaultKind::Rejected)
            && case.outcome.hint() == Hint::None
            && !matches!(case.said_attempts, Some(0 | 1));
        match replay {
            Replay::Unprocessed if plain && !case.unprocessed => {
                Some((Duration::ZERO, Reason::Unprocessed))
            }
            Replay::Unsent if plain && (case.left.is_some() || case.unsent < 10) => {
                let delay = match case.unsent {
                    0 => Duration::ZERO,
                    n => self
                        .waits
                        .before(n, None)
                        .computed(case.word)
                        .max(Duration::from_millis(10)),
                };
                Some((delay, Reason::Unsent { times: case.unsent + 1 }))
            }
            _ => None,
        }
    }

    /// The rows of the table that say whether another attempt could do harm.
    fn harm(&self, case: &Case, replay: Replay) -> Option<Reason> {
        let rejected = case.outcome.kind() == Some(FaultKind::Rejected);
        let idempotent = case.said_idempotent.unwrap_or(case.idempotent);
        match case.opinion {
            Opinion::Forbid => return Some(Reason::NotRetryable),
            Opinion::Retry => {
                let acted = matches!(replay, Replay::IfIdempotent | Replay::Forbidden);
                if case.said_idempotent == Some(false) && acted {
                    return Some(Reason::NotIdempotent);
                }
            }
            Opinion::None => {
                if replay == Replay::Forbidden {
                    return Some(Reason::NotRetryable);
                }
                if replay == Replay::IfIdempotent && !idempotent {
                    return Some(Reason::NotIdempotent);
                }
                if rejected && case.outcome.hint() == Hint::None {
                    return Some(Reason::RefusedBelow);
                }
            }
        }
        None
    }

    /// The rows that say whether one is allowed, as far as no time is needed for that.
    fn refusal(&self, case: &Case) -> Option<Reason> {
        let rejected = case.outcome.kind() == Some(FaultKind::Rejected);
        let max = case.said_attempts.unwrap_or(self.max_attempts).max(1);
        if case.attempt >= max {
            let disabled = matches!(case.said_attempts, Some(0 | 1));
            let used = Reason::AttemptsUsed { max };
            return Some(if disabled { Reason::RetryDisabled } else { used });
        }

        let longest = self.waits.backoff.longest();
        let max = if rejected { self.max_hint.min(longest) } else { self.max_hint };
        match case.outcome.hint() {
            Hint::Never => Some(Reason::HintNever),
            Hint::After(hint) | Hint::Exactly(hint) if hint > max => {
                Some(Reason::HintTooLong { hint, max })
            }
            Hint::After(_) | Hint::Exactly(_) | Hint::None => None,
        }
    }
}
