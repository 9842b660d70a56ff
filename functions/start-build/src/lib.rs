//! Starts one CodeBuild build of a run.
//!
//! It does not wait: the build carries the task token, and `build-events` sends it back.

use std::fmt;

use archweld_model::{BuildRequest, Digest, ErrorName, Named, variable};
use archweld_runtime::{CallError, about_run, metrics};
use aws_sdk_codebuild::{
    Client,
    config::http::HttpResponse,
    error::SdkError,
    operation::start_build::StartBuildError,
    types::{EnvironmentVariable, EnvironmentVariableType, SourceType},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the state machine sends.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The token that the task waits for.
    pub token: String,
    /// How often this task was tried before.
    pub retry_count: u32,
    /// The build.
    pub build: BuildRequest,
    /// The images that a manifest build welds.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// An image that a manifest build welds: as much of a build's outcome as it needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    /// The platform.
    pub target: String,
    /// The image.
    pub digest: Digest,
}

/// The build that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Started {
    /// Its identity, `<project>:<uuid>`.
    pub build_id: String,
}

/// Why no build was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The account has no room for another build.
    #[error("{target}: no room for another build: {reason}")]
    Capacity {
        /// What was to be built.
        target: String,
        /// What CodeBuild says.
        reason: CallError,
    },
    /// CodeBuild refuses the build.
    #[error("{target}: the build was refused: {reason}")]
    Rejected {
        /// What was to be built.
        target: String,
        /// What CodeBuild says.
        reason: CallError,
    },
    /// CodeBuild did not answer.
    #[error("{target}: no build could be started: {reason}")]
    Unavailable {
        /// What was to be built.
        target: String,
        /// What went wrong.
        reason: CallError,
    },
    /// The last retry failed, too.
    #[error("{last}; given up after {tries} tries")]
    RetriesExhausted {
        /// What the last try said.
        last: Box<Error>,
        /// How many there were.
        tries: u32,
    },
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Capacity { .. } => ErrorName::BuildCapacity,
            Self::Rejected { .. } => ErrorName::BuildRejected,
            Self::Unavailable { .. } => ErrorName::BuildInfrastructure,
            Self::RetriesExhausted { .. } => ErrorName::BuildRetriesExhausted,
        }
    }
}

/// Starts the build.
///
/// # Errors
/// `Build.Capacity` and `Build.Infrastructure`, which the state machine retries;
/// `Build.RetriesExhausted` in their place once the image's retries are used up;
/// `Build.Rejected` for what no retry mends.
pub async fn handle(request: Request, codebuild: &Client) -> Result<Started, Error> {
    let Request { token, retry_count, build, sources } = request;
    if let Some(run) = build.environment.get(variable::RUN) {
        about_run(run);
    }
    let retries_left = build.retries.saturating_sub(retry_count);
    let started = start(&token, retries_left, &build, sources, codebuild).await;
    started.map_err(|error| {
        let error = error.after(retry_count, retries_left);
        if let ErrorName::BuildCapacity | ErrorName::BuildInfrastructure = error.name() {
            metrics::BUILD_RETRIES.record(1.0, [error.name().as_str()]);
        }
        error
    })
}

impl Error {
    fn new(target: &str, error: SdkError<StartBuildError, HttpResponse>) -> Self {
        let target = target.to_owned();
        let reason = CallError::new("codebuild:StartBuild", &error);
        match error.into_service_error() {
            StartBuildError::AccountLimitExceededException(_) => Self::Capacity { target, reason },
            _ if reason.is_unavailable() => Self::Unavailable { target, reason },
            _ => Self::Rejected { target, reason },
        }
    }

    /// What a task that was tried before reports: the state machine would go on retrying.
    fn after(self, retry_count: u32, retries_left: u32) -> Self {
        match self {
            Self::Capacity { .. } | Self::Unavailable { .. } if retries_left == 0 => {
                Self::RetriesExhausted { last: Box::new(self), tries: retry_count + 1 }
            }
            error => error,
        }
    }
}

async fn start(
    token: &str,
    retries_left: u32,
    build: &BuildRequest,
    sources: Vec<Source>,
    codebuild: &Client,
) -> Result<Started, Error> {
    let mut environment = build.environment.clone();
    environment.set(variable::RETRIES_LEFT, retries_left.to_string());
    if !sources.is_empty() {
        let images = sources.into_iter().map(|source| (source.target, source.digest));
        environment.set(variable::IMAGE_SOURCES, BuildRequest::sources(images));
    }
    environment.set(variable::TASK_TOKEN, token);
    let variables = environment.iter().map(|(name, value)| {
        EnvironmentVariable::builder()
            .name(name)
            .value(value)
            .r#type(EnvironmentVariableType::Plaintext)
            .build()
    });
    let variables = variables
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::new(&build.target, SdkError::construction_failure(error)))?;

    let started = codebuild
        .start_build()
        .project_name(&build.project)
        .set_source_type_override(
            build.source.as_ref().map(|source| SourceType::from(source.kind().as_str())),
        )
        .set_source_location_override(
            build.source.as_ref().map(|source| source.as_str().to_owned()),
        )
        .set_source_version(build.source_version.clone())
        .set_buildspec_override(build.buildspec.clone())
        .set_environment_variables_override(Some(variables))
        .timeout_in_minutes_override(minutes(build.build_timeout_minutes))
        .queued_timeout_in_minutes_override(minutes(build.queue_timeout_minutes))
        // Lambda and the SDK may both repeat this call. Another attempt of the task has another
        // token, and with it another build.
        .idempotency_token(hex::encode(Sha256::digest(token)))
        .send()
        .await
        .map_err(|error| Error::new(&build.target, error))?;
    let build_id = started.build_value.and_then(|build| build.id).unwrap_or_default();
    tracing::info!(
        build.id = build_id,
        build.target = build.target,
        build.retries_left = retries_left,
        "build started"
    );
    Ok(Started { build_id })
}

/// The configuration bounds minutes far below what the API's type holds.
fn minutes(minutes: u32) -> i32 {
    i32::try_from(minutes).unwrap_or(i32::MAX)
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("Request").field("build", &self.build).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_codebuild::{
        error::ErrorMetadata,
        types::error::{AccountLimitExceededException, InvalidInputException},
    };
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn refused(status: u16, error: StartBuildError) -> Error {
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        Error::new("linux/arm64", SdkError::service_error(error, response))
    }

    fn over_the_limit() -> Error {
        let error = AccountLimitExceededException::builder().build();
        refused(400, StartBuildError::AccountLimitExceededException(error))
    }

    fn invalid() -> Error {
        let error = InvalidInputException::builder().build();
        refused(400, StartBuildError::InvalidInputException(error))
    }

    #[test]
    fn only_what_a_retry_may_mend_is_retried() {
        let unknown = |code| StartBuildError::generic(ErrorMetadata::builder().code(code).build());
        for (error, name) in [
            (over_the_limit(), ErrorName::BuildCapacity),
            (invalid(), ErrorName::BuildRejected),
            (refused(400, unknown("AccessDeniedException")), ErrorName::BuildRejected),
            (refused(400, unknown("ThrottlingException")), ErrorName::BuildInfrastructure),
            (refused(500, unknown("InternalFailure")), ErrorName::BuildInfrastructure),
            (
                Error::new("manifest", SdkError::timeout_error("too long")),
                ErrorName::BuildInfrastructure,
            ),
        ] {
            assert_eq!(error.name(), name, "{error}");
        }
    }

    #[test]
    fn after_the_last_retry_nothing_is_retried() {
        assert_eq!(over_the_limit().after(1, 1).name(), ErrorName::BuildCapacity);
        let last = over_the_limit().after(2, 0);
        assert_eq!(last.name(), ErrorName::BuildRetriesExhausted);
        assert!(last.to_string().ends_with("; given up after 3 tries"), "{last}");
        assert_eq!(invalid().after(2, 0).name(), ErrorName::BuildRejected);
    }

    #[test]
    fn debug_never_shows_the_token() {
        let request = serde_json::from_value::<Request>(serde_json::json!({
            "token": "AQCEAAAAKg",
            "retry_count": 0,
            "build": {
                "target": "linux/arm64", "project": "img-arm64", "source": null,
                "source_version": null, "buildspec": null, "environment": [],
                "build_timeout_minutes": 60, "queue_timeout_minutes": 60,
                "timeout_seconds": 7_800, "retries": 2,
            },
        }));
        let shown = format!("{:?}", request.unwrap());
        assert!(shown.contains("img-arm64") && !shown.contains("AQCE"), "{shown}");
    }
}
