//! The errors that CodeBuild's operations answer with.

use archweld_local_api::ApiError;

pub(crate) const INVALID_INPUT: &str = "InvalidInputException";

pub(crate) fn invalid_input(message: impl Into<String>) -> ApiError {
    ApiError::client(INVALID_INPUT, message)
}

pub(crate) fn project_not_found(arn: &str) -> ApiError {
    ApiError::client("ResourceNotFoundException", format!("Project cannot be found: {arn}"))
}

pub(crate) fn build_not_found(id: &str) -> ApiError {
    ApiError::client("ResourceNotFoundException", format!("Build {id} does not exist"))
}

pub(crate) fn limit_exceeded(message: impl Into<String>) -> ApiError {
    ApiError::client("AccountLimitExceededException", message)
}

/// Why the service did not start on a state folder.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it could not be read or made.
    #[error("cannot use {path}")]
    Folder {
        /// Which one.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A build's record is not one.
    #[error("{path} is not the record of a build")]
    Record {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}
