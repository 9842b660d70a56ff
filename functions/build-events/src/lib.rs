//! Tells the state machine how a build ended.
//!
//! Events come late, twice, out of order or for builds that somebody started by hand; none of
//! these is an error.

mod event;
mod failure;

use std::time::Duration;

use archweld_model::{
    BuildOutcome, Built, Digest, DigestError, Environment, ErrorName, Named, media_type, variable,
};
use archweld_runtime::CallError;
use aws_sdk_ecr::types::{Image, ImageFailureCode, ImageIdentifier};
use aws_sdk_sfn::operation::{
    send_task_failure::SendTaskFailureError, send_task_success::SendTaskSuccessError,
};
use aws_types::SdkConfig;
use serde::{Deserialize, Serialize};

pub use event::BuildEvent;
use event::Detail;
use failure::Failure;

/// How often a just-pushed image is looked for, and how long between.
const LOOKUPS_MAX: u32 = 4;
const LOOKUP_WAIT: Duration = Duration::from_millis(500);

/// The services that the function calls.
#[derive(Debug, Clone)]
pub struct Clients {
    codebuild: aws_sdk_codebuild::Client,
    ecr: aws_sdk_ecr::Client,
    sfn: aws_sdk_sfn::Client,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Handled {
    /// The state machine was told.
    Told,
    /// The state machine does not wait for this build any more.
    NotWaitedFor,
    /// The build is none of archweld's.
    NotOurs,
    /// The build is not over.
    NotOver,
}

/// Why the state machine was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A call to AWS failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The build carries a variable that is none of archweld's making.
    #[error("build {build_id}: environment variable {variable} is {problem}")]
    Environment {
        /// The build.
        build_id: String,
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// ECR answered something that is not an image.
    #[error("repository {repository}, tag {tag}: {problem}")]
    Image {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// What is wrong.
        problem: String,
    },
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Call(error) => error.name(),
            Self::Environment { .. } => ErrorName::EventMalformed,
            Self::Image { .. } => ErrorName::ServiceRejected,
        }
    }
}

impl Clients {
    /// Clients of one configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            codebuild: aws_sdk_codebuild::Client::new(config),
            ecr: aws_sdk_ecr::Client::new(config),
            sfn: aws_sdk_sfn::Client::new(config),
        }
    }
}

/// Completes the task that a build was started for.
///
/// # Errors
/// When AWS fails or refuses: Lambda then retries the event.
pub async fn handle(event: BuildEvent, clients: &Clients) -> Result<Handled, Error> {
    let detail = event.detail;
    let build_id = detail.build_id();
    if detail.build_status == "IN_PROGRESS" {
        return Ok(Handled::NotOver);
    }
    let Some(environment) = environment(&detail, clients).await? else {
        tracing::info!(build.id = build_id, "build carries no task token: not archweld's");
        return Ok(Handled::NotOurs);
    };
    let variable = |name| required(&environment, build_id, name);
    let token = variable(variable::TASK_TOKEN)?;
    let target = environment.get(variable::IMAGE_PLATFORM).unwrap_or("manifest");
    let ended = if detail.build_status == "SUCCEEDED" {
        let repository = variable(variable::IMAGE_REPO_NAME)?;
        let tag = variable(variable::IMAGE_TAG)?;
        let log = || detail.log().map(|log| format!("; log: {log}")).unwrap_or_default();
        match find(repository, tag, clients).await {
            Ok(Some(built)) => Ok(BuildOutcome {
                target: target.to_owned(),
                built,
                build_id: build_id.to_owned(),
                log: detail.log().map(str::to_owned),
                timing: detail.timing(),
            }),
            Ok(None) => {
                let what = "the build succeeded without pushing";
                let cause = format!("{target}: {what} {repository}:{tag}{}", log());
                Err((ErrorName::ImageNotFound, cause))
            }
            Err(error) if error.name() == ErrorName::ServiceUnavailable => return Err(error),
            // Another try would find the same, and the task would wait for its time-out.
            Err(error) => Err((error.name(), format!("{target}: {error}{}", log()))),
        }
    } else {
        let retries_left = variable(variable::RETRIES_LEFT)?.parse().map_err(|_| {
            let problem = "not a number";
            Error::Environment {
                build_id: build_id.to_owned(),
                variable: variable::RETRIES_LEFT,
                problem,
            }
        })?;
        let failure = Failure::new(&detail, target, retries_left);
        Err((failure.name, failure.to_string()))
    };
    let handled = tell(token, &ended, clients).await?;
    tracing::info!(
        build.id = build_id,
        build.status = detail.build_status,
        build.target = target,
        run = environment.get(variable::RUN),
        error.name = ended.as_ref().err().map(|(name, _)| name.as_str()),
        handled = ?handled,
        "build ended"
    );
    Ok(handled)
}

/// The environment of one of archweld's builds: from the event, or from the build itself where
/// the event does not carry it.
async fn environment(detail: &Detail, clients: &Clients) -> Result<Option<Environment>, Error> {
    let ours = |environment: &Environment| environment.get(variable::TASK_TOKEN).is_some();
    let carried = detail.environment();
    if ours(&carried) {
        return Ok(Some(carried));
    }
    let answer = clients
        .codebuild
        .batch_get_builds()
        .ids(detail.build_id())
        .send()
        .await
        .map_err(|error| CallError::new("codebuild:BatchGetBuilds", &error))?;
    let environment: Environment = answer
        .builds()
        .iter()
        .filter_map(|build| build.environment())
        .flat_map(|environment| environment.environment_variables())
        .map(|variable| (variable.name(), variable.value()))
        .collect();
    Ok(ours(&environment).then_some(environment))
}

fn required<'a>(
    environment: &'a Environment,
    build_id: &str,
    variable: &'static str,
) -> Result<&'a str, Error> {
    environment.get(variable).ok_or_else(|| {
        let problem = "missing";
        Error::Environment { build_id: build_id.to_owned(), variable, problem }
    })
}

/// Resolves the run's own tag to what the build pushed. From here on, only digests travel.
async fn find(repository: &str, tag: &str, clients: &Clients) -> Result<Option<Built>, Error> {
    for lookup in 1..=LOOKUPS_MAX {
        let answer = clients
            .ecr
            .batch_get_image()
            .repository_name(repository)
            .image_ids(ImageIdentifier::builder().image_tag(tag).build())
            .set_accepted_media_types(Some(media_type::ALL.map(str::to_owned).to_vec()))
            .send()
            .await
            .map_err(|error| CallError::new("ecr:BatchGetImage", &error))?;
        if let [image, ..] = answer.images() {
            let problem = |problem: String| Error::Image {
                repository: repository.to_owned(),
                tag: tag.to_owned(),
                problem,
            };
            return describe(image).map(Some).map_err(problem);
        }
        if let Some(failure) = answer
            .failures()
            .iter()
            .find(|failure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound))
        {
            let code = failure.failure_code().map_or("unknown failure", ImageFailureCode::as_str);
            let reason = failure.failure_reason().unwrap_or_default();
            return Err(Error::Image {
                repository: repository.to_owned(),
                tag: tag.to_owned(),
                problem: format!("{code}: {reason}"),
            });
        }
        if lookup < LOOKUPS_MAX {
            tokio::time::sleep(LOOKUP_WAIT * lookup).await;
        }
    }
    Ok(None)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    size: u64,
}

fn describe(image: &Image) -> Result<Built, String> {
    let text = image.image_manifest().unwrap_or_default();
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let digest = image.image_id().and_then(ImageIdentifier::image_digest).unwrap_or_default();
    let digest: Digest = digest.parse().map_err(|error: DigestError| error.to_string())?;
    let media_type = image
        .image_manifest_media_type()
        .map(str::to_owned)
        .or(manifest.media_type)
        .ok_or("the manifest has no media type")?;
    let stored = manifest.config.iter().chain(&manifest.layers);
    Ok(Built {
        digest,
        media_type,
        manifest_bytes: text.len() as u64,
        size_bytes: stored.map(|descriptor| descriptor.size).sum(),
    })
}

async fn tell(
    token: &str,
    ended: &Result<BuildOutcome, (ErrorName, String)>,
    clients: &Clients,
) -> Result<Handled, Error> {
    match ended {
        Ok(outcome) => {
            let output = serde_json::json!(outcome).to_string();
            let sent = clients.sfn.send_task_success().task_token(token).output(output).send();
            match sent.await {
                Ok(_) => Ok(Handled::Told),
                Err(error) => match error.as_service_error() {
                    Some(
                        SendTaskSuccessError::TaskTimedOut(_)
                        | SendTaskSuccessError::TaskDoesNotExist(_),
                    ) => Ok(Handled::NotWaitedFor),
                    _ => Err(CallError::new("states:SendTaskSuccess", &error).into()),
                },
            }
        }
        Err((name, cause)) => {
            let failure = clients.sfn.send_task_failure().task_token(token);
            match failure.error(name.as_str()).cause(cause).send().await {
                Ok(_) => Ok(Handled::Told),
                Err(error) => match error.as_service_error() {
                    Some(
                        SendTaskFailureError::TaskTimedOut(_)
                        | SendTaskFailureError::TaskDoesNotExist(_),
                    ) => Ok(Handled::NotWaitedFor),
                    _ => Err(CallError::new("states:SendTaskFailure", &error).into()),
                },
            }
        }
    }
}
