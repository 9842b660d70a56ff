//! What a function is, and what it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::FailureSink;

/// How many instances of a function run at once unless its settings say otherwise.
pub const CONCURRENCY_MAX_DEFAULT: usize = 100;

/// A function to create.
#[derive(Debug, Clone)]
pub struct FunctionSettings {
    /// The name.
    pub name: String,
    /// The ARN, without a version.
    pub arn: String,
    /// The function's own environment variables.
    pub environment: BTreeMap<String, String>,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// Told to the function; not enforced.
    pub memory_mb: u32,
    /// How many invocations may run at once; one more is throttled.
    pub concurrency_max: usize,
    /// How asynchronous invocations are retried.
    pub retries: AsynchronousRetries,
    /// Told of each asynchronous invocation that was given up.
    pub on_failure: Option<FailureSink>,
    /// The code.
    pub handler: Handler,
}

/// How asynchronous invocations are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsynchronousRetries {
    /// `MaximumRetryAttempts`: runs after a first that ended in a function error.
    pub attempts_max: u32,
    /// `MaximumEventAgeInSeconds`: an older event is not run any more.
    pub age_max: Duration,
}

impl Default for AsynchronousRetries {
    /// Two retries within six hours, as on AWS.
    fn default() -> Self {
        Self { attempts_max: 2, age_max: Duration::from_hours(6) }
    }
}

/// A function of this process.
pub type InProcessHandler =
    Arc<dyn Fn(Invocation) -> BoxFuture<'static, Result<Value, FunctionError>> + Send + Sync>;

/// A function's code.
#[derive(Clone)]
pub enum Handler {
    /// A binary as AWS runs it (`bootstrap`), started as a child process.
    Process(PathBuf),
    /// A function of this process. Its future is dropped on a time-out.
    InProcess(InProcessHandler),
}

impl fmt::Debug for Handler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(path) => formatter.debug_tuple("Process").field(path).finish(),
            Self::InProcess(_) => formatter.write_str("InProcess"),
        }
    }
}

/// What an in-process function is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Identifies the invocation; a retry of an asynchronous one has the same.
    pub request_id: Arc<str>,
    /// When the function is cut off.
    pub deadline: Timestamp,
    /// The ARN of the function.
    pub function_arn: Arc<str>,
    /// The X-Ray trace header.
    pub trace_id: Arc<str>,
    /// The event.
    pub payload: Value,
}

/// The error that a function ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// The name that retries and catchers match.
    pub error_type: String,
    /// What was wrong, for people.
    pub error_message: String,
}

impl FunctionError {
    /// The error as the caller reads it.
    pub fn to_payload(&self) -> Bytes {
        json!({ "errorType": self.error_type, "errorMessage": self.error_message })
            .to_string()
            .into()
    }

    /// An error that Lambda itself reports of an invocation.
    pub(crate) fn of_platform(error_type: &str, request_id: &str, what: impl fmt::Display) -> Self {
        Self {
            error_type: error_type.to_owned(),
            error_message: format!("RequestId: {request_id} Error: {what}"),
        }
    }

    pub(crate) fn timed_out(request_id: &str, after: Duration) -> Self {
        let what = format!("Task timed out after {:.2} seconds", after.as_secs_f64());
        Self::of_platform("Sandbox.Timedout", request_id, what)
    }
}
