//! Secrets Manager and Systems Manager's Parameter Store on one machine.
//!
//! Both keep small values that nobody should read, so that one store holds them: in a file that
//! only its owner may read, or in memory. Of Secrets Manager the operations that read, write and
//! rotate a value are served, of Parameter Store `GetParameter` and `PutParameter`. Nothing is
//! encrypted: whoever may read the state folder may read its secrets.
//!
//! No value is ever logged, and `Debug` shows none.

mod generate;
mod parameters;
mod secrets;
mod store;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use archweld_local_api::{ApiError, Host};
use jiff::Timestamp;
use serde_json::{Value, json};

pub use generate::GenerateSecretString;
use store::Store;

/// What a secret of the template holds at first.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretContent {
    /// `SecretString`.
    Text(String),
    /// `GenerateSecretString`.
    Generated(GenerateSecretString),
}

/// The text is not shown.
impl std::fmt::Debug for SecretContent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => formatter.write_str("Text(not shown)"),
            Self::Generated(rules) => formatter.debug_tuple("Generated").field(rules).finish(),
        }
    }
}

/// A secret of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSettings {
    /// Its name.
    pub name: String,
    /// Its ARN, as other parts of the template know it.
    pub arn: String,
    /// For people.
    pub description: Option<String>,
    /// What it holds at first; nothing where somebody is to put a value in it.
    pub content: Option<SecretContent>,
}

/// Why the secrets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read or written.
    #[error("cannot use the file of the secrets")]
    File(#[from] io::Error),
    /// The file holds something else.
    #[error("the file of the secrets is damaged at line {line}, column {column}")]
    Damaged {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

/// Secrets Manager and Parameter Store; cheap to clone.
#[derive(Clone)]
pub struct Secrets {
    host: Host,
    store: Arc<Mutex<Store>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// The secrets of a folder, or in memory only.
    ///
    /// # Errors
    /// When the folder's file cannot be read, or is none of ours.
    pub fn open(host: Host, folder: Option<&Path>) -> Result<Self, OpenError> {
        let store = Store::open(folder)?;
        Ok(Self { host, store: Arc::new(Mutex::new(store)) })
    }

    /// Makes a secret of the template. One that there is keeps its value, as CloudFormation leaves
    /// it alone; unless the template's own text is another than when it was made.
    ///
    /// # Errors
    /// `InvalidParameterException` when no value can be generated; `InternalServiceError` when it
    /// cannot be written.
    pub fn create_secret(&self, settings: SecretSettings) -> Result<(), ApiError> {
        self.change(|store, host| store.create_secret(settings, host))
    }

    /// Answers an operation of Secrets Manager.
    ///
    /// # Errors
    /// As the API names them.
    pub async fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        let code = "InvalidParameterException";
        match operation {
            "GetSecretValue" => self.lock().get_secret_value(&ApiError::parse_input(code, input)?),
            "DescribeSecret" => self.lock().describe_secret(&ApiError::parse_input(code, input)?),
            "PutSecretValue" => {
                let input = ApiError::parse_input(code, input)?;
                self.change(|store, host| store.put_secret_value(input, host))
            }
            "UpdateSecretVersionStage" => {
                let input = ApiError::parse_input(code, input)?;
                self.change(|store, _| store.update_secret_version_stage(input))
            }
            other => Err(ApiError::unknown_operation(other)),
        }
    }

    /// Answers an operation of Systems Manager.
    ///
    /// # Errors
    /// As the API names them.
    pub async fn call_parameters(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        let code = "ValidationException";
        match operation {
            "GetParameter" => {
                self.lock().get_parameter(&ApiError::parse_input(code, input)?, &self.host)
            }
            "PutParameter" => {
                let input = ApiError::parse_input(code, input)?;
                self.change(|store, host| store.put_parameter(input, host))
            }
            other => Err(ApiError::unknown_operation(other)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change that is kept whole or not at all.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Store, &Host) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut store = self.lock();
        let mut changed = store.clone();
        let answer = change(&mut changed, &self.host)?;
        changed
            .save()
            .map_err(|error| ApiError::server("InternalServiceError", error.to_string()))?;
        *store = changed;
        Ok(answer)
    }
}

#[expect(clippy::cast_precision_loss, reason = "epoch milliseconds are exact in an f64")]
fn seconds(time: Timestamp) -> Value {
    json!(time.as_millisecond() as f64 / 1e3)
}
