//! A build that ended: what it pushed, or whose fault it is, told to the state machine.
//!
//! `build-events` hears of builds by their events, `reconcile` finds those whose event was lost. Both
//! judge alike, and telling the state machine twice is no error.

mod build;
mod failure;
mod pushed;

use archweld_ecr::{EcrError, Repository};
use archweld_model::{
    BuildOutcome, Built, Digest, Environment, ErrorName, IndexError, IndexedImage, Named, Platform,
    RepositoryName, variable,
};
use archweld_runtime::{CallError, metrics};
use aws_sdk_codebuild::types::Build;
use aws_sdk_sfn::operation::{
    send_task_failure::SendTaskFailureError, send_task_success::SendTaskSuccessError,
};
use aws_types::SdkConfig;

pub use build::{EndedBuild, Phase, environment, exported};
use failure::Failure;
use pushed::Pushed;

/// The phases that are measured: those that take time, whatever the build does.
const PHASES: [&str; 7] =
    ["QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD"];

/// The services that are called.
#[derive(Debug, Clone)]
pub struct Clients {
    codebuild: aws_sdk_codebuild::Client,
    ecr: aws_sdk_ecr::Client,
    sfn: aws_sdk_sfn::Client,
}

/// What the state machine made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It was told.
    Told,
    /// It does not wait for this build any more.
    NotWaitedFor,
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

/// Completes the task that a build was started for, by the token in the build's environment.
///
/// # Errors
/// When AWS fails or refuses: the caller tries again.
pub async fn complete(build: &EndedBuild, clients: &Clients) -> Result<Completion, Error> {
    let variable = |name| required(build, name);
    let token = variable(variable::TASK_TOKEN)?;
    let target = build.environment.get(variable::IMAGE_PLATFORM).unwrap_or("manifest");
    let ended = if build.status == "SUCCEEDED" {
        let log = || build.log.as_ref().map(|log| format!("; log: {log}")).unwrap_or_default();
        match pushed(build, clients).await {
            Ok(built) => Ok(BuildOutcome {
                target: target.to_owned(),
                built,
                build_id: build.id.clone(),
                log: build.log.clone(),
                timing: build.timing(),
            }),
            Err(error) if error.name() == ErrorName::ServiceUnavailable => return Err(error),
            // Another try would find the same, and the task would wait for its time-out.
            Err(error) => Err((error.name(), format!("{target}: {error}{}", log()))),
        }
    } else {
        let retries_left = variable(variable::RETRIES_LEFT)?
            .parse()
            .map_err(|_| wrong(build, variable::RETRIES_LEFT, "not a number"))?;
        let failure = Failure::new(build, target, retries_left);
        Err((failure.name, failure.to_string()))
    };
    let completion = tell(token, &ended, clients).await?;
    tracing::info!(
        build.id = build.id,
        build.status = build.status,
        build.target = target,
        run = build.environment.get(variable::RUN),
        error.name = ended.as_ref().err().map(|(name, _)| name.as_str()),
        error.message = ended.as_ref().err().map(|(_, message)| message.as_str()),
        build.is_waited_for = completion == Completion::Told,
        "build ended"
    );
    // News that comes again is none.
    if completion == Completion::Told {
        measure(build, target, ended.as_ref().err().map(|(name, _)| *name));
    }
    Ok(completion)
}

/// Records how long the build took, and whether it is tried again.
fn measure(build: &EndedBuild, target: &str, error: Option<ErrorName>) {
    for (phase, seconds) in build.timing() {
        if PHASES.contains(&phase.as_str()) {
            metrics::BUILD_PHASE_DURATION.record(seconds, [&phase, target]);
        }
    }
    if error == Some(ErrorName::BuildInfrastructure) {
        metrics::BUILD_RETRIES.record(1.0, [ErrorName::BuildInfrastructure.as_str()]);
    }
}

impl Clients {
    /// What CodeBuild knows of a build.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn build(&self, id: &str) -> Result<Option<Build>, CallError> {
        let answer = self
            .codebuild
            .batch_get_builds()
            .ids(id)
            .send()
            .await
            .map_err(|error| CallError::new("codebuild:BatchGetBuilds", &error))?;
        Ok(answer.builds.and_then(|builds| builds.into_iter().next()))
    }

    /// The variables that the buildspec exported, where they are not known yet.
    async fn exported(&self, id: &str) -> Result<Environment, CallError> {
        Ok(self.build(id).await?.as_ref().map(exported).unwrap_or_default())
    }
}

/// What a build that succeeded has pushed: the image of its platform, or the index.
async fn pushed(build: &EndedBuild, clients: &Clients) -> Result<Built, Error> {
    let variable = |name| required(build, name);
    let not_valid = |name| wrong(build, name, "not valid");
    let repository = variable(variable::IMAGE_REPO_NAME)?
        .parse()
        .map_err(|_| not_valid(variable::IMAGE_REPO_NAME))?;
    let repository = Repository::new(clients.ecr.clone(), repository);
    let tag = variable(variable::IMAGE_TAG)?.parse().map_err(|_| not_valid(variable::IMAGE_TAG))?;
    let platform = build.environment.get(variable::IMAGE_PLATFORM).map(str::parse).transpose();
    let platform = platform.map_err(|_| not_valid(variable::IMAGE_PLATFORM))?;

    let is_known = build.exported.is_some();
    let mut pushed = Pushed::new(tag);
    if let Some(exported) = &build.exported {
        pushed.export(exported)?;
    }
    // A tag that other runs push to, too, may have moved on since.
    let is_shared = build.environment.get(variable::SHARED_TAG).is_some();
    if is_shared && !is_known {
        pushed.export(&clients.exported(&build.id).await?)?;
    }
    match pushed.find(&repository, platform).await {
        Err(Error::NotPushed { .. }) if !is_shared && !is_known && !pushed.is_exact() => {
            pushed.export(&clients.exported(&build.id).await?)?;
            pushed.find(&repository, platform).await
        }
        found => found,
    }
}

fn required<'a>(build: &'a EndedBuild, variable: &'static str) -> Result<&'a str, Error> {
    build.environment.get(variable).ok_or_else(|| wrong(build, variable, "missing"))
}

fn wrong(build: &EndedBuild, variable: &'static str, problem: &'static str) -> Error {
    Error::Environment { build_id: build.id.clone(), variable, problem }
}

async fn tell(
    token: &str,
    ended: &Result<BuildOutcome, (ErrorName, String)>,
    clients: &Clients,
) -> Result<Completion, Error> {
    match ended {
        Ok(outcome) => {
            let output = serde_json::json!(outcome).to_string();
            let sent = clients.sfn.send_task_success().task_token(token).output(output).send();
            match sent.await {
                Ok(_) => Ok(Completion::Told),
                Err(error) => match error.as_service_error() {
                    Some(
                        SendTaskSuccessError::TaskTimedOut(_)
                        | SendTaskSuccessError::TaskDoesNotExist(_),
                    ) => Ok(Completion::NotWaitedFor),
                    _ => Err(CallError::new("states:SendTaskSuccess", &error).into()),
                },
            }
        }
        Err((name, cause)) => {
            let failure = clients.sfn.send_task_failure().task_token(token);
            match failure.error(name.as_str()).cause(cause).send().await {
                Ok(_) => Ok(Completion::Told),
                Err(error) => match error.as_service_error() {
                    Some(
                        SendTaskFailureError::TaskTimedOut(_)
                        | SendTaskFailureError::TaskDoesNotExist(_),
                    ) => Ok(Completion::NotWaitedFor),
                    _ => Err(CallError::new("states:SendTaskFailure", &error).into()),
                },
            }
        }
    }
}
