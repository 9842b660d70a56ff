//! What can go wrong outside the API's operations, and the operations' errors as AWS words them.

use std::io;
use std::path::PathBuf;

use archweld_local_api::ApiError;
use archweld_states::DefinitionErrors;

/// Why a state machine was not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateStateMachineError {
    /// The name has characters that it may not have, or too few or too many.
    #[error("state machine name {0:?}: expected 1 to 80 characters without spaces or punctuation")]
    Name(String),
    /// There is one of that name.
    #[error("state machine {0:?} exists already")]
    Exists(String),
    /// The definition is not one that can be run.
    #[error("state machine {name:?} has a bad definition")]
    Definition {
        /// The name of the state machine.
        name: String,
        /// What is wrong with it.
        #[source]
        errors: DefinitionErrors,
    },
}

/// Why the state folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open the executions in {}", folder.display())]
pub struct OpenError {
    /// The folder.
    pub folder: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

pub(crate) fn validation(message: impl Into<String>) -> ApiError {
    ApiError::client("ValidationException", message)
}

pub(crate) fn too_long(field: &str, length_max: usize) -> ApiError {
    validation(format!(
        "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must \
         have length less than or equal to {length_max}"
    ))
}

pub(crate) fn invalid_arn(what: &str) -> ApiError {
    ApiError::client("InvalidArn", format!("Invalid Arn: '{what}'"))
}

pub(crate) fn invalid_token() -> ApiError {
    ApiError::client("InvalidToken", "Invalid Token: 'Invalid token'")
}

pub(crate) fn task_timed_out() -> ApiError {
    ApiError::client("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")
}

pub(crate) fn no_such_execution(arn: &str) -> ApiError {
    ApiError::client("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{arn}'"))
}

pub(crate) fn not_redrivable(arn: &str, reason: &str) -> ApiError {
    let message = format!("Execution {arn} invalid for redrive as: {reason}");
    ApiError::client("ExecutionNotRedrivable", message)
}

pub(crate) fn no_such_state_machine(arn: &str) -> ApiError {
    ApiError::client("StateMachineDoesNotExist", format!("State Machine Does Not Exist: '{arn}'"))
}

pub(crate) fn stopping() -> ApiError {
    ApiError {
        status: 503,
        ..ApiError::server("ServiceUnavailable", "the local cloud is stopping")
    }
}
