//! Puts right what an execution left behind: stops its builds, and moves the tags that it had no
//! time to move.
//!
//! The state machine asks for the first when a build fails, and EventBridge for both when an
//! execution has ended by whatever means: a callback task does not stop its build by itself.

mod tags;

use std::path::Path;

use archweld_ecr::EcrError;
use archweld_model::{Config, ErrorName, ImageTag, Named, variable};
use archweld_runtime::{
    CallError, ConfigFileError, Malformed, StartError, parse, read_config,
    variable as from_environment,
};
use aws_sdk_codebuild::{
    Client,
    error::SdkError,
    operation::stop_build::StopBuildError,
    primitives::DateTime,
    types::{Build, StatusType},
};
use aws_types::SdkConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longer than a build can live, in seconds: CodeBuild lets one wait for 8 hours and run for 36
/// (<https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html>).
const BUILD_LIFETIME_SECONDS_MAX: i64 = 48 * 60 * 60;

/// What the function is deployed with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The projects whose builds it looks at.
    projects: Vec<String>,
    /// The images whose tags it looks at.
    config: Result<Config, ConfigFileError>,
}

/// The services that the function calls.
#[derive(Debug, Clone)]
pub struct Clients {
    codebuild: Client,
    ecr: aws_sdk_ecr::Client,
}

/// What the state machine sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// The ARN of the execution whose builds are not wanted any more.
    execution: String,
}

/// EventBridge's `Step Functions Execution Status Change` event.
#[derive(Debug, Clone, Deserialize)]
struct StatusChange {
    detail: StatusDetail,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetail {
    execution_arn: String,
    status: String,
    name: String,
    /// In milliseconds since 1970.
    start_date: i64,
    /// Missing where it is too long for an event.
    input: Option<String>,
}

/// What was put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// The builds that were stopped.
    pub builds: Vec<String>,
    /// The moving tags of the execution, which are now where they belong.
    pub tags: Vec<ImageTag>,
}

/// Why something may still be as it was left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A payload that is neither an order nor an event.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// A call to AWS failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// ECR refuses.
    #[error(transparent)]
    Ecr(#[from] EcrError),
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Malformed(error) => error.name(),
            Self::Config(error) => error.name(),
            Self::Call(error) => error.name(),
            Self::Ecr(error) => error.name(),
        }
    }
}

impl Settings {
    /// Reads the environment that the template gives the function.
    ///
    /// A wrong `archweld.toml` is no failure to start: builds are stopped all the same.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self, StartError> {
        let names = ["PROJECT_AMD64", "PROJECT_ARM64", "PROJECT_MANIFEST"];
        let projects = names.into_iter().map(from_environment).collect::<Result<_, _>>()?;
        Ok(Self::new(projects, from_environment("ARCHWELD_CONFIG")?.as_ref()))
    }

    /// Settings for these projects and the configuration at `path`.
    pub fn new(projects: Vec<String>, path: &Path) -> Self {
        Self { projects, config: read_config(path) }
    }
}

impl Clients {
    /// Clients of one configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self { codebuild: Client::new(config), ecr: archweld_ecr::patient_client(config) }
    }
}

/// Puts right what an execution left.
///
/// # Errors
/// `Event.Malformed` for a payload of another shape; `Service.Unavailable`, which is retried.
pub async fn handle(
    payload: Value,
    settings: &Settings,
    clients: &Clients,
) -> Result<Reconciled, Error> {
    let (execution, ended) = match payload.get("detail-type") {
        None => (parse::<Order>(payload)?.execution, None),
        Some(_) => {
            let detail = parse::<StatusChange>(payload)?.detail;
            if detail.status == "RUNNING" {
                return Ok(Reconciled::default());
            }
            (detail.execution_arn.clone(), Some(detail))
        }
    };
    let mut reconciled = Reconciled::default();
    for project in &settings.projects {
        stop_builds(&execution, project, &clients.codebuild, &mut reconciled).await?;
    }
    if let Some(detail) = ended {
        let config = settings.config.as_ref().map_err(Clone::clone)?;
        reconciled.tags = tags::repair(&detail, config, clients).await?;
    }
    tracing::info!(
        execution.arn = execution,
        builds = reconciled.builds.len(),
        tags = reconciled.tags.len(),
        "execution reconciled"
    );
    Ok(reconciled)
}

async fn stop_builds(
    execution: &str,
    project: &str,
    codebuild: &Client,
    reconciled: &mut Reconciled,
) -> Result<(), CallError> {
    let mut next_token = None;
    let mut newest = None;
    loop {
        let page = codebuild
            .list_builds_for_project()
            .project_name(project)
            // No sort order: stating one is an error once a project has more than 100 builds. The
            // newest come first.
            .set_next_token(next_token)
            .send()
            .await
            .map_err(|error| CallError::new("codebuild:ListBuildsForProject", &error))?;
        let ids = page.ids.unwrap_or_default();
        if ids.is_empty() {
            return Ok(());
        }
        let builds = codebuild
            .batch_get_builds()
            .set_ids(Some(ids))
            .send()
            .await
            .map_err(|error| CallError::new("codebuild:BatchGetBuilds", &error))?
            .builds
            .unwrap_or_default();
        for build in builds.iter().filter(|build| is_running(build) && is_of(build, execution)) {
            let Some(id) = build.id() else { continue };
            stop(id, codebuild).await?;
            reconciled.builds.push(id.to_owned());
        }
        next_token = page.next_token;
        let started = || builds.iter().filter_map(Build::start_time).map(DateTime::secs);
        newest = newest.or(started().max());
        let age = newest.zip(started().min()).map_or(0, |(newest, oldest)| newest - oldest);
        if next_token.is_none() || age > BUILD_LIFETIME_SECONDS_MAX {
            return Ok(());
        }
    }
}

fn is_running(build: &Build) -> bool {
    build.build_status() == Some(&StatusType::InProgress)
}

fn is_of(build: &Build, execution: &str) -> bool {
    let variables = build.environment().map(|environment| environment.environment_variables());
    variables
        .unwrap_or_default()
        .iter()
        .any(|known| known.name() == variable::EXECUTION && known.value() == execution)
}

async fn stop(id: &str, codebuild: &Client) -> Result<(), CallError> {
    match codebuild.stop_build().id(id).send().await {
        Ok(_) => Ok(()),
        Err(SdkError::ServiceError(context))
            if matches!(context.err(), StopBuildError::ResourceNotFoundException(_)) =>
        {
            Ok(())
        }
        Err(error) => Err(CallError::new("codebuild:StopBuild", &error)),
    }
}
