//! Secrets by their names, read when they are needed and kept for a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use archweld_aws::secret::{self, Secret};
use archweld_model::SecretRef;
use archweld_runtime::CallError;
use aws_smithy_async::time::SharedTimeSource;
use aws_types::SdkConfig;

use crate::Error;

/// How long a secret is good before it is read again.
const KEPT_MAX: Duration = Duration::from_secs(5 * 60);

/// The secrets that were read.
#[derive(Debug)]
pub(crate) struct Secrets {
    config: SdkConfig,
    time: SharedTimeSource,
    kept: Mutex<HashMap<SecretRef, (Secret, SystemTime)>>,
}

impl Secrets {
    pub(crate) fn new(config: &SdkConfig, time: SharedTimeSource) -> Self {
        Self { config: config.clone(), time, kept: Mutex::default() }
    }

    /// A secret.
    ///
    /// # Errors
    /// When it cannot be read, or is empty.
    pub(crate) async fn get(&self, reference: &SecretRef) -> Result<Secret, Error> {
        let now = self.time.now();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned();
        if let Some((secret, since)) = kept
            && now.duration_since(since).is_ok_and(|age| age < KEPT_MAX)
        {
            return Ok(secret);
        }
        let read = match reference {
            SecretRef::SecretsManager(name) => secret::version(&self.config, name, "AWSCURRENT")
                .await
                .map(|version| version.secret)
                .map_err(|error| CallError::new("secretsmanager:GetSecretValue", &error)),
            SecretRef::Parameter(name) => secret::parameter(&self.config, name)
                .await
                .map_err(|error| CallError::new("ssm:GetParameter", &error)),
        };
        let reference = reference.clone();
        let secret = read.map_err(|error| Error::Secret { reference: reference.clone(), error })?;
        let secret = Secret::from(secret.text().trim());
        if secret.text().is_empty() {
            return Err(Error::EmptySecret(reference));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(reference, (secret.clone(), now));
        Ok(secret)
    }

    /// Forgets a secret that was no good: it may have changed a minute ago.
    pub(crate) fn forget(&self, reference: &SecretRef) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(reference);
    }
}
