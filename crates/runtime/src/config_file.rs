//! `archweld.toml`, for the functions that read it.

use std::{fs, path::Path};

use archweld_model::{Config, ConfigError, ErrorName, Named};

/// An `archweld.toml` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFileError {
    /// It is not readable.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// It is wrong.
    #[error("{path}:{error}")]
    Wrong {
        /// The file.
        path: String,
        /// Where and what.
        error: ConfigError,
    },
}

impl Named for ConfigFileError {
    fn name(&self) -> ErrorName {
        ErrorName::PlanInvalid
    }
}

/// Reads `archweld.toml`.
///
/// # Errors
/// When it is not readable or wrong.
pub fn read_config(path: &Path) -> Result<Config, ConfigFileError> {
    let name = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigFileError::Unreadable { path: name(), reason: error.to_string() })?;
    Config::parse(&text).map_err(|error| ConfigFileError::Wrong { path: name(), error })
}
