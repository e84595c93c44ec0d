//! What the logs come to, in numbers.

use std::time::Duration;

use serde::Serialize;

use crate::{
    attempts::Attempt,
    load::{Called, Course},
    upstream::Access,
    weather::Weather,
};

/// All that was logged about one side of the run.
#[derive(Debug, Default)]
pub(crate) struct SideLog {
    /// The calls, by whoever made them.
    pub(crate) calls: Vec<Called>,
    /// The attempts, by the client.
    pub(crate) attempts: Vec<Attempt>,
    /// The requests that reached the upstream, by the upstream.
    pub(crate) accesses: Vec<Access>,
}

/// How one side fared, in all or in one weather.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Calls that were made.
    pub(crate) requests: usize,
    /// The share of them that was answered 2xx with a whole body, 0 to 1.
    pub(crate) success_rate: f64,
    /// How long they took to the end of the body, or to their failure; exact percentiles.
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    /// Attempts that the client made, connections that were refused included.
    pub(crate) upstream_calls: usize,
    /// Attempts for each call.
    pub(crate) amplification: f64,
}

// ===== impl SideLog =====

impl SideLog {
    /// The whole run in numbers.
    pub(crate) fn figures(&self) -> Figures {
        Figures::of(self.calls.iter(), self.attempts.len())
    }

    /// One weather in numbers: the calls made in it, and the attempts made in it, of whichever call.
    pub(crate) fn figures_in(&self, weather: Weather, course: &Course) -> Figures {
        Figures::of(
            self.calls.iter().filter(|call| call.weather == weather),
            self.attempts_in(weather, course),
        )
    }

    fn attempts_in(&self, weather: Weather, course: &Course) -> usize {
        let made_in = |attempt: &&Attempt| course.weather_at(attempt.started) == weather;
        self.attempts.iter().filter(made_in).count()
    }
}

// ===== impl Figures =====

impl Figures {
    fn of<'a>(calls: impl Iterator<Item = &'a Called>, upstream_calls: usize) -> Self {
        let mut ok = 0;
        let mut took: Vec<Duration> = calls
            .inspect(|call| ok += usize::from(call.result.is_ok()))
            .map(|call| call.ended.saturating_duration_since(call.started))
            .collect();
        took.sort_unstable();
        let requests = took.len();
        let ratio = |of: usize| match requests {
            0 => 0.0,
            _ => of as f64 / requests as f64,
        };
        Self {
            requests,
            success_rate: ratio(ok),
            p50_ms: percentile(&took, 50),
            p95_ms: percentile(&took, 95),
            p99_ms: percentile(&took, 99),
            upstream_calls,
            amplification: ratio(upstream_calls),
        }
    }
}

/// The nearest-rank percentile of sorted times, in milliseconds to the microsecond; 0 of none.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let nearest = sorted.get(rank.saturating_sub(1));
    nearest.map_or(0.0, |took| took.as_micros() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let hundred: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&hundred[..10], 99), 10.0);
        assert_eq!(percentile(&hundred[..1], 50), 1.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
