//! Tells the state machine how a build ended.
//!
//! Events come late, twice, out of order or for builds that somebody started by hand; none of
//! these is an error.

mod event;
mod failure;
mod pushed;

use archweld_ecr::{EcrError, Repository};
use archweld_model::{
    BuildOutcome, Built, Digest, Environment, ErrorName, IndexError, IndexedImage, Named, Platform,
    RepositoryName, variable,
};
use archweld_runtime::CallError;
use aws_sdk_codebuild::types::Build;
use aws_sdk_sfn::operation::{
    send_task_failure::SendTaskFailureError, send_task_success::SendTaskSuccessError,
};
use aws_types::SdkConfig;
use serde::Serialize;

pub use event::BuildEvent;
use event::Detail;
use failure::Failure;
use pushed::Pushed;

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
    /// The build exported a digest that is none.
    #[error("the buildspec exports {}: {problem}", variable::IMAGE_DIGEST)]
    Exported {
        /// What is wrong with it.
        problem: String,
    },
    /// The build pushed nothing that can be found.
    #[error("the build succeeded without pushing {repository}{image}")]
    NotPushed {
        /// The repository.
        repository: RepositoryName,
        /// `:<tag>` or `@<digest>`
        image: String,
    },
    /// The build pushed an image or an index that cannot be this platform's.
    #[error("{repository}: {image} {problem}")]
    Image {
        /// The repository.
        repository: RepositoryName,
        /// A tag or a digest.
        image: String,
        /// What is wrong with it.
        problem: PushedError,
    },
    /// ECR does not say what the build pushed.
    #[error(transparent)]
    Ecr(#[from] EcrError),
}

/// What is wrong with what a build pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushedError {
    /// Neither a manifest nor an index.
    #[error("is not an image: {0}")]
    NotAnImage(String),
    /// An index that is not of one image and its attestations.
    #[error("is {0}")]
    Index(#[from] IndexError),
    /// An index of other images than the platform's.
    #[error("is an index of {found}, expected an image of {expected}")]
    Platforms {
        /// The platforms of the index.
        found: String,
        /// The platform of the build.
        expected: Platform,
    },
    /// An index names an image that is not there.
    #[error("is an index of {0}, which is not there")]
    Missing(Digest),
}

impl PushedError {
    fn platforms(found: &[IndexedImage], expected: Platform) -> Self {
        let found: Vec<String> = found.iter().map(|image| image.platform.to_string()).collect();
        let found = if found.is_empty() { "no image".to_owned() } else { found.join(", ") };
        Self::Platforms { found, expected }
    }
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Call(error) => error.name(),
            Self::Environment { .. } => ErrorName::EventMalformed,
            Self::Image { problem, .. } => match problem {
                PushedError::NotAnImage(_) | PushedError::Missing(_) => ErrorName::ImageNotFound,
                PushedError::Index(_) => ErrorName::IndexMismatch,
                PushedError::Platforms { .. } => ErrorName::ImageWrongPlatform,
            },
            Self::Exported { .. } | Self::NotPushed { .. } => ErrorName::ImageNotFound,
            Self::Ecr(error) => error.name(),
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
        let log = || detail.log().map(|log| format!("; log: {log}")).unwrap_or_default();
        match pushed(&detail, &environment, clients).await {
            Ok(built) => Ok(BuildOutcome {
                target: target.to_owned(),
                built,
                build_id: build_id.to_owned(),
                log: detail.log().map(str::to_owned),
                timing: detail.timing(),
            }),
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
    let build = build(detail, clients).await?;
    let environment: Environment = build
        .iter()
        .filter_map(|build| build.environment())
        .flat_map(|environment| environment.environment_variables())
        .map(|variable| (variable.name(), variable.value()))
        .collect();
    Ok(ours(&environment).then_some(environment))
}

/// What a build that succeeded has pushed: the image of its platform, or the index.
async fn pushed(
    detail: &Detail,
    environment: &Environment,
    clients: &Clients,
) -> Result<Built, Error> {
    let build_id = detail.build_id();
    let variable = |name| required(environment, build_id, name);
    let wrong = |variable| {
        let problem = "not valid";
        Error::Environment { build_id: build_id.to_owned(), variable, problem }
    };
    let repository = variable(variable::IMAGE_REPO_NAME)?
        .parse()
        .map_err(|_| wrong(variable::IMAGE_REPO_NAME))?;
    let repository = Repository::new(clients.ecr.clone(), repository);
    let tag = variable(variable::IMAGE_TAG)?.parse().map_err(|_| wrong(variable::IMAGE_TAG))?;
    let platform = environment.get(variable::IMAGE_PLATFORM).map(str::parse).transpose();
    let platform = platform.map_err(|_| wrong(variable::IMAGE_PLATFORM))?;

    let carried = detail.exported();
    let is_known = carried.is_some();
    let mut pushed = Pushed::new(tag);
    pushed.export(&carried.unwrap_or_default())?;
    // A tag that other runs push to, too, may have moved on since.
    let is_shared = environment.get(variable::SHARED_TAG).is_some();
    if is_shared && !is_known {
        pushed.export(&exported(detail, clients).await?)?;
    }
    match pushed.find(&repository, platform).await {
        Err(Error::NotPushed { .. }) if !is_shared && !is_known && !pushed.is_exact() => {
            pushed.export(&exported(detail, clients).await?)?;
            pushed.find(&repository, platform).await
        }
        found => found,
    }
}

/// The variables that the buildspec exported, where the event does not carry them.
async fn exported(detail: &Detail, clients: &Clients) -> Result<Environment, Error> {
    let build = build(detail, clients).await?;
    let variables = build.iter().flat_map(|build| build.exported_environment_variables());
    Ok(variables.filter_map(|variable| Some((variable.name()?, variable.value()?))).collect())
}

async fn build(detail: &Detail, clients: &Clients) -> Result<Option<Build>, CallError> {
    let answer = clients
        .codebuild
        .batch_get_builds()
        .ids(detail.build_id())
        .send()
        .await
        .map_err(|error| CallError::new("codebuild:BatchGetBuilds", &error))?;
    Ok(answer.builds.and_then(|builds| builds.into_iter().next()))
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
