//! Stops the builds of an execution that is over.
//!
//! The state machine asks for it when a build fails, and EventBridge when an execution has ended
//! by whatever means: a callback task does not stop its build by itself.

use archweld_model::{ErrorName, Named, variable};
use archweld_runtime::{CallError, Malformed, StartError, parse, variable as from_environment};
use aws_sdk_codebuild::{
    Client,
    error::SdkError,
    operation::stop_build::StopBuildError,
    primitives::DateTime,
    types::{Build, StatusType},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longer than a build can live, in seconds: CodeBuild lets one wait for 8 hours and run for 36
/// (<https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html>).
const BUILD_LIFETIME_SECONDS_MAX: i64 = 48 * 60 * 60;

/// What the function is deployed with: the projects whose builds it looks at.
#[derive(Debug, Clone)]
pub struct Settings {
    projects: Vec<String>,
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
}

/// The builds that were stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Their identities.
    pub builds: Vec<String>,
}

/// Why builds may still run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A payload that is neither an order nor an event.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A call to AWS failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Malformed(error) => error.name(),
            Self::Call(error) => error.name(),
        }
    }
}

impl Settings {
    /// Reads the environment that the template gives the function.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self, StartError> {
        let names = ["PROJECT_AMD64", "PROJECT_ARM64", "PROJECT_MANIFEST"];
        Ok(Self::new(names.into_iter().map(from_environment).collect::<Result<_, _>>()?))
    }

    /// Settings for these projects.
    pub fn new(projects: Vec<String>) -> Self {
        Self { projects }
    }
}

/// Stops what is left of an execution.
///
/// # Errors
/// `Event.Malformed` for a payload of another shape; `Service.Unavailable`, which is retried.
pub async fn handle(
    payload: Value,
    settings: &Settings,
    codebuild: &Client,
) -> Result<Stopped, Error> {
    let execution = match payload.get("detail-type") {
        None => parse::<Order>(payload)?.execution,
        Some(_) => {
            let detail = parse::<StatusChange>(payload)?.detail;
            if detail.status == "RUNNING" {
                return Ok(Stopped::default());
            }
            detail.execution_arn
        }
    };
    let mut stopped = Stopped::default();
    for project in &settings.projects {
        stop_builds(&execution, project, codebuild, &mut stopped).await?;
    }
    tracing::info!(execution.arn = execution, builds = stopped.builds.len(), "builds stopped");
    Ok(stopped)
}

async fn stop_builds(
    execution: &str,
    project: &str,
    codebuild: &Client,
    stopped: &mut Stopped,
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
            stopped.builds.push(id.to_owned());
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
