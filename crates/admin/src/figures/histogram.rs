//! How long calls took, in bounded memory.

use std::time::Duration;

use portcullis_core::sync::atomic::{AtomicU64, Ordering};

/// Counts by duration, in buckets that grow with what they hold: 32 to each doubling. So a percentile is
/// known to 1/64 of its value, 1.6 %, whatever it is, or to a microsecond where that is more.
///
/// Statistics only, so every access is relaxed.
#[derive(Debug)]
pub(crate) struct Histogram(Box<[AtomicU64]>);

/// Buckets to a doubling, as a power of two.
const FINE: u32 = 5;
/// What takes longer, some 19 hours, is counted as that.
const LONGEST: u64 = (1 << 36) - 1;
const BUCKETS: usize = bucket(LONGEST) + 1;

/// Counts at one moment.
pub(crate) struct Counts {
    buckets: Vec<u64>,
    total: u64,
}

// ===== impl Histogram =====

impl Histogram {
    pub(crate) fn new() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn look(&self) -> Counts {
        let buckets: Vec<_> = self.0.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let total = buckets.iter().sum();
        Counts { buckets, total }
    }

    pub(crate) fn reset(&self) {
        for bucket in &self.0 {
            bucket.store(0, Ordering::Relaxed);
        }
    }
}

// ===== impl Counts =====

impl Counts {
    /// The duration that this share of calls took at most; `None` if there were none.
    pub(crate) fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0;
        let at = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_micros(middle(at)))
    }
}

/// Which bucket a duration is counted in.
const fn bucket(micros: u64) -> usize {
    if micros < 1 << FINE {
        return micros as usize;
    }
    let doublings = micros.ilog2() - FINE;
    let within = (micros >> doublings) as usize & ((1 << FINE) - 1);
    ((doublings as usize + 1) << FINE) + within
}

/// The middle of what a bucket holds.
const fn middle(bucket: usize) -> u64 {
    if bucket < 1 << FINE {
        return bucket as u64;
    }
    let doublings = (bucket >> FINE) - 1;
    let within = (bucket & ((1 << FINE) - 1)) as u64;
    (((1 << FINE) + within) << doublings) + (1 << doublings) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_is_known_to_a_64th(micros in 0..=LONGEST) {
            let shown = middle(bucket(micros));
            prop_assert!(shown.abs_diff(micros) <= micros / 64 + 1);
            prop_assert!(bucket(micros) < BUCKETS);
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_list_to_a_64th(
            mut all in prop::collection::vec(0_u64..100_000_000, 1..200),
            share in 0.01_f64..=1.0,
        ) {
            let histogram = Histogram::new();
            for micros in &all {
                histogram.record(Duration::from_micros(*micros));
            }
            all.sort_unstable();
            let exact = all[((share * all.len() as f64).ceil() as usize).max(1) - 1];
            let shown = histogram.look().percentile(share).unwrap().as_micros() as u64;
            prop_assert!(shown.abs_diff(exact) <= exact / 64 + 1, "{shown} for {exact}");
        }
    }

    #[test]
    fn there_is_no_percentile_of_nothing_and_what_is_longest_has_its_place() {
        let histogram = Histogram::new();
        assert_eq!(histogram.look().percentile(0.99), None);
        histogram.record(Duration::MAX);
        let hours = histogram.look().percentile(0.5).unwrap().as_secs() / 3600;
        assert_eq!(hours, 18);
        histogram.reset();
        assert_eq!(histogram.look().percentile(0.5), None);
    }
}
