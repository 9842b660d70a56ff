//! Tells the state machine how a build ended.
//!
//! Events come late, twice, out of order or for builds that somebody started by hand; none of
//! these is an error.

mod event;

use archweld_builds::{Completion, EndedBuild, complete};
use archweld_model::{Environment, variable};
use archweld_runtime::{CallError, about_run};
use serde::Serialize;

pub use archweld_builds::{Clients, Error};
pub use event::BuildEvent;
use event::Detail;

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

/// Completes the task that a build was started for.
///
/// # Errors
/// When AWS fails or refuses: Lambda then retries the event.
pub async fn handle(event: BuildEvent, clients: &Clients) -> Result<Handled, Error> {
    let detail = event.detail;
    if detail.build_status == "IN_PROGRESS" {
        return Ok(Handled::NotOver);
    }
    let Some(environment) = environment(&detail, clients).await? else {
        tracing::info!(build.id = detail.build_id(), "build carries no task token: not archweld's");
        return Ok(Handled::NotOurs);
    };
    if let Some(run) = environment.get(variable::RUN) {
        about_run(run);
    }
    let build = EndedBuild { environment, ..detail.into_build() };
    Ok(match complete(&build, clients).await? {
        Completion::Told => Handled::Told,
        Completion::NotWaitedFor => Handled::NotWaitedFor,
    })
}

/// The environment of one of archweld's builds: from the event, or from the build itself where
/// the event does not carry it.
async fn environment(detail: &Detail, clients: &Clients) -> Result<Option<Environment>, CallError> {
    let ours = |environment: &Environment| environment.get(variable::TASK_TOKEN).is_some();
    let carried = detail.environment();
    if ours(&carried) {
        return Ok(Some(carried));
    }
    let build = clients.build(detail.build_id()).await?;
    Ok(build.as_ref().map(archweld_builds::environment).filter(ours))
}
