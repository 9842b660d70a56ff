//! The names of errors: what the state machine's `Retry` and `Catch` match.

use std::fmt;

macro_rules! error_names {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// The name of an error, stable across releases.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorName {
            $($(#[$doc])* $name,)+
        }

        impl ErrorName {
            /// Every name.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name as the state machine has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

error_names! {
    /// A command of the build failed. The user's to mend; never retried.
    BuildFailed = "Build.Failed",
    /// The build ran longer than its time-out.
    BuildTimedOut = "Build.TimedOut",
    /// Somebody stopped the build.
    BuildStopped = "Build.Stopped",
    /// CodeBuild's own fault, or no machine in time. Retried.
    BuildInfrastructure = "Build.Infrastructure",
    /// The account has no room for another build. Retried, with long waits.
    BuildCapacity = "Build.Capacity",
    /// CodeBuild refused to start the build: a wrong project or parameter.
    BuildRejected = "Build.Rejected",
    /// An infrastructure or capacity error, after the last retry that the image allows.
    BuildRetriesExhausted = "Build.RetriesExhausted",
    /// The execution's input or the configuration does not make a plan.
    PlanInvalid = "Plan.Invalid",
    /// A build succeeded without pushing its image.
    ImageNotFound = "Image.NotFound",
    /// An image is of another platform than it was built for.
    ImageWrongPlatform = "Image.WrongPlatform",
    /// The index does not hold exactly the images that this run built.
    IndexMismatch = "Index.Mismatch",
    /// A fixed tag already names another image.
    PublishTagImmutable = "Publish.TagImmutable",
    /// ECR refused for a reason that no retry mends.
    PublishRejected = "Publish.Rejected",
    /// AWS did not answer, or asked to slow down. Retried.
    ServiceUnavailable = "Service.Unavailable",
    /// AWS refused a call that the function must be able to make: a missing permission, mostly.
    ServiceRejected = "Service.Rejected",
    /// An event or a payload that the function does not understand.
    EventMalformed = "Event.Malformed",
    /// A receiver of results refuses what it is told, or where it is cannot be found out.
    ReportRefused = "Report.Refused",
    /// A git server does not take the token for statuses of commits.
    ReportUnauthorized = "Report.Unauthorized",
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that the state machine knows by name.
pub trait Named: std::error::Error {
    /// Its name.
    fn name(&self) -> ErrorName;
}
