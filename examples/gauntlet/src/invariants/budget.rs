//! Whether the retries kept within their budget, in every interval.

use std::time::{Duration, Instant};

use super::Invariant;
use crate::{tally::SideLog, watch::StackReport};

/// A first attempt deposits shortly after its call was noted, and a retry is told of shortly after
/// its token was taken; how much the order of the notes may differ from the order of the deeds.
const NOTED_WITHIN: Duration = Duration::from_millis(10);

/// Judges the retries by the times they were told of, which is when their tokens were taken, and those
/// that reached the client by the times it sent them.
pub(super) fn judge(stack: &SideLog, report: &StackReport) -> Invariant {
    let budget = report.budget;
    let requests = sorted(stack.calls.iter().map(|call| call.started));
    let told = sorted(report.told.retries.iter().map(|retry| retry.at));
    let sent = stack.attempts.iter().filter(|attempt| attempt.number > 1);
    let sent = sorted(sent.map(|attempt| attempt.started));
    let drawn = |retries: &[Instant]| {
        budget.worst(retries, &requests, NOTED_WITHIN).map(|worst| worst.drawn)
    };
    let (by_telling, by_sending) =
        (drawn(&told).unwrap_or_default(), drawn(&sent).unwrap_or_default());
    // The budget counts in fixed point.
    let allowed = budget.capacity + 0.01;
    let interval = budget.worst(&told, &requests, NOTED_WITHIN).map(|worst| {
        let (first, last) = (worst.first, worst.last);
        let took = told[last].saturating_duration_since(told[first]);
        format!(" ({} in {:.2} s)", last - first + 1, took.as_secs_f64())
    });
    Invariant {
        name: "retries within the budget in every interval",
        held: by_telling <= allowed && by_sending <= allowed,
        detail: format!(
            "{:.1} of {:.0}{}, {:.1} as sent",
            by_telling.max(0.0),
            budget.capacity,
            interval.unwrap_or_default(),
            by_sending.max(0.0)
        ),
    }
}

pub(super) fn sorted(times: impl Iterator<Item = Instant>) -> Vec<Instant> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}
