//! What is known of an execution, while it runs and after.

use std::sync::Arc;

use archweld_local_api::{Event, Host};
use archweld_states::{Definition, Effect, HistoryEvent, Outcome, Task, TaskId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::dispatcher::Message;

/// A status event leaves out data above this size.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html>
const EVENT_DATA_BYTES_MAX: usize = 248 * 1024;

/// What of an execution that ended without success may be redriven.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html#redrive-eligibility>
const REDRIVABLE_PERIOD: SignedDuration = SignedDuration::from_hours(14 * 24);
const OPEN_TIME_MAX: SignedDuration = SignedDuration::from_hours(365 * 24);
/// A history that is not shorter has no room for the redrive and another event.
const REDRIVABLE_EVENTS_MAX: usize = 24_999;

/// A request is the same again if it has one of so many client tokens that were used last, so recently.
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_RedriveExecution.html>
const CLIENT_TOKENS_MAX: usize = 10;
const CLIENT_TOKEN_PERIOD: SignedDuration = SignedDuration::from_mins(15);

/// A state machine as it was created.
#[derive(Debug)]
pub(crate) struct StateMachine {
    pub(crate) arn: String,
    pub(crate) name: String,
    pub(crate) role_arn: String,
    /// The text of the definition.
    pub(crate) text: String,
    pub(crate) definition: Arc<Definition>,
    pub(crate) created: Timestamp,
}

/// The status of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It runs.
    Running,
    /// It came to an end state.
    Succeeded,
    /// An error was not caught.
    Failed,
    /// The definition's own `TimeoutSeconds` ran out.
    TimedOut,
    /// It was stopped.
    Aborted,
    /// It is about to run again; never so here.
    PendingRedrive,
}

/// An execution.
pub(crate) struct Record {
    pub(crate) arn: String,
    pub(crate) name: String,
    pub(crate) state_machine: Arc<StateMachine>,
    /// The input's text, as it was given.
    pub(crate) input: String,
    pub(crate) started: Timestamp,
    pub(crate) history: Vec<HistoryEvent>,
    /// Every task token so far, closed ones included.
    pub(crate) tokens: Vec<(String, TaskId)>,
    pub(crate) end: Option<End>,
    pub(crate) redrives: Vec<Redrive>,
    /// The dispatcher; none once the execution is over for good.
    pub(crate) dispatcher: Option<mpsc::Sender<Message>>,
}

/// How an execution ended, and when.
pub(crate) struct End {
    pub(crate) at: Timestamp,
    pub(crate) status: Status,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
}

/// That an execution was redriven.
#[derive(Debug, Clone)]
pub(crate) struct Redrive {
    pub(crate) at: Timestamp,
    /// By which the caller knows the request.
    pub(crate) client_token: Option<String>,
}

impl End {
    pub(crate) fn new(at: Timestamp, outcome: Outcome) -> Self {
        let (status, output, error, cause) = match outcome {
            Outcome::Succeeded { output } => {
                (Status::Succeeded, Some(output.to_string()), None, None)
            }
            Outcome::Failed { error, cause } => (Status::Failed, None, error, cause),
            Outcome::TimedOut => (Status::TimedOut, None, None, None),
            Outcome::Aborted { error, cause } => (Status::Aborted, None, error, cause),
        };
        Self { at, status, output, error, cause }
    }
}

impl Record {
    /// Keeps what an effect says of the execution; gives the task token that it brings.
    pub(crate) fn note(&mut self, effect: &Effect, now: Timestamp) -> Option<&(String, TaskId)> {
        match effect {
            Effect::Record(event) => self.history.push(event.clone()),
            Effect::Schedule(Task { task, token: Some(token), .. }) => {
                self.tokens.push((token.clone(), *task));
                return self.tokens.last();
            }
            Effect::Finish(outcome) => {
                self.end = Some(End::new(now, outcome.clone()));
                if matches!(outcome, Outcome::Succeeded { .. }) {
                    self.dispatcher = None;
                }
            }
            Effect::Schedule(_)
            | Effect::Cancel { .. }
            | Effect::SetTimer { .. }
            | Effect::ClearTimer { .. } => {}
        }
        None
    }

    /// The dispatcher, while the execution runs.
    pub(crate) fn running(&self) -> Option<&mpsc::Sender<Message>> {
        self.dispatcher.as_ref().filter(|_| self.end.is_none())
    }

    /// Takes account of a redrive.
    pub(crate) fn redrive(&mut self, redrive: Redrive) {
        self.end = None;
        self.redrives.push(redrive);
    }

    /// When the same request redrove it, if one did.
    pub(crate) fn redriven_by(&self, client_token: &str, now: Timestamp) -> Option<Timestamp> {
        let recent = self
            .redrives
            .iter()
            .rev()
            .take(CLIENT_TOKENS_MAX)
            .filter(|redrive| now.duration_since(redrive.at) <= CLIENT_TOKEN_PERIOD);
        let mut same = recent.filter(|it| it.client_token.as_deref() == Some(client_token));
        same.next().map(|redrive| redrive.at)
    }

    /// Why it cannot be redriven now, in the words of AWS; none where it can.
    /// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html>
    pub(crate) fn not_redrivable(&self, now: Timestamp) -> Option<&'static str> {
        let end = match &self.end {
            None => return Some("Execution is RUNNING and cannot be redriven"),
            Some(end) if end.status == Status::Succeeded => {
                return Some("Execution is SUCCEEDED and cannot be redriven");
            }
            Some(end) => end,
        };
        if self.history.len() >= REDRIVABLE_EVENTS_MAX {
            Some("Execution history event limit exceeded")
        } else if now.duration_since(self.started) > OPEN_TIME_MAX {
            Some("Execution has exceeded the max execution time")
        } else if now.duration_since(end.at) > REDRIVABLE_PERIOD {
            Some("Execution redrivable period exceeded")
        } else {
            None
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.end.as_ref().map_or(Status::Running, |end| end.status)
    }

    /// The execution as `ListExecutions` shows it.
    pub(crate) fn summary(&self) -> Map<String, Value> {
        let mut summary = Map::new();
        summary.insert("executionArn".to_owned(), self.arn.as_str().into());
        summary.insert("stateMachineArn".to_owned(), self.state_machine.arn.as_str().into());
        summary.insert("name".to_owned(), self.name.as_str().into());
        summary.insert("status".to_owned(), json!(self.status()));
        summary.insert("startDate".to_owned(), epoch_seconds(self.started));
        if let Some(end) = &self.end {
            summary.insert("stopDate".to_owned(), epoch_seconds(end.at));
        }
        summary.insert("redriveCount".to_owned(), self.redrives.len().into());
        if let Some(redrive) = self.redrives.last() {
            summary.insert("redriveDate".to_owned(), epoch_seconds(redrive.at));
        }
        summary
    }

    /// The event that says that the status changed.
    /// <https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html>
    pub(crate) fn status_event(&self, host: &Host) -> Event {
        let not_redrivable = self.not_redrivable(host.now());
        let end = self.end.as_ref();
        let output = end.and_then(|end| end.output.as_deref());
        let error = end.and_then(|end| end.error.as_deref());
        let cause = end.and_then(|end| end.cause.as_deref());
        let escaped = |text: Option<&str>| text.map_or(0, |text| json!(text).to_string().len());
        let output_bytes = escaped(output);
        let bytes = escaped(Some(&self.input)) + output_bytes + escaped(error) + escaped(cause);
        let input = Some(self.input.as_str()).filter(|_| bytes <= EVENT_DATA_BYTES_MAX);
        let included = output.filter(|_| output_bytes <= EVENT_DATA_BYTES_MAX);
        let detail = json!({
            "executionArn": self.arn,
            "stateMachineArn": self.state_machine.arn,
            "name": self.name,
            "status": self.status(),
            "startDate": self.started.as_millisecond(),
            "stopDate": end.map(|end| end.at.as_millisecond()),
            "input": input,
            "inputDetails": { "included": input.is_some() },
            "output": included,
            "outputDetails": output.map(|_| json!({ "included": included.is_some() })),
            "stateMachineVersionArn": null,
            "stateMachineAliasArn": null,
            "redriveCount": self.redrives.len(),
            "redriveDate": self.redrives.last().map(|redrive| redrive.at.as_millisecond()),
            "redriveStatus": redrive_status(not_redrivable),
            "redriveStatusReason": not_redrivable,
            "error": error,
            "cause": cause,
        });
        let resources = vec![self.arn.clone()];
        host.event("aws.states", "Step Functions Execution Status Change", resources, detail)
    }
}

pub(crate) fn redrive_status(not_redrivable: Option<&str>) -> &'static str {
    not_redrivable.map_or("REDRIVABLE", |_| "NOT_REDRIVABLE")
}

/// A time as the AWS JSON protocol has it, to the millisecond.
pub(crate) fn epoch_seconds(time: Timestamp) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let milliseconds = time.as_millisecond() as f64;
    json!(milliseconds / 1000.0)
}
