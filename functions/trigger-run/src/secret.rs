//! Secrets, from AWS Secrets Manager or the SSM Parameter Store.
//!
//! Two are good at a time, so that a secret can be changed without a lost webhook: the current and
//! the previous version of a secret, or each line of either kind's text.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use archweld_model::{ErrorName, Named};
use archweld_runtime::CallError;
use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use aws_types::SdkConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::service::Service;

/// How long a secret is good before it is read again: how long a changed one may take to count.
const KEPT_MAX: Duration = Duration::from_secs(5 * 60);
/// How often a signature that nobody made may cause a secret to be read.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// What Standard Webhooks' keys begin with, GitLab's among them.
const SIGNING_KEY_PREFIX: &str = "whsec_";

const SECRETS_MANAGER: Service =
    Service { name: "secretsmanager", host: "secretsmanager", target: "secretsmanager" };
const SYSTEMS_MANAGER: Service = Service { name: "ssm", host: "ssm", target: "AmazonSSM" };

/// Secrets Manager's answer; a secret of bytes has no text
/// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretValue {
    #[serde(default)]
    secret_string: Secret,
}

/// Systems Manager's answer
/// (<https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>).
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

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reference {
    /// The ARN of a secret of Secrets Manager's.
    SecretsManager(String),
    /// The ARN of a parameter.
    Parameter(String),
}

impl Reference {
    /// Reads an ARN.
    pub(crate) fn parse(arn: &str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let [prefix, _, service, _, _, resource] = [(); 6].map(|()| parts.next());
        match (prefix?, service?, resource?) {
            ("arn", "secretsmanager", resource) if resource.starts_with("secret:") => {
                Some(Self::SecretsManager(arn.to_owned()))
            }
            ("arn", "ssm", resource) if resource.starts_with("parameter/") => {
                Some(Self::Parameter(arn.to_owned()))
            }
            _ => None,
        }
    }
}

/// A secret text, which nothing prints.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secrets of a text: its lines.
    fn of_text(text: &str) -> impl Iterator<Item = Self> + '_ {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| Self(line.to_owned()))
    }

    /// The text's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The key of Standard Webhooks that the text is, if it is one.
    pub(crate) fn signing_key(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.0.strip_prefix(SIGNING_KEY_PREFIX)?).ok().filter(|key| !key.is_empty())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is nothing in it.
    #[error("the secret has no text")]
    Empty,
}

impl Named for SecretError {
    fn name(&self) -> ErrorName {
        match self {
            Self::Call(error) => error.name(),
            Self::Empty => ErrorName::ServiceRejected,
        }
    }
}

/// The secrets that were read, for some minutes.
#[derive(Debug)]
pub(crate) struct Secrets {
    config: SdkConfig,
    time: SharedTimeSource,
    kept: Mutex<HashMap<Reference, Kept>>,
}

#[derive(Debug)]
struct Kept {
    secrets: Arc<[Secret]>,
    since: SystemTime,
}

impl Secrets {
    pub(crate) fn new(config: &SdkConfig, time: SharedTimeSource) -> Self {
        Self { config: config.clone(), time, kept: Mutex::default() }
    }

    /// The secrets that are good now, the current one first.
    pub(crate) async fn get(&self, reference: &Reference) -> Result<Arc<[Secret]>, SecretError> {
        self.younger_than(KEPT_MAX, reference).await
    }

    /// The same for a signature that no kept secret made: read anew, but for a minute.
    pub(crate) async fn refresh(
        &self,
        reference: &Reference,
    ) -> Result<Arc<[Secret]>, SecretError> {
        self.younger_than(REFRESH_EVERY, reference).await
    }

    async fn younger_than(
        &self,
        age: Duration,
        reference: &Reference,
    ) -> Result<Arc<[Secret]>, SecretError> {
        // Held while reading, so that many at once read once.
        let mut kept = self.kept.lock().await;
        let now = self.time.now();
        if let Some(known) = kept.get(reference) {
            // A clock that was set back makes a secret old.
            if now.duration_since(known.since).is_ok_and(|known| known < age) {
                return Ok(known.secrets.clone());
            }
        }
        let secrets: Arc<[Secret]> = match reference {
            Reference::SecretsManager(arn) => self.of_secrets_manager(arn).await?,
            Reference::Parameter(arn) => self.of_parameter(arn).await?,
        }
        .into();
        if secrets.is_empty() {
            return Err(SecretError::Empty);
        }
        kept.insert(reference.clone(), Kept { secrets: secrets.clone(), since: now });
        Ok(secrets)
    }

    async fn of_secrets_manager(&self, arn: &str) -> Result<Vec<Secret>, SecretError> {
        let (current, previous) = tokio::join!(
            self.version(arn, "AWSCURRENT"),
            // There is none until the secret changes for the first time.
            self.version(arn, "AWSPREVIOUS"),
        );
        let mut secrets = current?.ok_or(SecretError::Empty)?;
        secrets.extend(previous?.unwrap_or_default());
        Ok(secrets)
    }

    /// A version, where there is one.
    async fn version(&self, arn: &str, stage: &str) -> Result<Option<Vec<Secret>>, CallError> {
        let input = json!({"SecretId": arn, "VersionStage": stage});
        match SECRETS_MANAGER.call::<SecretValue>(&self.config, "GetSecretValue", input).await {
            Ok(answer) => Ok(Some(Secret::of_text(&answer.secret_string.0).collect())),
            Err(error)
                if stage != "AWSCURRENT" && error.code() == Some("ResourceNotFoundException") =>
            {
                Ok(None)
            }
            Err(error) => Err(CallError::new("secretsmanager:GetSecretValue", &error)),
        }
    }

    async fn of_parameter(&self, arn: &str) -> Result<Vec<Secret>, SecretError> {
        let input = json!({"Name": arn, "WithDecryption": true});
        let answer = SYSTEMS_MANAGER
            .call::<ParameterValue>(&self.config, "GetParameter", input)
            .await
            .map_err(|error| CallError::new("ssm:GetParameter", &error))?;
        Ok(Secret::of_text(&answer.parameter.value.0).collect())
    }
}

#[cfg(test)]
impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_known_by_the_arn() {
        let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:webhook-AbCdEf";
        assert_eq!(Reference::parse(secret), Some(Reference::SecretsManager(secret.to_owned())));
        let parameter = "arn:aws-cn:ssm:cn-north-1:123456789012:parameter/archweld/webhook";
        assert_eq!(Reference::parse(parameter), Some(Reference::Parameter(parameter.to_owned())));
        for other in ["", "hunter2", "arn:aws:s3:::bucket", "arn:aws:ssm:eu-west-1:1:document/x"] {
            assert_eq!(Reference::parse(other), None, "{other}");
        }
    }

    #[test]
    fn each_line_is_a_secret_and_nothing_is_none() {
        let secrets: Vec<Secret> = Secret::of_text("one\r\n\n  two \n").collect();
        assert_eq!(secrets, [Secret::from("one"), Secret::from("two")]);
        assert_eq!(Secret::of_text(" \n").count(), 0);
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(..)");
    }
}
