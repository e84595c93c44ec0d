use std::ops::Range;

/// A small deterministic generator for tests: SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014). The same seed gives the same numbers on every
/// machine.
///
/// It is not for anything that must not be guessed.
///
/// # Example
///
/// ```
/// use portcullis_testkit::Seed;
///
/// let (mut a, mut b) = (Seed::new(7), Seed::new(7));
/// assert_eq!(a.next_u64(), b.next_u64());
///
/// let roll = a.within(1..7);
/// assert!((1..7).contains(&roll));
/// let mut other_stream = a.split();
/// assert_ne!(a.next_u64(), other_stream.next_u64());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    state: u64,
}

impl Seed {
    /// A generator that starts from `seed`. Every value is a good one, 0 included.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number, uniform over all 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number in `range`, uniform but for a bias of at most the range's width in 2⁶⁴.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "no number is within the empty range {range:?}");
        let width = u128::from(range.end - range.start);
        // The high half of the product is uniform over the width, without a division.
        let offset = (u128::from(self.next_u64()) * width) >> 64;
        range.start + offset as u64
    }

    /// The next number in [0, 1), with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `true` with this probability; at most 0 is never, at least 1 is always.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.within(0..choices.len() as u64) as usize]
    }

    /// A generator of its own, so that what one part of a test draws does not shift what another
    /// sees.
    #[must_use]
    pub const fn split(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}
