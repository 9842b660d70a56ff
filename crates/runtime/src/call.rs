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

    /// A call that cannot even be made.
    pub(crate) fn refused(operation: &'static str, reason: &str) -> Self {
        Self { operation, reason: reason.to_owned(), unavailable: false }
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

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::{body::SdkBody, error::ErrorMetadata};

    use super::*;

    fn refused(status: u16, code: &str) -> CallError {
        let error = ErrorMetadata::builder().code(code).message("no").build();
        let status = StatusCode::try_from(status).unwrap();
        let response = HttpResponse::new(status, SdkBody::empty());
        CallError::new("ecr:PutImage", &SdkError::service_error(error, response))
    }

    #[test]
    fn what_may_pass_by_itself_is_unavailable_and_the_rest_is_rejected() {
        for (status, code, name) in [
            (500, "ServerException", ErrorName::ServiceUnavailable),
            (503, "ServiceUnavailable", ErrorName::ServiceUnavailable),
            (400, "ThrottlingException", ErrorName::ServiceUnavailable),
            (429, "TooManyRequestsException", ErrorName::ServiceUnavailable),
            (400, "AccessDeniedException", ErrorName::ServiceRejected),
            (400, "RepositoryNotFoundException", ErrorName::ServiceRejected),
        ] {
            assert_eq!(refused(status, code).name(), name, "{status} {code}");
        }
        let timed_out = SdkError::<ErrorMetadata, HttpResponse>::timeout_error("too long");
        assert!(CallError::new("ecr:PutImage", &timed_out).is_unavailable());
        let unbuilt = SdkError::<ErrorMetadata, HttpResponse>::construction_failure("no name");
        assert!(!CallError::new("ecr:PutImage", &unbuilt).is_unavailable());
    }

    #[test]
    fn says_which_call_failed_and_why() {
        let message = refused(400, "AccessDeniedException").to_string();
        assert_eq!(message, "ecr:PutImage failed: AccessDeniedException: no");
    }
}
