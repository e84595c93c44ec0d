//! Where chance comes from.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Where random numbers come from.
///
/// ```
/// use portcullis_core::backoff::Chance;
///
/// let (one, other) = (Chance::seeded(17), Chance::seeded(17));
/// assert_eq!(one.next(), other.next());
/// ```
#[derive(Debug)]
pub struct Chance(Source);

#[derive(Debug)]
enum Source {
    /// A generator of each thread's own: nothing is shared.
    Thread,
    /// One sequence, for tests that must repeat.
    Seeded(AtomicU64),
}

// ===== impl Chance =====

impl Chance {
    /// By a generator of each thread's own.
    #[must_use]
    pub const fn by_thread() -> Self {
        Self(Source::Thread)
    }

    /// By one sequence that repeats for the same seed, for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(AtomicU64::new(seed)))
    }

    /// The one of this seed, if there is one.
    #[must_use]
    pub fn of(seed: Option<u64>) -> Self {
        seed.map_or(Self::by_thread(), Self::seeded)
    }

    /// 64 random bits.
    #[must_use]
    pub fn next(&self) -> u64 {
        match &self.0 {
            Source::Thread => fastrand::u64(..),
            // Relaxed: each caller gets a number of its own from the counter, and nothing else is
            // published by it.
            Source::Seeded(counter) => mix(counter.fetch_add(GAMMA, Ordering::Relaxed)),
        }
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea and Flood, OOPSLA 2014).
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(GAMMA);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeds_numbers_are_those_published_for_its_generator() {
        let chance = Chance::seeded(1_234_567);
        let drawn: Vec<_> = (0..3).map(|_| chance.next()).collect();
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
    }

    #[test]
    fn a_seed_repeats_itself() {
        let (one, two) = (Chance::seeded(7), Chance::seeded(7));
        let drawn: Vec<_> = (0..4).map(|_| one.next()).collect();
        assert_eq!(drawn, (0..4).map(|_| two.next()).collect::<Vec<_>>());
        assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
