//! What an upstream answers to one request, drawn from its seed and the weather.

use std::{collections::VecDeque, time::Duration};

use portcullis_testkit::Seed;

use crate::forecast::{Partition, Weather};

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How long the head, or the failure, takes.
    pub(crate) after: Duration,
    pub(crate) head: Head,
    /// What `Retry-After` says, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// How long each frame of the body takes.
    pub(crate) frames: VecDeque<Duration>,
    pub(crate) ending: Ending,
}

/// What comes instead of, or as, the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Status(u16),
    /// No connection.
    Refused,
    /// The connection breaks before the head.
    Broken,
    /// The client gives the request back: it never left.
    Unsent,
    /// The server's transport gives it back: no application saw it.
    Unprocessed,
    Never,
}

/// What comes after the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Whole,
    /// The connection breaks.
    Cut,
    Never,
}

// ===== impl Answer =====

impl Answer {
    /// The answer to a request that comes so long after the start.
    pub(crate) fn draw(seed: &mut Seed, part: Partition, since_start: Duration) -> Self {
        let answer = Self::well(seed);
        match part.weather {
            Weather::Healthy | Weather::Burst => answer,
            Weather::Slow => Self { after: millis(seed, 80..250), ..answer },
            Weather::Flaky if seed.chance(0.4) => answer.failing(seed),
            Weather::Throttling if seed.chance(0.5) => answer.throttled(seed),
            Weather::Down => {
                let status = *seed.pick(&[500, 503]);
                answer.with_status(status)
            }
            Weather::Refused => answer.with_head(Head::Refused),
            Weather::Cut if seed.chance(0.7) => answer.ending(seed, Ending::Cut),
            Weather::HungHead => answer.with_head(Head::Never),
            Weather::HungBody if seed.chance(0.7) => answer.ending(seed, Ending::Never),
            Weather::Recovering => {
                let (length, over) = (part.until - part.from, since_start - part.from);
                let share = 0.8 * (1.0 - over.as_secs_f64() / length.as_secs_f64());
                if seed.chance(share) { answer.failing(seed) } else { answer }
            }
            Weather::Flaky | Weather::Throttling | Weather::Cut | Weather::HungBody => answer,
        }
    }

    fn well(seed: &mut Seed) -> Self {
        let frames = seed.within(0..4);
        let frame = |_| if seed.chance(0.5) { Duration::ZERO } else { millis(seed, 1..5) };
        Self {
            frames: (0..frames).map(frame).collect(),
            after: millis(seed, 0..12),
            head: Head::Status(200),
            retry_after: None,
            ending: Ending::Whole,
        }
    }

    /// One of the failures there are.
    fn failing(self, seed: &mut Seed) -> Self {
        match seed.within(0..10) {
            0..4 => self.with_status(503),
            4 => self.with_status(500),
            5 => self.with_head(Head::Refused),
            6 => self.with_head(Head::Broken),
            7 => self.with_head(Head::Unsent),
            8 => self.with_head(Head::Unprocessed),
            _ => self.ending(seed, Ending::Cut),
        }
    }

    fn throttled(self, seed: &mut Seed) -> Self {
        // A wait of a second is beyond some holds, and within others.
        let retry_after = Some(seed.within(0..2));
        let status = *seed.pick(&[429, 429, 503]);
        Self { retry_after, ..self.with_status(status) }
    }

    fn ending(self, seed: &mut Seed, ending: Ending) -> Self {
        let frames = (0..seed.within(0..3)).map(|_| millis(seed, 0..5)).collect();
        Self { frames, ending, ..self }
    }

    fn with_status(self, status: u16) -> Self {
        self.with_head(Head::Status(status))
    }

    fn with_head(self, head: Head) -> Self {
        Self { head, ..self }
    }
}

fn millis(seed: &mut Seed, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(seed.within(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(weather: Weather) -> Vec<Answer> {
        let mut seed = Seed::new(5);
        let until = Duration::from_secs(4);
        let part = Partition { weather, from: Duration::ZERO, until };
        (0..400).map(|n| Answer::draw(&mut seed, part, until * n / 400)).collect()
    }

    fn is_well(answer: &Answer) -> bool {
        answer.head == Head::Status(200) && answer.ending == Ending::Whole
    }

    #[test]
    fn good_weather_answers_well_and_outages_never_do() {
        for weather in Weather::FOUL {
            let well = drawn(weather).iter().filter(|answer| is_well(answer)).count();
            match weather {
                Weather::Burst | Weather::Slow => assert_eq!(well, 400),
                _ if weather.is_outage() => assert_eq!(well, 0),
                _ => assert!((40..360).contains(&well), "{weather}: {well}"),
            }
        }
        assert!(drawn(Weather::Healthy).iter().all(is_well));
    }

    #[test]
    fn who_recovers_fails_less_and_less() {
        let answers = drawn(Weather::Recovering);
        let failed = |of: &[Answer]| of.iter().filter(|answer| !is_well(answer)).count();
        assert!(failed(&answers[..100]) > 3 * failed(&answers[300..]));
    }
}
