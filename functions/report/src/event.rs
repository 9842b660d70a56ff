//! What the events say that the function listens to.

use archweld_model::{Published, RunState};
use archweld_runtime::{Malformed, parse};
use serde::Deserialize;
use serde_json::Value;

/// News of an execution.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    /// The execution's ARN.
    pub(crate) execution: String,
    /// When it happened, as the event says: the same should it come twice.
    pub(crate) time: String,
    /// Who told, and of what.
    pub(crate) told: Told,
}

/// Who told of an execution, and of what.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// The state machine, in its last step but one.
    Result {
        /// Succeeded or failed.
        state: RunState,
        /// The name of the error.
        error: Option<String>,
        /// What went wrong.
        cause: Option<String>,
        /// What was published.
        published: Option<Box<Published>>,
    },
    /// Step Functions: the status.
    Change(Status),
}

impl Told {
    /// Whether it is the news by which runs are measured: Step Functions' own, of the end.
    pub(crate) fn is_measured(&self) -> bool {
        matches!(self, Self::Change(status) if status.state() != RunState::Started)
    }
}

/// A status of an execution
/// (<https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Aborted,
    /// It waits for somebody to start it again where it failed.
    PendingRedrive,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Aborted => "ABORTED",
            Self::PendingRedrive => "PENDING_REDRIVE",
        }
    }

    pub(crate) fn state(self) -> RunState {
        match self {
            Self::Running | Self::PendingRedrive => RunState::Started,
            Self::Succeeded => RunState::Succeeded,
            Self::Failed | Self::TimedOut => RunState::Failed,
            Self::Aborted => RunState::Stopped,
        }
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    time: String,
    detail: T,
}

#[derive(Deserialize)]
struct ResultDetail {
    status: ResultStatus,
    execution: String,
    error: Option<String>,
    cause: Option<String>,
    published: Option<Box<Published>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ResultStatus {
    Succeeded,
    Failed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeDetail {
    execution_arn: String,
    status: Status,
}

impl Notice {
    /// Reads an event, by who sent it.
    ///
    /// # Errors
    /// When it is of another shape.
    pub(crate) fn read(event: Value) -> Result<Self, Malformed> {
        if event.get("source").and_then(Value::as_str) == Some("archweld") {
            let Envelope { time, detail } = parse::<Envelope<ResultDetail>>(event)?;
            let ResultDetail { status, execution, error, cause, published } = detail;
            let state = match status {
                ResultStatus::Succeeded => RunState::Succeeded,
                ResultStatus::Failed => RunState::Failed,
            };
            let told = Told::Result { state, error, cause, published };
            return Ok(Self { execution, time, told });
        }
        let Envelope { time, detail } = parse::<Envelope<ChangeDetail>>(event)?;
        let ChangeDetail { execution_arn, status } = detail;
        Ok(Self { execution: execution_arn, time, told: Told::Change(status) })
    }
}
