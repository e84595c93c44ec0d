//! How long each wait is: the backoff, and what chance makes of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{Backoff, Jitter, at_most_longest};
use crate::{Hint, Invalid};

/// Computes the wait before each retry, or before each poll. For layers: it reads no clock and draws no
/// chance of its own.
///
/// ```
/// use portcullis_core::{Backoff, Hint, Jitter, backoff::{Chance, Delays}};
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let delays = Delays::new(Backoff::exponential(second, second * 30), Jitter::None)?;
/// let (chance, mut reached) = (Chance::seeded(17), Default::default());
/// let mut wait = |number, hint| delays.wait(number, hint, &mut reached, || chance.next());
/// assert_eq!(wait(1, Hint::None), second);
/// assert_eq!(wait(2, Hint::None), second * 2);
/// assert_eq!(wait(3, Hint::After(second * 7)), second * 7);
/// # Ok::<_, portcullis_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Delays {
    source: Source,
    jitter: Jitter,
}

#[derive(Clone)]
enum Source {
    Plain(Backoff),
    Custom { cap: Duration, delay: CustomDelay },
}

/// The wait before retry n, from 1, by a function of the user's.
pub type CustomDelay = Arc<dyn Fn(u32) -> Duration + Send + Sync>;

/// What a wait is drawn from: `min(cap, floor + U(0, width))`.
///
/// With a hint the random part comes on top of the hint, so the two are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    floor: Duration,
    width: Duration,
    cap: Duration,
}

/// How far a backoff has come: what one [wait](Delays::wait) leaves for the next. It begins with the
/// default one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// What was computed last; `None` if nothing was, or not since it started over.
    pub computed: Option<Duration>,
    /// The wait after which it started over, because an exact hint came in its place; 0 if none did.
    pub restarted_after: u32,
}

// ===== impl Delays =====

impl Delays {
    /// Waits by these settings.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(backoff: Backoff, jitter: Jitter) -> Result<Self, Invalid> {
        backoff.validate()?;
        jitter.validate()?;
        Ok(Self { source: Source::Plain(backoff), jitter })
    }

    /// Waits by a function of the user's, none longer than `cap`, which is at most one day.
    ///
    /// # Errors
    ///
    /// A cap or a jitter that is out of its range.
    pub fn custom(cap: Duration, delay: CustomDelay, jitter: Jitter) -> Result<Self, Invalid> {
        at_most_longest("backoff.max", cap)?;
        jitter.validate()?;
        Ok(Self { source: Source::Custom { cap, delay }, jitter })
    }

    /// The wait number `number`, from 1: that of the backoff, or the peer's hint and what chance adds to
    /// it. `chance` gives 64 random bits, and is asked once at most.
    ///
    /// After an [exact](Hint::Exactly) hint the backoff starts over. A hint of [`Never`](Hint::Never) is
    /// the caller's to see to; here it is as none.
    #[must_use]
    pub fn wait(
        &self,
        number: u32,
        hint: Hint,
        reached: &mut Reached,
        chance: impl FnOnce() -> u64,
    ) -> Duration {
        let spread =
            || self.before(number.saturating_sub(reached.restarted_after), reached.computed);
        match hint {
            Hint::After(hint) => spread().draw_after(hint, chance()),
            Hint::Exactly(hint) => {
                *reached = Reached { computed: None, restarted_after: number };
                hint
            }
            Hint::None | Hint::Never => {
                let delay = spread().draw(chance());
                reached.computed = Some(delay);
                delay
            }
        }
    }

    /// The longest wait that is ever computed, jitter aside.
    #[must_use]
    pub fn longest(&self) -> Duration {
        match &self.source {
            Source::Plain(Backoff::Exponential { max, .. } | Backoff::Decorrelated { max, .. }) => {
                *max
            }
            Source::Plain(Backoff::Fixed { delay }) => *delay,
            Source::Custom { cap, .. } => *cap,
        }
    }

    /// What the wait before retry `retry` (from 1) is drawn from, after a wait of `previous`.
    #[must_use]
    pub fn before(&self, retry: u32, previous: Option<Duration>) -> Spread {
        let (delay, cap) = match &self.source {
            Source::Plain(Backoff::Exponential { initial, multiplier, max }) => {
                let grown = multiplier.powf(f64::from(retry.saturating_sub(1)));
                // Beyond what a duration can hold it is beyond the cap as well.
                let delay = Duration::try_from_secs_f64(initial.as_secs_f64() * grown);
                (delay.unwrap_or(*max), *max)
            }
            Source::Plain(Backoff::Fixed { delay }) => (*delay, Duration::MAX),
            Source::Plain(Backoff::Decorrelated { initial, max }) => {
                let highest = previous.unwrap_or(*initial).saturating_mul(3);
                return Spread {
                    floor: *initial,
                    width: highest.saturating_sub(*initial),
                    cap: *max,
                };
            }
            Source::Custom { cap, delay } => (delay(retry), *cap),
        };
        Spread::new(delay.min(cap), cap, self.jitter)
    }
}

// ===== impl Spread =====

impl Spread {
    fn new(delay: Duration, cap: Duration, jitter: Jitter) -> Self {
        let (floor, width) = match jitter {
            Jitter::Full => (Duration::ZERO, delay),
            Jitter::Equal => (delay - delay / 2, delay / 2),
            Jitter::Fraction(fraction) => {
                // Cut at the cap, all long waits would be alike: the herd would be back.
                let most = cap.as_secs_f64() / (1.0 + fraction);
                // No cap at all is a duration that seconds in a float are just short of or beyond.
                let floor = delay.min(Duration::try_from_secs_f64(most).unwrap_or(cap));
                (floor, floor.mul_f64(fraction))
            }
            Jitter::Around(fraction) => {
                let swing = delay.mul_f64(fraction);
                // Where the delay is the cap, the upper half of the swing lies beyond it.
                let (floor, cap) = (delay.saturating_sub(swing), delay.saturating_add(swing));
                return Self { floor, width: swing.saturating_mul(2), cap };
            }
            Jitter::None => (delay, Duration::ZERO),
        };
        Self { floor, width, cap }
    }

    /// A wait, drawn with the random `word`: the shortest with 0, the longest with all bits set.
    #[must_use]
    pub fn draw(self, word: u64) -> Duration {
        self.cap.min(self.floor.saturating_add(share(self.width, word)))
    }

    /// A wait of at least `hint`, drawn with the random `word`. A hint may exceed the cap.
    #[must_use]
    pub fn draw_after(self, hint: Duration, word: u64) -> Duration {
        hint.saturating_add(self.cap.min(share(self.width, word)))
    }
}

/// `U(0, width)`, both ends included.
fn share(width: Duration, word: u64) -> Duration {
    let nanos = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX);
    // The high half of the product is uniform over the width, without a division.
    let drawn = (u128::from(word) * (u128::from(nanos) + 1)) >> 64;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(nanos))
}

// ===== impl Debug =====

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(backoff) => backoff.fmt(f),
            Self::Custom { cap, .. } => {
                f.debug_struct("Custom").field("cap", cap).finish_non_exhaustive()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LOWEST: u64 = 0;
    const HIGHEST: u64 = u64::MAX;

    fn ends(delays: &Delays, retry: u32) -> (Duration, Duration) {
        let spread = delays.before(retry, None);
        (spread.draw(LOWEST), spread.draw(HIGHEST))
    }

    #[test]
    fn full_jitter_is_drawn_between_nothing_and_the_doubling_delay() {
        let delays = Delays::new(Backoff::default(), Jitter::Full).unwrap();
        let highest = [1, 2, 4, 8, 16, 30, 30].map(|s| SECOND * s);
        for (retry, highest) in (1..).zip(highest) {
            assert_eq!(ends(&delays, retry), (Duration::ZERO, highest));
        }
        assert_eq!(ends(&delays, u32::MAX).1, SECOND * 30);
    }

    #[test]
    fn the_other_jitters_stay_within_the_cap_and_keep_their_spread() {
        let with = |jitter| Delays::new(Backoff::default(), jitter).unwrap();
        assert_eq!(ends(&with(Jitter::None), 2), (SECOND * 2, SECOND * 2));
        assert_eq!(ends(&with(Jitter::Equal), 2), (SECOND, SECOND * 2));

        let quarter = with(Jitter::Fraction(0.25));
        assert_eq!(ends(&quarter, 1), (SECOND, SECOND * 5 / 4));
        assert_eq!(ends(&quarter, 9), (SECOND * 24, SECOND * 30));
        let fixed = Delays::new(Backoff::fixed(SECOND), Jitter::Fraction(0.25)).unwrap();
        assert_eq!(ends(&fixed, 1), (SECOND, SECOND * 5 / 4));
    }

    #[test]
    fn around_a_delay_is_as_much_below_it_as_above_also_at_the_cap() {
        let around = Delays::new(Backoff::default(), Jitter::Around(0.2)).unwrap();
        assert_eq!(ends(&around, 1), (SECOND * 4 / 5, SECOND * 6 / 5));
        assert_eq!(ends(&around, 9), (SECOND * 24, SECOND * 36));
        let whole = Delays::new(Backoff::fixed(SECOND), Jitter::Around(1.0)).unwrap();
        assert_eq!(ends(&whole, 1), (Duration::ZERO, SECOND * 2));
    }

    #[test]
    fn a_multiplier_below_one_makes_waits_shorter() {
        let halving = Backoff::Exponential { initial: SECOND, multiplier: 0.5, max: SECOND * 30 };
        let delays = Delays::new(halving, Jitter::None).unwrap();
        assert_eq!([1, 2, 3].map(|retry| ends(&delays, retry).1), [SECOND, SECOND / 2, SECOND / 4]);
        assert_eq!(ends(&delays, u32::MAX).1, Duration::ZERO);
    }

    #[test]
    fn decorrelated_waits_grow_from_the_one_before() {
        let delays = Delays::new(Backoff::decorrelated(SECOND, SECOND * 30), Jitter::None).unwrap();
        assert_eq!(ends(&delays, 1), (SECOND, SECOND * 3));
        let later = delays.before(2, Some(SECOND * 7));
        assert_eq!(later.draw(LOWEST), SECOND);
        assert_eq!(later.draw(HIGHEST), SECOND * 21);
        let capped = delays.before(3, Some(SECOND * 21));
        assert_eq!(capped.draw(HIGHEST), SECOND * 30);
    }

    #[test]
    fn a_fraction_of_nothing_leaves_a_fixed_delay_as_it_is() {
        let delays = Delays::new(Backoff::fixed(SECOND), Jitter::Fraction(0.0)).unwrap();
        assert_eq!(ends(&delays, 1), (SECOND, SECOND));
    }

    #[test]
    fn a_custom_delay_is_bounded_by_its_cap() {
        let delays = Delays::custom(SECOND, Arc::new(|_| Duration::MAX), Jitter::Full).unwrap();
        assert_eq!(ends(&delays, 1), (Duration::ZERO, SECOND));
    }

    #[test]
    fn a_hint_is_a_floor_that_may_exceed_the_cap() {
        let hint = SECOND * 50;
        for (jitter, highest) in [
            (Jitter::None, hint),
            (Jitter::Full, hint + SECOND * 2),
            (Jitter::Equal, hint + SECOND),
            (Jitter::Fraction(0.5), hint + SECOND),
            (Jitter::Around(0.5), hint + SECOND * 2),
        ] {
            let spread = Delays::new(Backoff::default(), jitter).unwrap().before(2, None);
            assert_eq!(spread.draw_after(hint, LOWEST), hint);
            assert_eq!(spread.draw_after(hint, HIGHEST), highest);
        }
    }
}
