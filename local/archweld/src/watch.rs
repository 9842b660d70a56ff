//! From the services' notices to the display.

use std::time::Duration;

use archweld_cloud::Cloud;
use archweld_codebuild::{BuildInfo, Notice as BuildNotice};
use archweld_model::{Plan, variable};
use archweld_states::HistoryEvent;
use archweld_step_functions::{Notice as ExecutionNotice, Status};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::broadcast::{Receiver, error::RecvError},
};

use crate::{
    error::Error,
    progress::{Change, Progress},
};

/// The state machine's variable that has the plan.
const PLAN: &str = "plan";

/// What is heard of the cloud, and of whoever wants the command to end.
pub(crate) struct Watch {
    builds: Receiver<BuildNotice>,
    executions: Receiver<ExecutionNotice>,
    end: EndSignals,
}

/// Ctrl-C, or a request to end.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Hears of them from now on, in the place of what they do by themselves.
    ///
    /// # Errors
    /// When signals cannot be handled.
    pub(crate) fn new() -> Result<Self, Error> {
        let handle = |kind| {
            let what = "handle signals";
            signal(kind).map_err(|source| Error::System { what, source })
        };
        Ok(Self {
            interrupt: handle(SignalKind::interrupt())?,
            terminate: handle(SignalKind::terminate())?,
        })
    }

    /// Waits for one.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What the command may have to act on.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An execution has its plan.
    Planned(Box<Plan>),
    /// An execution began.
    Started {
        /// Its ARN.
        execution: String,
    },
    /// An execution ended.
    Ended {
        /// Its ARN.
        execution: String,
        /// How.
        status: Status,
    },
    /// Ctrl-C, or a request to end.
    Interrupted,
}

impl Watch {
    /// Hears of everything from now on.
    ///
    /// # Errors
    /// When signals cannot be handled.
    pub(crate) fn new(cloud: &Cloud) -> Result<Self, Error> {
        Ok(Self {
            builds: cloud.codebuild().subscribe(),
            executions: cloud.step_functions().subscribe(),
            end: EndSignals::new()?,
        })
    }

    /// Shows builds until something is heard that the command may have to act on.
    pub(crate) async fn next(&mut self, progress: &mut Progress) -> Heard {
        loop {
            tokio::select! {
                // What builds said before an execution ended is shown before that.
                biased;
                () = self.end.recv() => return Heard::Interrupted,
                notice = self.builds.recv() => match notice {
                    Ok(notice) => show(&notice, progress),
                    // Some lines are not shown; the log has them all.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Heard::Interrupted,
                },
                notice = self.executions.recv() => match notice {
                    Ok(ExecutionNotice::Started { execution_arn }) => {
                        return Heard::Started { execution: execution_arn.to_string() };
                    }
                    Ok(ExecutionNotice::Ended { execution_arn, status }) => {
                        return Heard::Ended { execution: execution_arn.to_string(), status };
                    }
                    Ok(ExecutionNotice::History { event, .. }) => {
                        if let Some(plan) = plan_of(&event) {
                            progress.planned(&plan);
                            return Heard::Planned(Box::new(plan));
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Heard::Interrupted,
                },
            }
        }
    }
}

/// The plan, where an event says that it is made.
fn plan_of(event: &HistoryEvent) -> Option<Plan> {
    let (_, details) = event.details.as_ref()?;
    let plan = details.get("assignedVariables")?.get(PLAN)?;
    serde_json::from_str(plan.as_str()?).ok()
}

fn show(notice: &BuildNotice, progress: &mut Progress) {
    let mut update = |build: &BuildInfo, change: Change<'_>| {
        let target = build.variable(variable::IMAGE_PLATFORM).unwrap_or("manifest");
        progress.update(&build.id, target, Duration::ZERO, change);
    };
    match notice {
        BuildNotice::Queued { build } => update(build, Change::Phase("QUEUED")),
        BuildNotice::PhaseBegan { build, phase } => {
            update(build, Change::Phase(&phase.to_string()));
        }
        BuildNotice::PhaseEnded { .. } => {}
        BuildNotice::Log { build, line } => update(build, Change::Log(line)),
        BuildNotice::Finished { build, status } => {
            update(build, Change::Ended { status: &status.to_string(), took: None });
        }
    }
}
