//! Secrets by their names, read when they are needed and kept for a while.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use archweld_aws::Service;
use archweld_model::SecretRef;
use archweld_runtime::CallError;
use aws_smithy_async::time::SharedTimeSource;
use aws_types::SdkConfig;
use serde::Deserialize;
use serde_json::json;

use crate::Error;

/// How long a secret is good before it is read again.
const KEPT_MAX: Duration = Duration::from_secs(5 * 60);

const SECRETS_MANAGER: Service = Service {
    name: "secretsmanager",
    host: "secretsmanager",
    target: "secretsmanager",
    version: "1.1",
};
const SYSTEMS_MANAGER: Service =
    Service { name: "ssm", host: "ssm", target: "AmazonSSM", version: "1.1" };

/// A secret text, which nothing prints.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// A text without the secret, should a server have repeated it.
    pub(crate) fn scrub(&self, text: &str) -> String {
        text.replace(&self.0, "(secret)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretValue {
    #[serde(default)]
    secret_string: Secret,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterValue {
    parameter: Parameter,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: Secret,
}

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
            SecretRef::SecretsManager(name) => SECRETS_MANAGER
                .call::<SecretValue>(&self.config, "GetSecretValue", json!({"SecretId": name}))
                .await
                .map(|value| value.secret_string)
                .map_err(|error| CallError::new("secretsmanager:GetSecretValue", &error)),
            SecretRef::Parameter(name) => SYSTEMS_MANAGER
                .call::<ParameterValue>(
                    &self.config,
                    "GetParameter",
                    json!({"Name": name, "WithDecryption": true}),
                )
                .await
                .map(|value| value.parameter.value)
                .map_err(|error| CallError::new("ssm:GetParameter", &error)),
        };
        let reference = reference.clone();
        let secret = read.map_err(|error| Error::Secret { reference: reference.clone(), error })?;
        let secret = Secret(secret.0.trim().to_owned());
        if secret.0.is_empty() {
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
