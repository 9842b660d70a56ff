//! Secret texts, read from AWS Secrets Manager or from Systems Manager's Parameter Store.
//!
//! Each call reads anew: how long a secret is kept is for the caller to say.

use std::fmt;

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_types::SdkConfig;
use serde::Deserialize;
use serde_json::json;

use crate::{Service, ServiceError};

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
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A text without the secret, should a server have repeated it.
    pub fn scrub(&self, text: &str) -> String {
        text.replace(&self.0, "(secret)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A version of a secret of Secrets Manager's
/// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The text; a secret of bytes has none.
    #[serde(rename = "SecretString", default)]
    pub secret: Secret,
    /// When it was made, in seconds since 1970.
    pub created_date: Option<f64>,
}

/// A parameter
/// (<https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterAnswer {
    parameter: Parameter,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: Secret,
}

/// Reads a version of a secret of Secrets Manager's, by its name or ARN: the current one is
/// `AWSCURRENT`, the one before `AWSPREVIOUS`.
///
/// # Errors
/// When the call fails.
pub async fn version(
    config: &SdkConfig,
    id: &str,
    stage: &str,
) -> Result<Version, SdkError<ServiceError, HttpResponse>> {
    let input = json!({"SecretId": id, "VersionStage": stage});
    SECRETS_MANAGER.call(config, "GetSecretValue", input).await
}

/// Reads a parameter of the Parameter Store, by its name or ARN, and decrypts it.
///
/// # Errors
/// When the call fails.
pub async fn parameter(
    config: &SdkConfig,
    name: &str,
) -> Result<Secret, SdkError<ServiceError, HttpResponse>> {
    let input = json!({"Name": name, "WithDecryption": true});
    let answer = SYSTEMS_MANAGER.call::<ParameterAnswer>(config, "GetParameter", input).await?;
    Ok(answer.parameter.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let version = json!({"SecretString": "hunter2", "CreatedDate": 1.5});
        let version: Version = serde_json::from_value(version).unwrap();
        assert_eq!(version.secret.text(), "hunter2");
        assert!(!format!("{version:?}").contains("hunter2"));
        assert_eq!(version.secret.scrub("no hunter2 here"), "no (secret) here");
    }

    #[test]
    fn a_secret_of_bytes_has_no_text() {
        let version = json!({"SecretBinary": "aHVudGVyMg=="});
        let version: Version = serde_json::from_value(version).unwrap();
        assert_eq!(version.secret, Secret::default());
    }
}
