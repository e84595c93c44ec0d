//! Why a layer decided as it did: the rule, its threshold and the numbers it was fed.

use std::{fmt, time::Duration};

use crate::Phase;

/// Why a layer decided as it did.
///
/// One vocabulary for events, errors and traces. A reason is plain numbers, so that noting one
/// costs nothing; its `Display` is the sentence a person reads.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    // ----- breaker -----
    /// What the window held when a call was admitted.
    Window {
        /// Failures in the window.
        failures: u64,
        /// Calls slower than the slow threshold in the window.
        slow: u64,
        /// Calls in the window.
        total: u64,
    },
    /// So many failures came in a row.
    ConsecutiveFailures {
        /// Failures seen in a row.
        count: u32,
        /// Failures in a row that trip.
        threshold: u32,
    },
    /// Too large a share of the window's calls failed.
    FailureRate {
        /// Failures in the window.
        failures: u64,
        /// Calls in the window.
        total: u64,
        /// Share of failures that trips, in (0, 1].
        threshold: f64,
    },
    /// Too large a share of the window's calls was slow.
    SlowRate {
        /// Slow calls in the window.
        slow: u64,
        /// Calls in the window.
        total: u64,
        /// Share of slow calls that trips, in (0, 1].
        threshold: f64,
    },
    /// The open time is over: probes may pass.
    OpenTimeOver {
        /// How long the breaker was to stay open.
        open_for: Duration,
    },
    /// A probe failed.
    ProbeFailed {
        /// Probes that had succeeded in this half-open cycle.
        succeeded: u32,
        /// Successes that would have closed the breaker.
        threshold: u32,
    },
    /// A probe was still without a head when its time was up.
    ProbeTimedOut {
        /// How long a probe may wait for its head.
        max_wait: Duration,
    },
    /// Enough probes succeeded.
    ProbesSucceeded {
        /// Probes that succeeded in this half-open cycle.
        succeeded: u32,
        /// Successes that close the breaker.
        threshold: u32,
    },
    /// As many probes are out as may be at once.
    ProbesBusy {
        /// Probes that may be out at once.
        limit: u32,
    },
    /// The breaker has just closed and admits only a share of the calls.
    Ramp {
        /// Share admitted at this moment, in (0, 1].
        share: f64,
    },
    /// So many health checks in a row failed.
    ChecksFailed {
        /// How many.
        count: u32,
    },
    /// So many health checks in a row succeeded, after some that failed.
    ChecksSucceeded {
        /// How many.
        count: u32,
    },
    /// Somebody ordered it by hand.
    Manual,
    /// A map of keys is full of entries that may not be evicted; the key shares an overflow entry.
    Overflow {
        /// Keys the map may hold.
        capacity: usize,
    },

    // ----- retry -----
    /// The delay was computed by the backoff.
    Backoff {
        /// Which retry it precedes, from 1.
        retry: u32,
    },
    /// The delay follows the peer's hint.
    Hinted {
        /// What the peer asked for.
        hint: Duration,
    },
    /// The request never left the client.
    Unsent {
        /// How often it was given back in this call.
        times: u32,
    },
    /// The peer's transport gave the request back before any application saw it.
    Unprocessed,
    /// The outcome is not one that another attempt could mend.
    NotRetryable,
    /// The peer may have acted, and the request is not idempotent.
    NotIdempotent,
    /// The request cannot be sent a second time: its body was too long or could not be kept.
    NotReplayable,
    /// All attempts are used.
    AttemptsUsed {
        /// Attempts that may be made, the first included.
        max: u32,
    },
    /// A layer below refused the call and did not say when another try makes sense.
    RefusedBelow,
    /// The inner service failed while it was made ready for another attempt.
    ReadinessFailed,
    /// Retries were switched off for this call.
    RetryDisabled,
    /// The retry budget is spent.
    BudgetSpent {
        /// Tokens left, in thousandths; a retry costs 1000.
        balance_milli: u64,
    },
    /// Too large a share of the attempts failed of late: there are no retries until more succeed.
    RetriesThrottled {
        /// Tokens left, in thousandths.
        tokens_milli: u64,
        /// There are retries while more than so many thousandths are left.
        threshold_milli: u64,
    },
    /// The next attempt could not start within the deadline.
    DeadlineTooClose {
        /// Time left until the deadline.
        left: Duration,
        /// Time the wait alone would take.
        needed: Duration,
    },
    /// The peer asked not to be called again.
    HintNever,
    /// The peer asked for a longer wait than is allowed.
    HintTooLong {
        /// What the peer asked for.
        hint: Duration,
        /// The longest wait a hint may ask for.
        max: Duration,
    },

    // ----- poll -----
    /// The delay was computed by the backoff.
    PollBackoff {
        /// Which poll it precedes, from 1.
        poll: u32,
    },
    /// It was asked as often as it may be.
    PollsUsed {
        /// Polls that may be made.
        max: u32,
    },

    // ----- timeout -----
    /// A time limit ran out.
    Elapsed {
        /// Which phase of the call it covered.
        phase: Phase,
        /// The limit.
        limit: Duration,
    },

    // ----- rate limit -----
    /// As much has passed as may in the time.
    Limited {
        /// What may pass in each period.
        limit: u32,
        /// The period.
        per: Duration,
        /// What may pass at one moment.
        burst: u32,
        /// What the call costs.
        cost: u32,
    },
    /// The call would have to wait for longer than it may.
    WaitTooLong {
        /// How long it would have to wait.
        needed: Duration,
        /// How long it may wait.
        max: Duration,
    },
    /// The call costs more than may ever pass at one moment.
    CostTooLarge {
        /// What the call costs.
        cost: u32,
        /// What may pass at one moment.
        burst: u32,
    },

    // ----- anybody's -----
    /// A reason of a layer outside this house.
    Other(&'static str),
}

// ===== impl Reason =====

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Window { failures, slow, total } => {
                write!(f, "{failures} of {total} failed, {slow} slow")
            }
            Self::ConsecutiveFailures { count, threshold } => {
                write!(f, "{count} failures in a row (limit {threshold})")
            }
            Self::FailureRate { failures, total, threshold } => {
                write!(f, "{failures} of {total} calls failed (limit {})", Percent(threshold))
            }
            Self::SlowRate { slow, total, threshold } => {
                write!(f, "{slow} of {total} calls were slow (limit {})", Percent(threshold))
            }
            Self::OpenTimeOver { open_for } => {
                write!(f, "open time of {} is over", Short(open_for))
            }
            Self::ProbeFailed { succeeded, threshold } => {
                write!(f, "a probe failed ({succeeded} of {threshold} had succeeded)")
            }
            Self::ProbeTimedOut { max_wait } => {
                write!(f, "a probe had no response within {}", Short(max_wait))
            }
            Self::ProbesSucceeded { succeeded, threshold } => {
                write!(f, "{succeeded} of {threshold} probes succeeded")
            }
            Self::ProbesBusy { limit } => {
                write!(f, "{limit} probes are out (limit {limit})")
            }
            Self::Ramp { share } => {
                write!(f, "just closed, admitting {} of calls", Percent(share))
            }
            Self::ChecksFailed { count: 1 } => f.write_str("a health check failed"),
            Self::ChecksFailed { count } => write!(f, "{count} health checks in a row failed"),
            Self::ChecksSucceeded { count: 1 } => f.write_str("a health check succeeded"),
            Self::ChecksSucceeded { count } => {
                write!(f, "{count} health checks in a row succeeded")
            }
            Self::Manual => f.write_str("by hand"),
            Self::Overflow { capacity } => {
                write!(f, "all {capacity} keys are in use and none may be evicted")
            }
            Self::Backoff { retry } => write!(f, "backoff before retry {retry}"),
            Self::Hinted { hint } => {
                write!(f, "asked to come back in {}", Short(hint))
            }
            Self::Unsent { times: 1 } => f.write_str("it never left the client"),
            Self::Unsent { times } => write!(f, "it never left the client, {times} times"),
            Self::Unprocessed => {
                f.write_str("the server gave it back before any application saw it")
            }
            Self::NotRetryable => f.write_str("another attempt could not mend it"),
            Self::NotIdempotent => {
                f.write_str("the server may have acted and the request is not idempotent")
            }
            Self::NotReplayable => f.write_str("the request cannot be sent again"),
            Self::AttemptsUsed { max } => write!(f, "all {max} attempts are used"),
            Self::RefusedBelow => {
                f.write_str("a layer below refused it and did not say when to come back")
            }
            Self::ReadinessFailed => {
                f.write_str("the inner service failed while it was made ready again")
            }
            Self::RetryDisabled => f.write_str("retries are off for this call"),
            Self::BudgetSpent { balance_milli } => {
                write!(f, "retry budget spent ({:.2} of 1 token left)", balance_milli as f64 / 1e3)
            }
            Self::RetriesThrottled { tokens_milli, threshold_milli } => {
                let (left, limit) = (tokens_milli as f64 / 1e3, threshold_milli as f64 / 1e3);
                write!(f, "retries throttled ({left} tokens left, more than {limit} needed)")
            }
            Self::DeadlineTooClose { left, needed } => {
                write!(f, "{} to wait, {} left until the deadline", Short(needed), Short(left))
            }
            Self::HintNever => f.write_str("asked not to come back"),
            Self::HintTooLong { hint, max } => {
                write!(f, "asked to come back in {} (limit {})", Short(hint), Short(max))
            }
            Self::PollBackoff { poll } => write!(f, "backoff before poll {poll}"),
            Self::PollsUsed { max } => write!(f, "all {max} polls are used"),
            Self::Elapsed { phase, limit } => {
                write!(f, "{phase} limit of {} ran out", Short(limit))
            }
            Self::Limited { limit, per, burst, cost } => {
                write!(f, "limit of {limit} in {} (burst {burst})", Short(per))?;
                match cost {
                    1 => Ok(()),
                    _ => write!(f, ", the call costs {cost}"),
                }
            }
            Self::WaitTooLong { needed, max } => {
                write!(f, "{} to wait (limit {})", Short(needed), Short(max))
            }
            Self::CostTooLarge { cost, burst } => {
                write!(f, "the call costs {cost}, more than can ever pass (burst {burst})")
            }
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// A share as a person writes it: `50 %`, `2.5 %`.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 1000.0).round() / 10.0;
        write!(f, "{tenths} %")
    }
}

/// A duration rounded to what a person cares for: `12ms`, `1.5s`, `340µs`.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let unit = match nanos {
            0..1_000 => 1,
            1_000..1_000_000 => 10,
            1_000_000..1_000_000_000 => 10_000,
            _ => 1_000_000,
        };
        // At most two decimals of the unit that `Duration` prints in.
        let rounded = (nanos / unit) * unit;
        let rounded = Duration::from_nanos(u64::try_from(rounded).unwrap_or(u64::MAX));
        write!(f, "{rounded:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_sentences() {
        let tripped = Reason::FailureRate { failures: 12, total: 20, threshold: 0.5 };
        assert_eq!(tripped.to_string(), "12 of 20 calls failed (limit 50 %)");

        let late = Reason::DeadlineTooClose {
            left: Duration::from_micros(12_345),
            needed: Duration::from_millis(1_500),
        };
        assert_eq!(late.to_string(), "1.5s to wait, 12.34ms left until the deadline");
    }
}
