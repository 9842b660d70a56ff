//! Time, randomness and the names that ARNs are made of.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Event;

/// The account, the region, the clock and the randomness of one local cloud; cheap to clone.
///
/// The clock is tokio's: real in the command, virtual in a test that pauses tokio's time. No
/// service asks the operating system for the time or for random numbers.
#[derive(Debug, Clone)]
pub struct Host {
    account: Arc<str>,
    region: Arc<str>,
    origin: Timestamp,
    started: Instant,
    random: Arc<Mutex<StdRng>>,
}

impl Host {
    /// A host on the machine's own time and randomness.
    pub fn real(account: &str, region: &str) -> Self {
        Self::new(account, region, Timestamp::now(), StdRng::from_os_rng())
    }

    /// A host whose clock starts at `origin` and whose identities all follow from `seed`.
    pub fn seeded(account: &str, region: &str, origin: Timestamp, seed: u64) -> Self {
        Self::new(account, region, origin, StdRng::seed_from_u64(seed))
    }

    fn new(account: &str, region: &str, origin: Timestamp, random: StdRng) -> Self {
        Self {
            account: account.into(),
            region: region.into(),
            origin,
            started: Instant::now(),
            random: Arc::new(Mutex::new(random)),
        }
    }

    /// The same host by a clock that is `by` ahead.
    #[must_use]
    pub fn ahead(&self, by: SignedDuration) -> Self {
        let origin = self.origin.saturating_add(by).unwrap_or(self.origin);
        Self { origin, ..self.clone() }
    }

    /// The twelve digits of the account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The region, such as `us-east-1`.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let elapsed =
            SignedDuration::try_from(self.started.elapsed()).unwrap_or(SignedDuration::MAX);
        self.origin.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// The moment on tokio's clock at which [`Host::now`] reads `time`; a past time is now.
    pub fn instant(&self, time: Timestamp) -> Instant {
        let wait = time.duration_since(self.now());
        Instant::now() + wait.try_into().unwrap_or_default()
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// A random UUID.
    pub fn uuid(&self) -> Uuid {
        let (high, low) = (u128::from(self.random()), u128::from(self.random()));
        uuid::Builder::from_random_bytes((high << 64 | low).to_be_bytes()).into_uuid()
    }

    /// An ARN of this account and region: `arn:aws:<service>:<region>:<account>:<resource>`.
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account)
    }

    /// An event that happens here and now.
    pub fn event(
        &self,
        source: &str,
        detail_type: &str,
        resources: Vec<String>,
        detail: Value,
    ) -> Event {
        Event {
            version: "0".to_owned(),
            id: self.uuid().to_string(),
            detail_type: detail_type.to_owned(),
            source: source.to_owned(),
            account: self.account.to_string(),
            time: Event::format_time(self.now()),
            region: self.region.to_string(),
            resources,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_tokios() {
        let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(Event::format_time(host.now()), "1970-01-01T00:01:30Z");
    }

    #[tokio::test]
    async fn one_seed_gives_one_sequence_of_identities() {
        let host = || Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
        let (first, second) = (host(), host());
        assert_eq!(first.uuid(), second.uuid());
        assert_ne!(first.uuid(), first.uuid());
    }
}
