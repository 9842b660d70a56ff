//! From samples to figures for people.

/// The middle one of the samples.
pub(crate) fn median<T: Copy + Default + Ord>(samples: &[T]) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The least sample that so many percent of all do not exceed.
pub(crate) fn percentile(samples: &[u64], percent: usize) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn thousandth(number: u64) -> f64 {
    number as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn ratio(number: u64, of: u64) -> f64 {
    number as f64 / of as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_percent_do_not_exceed_a_percentile() {
        let samples: Vec<u64> = (1..=200).rev().collect();
        assert_eq!([50, 90, 99, 100].map(|it| percentile(&samples, it)), [100, 180, 198, 200]);
        assert_eq!([1, 50, 99].map(|it| percentile(&[7], it)), [7; 3]);
        assert_eq!(percentile(&[], 50), 0);
    }
}
