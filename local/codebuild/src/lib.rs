//! CodeBuild on one machine: runs a buildspec for real and tells of it in events.
//!
//! [`CodeBuild`] is the service: its API, its queue, its time-outs, the record of every build and
//! the events that go out on the bus. What a build does is a [`Worker`]'s affair: [`Shell`] runs
//! the commands of a buildspec 0.2 as processes of this machine, in a clean copy of the source
//! with an environment of their own; tests and the simulation bring workers that need neither
//! processes nor real time.
//!
//! It does not do batch builds, report groups, artifacts, caches, or variables from Parameter
//! Store and Secrets Manager.

mod api;
mod build;
mod buildspec;
mod error;
mod events;
mod logs;
mod notice;
mod project;
mod records;
mod service;
mod shell;
mod worker;

pub use build::{
    AutoRetry, Build, ExportedVariable, LogsLocation, Phase, PhaseContext, PhaseType, Status,
};
pub use buildspec::{Buildspec, BuildspecError, OnFailure, PhaseSpec, ShellKind};
pub use error::OpenError;
pub use logs::{
    LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_WINDOW_BYTES_MAX, LogLength, LogText, LogWindow,
};
pub use notice::{BuildInfo, Notice};
pub use project::{
    Environment, EnvironmentType, EnvironmentVariable, Project, Source, SourceType, VariableType,
};
pub use service::{BUILDS_KEPT_MAX, CodeBuild, Settings, WORKER_END_MS_MAX};
pub use shell::{Remote, Shell, ShellError, ShellSettings, SourceOverride};
pub use worker::{Job, Outcome, Reporter, Worker};
