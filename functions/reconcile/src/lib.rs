//! Puts right what events lose and executions leave behind.
//!
//! - The state machine asks it to stop an execution's builds when one of them fails: a callback task
//!   does not stop its build by itself.
//! - EventBridge tells it of every execution that ended, by whatever means: it stops the builds and
//!   moves the tags that the execution had no time to move.
//! - A schedule has it look for itself, as any of those events may be lost, and so may one of
//!   CodeBuild's: it does the same for executions that ended of late, and tells those that run of
//!   builds that ended.
//!
//! It keeps no state. Doing it twice, or two at a time, does nothing more than doing it once. Where
//! nothing ran of late, a pass is one call.

mod builds;
mod executions;
mod tags;

use std::path::Path;

use archweld_ecr::EcrError;
use archweld_model::{Config, ErrorName, ImageTag, Named, Run};
use archweld_runtime::{
    CallError, ConfigFileError, Malformed, StartError, about_run, metrics, parse, read_config,
    variable as from_environment,
};
use aws_types::SdkConfig;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use builds::OwnBuild;
use executions::Executions;

/// How many calls of one kind it makes at a time.
const AT_ONCE_MAX: usize = 8;

/// What the function is deployed with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The projects whose builds it looks at.
    projects: Vec<String>,
    /// The ARN of the state machine whose executions it looks at.
    state_machine: String,
    /// The images whose tags it looks at.
    config: Result<Config, ConfigFileError>,
}

/// The services that the function calls.
#[derive(Debug, Clone)]
pub struct Clients {
    codebuild: aws_sdk_codebuild::Client,
    ecr: aws_sdk_ecr::Client,
    sfn: aws_sdk_sfn::Client,
    builds: archweld_builds::Clients,
}

/// What the state machine sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// The ARN of the execution whose builds are not wanted any more.
    execution: String,
    /// When it began.
    start_time: Timestamp,
}

/// What the schedule sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pass {
    /// When it is due: all that is asked of a clock here, and known to be late rather than early.
    scheduled_time: Timestamp,
}

/// EventBridge's `Step Functions Execution Status Change` event.
#[derive(Debug, Clone, Deserialize)]
struct StatusChange {
    detail: StatusDetail,
}

/// Times are in milliseconds since 1970.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetail {
    execution_arn: String,
    status: String,
    name: String,
    start_date: i64,
    stop_date: Option<i64>,
    /// Missing where it is too long for an event.
    input: Option<String>,
}

/// An execution that is over.
#[derive(Debug, Clone)]
struct EndedExecution {
    arn: String,
    name: String,
    began: Timestamp,
    input: Option<String>,
}

/// What was put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// The builds that had ended with nobody knowing, of which the state machine was told.
    pub completed: Vec<String>,
    /// The builds that were stopped.
    pub stopped: Vec<String>,
    /// The moving tags that were elsewhere than at the newest run, and are there now.
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
    /// The state machine cannot be told of a build.
    #[error(transparent)]
    Build(#[from] archweld_builds::Error),
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Malformed(error) => error.name(),
            Self::Config(error) => error.name(),
            Self::Call(error) => error.name(),
            Self::Ecr(error) => error.name(),
            Self::Build(error) => error.name(),
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
        let state_machine = from_environment("STATE_MACHINE_ARN")?;
        Ok(Self::new(projects, state_machine, from_environment("ARCHWELD_CONFIG")?.as_ref()))
    }

    /// Settings for these projects, this state machine and the configuration at `path`.
    pub fn new(projects: Vec<String>, state_machine: String, path: &Path) -> Self {
        Self { projects, state_machine, config: read_config(path) }
    }

    fn config(&self) -> Result<&Config, ConfigFileError> {
        self.config.as_ref().map_err(Clone::clone)
    }
}

impl Clients {
    /// Clients of one configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            codebuild: aws_sdk_codebuild::Client::new(config),
            ecr: archweld_ecr::patient_client(config),
            sfn: aws_sdk_sfn::Client::new(config),
            builds: archweld_builds::Clients::new(config),
        }
    }
}

/// Puts right what an execution left, or what a pass finds.
///
/// # Errors
/// `Event.Malformed` for a payload of another shape; `Service.Unavailable`, which is retried.
pub async fn handle(
    payload: Value,
    settings: &Settings,
    clients: &Clients,
) -> Result<Reconciled, Error> {
    let mut reconciled = Reconciled::default();
    let done = if payload.get("detail-type").is_some() {
        let detail = parse::<StatusChange>(payload)?.detail;
        follow(detail, settings, clients, &mut reconciled).await
    } else if payload.get("scheduled_time").is_some() {
        let now = parse::<Pass>(payload)?.scheduled_time;
        sweep(now, settings, clients, &mut reconciled).await
    } else {
        let order = parse::<Order>(payload)?;
        about_run(run_of(&order.execution));
        stop_builds(&order.execution, order.start_time, None, settings, clients, &mut reconciled)
            .await
    };
    let Reconciled { completed, stopped, tags } = &reconciled;
    tracing::info!(
        builds.completed = completed.len(),
        builds.stopped = stopped.len(),
        tags.moved = tags.len(),
        "reconciled"
    );
    for (kind, repaired) in [
        ("BuildCompleted", completed.len()),
        ("BuildStopped", stopped.len()),
        ("TagMoved", tags.len()),
    ] {
        if repaired > 0 {
            // Far fewer than a float can count.
            metrics::RECONCILE_REPAIRS.record(repaired as f64, [kind]);
        }
    }
    done.map(|()| reconciled)
}

/// The run of an execution, by its ARN.
fn run_of(execution: &str) -> Run {
    Run::of_execution(execution.rsplit(':').next().unwrap_or_default())
}

/// After an execution has ended.
async fn follow(
    detail: StatusDetail,
    settings: &Settings,
    clients: &Clients,
    reconciled: &mut Reconciled,
) -> Result<(), Error> {
    if detail.status == "RUNNING" {
        return Ok(());
    }
    about_run(run_of(&detail.execution_arn));
    let time = |milliseconds| Timestamp::from_millisecond(milliseconds).ok();
    let ended = EndedExecution {
        arn: detail.execution_arn,
        name: detail.name,
        began: time(detail.start_date).unwrap_or(Timestamp::MIN),
        input: detail.input,
    };
    // One that succeeded has no build left, and one that failed has had them stopped: what is left
    // all the same, as a build that started late, is the schedule's to stop.
    if matches!(detail.status.as_str(), "ABORTED" | "TIMED_OUT") {
        let until = detail.stop_date.and_then(time);
        stop_builds(&ended.arn, ended.began, until, settings, clients, reconciled).await?;
    }
    reconciled.tags = tags::repair(&[ended], settings.config()?, clients).await?;
    Ok(())
}

/// Stops the builds of an execution. One that began after its end is left to the schedule: by the
/// time of the event, the execution may have been redriven.
async fn stop_builds(
    execution: &str,
    since: Timestamp,
    until: Option<Timestamp>,
    settings: &Settings,
    clients: &Clients,
    reconciled: &mut Reconciled,
) -> Result<(), Error> {
    let builds = builds::since(since, &settings.projects, &clients.codebuild).await?;
    let running = builds.iter().filter(|build| {
        build.is_running()
            && build.execution() == execution
            && until.is_none_or(|until| build.began_before(until))
    });
    let running = running.map(OwnBuild::id).collect();
    Ok(builds::stop_all(running, &clients.codebuild, reconciled).await?)
}

/// Looks after all executions that run, or that ended of late.
async fn sweep(
    now: Timestamp,
    settings: &Settings,
    clients: &Clients,
    reconciled: &mut Reconciled,
) -> Result<(), Error> {
    let executions = Executions::list(&settings.state_machine, now, &clients.sfn).await?;
    let Some(oldest) = executions.oldest() else { return Ok(()) };
    let builds = builds::since(oldest, &settings.projects, &clients.codebuild).await?;
    let swept = builds::sweep(&builds, &executions, now, clients, reconciled).await;
    let config = settings.config()?;
    if tags::is_any_behind(config, clients).await? {
        let ended = executions.describe_ended(&clients.sfn).await?;
        reconciled.tags = tags::repair(&ended, config, clients).await?;
    }
    swept
}
