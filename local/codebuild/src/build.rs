//! What CodeBuild knows of a build, in the shapes of its API.
//!
//! The same shapes are written to the state folder, so a record read there looks like the answer
//! of `BatchGetBuilds`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::project::{Environment, Source};
use crate::worker::variable;

/// What became of a build or of one of its phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// All went well.
    Succeeded,
    /// The build's own commands or configuration failed.
    Failed,
    /// The service failed, not the build.
    Fault,
    /// It ran, or waited, longer than it may.
    TimedOut,
    /// It is not over.
    InProgress,
    /// Somebody stopped it.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Fault => "FAULT",
            Self::TimedOut => "TIMED_OUT",
            Self::InProgress => "IN_PROGRESS",
            Self::Stopped => "STOPPED",
        })
    }
}

/// A step of every build, in the order that they come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are CodeBuild's and say it")]
pub enum PhaseType {
    Submitted,
    Queued,
    Provisioning,
    DownloadSource,
    Install,
    PreBuild,
    Build,
    PostBuild,
    UploadArtifacts,
    Finalizing,
    Completed,
}

impl fmt::Display for PhaseType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Submitted => "SUBMITTED",
            Self::Queued => "QUEUED",
            Self::Provisioning => "PROVISIONING",
            Self::DownloadSource => "DOWNLOAD_SOURCE",
            Self::Install => "INSTALL",
            Self::PreBuild => "PRE_BUILD",
            Self::Build => "BUILD",
            Self::PostBuild => "POST_BUILD",
            Self::UploadArtifacts => "UPLOAD_ARTIFACTS",
            Self::Finalizing => "FINALIZING",
            Self::Completed => "COMPLETED",
        })
    }
}

/// Why a phase ended as it did; both parts are empty where there is nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseContext {
    /// A code such as `COMMAND_EXECUTION_ERROR`.
    pub status_code: String,
    /// What happened, for people.
    pub message: String,
}

impl PhaseContext {
    /// A context that says what happened.
    pub fn new(status_code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status_code: status_code.into(), message: message.into() }
    }
}

impl fmt::Display for PhaseContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.status_code, self.message)
    }
}

/// One phase of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// Which one.
    pub phase_type: PhaseType,
    /// How it ended; nothing while it runs, and never for [`PhaseType::Completed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_status: Option<Status>,
    /// When it began.
    #[serde(with = "seconds")]
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(default, with = "seconds::optional", skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// How long it took, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_in_seconds: Option<i64>,
    /// Why it ended as it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<PhaseContext>,
}

/// Where a build's log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsLocation {
    /// The log group: `/aws/codebuild/<project>`.
    pub group_name: String,
    /// The log stream within it.
    pub stream_name: String,
    /// The page that shows it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep_link: Option<String>,
    /// The ARN of the log stream.
    pub cloud_watch_logs_arn: String,
}

/// A variable that the buildspec exports to whoever reads the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedVariable {
    /// Its name.
    pub name: String,
    /// Its value at the end of the build.
    pub value: String,
}

/// Which try of a retried build this is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoRetry {
    /// How often the build may be tried again.
    pub auto_retry_limit: u32,
    /// How often it has been tried again.
    pub auto_retry_number: u32,
    /// The build that tries again after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_auto_retry: Option<String>,
    /// The build that this one tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_auto_retry: Option<String>,
}

/// A build, as `BatchGetBuilds` shows it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// `<project>:<uuid>`.
    pub id: String,
    /// The ARN that ends in the id.
    pub arn: String,
    /// The number within its project, from 1.
    pub build_number: u64,
    /// When it was submitted.
    #[serde(with = "seconds")]
    pub start_time: Timestamp,
    /// When it was over.
    #[serde(default, with = "seconds::optional", skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// The phase that it is in.
    pub current_phase: PhaseType,
    /// How it stands.
    pub build_status: Status,
    /// The branch, tag or commit that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// The commit that this turned out to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_source_version: Option<String>,
    /// The project that it is a build of.
    pub project_name: String,
    /// The phases so far, in order.
    pub phases: Vec<Phase>,
    /// Where the source comes from.
    pub source: Source,
    /// What it runs on, with all its variables.
    pub environment: Environment,
    /// The role of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_role: Option<String>,
    /// Where its log is.
    pub logs: LogsLocation,
    /// How long it may run, in minutes.
    pub timeout_in_minutes: u32,
    /// How long it may wait for its turn, in minutes.
    pub queued_timeout_in_minutes: u32,
    /// Whether it is over.
    pub build_complete: bool,
    /// Who started it.
    pub initiator: String,
    /// What the buildspec exported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exported_environment_variables: Vec<ExportedVariable>,
    /// Retries by CodeBuild itself, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_retry_config: Option<AutoRetry>,
}

impl Build {
    /// The UUID that the id ends in, which is the name of the log stream, too.
    pub fn uuid(&self) -> &str {
        uuid_of(&self.id)
    }

    /// The value of a variable of the project or the overrides, such as `IMAGE_PLATFORM`.
    pub fn variable(&self, name: &str) -> Option<&str> {
        variable(&self.environment.environment_variables, name)
    }
}

/// A build holds secrets in its environment, so only what names it is shown.
impl fmt::Debug for Build {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Build")
            .field("id", &self.id)
            .field("build_status", &self.build_status)
            .field("current_phase", &self.current_phase)
            .finish_non_exhaustive()
    }
}

/// The part of `<project>:<uuid>` after the colon.
pub(crate) fn uuid_of(id: &str) -> &str {
    id.rsplit_once(':').map_or(id, |(_, uuid)| uuid)
}

/// Times as the AWS JSON protocol has them: seconds since the epoch, to the millisecond.
mod seconds {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit in 53 bits")]
    pub(super) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_millisecond() as f64 / 1000.0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the range is checked by jiff")]
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Timestamp::from_millisecond((seconds * 1000.0).round() as i64).map_err(D::Error::custom)
    }

    pub(super) mod optional {
        use jiff::Timestamp;
        use serde::{Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}
