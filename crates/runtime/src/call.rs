//! What went wrong in a call to AWS.

use std::fmt;

use archweld_model::{ErrorName, Named};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// A call to AWS that failed after the SDK's own retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} failed: {reason}")]
pub struct CallError {
    operation: &'static str,
    reason: String,
    unavailable: bool,
}

impl CallError {
    /// What became of a call of `operation`, such as `codebuild:StartBuild`.
    pub fn new<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let (reason, unavailable) = match error {
            SdkError::ServiceError(context) => {
                let code = context.err().code().unwrap_or("unknown error");
                let message = context.err().message().unwrap_or("no message");
                let unavailable = context.raw().status().is_server_error() || throttles(code);
                (format!("{code}: {message}"), unavailable)
            }
            SdkError::ConstructionFailure(_) => (chain(error), false),
            _ => (chain(error), true),
        };
        Self { operation, reason, unavailable }
    }

    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        self.unavailable
    }
}

impl Named for CallError {
    fn name(&self) -> ErrorName {
        if self.unavailable { ErrorName::ServiceUnavailable } else { ErrorName::ServiceRejected }
    }
}

fn throttles(code: &str) -> bool {
    code.contains("Throttl") || code.contains("TooManyRequests") || code == "RequestLimitExceeded"
}

/// An error with everything that led to it: the SDK's own messages name only the outermost part.
fn chain(error: &dyn std::error::Error) -> String {
    struct Chain<'a>(&'a dyn std::error::Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            self.0.source().map_or(Ok(()), |source| write!(f, ": {}", Chain(source)))
        }
    }
    Chain(error).to_string()
}
