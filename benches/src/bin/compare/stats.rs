//! What is made of many measurements.

/// The smallest: what the thing itself costs, for noise only ever adds.
pub(crate) fn best(samples: impl IntoIterator<Item = f64>) -> f64 {
    samples.into_iter().fold(f64::INFINITY, f64::min)
}

/// The middle one, or the mean of the two in the middle. NaN for none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// Where the true median lies with a confidence of at least 95 %, whatever the distribution: the
/// order statistics that the sign test does not reject. With fewer than six samples, all of them.
pub(crate) fn interval(samples: &[f64]) -> (f64, f64) {
    let sorted = sorted(samples);
    let Some(last) = sorted.len().checked_sub(1) else { return (f64::NAN, f64::NAN) };
    let left_out = left_out(sorted.len());
    (sorted[left_out], sorted[last - left_out])
}

/// The smallest sample that at least the share `q` of them does not exceed. NaN for none.
pub(crate) fn quantile(samples: &[f64], q: f64) -> f64 {
    let sorted = sorted(samples);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// How many samples at either end the interval may do without: the largest k for which at most k
/// heads in n fair tosses have a probability of at most 2.5 %.
fn left_out(n: usize) -> usize {
    // C(n, k) / 2^n, from k = 0 on.
    let mut exactly = 0.5_f64.powi(n as i32);
    let mut at_most = exactly;
    let mut k = 0;
    while at_most <= 0.025 {
        k += 1;
        exactly *= (n - k + 1) as f64 / k as f64;
        at_most += exactly;
    }
    k.saturating_sub(1)
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(n: u32) -> Vec<f64> {
        // In no order.
        (0..n).map(|i| f64::from(i * 7 % n + 1)).collect()
    }

    #[test]
    fn the_best_is_the_smallest() {
        assert_eq!(best([3.0, 1.5, 2.0]), 1.5);
        assert_eq!(best([]), f64::INFINITY);
    }

    #[test]
    fn the_median_halves_the_samples() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[5.0, 1.0, 3.0, 4.0]), 3.5);
        assert_eq!(median(&[2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_is_that_of_the_tables_of_the_sign_test() {
        // Ranks from 1, from published tables of order statistics (95 %).
        for (n, low, high) in
            [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15), (25, 8, 18)]
        {
            assert_eq!(interval(&to(n)), (f64::from(low), f64::from(high)), "{n}");
        }
    }

    #[test]
    fn too_few_samples_have_the_widest_interval() {
        assert_eq!(interval(&[2.0, 1.0, 3.0]), (1.0, 3.0));
        assert_eq!(interval(&[2.0]), (2.0, 2.0));
        assert!(interval(&[]).0.is_nan());
    }

    #[test]
    fn a_quantile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.99), 99.0);
        assert_eq!(quantile(&samples, 0.5), 50.0);
        assert_eq!(quantile(&samples, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
