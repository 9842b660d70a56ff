//! Secrets, from AWS Secrets Manager or the SSM Parameter Store.
//!
//! Two are good at a time, so that a secret can be changed without a lost webhook: the current and,
//! for a day, the previous version of a secret, or each line of either kind's text.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use archweld_aws::secret::{self, Secret, Version};
use archweld_model::{ErrorName, Named};
use archweld_runtime::CallError;
use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use aws_types::SdkConfig;
use tokio::sync::Mutex;

/// How long a secret is good before it is read again: how long a changed one may take to count.
const KEPT_MAX: Duration = Duration::from_secs(5 * 60);
/// How often a signature that nobody made may cause a secret to be read.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// How often a secret that cannot be had is tried again, whoever knocks.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long the previous version is good beside the current one: a secret that leaked has an end.
const PREVIOUS_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How short a secret may be, in characters.
const CHARACTERS_MIN: usize = 16;

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

/// The secrets of a text: its lines.
fn secrets_of(text: &Secret) -> Result<Vec<Secret>, SecretError> {
    let text = text.text();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    if text.trim_start().starts_with('{') {
        return Err(SecretError::Json);
    }
    // One that is easily guessed would be good beside the others.
    if lines().any(|line| line.chars().count() < CHARACTERS_MIN) {
        return Err(SecretError::Short);
    }
    let secrets: Vec<Secret> = lines().map(Secret::from).collect();
    if secrets.is_empty() { Err(SecretError::Empty) } else { Ok(secrets) }
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
    /// It is JSON: a secret of the console's form, whose brackets would be part of it.
    #[error("the secret begins with `{{`, expected its text alone and no JSON")]
    Json,
    /// A line is easily guessed.
    #[error("a line of the secret is shorter than {CHARACTERS_MIN} characters")]
    Short,
}

impl Named for SecretError {
    fn name(&self) -> ErrorName {
        match self {
            Self::Call(error) => error.name(),
            Self::Empty | Self::Json | Self::Short => ErrorName::ServiceRejected,
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

/// What was read last, and what went wrong since.
#[derive(Debug, Default)]
struct Kept {
    secrets: Option<(Arc<[Secret]>, SystemTime)>,
    failure: Option<(SecretError, SystemTime)>,
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
        let kept = kept.entry(reference.clone()).or_default();
        // A clock that was set back makes everything old.
        let is_younger = |since: SystemTime, age| {
            now.duration_since(since).is_ok_and(|known: Duration| known < age)
        };
        if let Some((secrets, since)) = &kept.secrets
            && is_younger(*since, age)
        {
            return Ok(Arc::clone(secrets));
        }
        if let Some((failure, since)) = &kept.failure
            && is_younger(*since, RETRY_EVERY)
        {
            return Err(failure.clone());
        }
        let read = match reference {
            Reference::SecretsManager(arn) => self.of_secrets_manager(arn, now).await,
            Reference::Parameter(arn) => self.of_parameter(arn).await,
        };
        match read {
            Ok(secrets) => {
                let secrets: Arc<[Secret]> = secrets.into();
                *kept = Kept { secrets: Some((Arc::clone(&secrets), now)), failure: None };
                Ok(secrets)
            }
            Err(failure) => {
                kept.failure = Some((failure.clone(), now));
                Err(failure)
            }
        }
    }

    async fn of_secrets_manager(
        &self,
        arn: &str,
        now: SystemTime,
    ) -> Result<Vec<Secret>, SecretError> {
        let current = self.version(arn, "AWSCURRENT").await?.ok_or(SecretError::Empty)?;
        let mut secrets = secrets_of(&current.secret)?;
        let created = current.created_date.and_then(|date| Duration::try_from_secs_f64(date).ok());
        let created = created.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        // A version of a moment ago may be ahead of this clock.
        let is_new =
            created.is_some_and(|at| now.duration_since(at).unwrap_or_default() < PREVIOUS_MAX);
        if is_new
            // There is none until the secret changes for the first time.
            && let Some(previous) = self.version(arn, "AWSPREVIOUS").await?
            // What is no good is not needed any more either.
            && let Ok(previous) = secrets_of(&previous.secret)
        {
            secrets.extend(previous);
        }
        Ok(secrets)
    }

    /// A version, where there is one.
    async fn version(&self, arn: &str, stage: &str) -> Result<Option<Version>, CallError> {
        match secret::version(&self.config, arn, stage).await {
            Ok(version) => Ok(Some(version)),
            Err(error)
                if stage != "AWSCURRENT" && error.code() == Some("ResourceNotFoundException") =>
            {
                Ok(None)
            }
            Err(error) => Err(CallError::new("secretsmanager:GetSecretValue", &error)),
        }
    }

    async fn of_parameter(&self, arn: &str) -> Result<Vec<Secret>, SecretError> {
        let text = secret::parameter(&self.config, arn)
            .await
            .map_err(|error| CallError::new("ssm:GetParameter", &error))?;
        secrets_of(&text)
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
        let secrets = secrets_of(&"sixteen letters!\r\n\n  another of the kind \n".into()).unwrap();
        let expected = [Secret::from("sixteen letters!"), Secret::from("another of the kind")];
        assert_eq!(secrets, expected);
        assert_eq!(secrets_of(&" \n".into()), Err(SecretError::Empty));
    }

    #[test]
    fn a_text_with_a_short_line_and_one_of_json_is_refused_as_a_whole() {
        for text in ["fifteen letters", "x", "sixteen letters!\nfifteen letters"] {
            assert_eq!(secrets_of(&text.into()), Err(SecretError::Short), "{text}");
        }
        for text in ["{\"secret\": \"sixteen letters!\"}", " {"] {
            assert_eq!(secrets_of(&text.into()), Err(SecretError::Json), "{text}");
        }
        assert_eq!(SecretError::Short.name(), ErrorName::ServiceRejected);
        let message = SecretError::Json.to_string();
        assert_eq!(message, "the secret begins with `{`, expected its text alone and no JSON");
    }
}
