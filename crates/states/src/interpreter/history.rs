//! Events of the history, in the shapes of the API.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html>

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::definition::{StateKind, Task};
use crate::execution::{HistoryEvent, Resource};
use crate::payload::Payload;

/// The most events that a history has.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>
const EVENTS_MAX: u64 = 25_000;
/// Why an execution fails whose history is full.
pub(super) const FULL_CAUSE: &str =
    "The execution reached the maximum number of history events (25000).";

/// The field that an event's details stand under, and the details.
pub(super) type Details = (&'static str, Map<String, Value>);

/// Numbers the events.
#[derive(Debug, Default)]
pub(super) struct History {
    last_id: u64,
}

impl History {
    /// Whether there is room for nothing but the event that ends the execution.
    pub(super) fn is_full(&self) -> bool {
        self.last_id >= EVENTS_MAX - 1
    }

    /// The id of the event before the next one.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The id of the next event, and the event, where there is room for it.
    pub(super) fn next(
        &mut self,
        previous_event_id: u64,
        timestamp: Timestamp,
        event_type: &'static str,
        details: Option<Details>,
    ) -> (u64, Option<HistoryEvent>) {
        if self.is_full() {
            return (self.last_id, None);
        }
        let event = self.last(previous_event_id, timestamp, event_type, details);
        (event.id, Some(event))
    }

    /// The event that ends the execution, for which there is always room.
    pub(super) fn last(
        &mut self,
        previous_event_id: u64,
        timestamp: Timestamp,
        event_type: &'static str,
        details: Option<Details>,
    ) -> HistoryEvent {
        self.last_id += 1;
        HistoryEvent { id: self.last_id, previous_event_id, timestamp, event_type, details }
    }
}

fn details<const N: usize>(
    field: &'static str,
    entries: [(&str, Option<Value>); N],
) -> Option<Details> {
    let entries = entries.into_iter();
    let entries = entries.filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Some((field, entries))
}

/// Payloads are never cut short, as the API may do.
fn whole() -> Option<Value> {
    Some(json!({ "truncated": false }))
}

fn text(text: &str) -> Option<Value> {
    Some(Value::from(text))
}

fn optional(text: &Option<String>) -> Option<Value> {
    text.clone().map(Value::from)
}

/// `TaskStateEntered` and the like.
pub(super) fn entered_type(kind: &StateKind) -> &'static str {
    match kind {
        StateKind::Pass { .. } => "PassStateEntered",
        StateKind::Task(_) => "TaskStateEntered",
        StateKind::Choice(_) => "ChoiceStateEntered",
        StateKind::Wait { .. } => "WaitStateEntered",
        StateKind::Succeed => "SucceedStateEntered",
        StateKind::Fail { .. } => "FailStateEntered",
        StateKind::Parallel(_) => "ParallelStateEntered",
        StateKind::Map(_) => "MapStateEntered",
    }
}

/// `TaskStateExited` and the like; a Fail state is never left.
pub(super) fn exited_type(kind: &StateKind) -> &'static str {
    match kind {
        StateKind::Pass { .. } => "PassStateExited",
        StateKind::Task(_) => "TaskStateExited",
        StateKind::Choice(_) => "ChoiceStateExited",
        StateKind::Wait { .. } => "WaitStateExited",
        StateKind::Succeed | StateKind::Fail { .. } => "SucceedStateExited",
        StateKind::Parallel(_) => "ParallelStateExited",
        StateKind::Map(_) => "MapStateExited",
    }
}

/// `MapStateFailed` and the like, for the types that have such an event.
pub(super) fn failed_type(kind: &StateKind) -> Option<&'static str> {
    match kind {
        StateKind::Parallel(_) => Some("ParallelStateFailed"),
        StateKind::Map(_) => Some("MapStateFailed"),
        _ => None,
    }
}

/// `MapStateAborted` and the like, for the types that have such an event.
pub(super) fn aborted_type(kind: &StateKind) -> Option<&'static str> {
    match kind {
        StateKind::Task(_) => Some("TaskStateAborted"),
        StateKind::Wait { .. } => Some("WaitStateAborted"),
        StateKind::Parallel(_) => Some("ParallelStateAborted"),
        StateKind::Map(_) => Some("MapStateAborted"),
        _ => None,
    }
}

pub(super) fn execution_started(input: &Payload, role_arn: &str) -> Option<Details> {
    details(
        "executionStartedEventDetails",
        [("input", text(&input.json)), ("inputDetails", whole()), ("roleArn", text(role_arn))],
    )
}

pub(super) fn execution_succeeded(output: &Payload) -> Option<Details> {
    details(
        "executionSucceededEventDetails",
        [("output", text(&output.json)), ("outputDetails", whole())],
    )
}

pub(super) fn execution_timed_out() -> Option<Details> {
    details("executionTimedOutEventDetails", [])
}

pub(super) fn execution_redriven(count: u32) -> Option<Details> {
    details("executionRedrivenEventDetails", [("redriveCount", Some(Value::from(count)))])
}

/// Details that are an error and a cause.
pub(super) fn error(
    field: &'static str,
    error: &Option<String>,
    cause: &Option<String>,
) -> Option<Details> {
    details(field, [("error", optional(error)), ("cause", optional(cause))])
}

pub(super) fn evaluation_failed(
    error: &str,
    cause: &str,
    location: Option<&str>,
    state: &str,
) -> Option<Details> {
    details(
        "evaluationFailedEventDetails",
        [
            ("error", text(error)),
            ("cause", text(cause)),
            ("location", location.and_then(text)),
            ("state", text(state)),
        ],
    )
}

pub(super) fn state_entered(name: &str, input: &Payload) -> Option<Details> {
    details(
        "stateEnteredEventDetails",
        [("name", text(name)), ("input", text(&input.json)), ("inputDetails", whole())],
    )
}

pub(super) fn state_exited(
    name: &str,
    output: &Payload,
    assigned: Map<String, Value>,
) -> Option<Details> {
    let has_assigned = !assigned.is_empty();
    details(
        "stateExitedEventDetails",
        [
            ("name", text(name)),
            ("output", text(&output.json)),
            ("outputDetails", whole()),
            ("assignedVariables", has_assigned.then_some(Value::Object(assigned))),
            ("assignedVariablesDetails", whole().filter(|_| has_assigned)),
        ],
    )
}

pub(super) fn map_started(length: usize) -> Option<Details> {
    details("mapStateStartedEventDetails", [("length", Some(Value::from(length)))])
}

pub(super) fn iteration(field: &'static str, name: &str, index: usize) -> Option<Details> {
    details(field, [("name", text(name)), ("index", Some(Value::from(index)))])
}

/// A function's ARN as a resource has events of its own; every other task shares these names.
fn is_function(task: &Task) -> bool {
    matches!(task.resource, Resource::LambdaFunction(_))
}

fn resource_type(task: &Task) -> Option<Value> {
    text(match task.resource {
        Resource::PutEvents => "events",
        Resource::LambdaInvoke | Resource::LambdaFunction(_) => "lambda",
    })
}

fn resource(task: &Task) -> Option<Value> {
    text(match (&task.resource, task.waits_for_token) {
        (Resource::LambdaFunction(arn), _) => arn,
        (Resource::LambdaInvoke, false) => "invoke",
        (Resource::LambdaInvoke, true) => "invoke.waitForTaskToken",
        (Resource::PutEvents, _) => "putEvents",
    })
}

pub(super) fn task_scheduled(
    task: &Task,
    arguments: &Payload,
    region: &str,
    timeout_seconds: Option<u32>,
    heartbeat_seconds: Option<u32>,
) -> (&'static str, Option<Details>) {
    let timeout = timeout_seconds.map(Value::from);
    if is_function(task) {
        let entries = [
            ("resource", resource(task)),
            ("input", text(&arguments.json)),
            ("inputDetails", whole()),
            ("timeoutInSeconds", timeout),
        ];
        return (
            "LambdaFunctionScheduled",
            details("lambdaFunctionScheduledEventDetails", entries),
        );
    }
    let entries = [
        ("resourceType", resource_type(task)),
        ("resource", resource(task)),
        ("region", text(region)),
        ("parameters", text(&arguments.json)),
        ("timeoutInSeconds", timeout),
        ("heartbeatInSeconds", heartbeat_seconds.map(Value::from)),
    ];
    ("TaskScheduled", details("taskScheduledEventDetails", entries))
}

pub(super) fn task_started(task: &Task) -> (&'static str, Option<Details>) {
    if is_function(task) {
        return ("LambdaFunctionStarted", None);
    }
    let entries = [("resourceType", resource_type(task)), ("resource", resource(task))];
    ("TaskStarted", details("taskStartedEventDetails", entries))
}

pub(super) fn task_submitted(task: &Task, output: &Payload) -> Option<Details> {
    details(
        "taskSubmittedEventDetails",
        [
            ("resourceType", resource_type(task)),
            ("resource", resource(task)),
            ("output", text(&output.json)),
            ("outputDetails", whole()),
        ],
    )
}

pub(super) fn task_succeeded(task: &Task, output: &Payload) -> (&'static str, Option<Details>) {
    if is_function(task) {
        let entries = [("output", text(&output.json)), ("outputDetails", whole())];
        return (
            "LambdaFunctionSucceeded",
            details("lambdaFunctionSucceededEventDetails", entries),
        );
    }
    let entries = [
        ("resourceType", resource_type(task)),
        ("resource", resource(task)),
        ("output", text(&output.json)),
        ("outputDetails", whole()),
    ];
    ("TaskSucceeded", details("taskSucceededEventDetails", entries))
}

pub(super) fn task_failed(
    task: &Task,
    error: &Option<String>,
    cause: &Option<String>,
) -> (&'static str, Option<Details>) {
    let names = ("LambdaFunctionFailed", "lambdaFunctionFailedEventDetails");
    unsuccessful(task, names, ("TaskFailed", "taskFailedEventDetails"), error, cause)
}

pub(super) fn task_timed_out(
    task: &Task,
    error: &Option<String>,
) -> (&'static str, Option<Details>) {
    let names = ("LambdaFunctionTimedOut", "lambdaFunctionTimedOutEventDetails");
    unsuccessful(task, names, ("TaskTimedOut", "taskTimedOutEventDetails"), error, &None)
}

fn unsuccessful(
    task: &Task,
    function_names: (&'static str, &'static str),
    names: (&'static str, &'static str),
    error: &Option<String>,
    cause: &Option<String>,
) -> (&'static str, Option<Details>) {
    if is_function(task) {
        let entries = [("error", optional(error)), ("cause", optional(cause))];
        return (function_names.0, details(function_names.1, entries));
    }
    let entries = [
        ("resourceType", resource_type(task)),
        ("resource", resource(task)),
        ("error", optional(error)),
        ("cause", optional(cause)),
    ];
    (names.0, details(names.1, entries))
}
