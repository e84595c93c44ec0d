//! Whether the retries kept within their budget, in every interval.

use std::time::{Duration, Instant};

use super::Invariant;
use crate::{
    tally::SideLog,
    watch::{Budget, StackReport},
};

/// A first attempt deposits shortly after its call was noted, and a retry is told of shortly after
/// its token was taken; how much the order of the notes may differ from the order of the deeds.
const NOTED_WITHIN: Duration = Duration::from_millis(10);

/// The worst interval: from one retry to another, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Worst {
    /// Retries beyond what the requests and the time in the interval had brought in; at most the
    /// capacity, if the budget binds.
    pub(super) drawn: f64,
    /// The first and the last retry of the interval, by their place.
    pub(super) retries: (usize, usize),
}

/// Judges the retries by the times they were told of, which is when their tokens were taken, and those
/// that reached the client by the times it sent them.
pub(super) fn judge(stack: &SideLog, report: &StackReport) -> Invariant {
    let budget = report.budget;
    let requests = sorted(stack.calls.iter().map(|call| call.started));
    let told = sorted(report.told.retries.iter().map(|retry| retry.at));
    let sent = stack.attempts.iter().filter(|attempt| attempt.number > 1);
    let sent = sorted(sent.map(|attempt| attempt.started));
    let drawn = |retries: &[Instant]| worst(retries, &requests, budget).map(|worst| worst.drawn);
    let (by_telling, by_sending) =
        (drawn(&told).unwrap_or_default(), drawn(&sent).unwrap_or_default());
    // The budget counts in fixed point.
    let allowed = budget.capacity + 0.01;
    let interval = worst(&told, &requests, budget).map(|worst| {
        let (first, last) = worst.retries;
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

/// Of all pairs of retries, the one that has drawn most from the budget.
///
/// What an interval has drawn is a difference of one term for its end and one for its start, so the
/// worst end for the best start before it is found in one pass.
pub(super) fn worst(retries: &[Instant], requests: &[Instant], budget: Budget) -> Option<Worst> {
    let origin = *retries.first()?;
    let flowed = |at: Instant| {
        budget.reserve_per_second * at.saturating_duration_since(origin).as_secs_f64()
    };
    let mut least: Option<(f64, usize)> = None;
    let mut worst: Option<Worst> = None;
    for (place, &at) in retries.iter().enumerate() {
        let before = requests_before(requests, at.checked_sub(NOTED_WITHIN).unwrap_or(at));
        let start = place as f64 - budget.ratio * before as f64 - flowed(at);
        let (from, first) = match least {
            Some((least, first)) if least <= start => (least, first),
            _ => (start, place),
        };
        least = Some((from, first));

        let until = requests_before(requests, at + NOTED_WITHIN);
        let end = (place + 1) as f64 - budget.ratio * until as f64 - flowed(at);
        let drawn = end - from;
        if worst.is_none_or(|worst| drawn > worst.drawn) {
            worst = Some(Worst { drawn, retries: (first, place) });
        }
    }
    worst
}

fn requests_before(requests: &[Instant], at: Instant) -> usize {
    requests.partition_point(|&request| request < at)
}

pub(super) fn sorted(times: impl Iterator<Item = Instant>) -> Vec<Instant> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use portcullis_core::clock;
    use portcullis_testkit::Seed;

    use super::*;

    /// The bound as it is written down, for every pair.
    fn naive(retries: &[Instant], requests: &[Instant], budget: Budget) -> f64 {
        let mut worst = f64::MIN;
        for (i, &from) in retries.iter().enumerate() {
            for (j, &until) in retries.iter().enumerate().skip(i) {
                let within = (from - NOTED_WITHIN)..(until + NOTED_WITHIN);
                let requests = requests.iter().filter(|at| within.contains(at)).count();
                let drawn = (j - i + 1) as f64
                    - budget.ratio * requests as f64
                    - budget.reserve_per_second * (until - from).as_secs_f64();
                worst = worst.max(drawn);
            }
        }
        worst
    }

    #[test]
    fn one_pass_finds_what_all_pairs_find() {
        let mut seed = Seed::new(11);
        let origin = clock::now();
        for _ in 0..50 {
            let mut some = |most: u64, within: u64| -> Vec<Instant> {
                let count = seed.within(1..most);
                let mut all: Vec<_> = (0..count)
                    .map(|_| origin + Duration::from_millis(1_000 + seed.within(0..within)))
                    .collect();
                all.sort_unstable();
                all
            };
            let (retries, requests) = (some(60, 3_000), some(200, 3_000));
            let budget = Budget { capacity: 5.0, ratio: 0.2, reserve_per_second: 3.0 };
            let found = worst(&retries, &requests, budget).unwrap().drawn;
            let expected = naive(&retries, &requests, budget);
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn a_burst_within_a_quiet_log_is_found() {
        let origin = clock::now() + Duration::from_secs(1);
        let requests: Vec<_> = (0..1_000).map(|n| origin + Duration::from_millis(10 * n)).collect();
        let mut retries: Vec<_> =
            (0..20).map(|n| origin + Duration::from_millis(450 * n)).collect();
        let budget = Budget { capacity: 10.0, ratio: 0.1, reserve_per_second: 0.0 };
        let drawn = |retries: &[Instant]| worst(retries, &requests, budget).unwrap().drawn;
        assert!(drawn(&retries) <= budget.capacity);

        // Over the whole run the ratio would allow a hundred; within an instant it does not.
        retries.extend(std::iter::repeat_n(origin + Duration::from_secs(5), 12));
        retries.sort_unstable();
        assert!(drawn(&retries) > budget.capacity);
        assert_eq!(worst(&[], &requests, budget), None);
    }
}
