//! Failures in a row.

use portcullis_core::sync::atomic::{AtomicU64, Ordering};

/// Failures in a row: the low 32 bits of the generation, then the run.
#[derive(Default)]
pub(super) struct Run(AtomicU64);

/// A late writer may find a generation newer than its own. Further ahead than this it is not newer
/// but left over from before the 32 bits of the tag came round.
const NEWER: u32 = 1 << 20;

// ===== impl Run =====

impl Run {
    /// Counts a failure. Says how many came in a row, or 0 if the generation is over.
    pub(super) fn failed(&self, generation: u64) -> u32 {
        let tag = generation as u32;
        let more = |word: u64| {
            let ahead = (word as u32).wrapping_sub(tag);
            let run = match ahead {
                0 => ((word >> 32) as u32).saturating_add(1),
                1..NEWER => return None,
                _ => 1,
            };
            Some(u64::from(run) << 32 | u64::from(tag))
        };
        // Relaxed: generation and run are one word, and all writers change that word.
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(before) => more(before).map_or(0, |after| (after >> 32) as u32),
            Err(_) => 0,
        }
    }

    /// Ends a run. In good health this is one load of a line that nobody writes to.
    #[inline]
    pub(super) fn succeeded(&self, generation: u64) {
        let ended = |word: u64| {
            let ours = word as u32 == generation as u32;
            (ours && word >> 32 != 0).then_some(word & 0xffff_ffff)
        };
        if ended(self.0.load(Ordering::Relaxed)).is_some() {
            // An error means that there is nothing to end any more.
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, ended);
        }
    }

    pub(super) fn get(&self, generation: u64) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        match word as u32 == generation as u32 {
            true => (word >> 32) as u32,
            false => 0,
        }
    }
}

#[cfg(all(test, not(portcullis_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_a_generation_that_is_over_is_in_no_run() {
        let run = Run::default();
        assert_eq!((run.failed(7), run.failed(7)), (1, 2));
        assert_eq!(run.failed(6), 0);
        assert_eq!(run.failed((1 << 32) + 7 - u64::from(NEWER - 1)), 0);
        assert_eq!((run.get(7), run.get(6)), (2, 0));
        // Nor does a success of one end the run.
        run.succeeded(6);
        assert_eq!(run.get(7), 2);
        run.succeeded(7);
        assert_eq!((run.get(7), run.failed(6)), (0, 0));
    }

    #[test]
    fn a_run_left_over_from_before_the_tags_came_round_is_forgotten() {
        let run = Run::default();
        run.failed(u64::from(NEWER) + 1);
        assert_eq!(run.failed((1 << 32) + 1), 1);
        assert_eq!(run.get((1 << 32) + 1), 1);
    }
}
