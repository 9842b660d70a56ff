//! The seam between the service and whatever does a build's work.
//!
//! The service owns the queue, the time-outs, the record and the events; a [`Worker`] does the
//! phases from `DOWNLOAD_SOURCE` to `FINALIZING` and reports on them. [`Shell`](crate::Shell)
//! runs the buildspec for real; a simulated worker runs under virtual time and needs no process.

use std::fmt;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::build::{ExportedVariable, LogsLocation, PhaseContext, PhaseType, Status};
use crate::project::{Environment, EnvironmentVariable, Source};
use crate::service::CodeBuild;

/// Does the work of builds.
pub trait Worker: Send + Sync + 'static {
    /// Does one build's work.
    ///
    /// When [`Job::cancelled`] fires, the build's record is already closed: the worker then has
    /// [`WORKER_END_MS_MAX`](crate::WORKER_END_MS_MAX) to clean up before its future is dropped.
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome>;
}

/// One build, as a worker gets it.
pub struct Job {
    /// `<project>:<uuid>`.
    pub id: String,
    /// The ARN of the build.
    pub arn: String,
    /// The number within the project.
    pub number: u64,
    /// The project.
    pub project: String,
    /// What to run on, with the variables of the project and the overrides merged.
    pub environment: Environment,
    /// Where the source comes from, and the buildspec or its path.
    pub source: Source,
    /// The branch, tag or commit to build.
    pub source_version: Option<String>,
    /// Who started the build.
    pub initiator: String,
    /// When it was submitted.
    pub started: Timestamp,
    /// Where its log is.
    pub logs: LogsLocation,
    /// Takes the worker's reports.
    pub reporter: Reporter,
    /// Fires when the build is stopped or out of time.
    pub cancelled: CancellationToken,
}

impl Job {
    /// The value of a variable of the project or the overrides.
    pub fn variable(&self, name: &str) -> Option<&str> {
        variable(&self.environment.environment_variables, name)
    }
}

/// The last value of a name in a list of variables.
pub(crate) fn variable<'a>(variables: &'a [EnvironmentVariable], name: &str) -> Option<&'a str> {
    variables.iter().rev().find(|variable| variable.name == name).map(|found| found.value.as_str())
}

impl fmt::Debug for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Job").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What came of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended; a phase that is still open ends in the same way.
    pub status: Status,
    /// What the buildspec exports.
    pub exported: Vec<ExportedVariable>,
    /// How often the failed build may be tried again, where the buildspec says so.
    pub retries_max: Option<u32>,
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Self { status, exported: Vec::new(), retries_max: None }
    }
}

/// Takes a worker's reports on one build. Reports on a build that is over change nothing.
#[derive(Clone)]
pub struct Reporter {
    pub(crate) service: CodeBuild,
    pub(crate) id: String,
}

impl Reporter {
    /// A phase begins; one that is still open ends as succeeded.
    pub fn begin(&self, phase: PhaseType) {
        self.service.begin_phase(&self.id, phase);
    }

    /// The open phase ends.
    pub fn end(&self, status: Status, contexts: Vec<PhaseContext>) {
        self.service.end_phase(&self.id, status, contexts);
    }

    /// The commit that the source version turned out to be.
    pub fn source_resolved(&self, commit: &str) {
        self.service.source_resolved(&self.id, commit);
    }

    /// A line of the build's log, without its line end.
    pub fn log(&self, line: &str) {
        self.service.log(&self.id, line);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reporter").field("id", &self.id).finish_non_exhaustive()
    }
}
