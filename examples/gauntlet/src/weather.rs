//! The weather: what the upstream suffers, when, and which request it strikes.

use std::time::Duration;

use portcullis_testkit::Seed;
use serde::Serialize;

/// What the upstream suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weather {
    /// Every request is answered within some milliseconds.
    Healthy,
    /// As in healthy weather, but the load comes three times as fast.
    Burst,
    /// More than half of the requests take 80 to 300 ms.
    Slow,
    /// 30 % of the requests are answered 503, without `Retry-After`.
    Flaky,
    /// Above a rate, half of the requests are answered 429, with `Retry-After: 1`.
    Throttling,
    /// Connections are cut and refused.
    Outage,
    /// 20 % of the bodies break off half-way.
    CutBodies,
    /// Requests are read and never answered.
    Hung,
    /// 503s grow rarer, from 40 % to none.
    Recovering,
    /// As at the start.
    HealthyAgain,
}

/// A stretch of one weather, in time since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) weather: Weather,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// What the upstream does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// How long it takes to act.
    pub(crate) delay: Duration,
    /// How it acts.
    pub(crate) act: Act,
}

/// How the upstream acts on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Answers 200 with a whole body.
    Answer,
    /// Answers 503.
    Fail,
    /// Answers 429 with `Retry-After: 1`.
    Throttle,
    /// Answers 200, promises a body and breaks it off half-way.
    Cut,
    /// Never answers.
    Hang,
}

/// Which weather comes when: the same order always, scaled to the length of the run.
///
/// Fates hang on the seed, the request's id, the attempt and the weather, so that both clients'
/// upstreams strike the same requests; in throttling weather also on how many requests come.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    seed: u64,
    phases: [Phase; Weather::ALL.len()],
}

// ===== impl Weather =====

impl Weather {
    pub(crate) const ALL: [Self; 10] = [
        Self::Healthy,
        Self::Burst,
        Self::Slow,
        Self::Flaky,
        Self::Throttling,
        Self::Outage,
        Self::CutBodies,
        Self::Hung,
        Self::Recovering,
        Self::HealthyAgain,
    ];

    /// What a person calls it; at most 14 characters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Burst => "burst",
            Self::Slow => "slow",
            Self::Flaky => "30 % 503",
            Self::Throttling => "429 throttling",
            Self::Outage => "outage",
            Self::CutBodies => "cut bodies",
            Self::Hung => "hung",
            Self::Recovering => "recovering",
            Self::HealthyAgain => "healthy again",
        }
    }

    /// How many times the usual load comes.
    pub(crate) const fn load(self) -> f64 {
        match self {
            Self::Burst => 3.0,
            _ => 1.0,
        }
    }

    /// Seconds of a run of some twenty.
    const fn weight(self) -> f64 {
        match self {
            Self::Healthy | Self::Flaky | Self::HealthyAgain => 3.0,
            Self::Slow | Self::Throttling | Self::Outage | Self::Recovering => 2.0,
            Self::Burst | Self::CutBodies | Self::Hung => 1.5,
        }
    }
}

// ===== impl Script =====

impl Script {
    /// The upstream throttles above so many requests a second.
    pub(crate) const THROTTLES_ABOVE: f64 = 100.0;

    /// However short the run, a breaker has so long to open and to spare the upstream some calls,
    const LEAST_OUTAGE: f64 = 1.0;
    /// and so long at the end to close.
    const LEAST_HEALTHY_AGAIN: f64 = 1.5;
    /// Each hung request holds two descriptors of this process until its client gives up, and a
    /// client without a timeout takes its time over that.
    const MOST_HUNG: f64 = 2.0;
    /// What comes faster than it may pass for longer than anybody would wait is refused in the end,
    /// by whatever limit.
    const MOST_BURST: f64 = 2.0;

    /// The script for a run of so many seconds.
    pub(crate) fn new(seconds: u64, seed: u64) -> Self {
        let seconds = seconds as f64;
        let whole: f64 = Weather::ALL.into_iter().map(Weather::weight).sum();
        let others = whole - Weather::Outage.weight() - Weather::HealthyAgain.weight();
        let left = seconds - Self::LEAST_OUTAGE - Self::LEAST_HEALTHY_AGAIN;
        let scale = (seconds / whole).min(left / others);
        let mut at = 0.0;
        let phases = Weather::ALL.map(|weather| {
            let length = match weather {
                Weather::Outage => (weather.weight() * scale).max(Self::LEAST_OUTAGE),
                Weather::Burst => (weather.weight() * scale).min(Self::MOST_BURST),
                Weather::Hung => (weather.weight() * scale).min(Self::MOST_HUNG),
                Weather::HealthyAgain => seconds - at,
                _ => weather.weight() * scale,
            };
            let from = Duration::from_secs_f64(at);
            at += length;
            Phase { weather, from, until: Duration::from_secs_f64(at) }
        });
        Self { seed, phases }
    }

    /// All weathers in their order.
    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// How long the script lasts.
    pub(crate) fn length(&self) -> Duration {
        self.phases[self.phases.len() - 1].until
    }

    /// When it is `weather`.
    pub(crate) fn phase(&self, weather: Weather) -> Phase {
        self.phases[weather as usize]
    }

    /// The phase that is on after so much time; the last one once the script is over.
    pub(crate) fn at(&self, elapsed: Duration) -> Phase {
        let on = self.phases.iter().find(|phase| elapsed < phase.until);
        *on.unwrap_or(&self.phases[self.phases.len() - 1])
    }

    /// What becomes of a request that reaches the upstream after so much time. `rate` is how many
    /// have lately come in a second.
    pub(crate) fn fate(&self, id: u32, attempt: u32, elapsed: Duration, rate: f64) -> Fate {
        let phase = self.at(elapsed);
        let roll = roll(self.seed, id, attempt);
        let mut rolls = keyed(self.seed, id, attempt);
        let mut micros = |range| Duration::from_micros(rolls.within(range));
        let (fair, slow) = (micros(2_000..8_000), micros(80_000..300_000));
        let struck = |share: f64, act: Act| if roll < share { act } else { Act::Answer };
        let act = match phase.weather {
            Weather::Flaky => struck(0.3, Act::Fail),
            Weather::Throttling if rate > Self::THROTTLES_ABOVE => struck(0.5, Act::Throttle),
            Weather::CutBodies => struck(0.2, Act::Cut),
            Weather::Hung => Act::Hang,
            Weather::Recovering => struck(0.4 * (1.0 - phase.progress(elapsed)), Act::Fail),
            // In an outage only what was on its way when it began or ended comes here.
            Weather::Healthy
            | Weather::Burst
            | Weather::Slow
            | Weather::Throttling
            | Weather::Outage
            | Weather::HealthyAgain => Act::Answer,
        };
        let delay = match phase.weather {
            Weather::Slow if roll < 0.6 => slow,
            _ => fair,
        };
        Fate { delay, act }
    }
}

// ===== impl Phase =====

impl Phase {
    fn progress(&self, elapsed: Duration) -> f64 {
        let length = self.until.saturating_sub(self.from).as_secs_f64();
        (elapsed.saturating_sub(self.from).as_secs_f64() / length).clamp(0.0, 1.0)
    }
}

/// A number in [0, 1) for an attempt of a request. Of the twenty requests of a block each gets one of
/// twenty equal parts of the range, in an order that hangs on the seed: so a weather that strikes
/// 30 % strikes six of twenty, and a short run is not spared by luck.
fn roll(seed: u64, id: u32, attempt: u32) -> f64 {
    const BLOCK: u32 = 20;
    let mut block = keyed(seed, id / BLOCK, attempt);
    let mut parts: [u32; BLOCK as usize] = std::array::from_fn(|part| part as u32);
    // Fisher and Yates's shuffle.
    for last in (1..parts.len()).rev() {
        parts.swap(last, block.within(0..last as u64 + 1) as usize);
    }
    let part = parts[(id % BLOCK) as usize];
    let within = keyed(!seed, id, attempt).unit();
    (f64::from(part) + within) / f64::from(BLOCK)
}

/// A stream of numbers that hangs on nothing but its key, whoever draws from it and when.
fn keyed(seed: u64, id: u32, attempt: u32) -> Seed {
    let by_id = Seed::new(seed).next_u64() ^ u64::from(id);
    let by_attempt = Seed::new(by_id).next_u64() ^ u64::from(attempt);
    Seed::new(by_attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(script: &Script, elapsed: Duration, rate: f64, act: Act) -> f64 {
        let fates = (0..10_000).map(|id| script.fate(id, 1, elapsed, rate));
        fates.filter(|fate| fate.act == act).count() as f64 / 10_000.0
    }

    fn middle(script: &Script, weather: Weather) -> Duration {
        let phase = script.phase(weather);
        (phase.from + phase.until) / 2
    }

    #[test]
    fn weathers_follow_each_other_without_a_gap_and_fill_the_run() {
        for seconds in [5, 6, 19, 20, 21, 60, 600] {
            let script = Script::new(seconds, 1);
            assert_eq!(script.length(), Duration::from_secs(seconds));
            assert_eq!(script.phases()[0].from, Duration::ZERO);
            for (both, weather) in script.phases().windows(2).zip(Weather::ALL) {
                assert_eq!(both[0].until, both[1].from);
                assert_eq!(script.phase(weather), both[0]);
                assert!(both[0].until - both[0].from >= Duration::from_millis(220));
            }
            let outage = script.phase(Weather::Outage);
            assert!(outage.until - outage.from >= Duration::from_millis(999));
            let last = script.phase(Weather::HealthyAgain);
            assert!(last.until - last.from >= Duration::from_millis(1499));
            let hung = script.phase(Weather::Hung);
            assert!(hung.until - hung.from <= Duration::from_millis(2001));
            let burst = script.phase(Weather::Burst);
            assert!(burst.until - burst.from <= Duration::from_millis(2001));
        }
    }

    #[test]
    fn a_phase_begins_with_its_first_instant_and_the_last_never_ends() {
        let script = Script::new(20, 1);
        for phase in script.phases() {
            assert_eq!(script.at(phase.from).weather, phase.weather);
        }
        let after = script.at(Duration::from_secs(3_600));
        assert_eq!(after.weather, Weather::HealthyAgain);
    }

    #[test]
    fn fates_hang_on_seed_id_and_attempt_alone() {
        let (one, again, other) = (Script::new(20, 7), Script::new(20, 7), Script::new(20, 8));
        let at = middle(&one, Weather::Flaky);
        let fates = |script: &Script, attempt| -> Vec<Fate> {
            (0..200).map(|id| script.fate(id, attempt, at, 0.0)).collect()
        };
        assert_eq!(fates(&one, 1), fates(&again, 1));
        assert_ne!(fates(&one, 1), fates(&one, 2));
        assert_ne!(fates(&one, 1), fates(&other, 1));
    }

    #[test]
    fn of_twenty_requests_the_share_is_struck_whichever_they_are() {
        for (seed, attempt) in [(1, 1), (1, 2), (u64::MAX, 1)] {
            let script = Script::new(5, seed);
            let at = middle(&script, Weather::Flaky);
            let struck = |id: &u32| script.fate(*id, attempt, at, 0.0).act == Act::Fail;
            let blocks: Vec<Vec<u32>> = (0..50)
                .map(|block| (20 * block..20 * (block + 1)).filter(struck).collect())
                .collect();
            assert!(blocks.iter().all(|block| block.len() == 6));
            let places = |block: &Vec<u32>| block.iter().map(|id| id % 20).collect::<Vec<_>>();
            assert_ne!(places(&blocks[0]), places(&blocks[1]));
        }
    }

    #[test]
    fn each_weather_strikes_its_share() {
        let script = Script::new(20, 3);
        let near = |share: f64, expected: f64| (share - expected).abs() < 0.02;
        let at = |weather| middle(&script, weather);

        assert_eq!(share(&script, at(Weather::Healthy), 1e3, Act::Answer), 1.0);
        assert_eq!(share(&script, at(Weather::Hung), 0.0, Act::Hang), 1.0);
        assert!(near(share(&script, at(Weather::Flaky), 0.0, Act::Fail), 0.3));
        assert!(near(share(&script, at(Weather::CutBodies), 0.0, Act::Cut), 0.2));
        assert!(near(share(&script, at(Weather::Recovering), 0.0, Act::Fail), 0.2));
        let throttling = at(Weather::Throttling);
        assert_eq!(share(&script, throttling, 99.0, Act::Throttle), 0.0);
        assert!(near(share(&script, throttling, 101.0, Act::Throttle), 0.5));

        let slow = (0..1_000).map(|id| script.fate(id, 1, at(Weather::Slow), 0.0));
        let slow = slow.filter(|fate| fate.delay >= Duration::from_millis(80));
        assert!((550..650).contains(&slow.count()));
    }
}
