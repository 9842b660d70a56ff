//! Texts that others wrote, less what nobody should see.
//!
//! Errors and causes come from functions and builds, log lines from whatever a build runs. None of
//! them should hold a secret; where one does, it goes no further.

use std::sync::{Arc, PoisonError, RwLock};

use archweld_registry::Registry;
use archweld_secrets::Secrets;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// What stands in the place of a secret.
const MASK: &str = "***";
/// A shorter value is no secret, and masking it would blot out what people came to read.
const SECRET_BYTES_MIN: usize = 8;
/// The versions of a secret that may be in use.
const STAGES: [&str; 2] = ["AWSCURRENT", "AWSPREVIOUS"];

/// The secrets of the deployment.
pub(crate) struct Masks {
    secrets: Secrets,
    arns: Vec<String>,
    /// The registry's password, and the token that holds it.
    registry: Vec<String>,
    values: RwLock<Arc<[String]>>,
}

impl Masks {
    pub(crate) fn new(secrets: Secrets, arns: Vec<String>, registry: &Registry) -> Self {
        let token = registry.authorization_token();
        let decoded = BASE64_STANDARD.decode(&token).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        let password = decoded.split_once(':').map(|(_, password)| password.to_owned());
        let registry = [Some(token), password].into_iter().flatten().collect();
        Self { secrets, arns, registry, values: RwLock::default() }
    }

    /// Asks for the secrets as they are now.
    pub(crate) async fn refresh(&self) {
        let mut values = self.registry.clone();
        for arn in &self.arns {
            for stage in STAGES {
                let input = json!({ "SecretId": arn, "VersionStage": stage });
                // A secret may have no such version, or none at all.
                let Ok(found) = self.secrets.call("GetSecretValue", input).await else { continue };
                let Some(text) = found["SecretString"].as_str() else { continue };
                values.push(text.to_owned());
                let parsed = serde_json::from_str(text).unwrap_or_default();
                if let Value::Object(fields) = parsed {
                    values.extend(fields.values().filter_map(Value::as_str).map(str::to_owned));
                }
            }
        }
        values.retain(|value| value.len() >= SECRET_BYTES_MIN);
        // The whole before its parts.
        values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        *self.values.write().unwrap_or_else(PoisonError::into_inner) = values.into();
    }

    /// A text without secrets, and without `more` of them.
    pub(crate) fn apply(&self, text: &str, more: &[String]) -> String {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner).clone();
        values.iter().chain(more).fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), MASK) } else { text }
        })
    }

    /// A value whose texts are without secrets.
    pub(crate) fn apply_to(&self, value: &mut Value, more: &[String]) {
        match value {
            Value::String(text) => *text = self.apply(text, more),
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply_to(item, more)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.apply_to(field, more));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
