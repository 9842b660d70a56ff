//! From samples to figures for people.

/// The middle one of the samples.
pub(crate) fn median<T: Copy + Default + Ord>(samples: &[T]) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn thousandth(number: u64) -> f64 {
    number as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn ratio(number: u64, of: u64) -> f64 {
    number as f64 / of as f64
}
