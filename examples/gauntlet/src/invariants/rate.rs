//! Whether the limit kept its bound, in every interval.

use std::time::{Duration, Instant};

use portcullis_testkit::Bound;

use super::{Invariant, TOLERANCE, budget::sorted};
use crate::{tally::SideLog, watch::StackReport};

/// Judges what passed at once by the instants the limit decided by, for which the bound is exact; and
/// all that passed, and all that was sent.
///
/// A call that waited is let pass for the instant of its turn, and told of when a timer has woken it:
/// in an interval that begins in between, it is one too many. So there the bound holds for an
/// interval that is longer by as much as a timer may be late.
pub(super) fn judge(stack: &SideLog, report: &StackReport) -> Invariant {
    let (told, quota) = (&report.told, report.quota);
    let passed = sorted(told.passed.iter().copied());
    let waited = sorted(told.waited.iter().map(|(at, _)| *at));
    let at_once = without(&passed, &waited);
    let sent = sorted(stack.attempts.iter().map(|attempt| attempt.started));
    let exact = worst(&at_once, quota);
    let (by_passing, by_sending) = (worst(&passed, quota), worst(&sent, quota));
    let late = quota.capacity + quota.per_second * TOLERANCE.as_secs_f64();
    // It is summed up in floating point.
    let kept = |worst: f64, allowed: f64| worst <= allowed + 0.01;
    // What was sent had passed; a limit that nothing passed through limits nothing.
    let unpassed = sent.len().saturating_sub(passed.len());
    let held = kept(exact, quota.capacity) && kept(by_passing, late) && kept(by_sending, late);
    Invariant {
        name: "limit: burst + rate · t in every interval",
        held: held && unpassed == 0,
        detail: match unpassed {
            0 => format!(
                "at once {exact:.1} of {:.0}, all {by_passing:.1}, sent {by_sending:.1} of {late:.0}",
                quota.capacity
            ),
            _ => format!("{unpassed} sent that had not passed"),
        },
    }
}

/// The most by which an interval exceeds what its length allows: at most the burst, if the limit
/// binds.
fn worst(passed: &[Instant], quota: Bound) -> f64 {
    quota.worst(passed, &[], Duration::ZERO).map_or(0.0, |worst| worst.drawn)
}

/// Those of `all` that are not among `some`; both are sorted.
fn without(all: &[Instant], some: &[Instant]) -> Vec<Instant> {
    let mut some = some.iter().peekable();
    let mut rest = Vec::with_capacity(all.len());
    for at in all {
        while some.next_if(|other| *other < at).is_some() {}
        if some.next_if_eq(&at).is_none() {
            rest.push(*at);
        }
    }
    rest
}
