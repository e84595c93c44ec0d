//! What happened in each of the last sixty seconds.

use portcullis_core::sync::atomic::{AtomicU64, Ordering};

/// How many seconds are looked back upon.
pub(crate) const SECONDS: u64 = 60;

/// A count for each of the last sixty seconds. Whoever comes first in a second takes the place of the
/// one a minute before.
///
/// Statistics only, so every access is relaxed: a place is one word, its second and its count together.
#[derive(Debug)]
pub(crate) struct Ring([AtomicU64; SECONDS as usize]);

/// The upper half of a place is its second, from 1, so that an empty one is of none.
const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

// ===== impl Ring =====

impl Ring {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one in this second. One from more than a minute before what the ring holds is not counted.
    #[inline]
    pub(crate) fn add(&self, second: u64) {
        let place = &self.0[(second % SECONDS) as usize];
        let own = (second + 1) << COUNT_BITS;
        let mut word = place.load(Ordering::Relaxed);
        loop {
            if word & !COUNT == own {
                // Should the place change hands in between, one is counted in a later minute.
                place.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if word > own {
                return;
            }
            match place.compare_exchange_weak(word, own | 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// The counts of the sixty seconds that end with this one, the oldest first.
    pub(crate) fn look(&self, second: u64) -> impl Iterator<Item = u64> {
        (0..SECONDS).map(move |index| {
            // Before the first second there was nothing.
            let Some(of) = (second + index + 1).checked_sub(SECONDS) else { return 0 };
            let word = self.0[(of % SECONDS) as usize].load(Ordering::Relaxed);
            if word & !COUNT == (of + 1) << COUNT_BITS { word & COUNT } else { 0 }
        })
    }

    pub(crate) fn reset(&self) {
        for place in &self.0 {
            place.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;

    fn total(ring: &Ring, second: u64) -> u64 {
        ring.look(second).sum()
    }

    #[test]
    fn a_second_is_seen_for_a_minute_and_then_gone() {
        let ring = Ring::new();
        ring.add(7);
        ring.add(7);
        ring.add(8);
        let seen: Vec<_> = ring.look(8).collect();
        assert_eq!(seen[..58], [0; 58]);
        assert_eq!(seen[58..], [2, 1]);
        assert_eq!(total(&ring, 66), 3);
        assert_eq!(total(&ring, 67), 1);
        assert_eq!(total(&ring, 68), 0);
    }

    #[test]
    fn a_new_minute_takes_the_places_of_the_last_and_what_is_late_is_dropped() {
        let ring = Ring::new();
        ring.add(5);
        ring.add(65);
        ring.add(5);
        assert_eq!(total(&ring, 65), 1);
        ring.reset();
        assert_eq!(total(&ring, 65), 0);
    }
}
