use std::time::{Duration, Instant};

/// The bound that a bucket of tokens keeps: in any interval of t seconds into which n deposits fall, at
/// most `capacity + ratio · n + per_second · t` withdrawals.
///
/// A retry budget keeps one, and a rate limit does, without deposits.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use portcullis_testkit::Bound;
/// use std::time::Duration;
///
/// let limit = Bound { capacity: 2.0, ratio: 0.0, per_second: 10.0 };
/// let start = tokio::time::Instant::now().into_std();
/// let at = |ms| start + Duration::from_millis(ms);
///
/// let kept = limit.worst(&[at(0), at(0), at(100), at(200)], &[], Duration::ZERO).unwrap();
/// assert!(kept.drawn <= limit.capacity + 1e-9);
/// let broken = limit.worst(&[at(0), at(500), at(500), at(500)], &[], Duration::ZERO).unwrap();
/// assert_eq!((broken.first, broken.last), (1, 3));
/// assert!(broken.drawn > limit.capacity);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Tokens of the full bucket.
    pub capacity: f64,
    /// Tokens that each deposit brings.
    pub ratio: f64,
    /// Tokens that each second brings.
    pub per_second: f64,
}

/// The worst interval: from one withdrawal to another, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// Withdrawals beyond what the deposits and the time in the interval had brought in; at most the
    /// capacity, if the bound was kept. It is summed up in floating point.
    pub drawn: f64,
    /// The interval's first withdrawal, by its place.
    pub first: usize,
    /// The interval's last withdrawal, by its place.
    pub last: usize,
}

impl Bound {
    /// Of all pairs of withdrawals, the one that has drawn most; `None` if there are none.
    ///
    /// Both lists are sorted. Deposits up to `noted_within` before and after an interval count as in
    /// it: zero where the notes are in the order of the deeds.
    ///
    /// What an interval has drawn is a difference of one term for its end and one for its start, so the
    /// worst end for the best start before it is found in one pass.
    #[must_use]
    pub fn worst(
        &self,
        withdrawals: &[Instant],
        deposits: &[Instant],
        noted_within: Duration,
    ) -> Option<Worst> {
        let origin = *withdrawals.first()?;
        let flowed =
            |at: Instant| self.per_second * at.saturating_duration_since(origin).as_secs_f64();
        let mut least: Option<(f64, usize)> = None;
        let mut worst: Option<Worst> = None;
        for (place, &at) in withdrawals.iter().enumerate() {
            let since = at.checked_sub(noted_within).unwrap_or(at);
            let before = deposits.partition_point(|&deposit| deposit < since);
            let start = place as f64 - self.ratio * before as f64 - flowed(at);
            let (from, first) = match least {
                Some((least, first)) if least <= start => (least, first),
                _ => (start, place),
            };
            least = Some((from, first));

            let until = deposits.partition_point(|&deposit| deposit <= at + noted_within);
            let end = (place + 1) as f64 - self.ratio * until as f64 - flowed(at);
            let drawn = end - from;
            if worst.is_none_or(|worst| drawn > worst.drawn) {
                worst = Some(Worst { drawn, first, last: place });
            }
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use crate::Seed;

    use super::*;

    const NOTED_WITHIN: Duration = Duration::from_millis(10);

    fn origin() -> Instant {
        tokio::time::Instant::now().into_std() + Duration::from_secs(1)
    }

    /// The bound as it is written down, for every pair.
    fn naive(withdrawals: &[Instant], deposits: &[Instant], bound: Bound) -> f64 {
        let mut worst = f64::MIN;
        for (i, &from) in withdrawals.iter().enumerate() {
            for (j, &until) in withdrawals.iter().enumerate().skip(i) {
                let within = (from - NOTED_WITHIN)..=(until + NOTED_WITHIN);
                let deposits = deposits.iter().filter(|at| within.contains(at)).count();
                let drawn = (j - i + 1) as f64
                    - bound.ratio * deposits as f64
                    - bound.per_second * (until - from).as_secs_f64();
                worst = worst.max(drawn);
            }
        }
        worst
    }

    #[test]
    fn one_pass_finds_what_all_pairs_find() {
        let mut seed = Seed::new(11);
        let origin = origin();
        for _ in 0..50 {
            let mut some = |most: u64| -> Vec<Instant> {
                let count = seed.within(1..most);
                let mut all: Vec<_> = (0..count)
                    .map(|_| origin + Duration::from_millis(seed.within(0..3_000)))
                    .collect();
                all.sort_unstable();
                all
            };
            let (withdrawals, deposits) = (some(60), some(200));
            let bound = Bound { capacity: 5.0, ratio: 0.2, per_second: 3.0 };
            let found = bound.worst(&withdrawals, &deposits, NOTED_WITHIN).unwrap().drawn;
            let expected = naive(&withdrawals, &deposits, bound);
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn a_burst_within_a_quiet_log_is_found() {
        let origin = origin();
        let at = |ms| origin + Duration::from_millis(ms);
        let deposits: Vec<_> = (0..1_000).map(|n| at(10 * n)).collect();
        let mut withdrawals: Vec<_> = (0..20).map(|n| at(450 * n)).collect();
        let bound = Bound { capacity: 10.0, ratio: 0.1, per_second: 0.0 };
        let drawn = |withdrawals: &[Instant]| {
            bound.worst(withdrawals, &deposits, NOTED_WITHIN).unwrap().drawn
        };
        assert!(drawn(&withdrawals) <= bound.capacity);

        // Over the whole run the ratio would allow a hundred; within an instant it does not.
        withdrawals.extend(std::iter::repeat_n(at(5_000), 12));
        withdrawals.sort_unstable();
        assert!(drawn(&withdrawals) > bound.capacity);
        assert_eq!(bound.worst(&[], &deposits, NOTED_WITHIN), None);
    }
}
