//! How hard the property tests try.
//!
//! `PROPTEST_CASES=120000 cargo nextest run --package trigger-run` tries more than a million inputs, in
//! some minutes. A body that it finds wrong belongs in `tests/corpus`.

use proptest::test_runner::Config;

/// How many inputs each property is tried with: `PROPTEST_CASES`, or as many as take a second or
/// two. What once failed is kept in `proptest-regressions`, and tried first.
pub(crate) fn config() -> Config {
    const CASES: u32 = 2_000;
    let config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { Config::with_cases(CASES) }
}
