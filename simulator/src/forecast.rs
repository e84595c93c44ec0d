//! The weather at each upstream, through the whole run.

use std::{fmt, time::Duration};

use portcullis_testkit::Seed;
use serde::Serialize;

/// What an upstream does to the requests that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weather {
    /// Everything is answered well, within 20 ms.
    Healthy,
    /// The same, while more calls come at one moment than the limit lets pass.
    Burst,
    /// Everything is answered well, but takes its time, and is not always ready to be asked.
    Slow,
    /// A share fails, in every way there is.
    Flaky,
    /// A share is answered 429, or 503, with a `Retry-After`.
    Throttling,
    /// Everything is answered 500 or 503.
    Down,
    /// No connection can be made.
    Refused,
    /// Bodies break off half-way.
    Cut,
    /// No head comes.
    HungHead,
    /// Bodies stop half-way.
    HungBody,
    /// A share fails that shrinks to nothing.
    Recovering,
}

/// A stretch of one weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) weather: Weather,
    /// Since the start of the run.
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// The weather at every upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// For each upstream, without a gap; the last weather is healthy.
    hosts: Vec<Vec<Partition>>,
    length: Duration,
}

/// How long good weather lasts: long enough for breakers to close and windows to be empty, and for
/// some calls after that.
const FAIR: Duration = Duration::from_secs(6);
/// How long bad weather lasts.
const FOUL: std::ops::Range<u64> = 2_000..5_000;

// ===== impl Weather =====

impl Weather {
    pub(crate) const FOUL: [Self; 10] = [
        Self::Burst,
        Self::Slow,
        Self::Flaky,
        Self::Throttling,
        Self::Down,
        Self::Refused,
        Self::Cut,
        Self::HungHead,
        Self::HungBody,
        Self::Recovering,
    ];

    /// Whether nothing succeeds in it.
    pub(crate) const fn is_outage(self) -> bool {
        matches!(self, Self::Down | Self::Refused | Self::HungHead)
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Burst => "burst",
            Self::Slow => "slow",
            Self::Flaky => "flaky",
            Self::Throttling => "throttling",
            Self::Down => "down",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::HungHead => "hung head",
            Self::HungBody => "hung body",
            Self::Recovering => "recovering",
        })
    }
}

// ===== impl Forecast =====

impl Forecast {
    /// All weathers at each of so many upstreams, in an order of its own.
    pub(crate) fn new(seed: &mut Seed, hosts: usize) -> Self {
        let mut hosts: Vec<_> = (0..hosts).map(|_| course(seed)).collect();
        let end = |course: &Vec<Partition>| course.last().map_or(FAIR, |last| last.until);
        let length = hosts.iter().map(end).max().unwrap_or(FAIR);
        for last in hosts.iter_mut().filter_map(|course| course.last_mut()) {
            last.until = length;
        }
        Self { hosts, length }
    }

    /// How long it reaches.
    pub(crate) const fn length(&self) -> Duration {
        self.length
    }

    /// How many upstreams there are.
    pub(crate) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The weathers at one upstream, in their order.
    pub(crate) fn of(&self, host: usize) -> &[Partition] {
        &self.hosts[host]
    }

    /// The weather at an upstream, so long after the start; afterwards the last one stays.
    pub(crate) fn at(&self, host: usize, since_start: Duration) -> Partition {
        let course = &self.hosts[host];
        let over = course.partition_point(|part| part.until <= since_start);
        course[over.min(course.len() - 1)]
    }
}

fn course(seed: &mut Seed) -> Vec<Partition> {
    let mut foul = Weather::FOUL;
    for place in (1..foul.len()).rev() {
        foul.swap(place, seed.within(0..place as u64 + 1) as usize);
    }
    let mut course: Vec<Partition> = Vec::new();
    let mut add = |weather, lasts| {
        let from = course.last().map_or(Duration::ZERO, |last| last.until);
        course.push(Partition { weather, from, until: from + lasts });
    };
    add(Weather::Healthy, FAIR / 2);
    for weather in foul {
        add(weather, Duration::from_millis(seed.within(FOUL)));
        // Sometimes one trouble follows upon another.
        if seed.chance(0.5) {
            add(Weather::Healthy, FAIR);
        }
    }
    add(Weather::Healthy, FAIR);
    course
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_upstream_goes_through_every_weather_and_ends_well() {
        let forecast = Forecast::new(&mut Seed::new(3), 4);
        for host in 0..forecast.hosts() {
            let course = forecast.of(host);
            for weather in Weather::FOUL {
                assert!(course.iter().any(|part| part.weather == weather), "{weather}");
            }
            assert!(course.windows(2).all(|two| two[0].until == two[1].from));
            let last = course[course.len() - 1];
            assert_eq!((last.weather, last.until), (Weather::Healthy, forecast.length()));
            assert_eq!(forecast.at(host, forecast.length() * 2), last);
            assert_eq!(forecast.at(host, course[1].from), course[1]);
        }
        assert_ne!(forecast.of(0), forecast.of(1));
    }
}
