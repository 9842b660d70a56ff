//! ECR's limit on how often an operation may be called.

use jiff::{SignedDuration, Timestamp};

/// How many `PutImage` an account may send in a region, each second and at once
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html>). ECR does not
/// say how many it lets pass after a pause; this is the cautious reading.
const PER_SECOND: i64 = 10;

/// A bucket of tokens that refills with time
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/common-errors.html>).
#[derive(Debug)]
pub(crate) struct Rate {
    /// When the bucket will be full again, or has been since.
    full_at: Timestamp,
}

impl Rate {
    /// A bucket that is full.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { full_at: now }
    }

    /// Takes a token; says whether there was one.
    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        const REFILL: SignedDuration = SignedDuration::from_millis(1_000 / PER_SECOND);
        let full_at = self.full_at.max(now).saturating_add(REFILL).unwrap_or(Timestamp::MAX);
        let taken = full_at.duration_since(now) <= SignedDuration::from_secs(1);
        if taken {
            self.full_at = full_at;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_pass_at_once_and_then_ten_a_second() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let mut rate = Rate::new(at(0));
        let mut passed = |ms| (0..100).filter(|_| rate.take(at(ms))).count();
        assert_eq!(passed(0), 10);
        assert_eq!(passed(99), 0);
        assert_eq!(passed(100), 1);
        assert_eq!(passed(1_099), 9);
        assert_eq!(passed(1_100), 1);
        assert_eq!(passed(60_000), 10, "what a pause leaves unused does not add up");
    }
}
