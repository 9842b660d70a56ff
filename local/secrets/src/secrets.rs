//! The operations of Secrets Manager.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_Operations.html>

use archweld_local_api::{ApiError, Host};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    SecretContent, SecretSettings, seconds,
    store::{Secret, SecretValue, Store, Version},
};

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 65_536;
/// How many characters Secrets Manager adds to a name in its ARN, with the dash.
const SUFFIX: usize = 7;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetSecretValue {
    secret_id: String,
    version_id: Option<String>,
    version_stage: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeSecret {
    secret_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutSecretValue {
    secret_id: String,
    client_request_token: Option<String>,
    secret_string: Option<String>,
    secret_binary: Option<String>,
    version_stages: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateSecretVersionStage {
    secret_id: String,
    version_stage: String,
    remove_from_version_id: Option<String>,
    move_to_version_id: Option<String>,
}

impl Store {
    pub(crate) fn create_secret(
        &mut self,
        settings: SecretSettings,
        host: &Host,
    ) -> Result<(), ApiError> {
        let text = match &settings.content {
            Some(SecretContent::Text(text)) => Some(text.clone()),
            Some(SecretContent::Generated(_)) | None => None,
        };
        if let Some(secret) = self.secrets.get_mut(&settings.name) {
            secret.arn = settings.arn;
            if let Some(text) = text
                && secret.of_template.as_ref() != Some(&text)
            {
                secret.of_template = Some(text.clone());
                secret.put(host.uuid().to_string(), SecretValue::String(text), &[CURRENT], host);
            }
            return Ok(());
        }
        let value = match &settings.content {
            Some(SecretContent::Text(text)) => Some(text.clone()),
            Some(SecretContent::Generated(rules)) => Some(rules.generate(host)?),
            None => None,
        };
        let now = host.now();
        let mut secret = Secret {
            arn: settings.arn,
            description: settings.description,
            created: now,
            changed: now,
            of_template: text,
            versions: Default::default(),
        };
        if let Some(value) = value {
            secret.put(host.uuid().to_string(), SecretValue::String(value), &[CURRENT], host);
        }
        self.secrets.insert(settings.name, secret);
        Ok(())
    }

    pub(crate) fn get_secret_value(&self, input: &GetSecretValue) -> Result<Value, ApiError> {
        let (name, secret) = self.find(&input.secret_id)?;
        let stage = input.version_stage.as_deref();
        let by_stage = |stage: &str| {
            let mut versions = secret.versions.iter();
            versions.find(|(_, version)| version.stages.iter().any(|it| it == stage)).ok_or_else(
                || not_found(&format!("the specified secret value for staging label: {stage}")),
            )
        };
        let (id, version) = match &input.version_id {
            None => by_stage(stage.unwrap_or(CURRENT))?,
            Some(id) => {
                let found = secret.versions.get_key_value(id).ok_or_else(|| {
                    not_found(&format!("the specified secret value for VersionId: {id}"))
                })?;
                if stage.is_some_and(|stage| !found.1.stages.iter().any(|it| it == stage)) {
                    return Err(ApiError::client(
                        "InvalidRequestException",
                        "You provided a VersionStage that is not associated to the provided \
                         VersionId.",
                    ));
                }
                found
            }
        };
        let mut output = json!({
            "ARN": secret.arn,
            "Name": name,
            "VersionId": id,
            "VersionStages": version.stages,
            "CreatedDate": seconds(version.created),
        });
        match &version.value {
            SecretValue::String(text) => output["SecretString"] = json!(text),
            SecretValue::Binary(bytes) => output["SecretBinary"] = json!(bytes),
        }
        Ok(output)
    }

    pub(crate) fn describe_secret(&self, input: &DescribeSecret) -> Result<Value, ApiError> {
        let (name, secret) = self.find(&input.secret_id)?;
        let stages: serde_json::Map<String, Value> = secret
            .versions
            .iter()
            .filter(|(_, version)| !version.stages.is_empty())
            .map(|(id, version)| (id.clone(), json!(version.stages)))
            .collect();
        let mut output = json!({
            "ARN": secret.arn,
            "Name": name,
            "CreatedDate": seconds(secret.created),
            "LastChangedDate": seconds(secret.changed),
            "VersionIdsToStages": stages,
        });
        if let Some(description) = &secret.description {
            output["Description"] = json!(description);
        }
        Ok(output)
    }

    pub(crate) fn put_secret_value(
        &mut self,
        input: PutSecretValue,
        host: &Host,
    ) -> Result<Value, ApiError> {
        let invalid = |message: &str| ApiError::client("InvalidParameterException", message);
        let value = match (input.secret_string, input.secret_binary) {
            (Some(text), None) => SecretValue::String(text),
            (None, Some(bytes)) => SecretValue::Binary(bytes),
            _ => return Err(invalid("expected either SecretString or SecretBinary")),
        };
        let (SecretValue::String(text) | SecretValue::Binary(text)) = &value;
        if text.is_empty() || text.len() > VALUE_BYTES_MAX {
            return Err(invalid("SecretString: expected 1 to 65536 bytes"));
        }
        let stages = input.version_stages.unwrap_or_else(|| vec![CURRENT.to_owned()]);
        if stages.is_empty() {
            return Err(invalid("VersionStages: expected at least one"));
        }
        let id = input.client_request_token.unwrap_or_else(|| host.uuid().to_string());
        let (name, secret) = self.find_mut(&input.secret_id)?;
        match secret.versions.get(&id) {
            // A repeated call with the same token changes nothing.
            Some(version) if version.value == value => {}
            Some(_) => {
                return Err(ApiError::client(
                    "ResourceExistsException",
                    format!("The operation failed because the version {id} already exists."),
                ));
            }
            None => {
                let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
                secret.put(id.clone(), value, &stages, host);
            }
        }
        let stages = secret.versions.get(&id).map(|version| version.stages.clone());
        Ok(json!({"ARN": secret.arn, "Name": name, "VersionId": id, "VersionStages": stages}))
    }

    pub(crate) fn update_secret_version_stage(
        &mut self,
        input: UpdateSecretVersionStage,
    ) -> Result<Value, ApiError> {
        let (name, secret) = self.find_mut(&input.secret_id)?;
        let stage = input.version_stage;
        let holder = secret.holder(&stage);
        let (from, to) = (input.remove_from_version_id, input.move_to_version_id);
        for id in from.iter().chain(&to) {
            if !secret.versions.contains_key(id) {
                let what = format!("the specified secret value for VersionId: {id}");
                return Err(not_found(&what));
            }
        }
        // Whoever moves a label must know where it is.
        if from.is_some() && from != holder || from.is_none() && holder.is_some() && holder != to {
            return Err(ApiError::client(
                "InvalidParameterException",
                format!("RemoveFromVersionId: expected the version that {stage} is attached to"),
            ));
        }
        if stage == CURRENT && to.is_none() {
            return Err(ApiError::client(
                "InvalidParameterException",
                "MoveToVersionId: expected a version, as AWSCURRENT must be attached to one",
            ));
        }
        match to {
            Some(to) => secret.label(&stage, &to),
            None => secret.unlabel(&stage),
        }
        Ok(json!({"ARN": secret.arn, "Name": name}))
    }

    fn find(&self, id: &str) -> Result<(&str, &Secret), ApiError> {
        let mut secrets = self.secrets.iter();
        let found = secrets.find(|(name, secret)| is_called(name, secret, id));
        found.map(|(name, secret)| (name.as_str(), secret)).ok_or_else(no_secret)
    }

    fn find_mut(&mut self, id: &str) -> Result<(&str, &mut Secret), ApiError> {
        let mut secrets = self.secrets.iter_mut();
        let found = secrets.find(|(name, secret)| is_called(name, secret, id));
        found.map(|(name, secret)| (name.as_str(), secret)).ok_or_else(no_secret)
    }
}

/// By name, by ARN, or by an ARN without the characters that Secrets Manager added.
fn is_called(name: &str, secret: &Secret, id: &str) -> bool {
    let partial = secret.arn.len().checked_sub(SUFFIX).and_then(|end| secret.arn.get(..end));
    name == id || secret.arn == id || partial == Some(id)
}

fn no_secret() -> ApiError {
    not_found("the specified secret.")
}

fn not_found(what: &str) -> ApiError {
    ApiError::client("ResourceNotFoundException", format!("Secrets Manager can't find {what}"))
}

impl Secret {
    fn holder(&self, stage: &str) -> Option<String> {
        let mut versions = self.versions.iter();
        let found = versions.find(|(_, version)| version.stages.iter().any(|it| it == stage));
        found.map(|(id, _)| id.clone())
    }

    fn put(&mut self, id: String, value: SecretValue, stages: &[&str], host: &Host) {
        let version = Version { value, stages: Vec::new(), created: host.now() };
        self.changed = version.created;
        self.versions.insert(id.clone(), version);
        for stage in stages {
            self.label(stage, &id);
        }
        // Versions without a label are deprecated, and may be deleted.
        self.versions.retain(|_, version| !version.stages.is_empty());
    }

    /// Moves a label; what was current is previous then.
    fn label(&mut self, stage: &str, id: &str) {
        let holder = self.holder(stage);
        if holder.as_deref() == Some(id) {
            return;
        }
        self.unlabel(stage);
        if let Some(version) = self.versions.get_mut(id) {
            version.stages.push(stage.to_owned());
        }
        if stage == CURRENT
            && let Some(former) = holder
        {
            self.label(PREVIOUS, &former);
        }
    }

    fn unlabel(&mut self, stage: &str) {
        for version in self.versions.values_mut() {
            version.stages.retain(|it| it != stage);
        }
    }
}
