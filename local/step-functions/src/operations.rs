//! The operations of the API, in the shapes and words of AWS.
//!
//! Reference: <https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html>

use std::sync::Arc;

use archweld_local_api::ApiError;
use archweld_states::{Definition, HistoryEvent, Input, TaskId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::Notice;
use crate::dispatcher::Message;
use crate::error::{
    invalid_arn, invalid_token, no_such_execution, no_such_state_machine, not_redrivable, stopping,
    task_timed_out, too_long, validation,
};
use crate::page::{Page, last_key};
use crate::record::{Record, StateMachine, Status, epoch_seconds, redrive_status};
use crate::service::{Registry, Service, Started};

/// Of an input or an output, in bytes.
const DATA_BYTES_MAX: usize = 262_144;
/// Of the name of an error, in characters.
const ERROR_LENGTH_MAX: usize = 256;
/// Of a cause, in characters.
const CAUSE_LENGTH_MAX: usize = 32_768;
/// Of a task token, in characters.
const TOKEN_LENGTH_MAX: usize = 2048;
/// Of a client token, in characters.
const CLIENT_TOKEN_LENGTH_MAX: usize = 64;
/// Of a name, in characters.
const NAME_LENGTH_MAX: usize = 80;
/// Diagnostics that a validation gives at most.
const DIAGNOSTICS_MAX: usize = 100;

/// Whether a state machine or an execution may have this name.
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html>
pub(crate) fn is_valid_name(name: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&name.chars().count())
        && !name.chars().any(|character| {
            character.is_whitespace()
                || character.is_control()
                || r##"<>{}[]?*"#%\^|~`$&,;:/"##.contains(character)
        })
}

impl Service {
    pub(crate) async fn call(
        self: &Arc<Self>,
        operation: &str,
        input: Value,
    ) -> Result<Value, ApiError> {
        match operation {
            "StartExecution" => self.start_execution(parse(input)?),
            "DescribeExecution" => self.describe_execution(&parse(input)?),
            "ListExecutions" => self.list_executions(&parse(input)?),
            "StopExecution" => self.stop_execution(parse(input)?).await,
            "RedriveExecution" => self.redrive_execution(parse(input)?).await,
            "GetExecutionHistory" => self.get_execution_history(&parse(input)?),
            "DescribeStateMachine" => self.describe_state_machine(&parse(input)?),
            "DescribeStateMachineForExecution" => {
                self.describe_state_machine_for_execution(&parse(input)?)
            }
            "ListStateMachines" => self.list_state_machines(&parse(input)?),
            "SendTaskSuccess" => self.send_task_success(parse(input)?).await,
            "SendTaskFailure" => self.send_task_failure(parse(input)?).await,
            "SendTaskHeartbeat" => self.send_task_heartbeat(parse(input)?).await,
            "ValidateStateMachineDefinition" => validate_definition(&parse(input)?),
            other => Err(ApiError::unknown_operation(other)),
        }
    }

    fn start_execution(self: &Arc<Self>, input: StartExecution) -> Result<Value, ApiError> {
        let StartExecution { state_machine_arn, name, input } = input;
        let input = input.unwrap_or_else(|| "{}".to_owned());
        if input.len() > DATA_BYTES_MAX {
            return Err(too_long("input", DATA_BYTES_MAX));
        }
        let input_value = parse_json(&input).map_err(|error| {
            let message = format!("Invalid State Machine Execution Input: '{error}'");
            ApiError::client("InvalidExecutionInput", message)
        })?;
        let name = name.unwrap_or_else(|| self.host.uuid().to_string());
        if !is_valid_name(&name) {
            return Err(ApiError::client("InvalidName", format!("Invalid Name: '{name}'")));
        }
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        let mut registry = self.registry();
        let state_machine = registry.state_machine(&state_machine_arn)?.clone();
        let arn = self.host.arn("states", &format!("execution:{}:{name}", state_machine.name));
        if let Some(record) = registry.execution(&arn) {
            let same = record.status() == Status::Running
                && parse_json(&record.input).is_ok_and(|other| other == input_value);
            return match same {
                true => Ok(started(&arn, record.started)),
                false => {
                    let message = format!("Execution Already Exists: '{arn}'");
                    Err(ApiError::client("ExecutionAlreadyExists", message))
                }
            };
        }
        let Started { at, event, dispatcher } =
            self.start(&mut registry, &state_machine, name, arn.clone(), input)?;
        drop(registry);
        (self.events)(event);
        self.notify(|| Notice::Started { execution_arn: arn.as_str().into() });
        self.tasks.spawn(dispatcher.run(at));
        Ok(started(&arn, at))
    }

    fn describe_execution(&self, input: &DescribeExecution) -> Result<Value, ApiError> {
        let registry = self.registry();
        let record = registry.described_execution(&input.execution_arn)?;
        let included = !input.included_data.is_metadata_only();
        let mut answer = record.summary();
        let mut put = |field: &str, value: Value| answer.insert(field.to_owned(), value);
        let not_redrivable = record.not_redrivable(self.host.now());
        put("redriveStatus", redrive_status(not_redrivable).into());
        if let Some(reason) = not_redrivable {
            put("redriveStatusReason", reason.into());
        }
        let details = json!({ "included": included });
        put("inputDetails", details.clone());
        if included {
            put("input", record.input.as_str().into());
        }
        if let Some(end) = &record.end {
            if let Some(output) = &end.output {
                put("outputDetails", details);
                if included {
                    put("output", output.as_str().into());
                }
            }
            for (field, text) in [("error", &end.error), ("cause", &end.cause)] {
                if let Some(text) = text.as_deref().filter(|_| included) {
                    put(field, text.into());
                }
            }
        }
        Ok(answer.into())
    }

    fn list_executions(&self, input: &ListExecutions) -> Result<Value, ApiError> {
        let Some(state_machine_arn) = &input.state_machine_arn else {
            return Err(validation("stateMachineArn: expected an ARN; Map Runs are not served"));
        };
        // AWS has both for the children of a Map Run only.
        if input.redrive_filter.is_some() {
            return Err(validation("redriveFilter: expected none beside stateMachineArn"));
        }
        if input.status_filter == Some(Status::PendingRedrive) {
            return Err(validation("statusFilter: expected another beside stateMachineArn"));
        }
        let registry = self.registry();
        let state_machine = registry.state_machine(state_machine_arn)?;
        let before = last_key(input.next_token.as_deref())?.unwrap_or(u64::MAX);
        let listed = registry
            .executions
            .range(..before)
            .rev()
            .filter(|(_, record)| record.state_machine.arn == state_machine.arn)
            .filter(|(_, record)| input.status_filter.is_none_or(|only| record.status() == only))
            .map(|(number, record)| (*number, record.summary()));
        let page = Page::of(listed, input.max_results)?;
        Ok(page_answer("executions", page.items, page.next_token))
    }

    async fn stop_execution(&self, input: StopExecution) -> Result<Value, ApiError> {
        let StopExecution { execution_arn, error, cause } = input;
        check_error_and_cause(error.as_deref(), cause.as_deref())?;
        let dispatcher = {
            let registry = self.registry();
            registry.described_execution(&execution_arn)?.running().cloned()
        };
        if let Some(dispatcher) = dispatcher {
            let (stopped, has_stopped) = oneshot::channel();
            let input = Input::Stop { error, cause };
            // It may end by itself just before: the answer is the same then.
            if dispatcher.send(Message::Stop { input, stopped }).await.is_ok() {
                let _ = has_stopped.await;
            }
        }
        let registry = self.registry();
        let record = registry.described_execution(&execution_arn)?;
        let end = record.end.as_ref().ok_or_else(stopping)?;
        Ok(json!({ "stopDate": epoch_seconds(end.at) }))
    }

    /// Goes on with an execution that ended without success. It has its place among those that are
    /// kept, so `ExecutionLimitExceeded` is never an answer.
    async fn redrive_execution(&self, input: RedriveExecution) -> Result<Value, ApiError> {
        let RedriveExecution { execution_arn, client_token } = input;
        if client_token.as_deref().is_some_and(|token| !is_client_token(token)) {
            return Err(validation(format!(
                "1 validation error detected: Value at 'clientToken' failed to satisfy constraint: \
                 Member must have 1 to {CLIENT_TOKEN_LENGTH_MAX} printable ASCII characters"
            )));
        }
        let redriven_at = loop {
            let dispatcher = {
                let registry = self.registry();
                let record = registry.described_execution(&execution_arn)?;
                let now = self.host.now();
                // A repeated request gets its answer whatever became of the execution since.
                let same = client_token.as_deref().and_then(|token| record.redriven_by(token, now));
                if let Some(at) = same {
                    break at;
                }
                if let Some(reason) = record.not_redrivable(now) {
                    return Err(not_redrivable(&execution_arn, reason));
                }
                record.dispatcher.clone().ok_or_else(stopping)?
            };
            let (redriven, answer) = oneshot::channel();
            let message = Message::Redrive { client_token: client_token.clone(), redriven };
            // A dispatcher that is gone drops the message, and with it the sender of the answer.
            let _ = dispatcher.send(message).await;
            match answer.await {
                Ok(Some(at)) => break at,
                // Another request came first: what there is to say of it stands in the record.
                Ok(None) => {}
                Err(_) => return Err(stopping()),
            }
        };
        Ok(json!({ "redriveDate": epoch_seconds(redriven_at) }))
    }

    fn get_execution_history(&self, input: &GetExecutionHistory) -> Result<Value, ApiError> {
        let registry = self.registry();
        let history = &registry.described_execution(&input.execution_arn)?.history;
        let last_key = last_key(input.next_token.as_deref())?;
        let with_data = input.include_execution_data.unwrap_or(true);
        let shown = |event: &HistoryEvent| (event.id, show_event(event, with_data));
        let page = if input.reverse_order.unwrap_or(false) {
            let before = last_key.unwrap_or(u64::MAX);
            let events = history.iter().rev().filter(|event| event.id < before);
            Page::of(events.map(shown), input.max_results)?
        } else {
            let after = last_key.unwrap_or(0);
            let events = history.iter().filter(|event| event.id > after);
            Page::of(events.map(shown), input.max_results)?
        };
        Ok(page_answer("events", page.items, page.next_token))
    }

    fn describe_state_machine(&self, input: &DescribeStateMachine) -> Result<Value, ApiError> {
        let registry = self.registry();
        let state_machine = registry.state_machine(&input.state_machine_arn)?;
        let mut answer = show_state_machine(state_machine);
        answer.insert("status".to_owned(), "ACTIVE".into());
        answer.insert("type".to_owned(), "STANDARD".into());
        answer.insert("creationDate".to_owned(), epoch_seconds(state_machine.created));
        Ok(answer.into())
    }

    fn describe_state_machine_for_execution(
        &self,
        input: &DescribeExecution,
    ) -> Result<Value, ApiError> {
        let registry = self.registry();
        let state_machine = &registry.described_execution(&input.execution_arn)?.state_machine;
        let mut answer = show_state_machine(state_machine);
        answer.insert("updateDate".to_owned(), epoch_seconds(state_machine.created));
        Ok(answer.into())
    }

    fn list_state_machines(&self, input: &ListStateMachines) -> Result<Value, ApiError> {
        let registry = self.registry();
        let after = last_key(input.next_token.as_deref())?.unwrap_or(0);
        let listed = (1..).zip(registry.state_machines.values());
        let listed = listed.filter(|(position, _)| *position > after);
        let listed = listed.map(|(position, state_machine)| {
            let item = json!({
                "stateMachineArn": state_machine.arn,
                "name": state_machine.name,
                "type": "STANDARD",
                "creationDate": epoch_seconds(state_machine.created),
            });
            (position, item)
        });
        let page = Page::of(listed, input.max_results)?;
        Ok(page_answer("stateMachines", page.items, page.next_token))
    }

    async fn send_task_success(&self, input: SendTaskSuccess) -> Result<Value, ApiError> {
        let SendTaskSuccess { task_token, output } = input;
        if output.len() > DATA_BYTES_MAX {
            return Err(too_long("output", DATA_BYTES_MAX));
        }
        let output = parse_json(&output).map_err(|error| {
            ApiError::client("InvalidOutput", format!("Invalid Output: '{error}'"))
        })?;
        self.send_token(&task_token, |task| Input::TaskSucceeded { task, output }).await
    }

    async fn send_task_failure(&self, input: SendTaskFailure) -> Result<Value, ApiError> {
        let SendTaskFailure { task_token, error, cause } = input;
        check_error_and_cause(error.as_deref(), cause.as_deref())?;
        let (error, cause) = (error.unwrap_or_default(), cause.unwrap_or_default());
        self.send_token(&task_token, |task| Input::TaskFailed { task, error, cause }).await
    }

    async fn send_task_heartbeat(&self, input: SendTaskHeartbeat) -> Result<Value, ApiError> {
        self.send_token(&input.task_token, |task| Input::TaskHeartbeat { task }).await
    }

    /// Hands on what was sent with a token, if its task is still open.
    async fn send_token(
        &self,
        token: &str,
        input: impl FnOnce(TaskId) -> Input,
    ) -> Result<Value, ApiError> {
        if token.is_empty() || token.len() > TOKEN_LENGTH_MAX {
            return Err(too_long("taskToken", TOKEN_LENGTH_MAX));
        }
        let (dispatcher, task) = {
            let registry = self.registry();
            let (number, task) = registry.tokens.get(token).ok_or_else(invalid_token)?;
            let record = registry.executions.get(number).ok_or_else(invalid_token)?;
            (record.running().cloned().ok_or_else(task_timed_out)?, *task)
        };
        let (was_open, answer) = oneshot::channel();
        let message = Message::Token { task, input: input(task), was_open };
        // A dispatcher that is gone drops the message, and with it the sender of the answer.
        let _ = dispatcher.send(message).await;
        match answer.await {
            Ok(true) => Ok(json!({})),
            Err(_) if self.stop.is_cancelled() => Err(stopping()),
            Ok(false) | Err(_) => Err(task_timed_out()),
        }
    }
}

impl Registry {
    fn state_machine(&self, arn: &str) -> Result<&Arc<StateMachine>, ApiError> {
        check_arn(arn, "stateMachine")?;
        self.state_machines.get(arn).ok_or_else(|| no_such_state_machine(arn))
    }

    fn execution(&self, arn: &str) -> Option<&Record> {
        self.executions.get(self.numbers.get(arn)?)
    }

    /// The execution that a caller names.
    fn described_execution(&self, arn: &str) -> Result<&Record, ApiError> {
        check_arn(arn, "execution")?;
        self.execution(arn).ok_or_else(|| no_such_execution(arn))
    }
}

fn parse<T: DeserializeOwned>(input: Value) -> Result<T, ApiError> {
    ApiError::parse_input("ValidationException", input)
}

/// Reads JSON in a string.
fn parse_json(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text)
}

fn check_arn(arn: &str, resource_type: &str) -> Result<(), ApiError> {
    let parts: Vec<&str> = arn.splitn(7, ':').collect();
    match parts.as_slice() {
        ["arn", _, "states", _, _, found, _] if *found == resource_type => Ok(()),
        ["arn", _, "states", _, _, found, _] => {
            Err(invalid_arn(&format!("Resource type not valid in this context: {found}")))
        }
        ["arn", ..] => Err(invalid_arn(arn)),
        _ => Err(invalid_arn(&format!("Invalid ARN prefix: {arn}"))),
    }
}

fn is_client_token(text: &str) -> bool {
    (1..=CLIENT_TOKEN_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_error_and_cause(error: Option<&str>, cause: Option<&str>) -> Result<(), ApiError> {
    let is_longer = |text: Option<&str>, length_max| {
        text.is_some_and(|text| text.len() > length_max && text.chars().count() > length_max)
    };
    if is_longer(error, ERROR_LENGTH_MAX) {
        return Err(too_long("error", ERROR_LENGTH_MAX));
    }
    if is_longer(cause, CAUSE_LENGTH_MAX) {
        return Err(too_long("cause", CAUSE_LENGTH_MAX));
    }
    Ok(())
}

fn started(arn: &str, at: jiff::Timestamp) -> Value {
    json!({ "executionArn": arn, "startDate": epoch_seconds(at) })
}

fn page_answer<T: Into<Value>>(field: &str, items: Vec<T>, next_token: Option<String>) -> Value {
    let mut answer = Map::new();
    answer.insert(field.to_owned(), items.into_iter().map(Into::into).collect());
    answer.extend(next_token.map(|token| ("nextToken".to_owned(), token.into())));
    answer.into()
}

fn show_event(event: &HistoryEvent, with_data: bool) -> Value {
    let mut shown = Map::new();
    shown.insert("timestamp".to_owned(), epoch_seconds(event.timestamp));
    shown.insert("type".to_owned(), event.event_type.into());
    shown.insert("id".to_owned(), event.id.into());
    shown.insert("previousEventId".to_owned(), event.previous_event_id.into());
    if let Some((field, details)) = &event.details {
        let mut details = details.clone();
        if !with_data {
            details.retain(|field, _| field != "input" && field != "output");
        }
        shown.insert((*field).to_owned(), details.into());
    }
    shown.into()
}

fn show_state_machine(state_machine: &StateMachine) -> Map<String, Value> {
    let fields = [
        ("stateMachineArn", state_machine.arn.as_str().into()),
        ("name", state_machine.name.as_str().into()),
        ("definition", state_machine.text.as_str().into()),
        ("roleArn", state_machine.role_arn.as_str().into()),
        ("loggingConfiguration", json!({ "level": "OFF", "includeExecutionData": false })),
        ("tracingConfiguration", json!({ "enabled": false })),
    ];
    fields.map(|(field, value)| (field.to_owned(), value)).into_iter().collect()
}

/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinition.html>
fn validate_definition(input: &ValidateDefinition) -> Result<Value, ApiError> {
    let diagnostics_max = match input.max_results.map(usize::try_from) {
        None | Some(Ok(0)) => DIAGNOSTICS_MAX,
        Some(Ok(count)) if count <= DIAGNOSTICS_MAX => count,
        Some(_) => {
            return Err(validation(format!("maxResults: expected at most {DIAGNOSTICS_MAX}")));
        }
    };
    let Err(errors) = Definition::parse(&input.definition) else {
        return Ok(json!({ "result": "OK", "diagnostics": [], "truncated": false }));
    };
    let all: Vec<Value> = errors
        .iter()
        .map(|error| {
            let code = match error.problem {
                archweld_states::Problem::Syntax { .. } => "INVALID_JSON_DESCRIPTION",
                _ => "SCHEMA_VALIDATION_FAILED",
            };
            let state = error.state.as_ref().map(|state| format!("/States/{state}"));
            let field = error.field.as_ref().map(|field| format!("/{field}"));
            json!({
                "severity": "ERROR",
                "code": code,
                "message": error.problem.to_string(),
                "location": format!("{}{}", state.unwrap_or_default(), field.unwrap_or_default()),
            })
        })
        .collect();
    let shown = &all[..all.len().min(diagnostics_max)];
    Ok(json!({
        "result": "FAIL",
        "diagnostics": shown,
        "truncated": shown.len() < all.len(),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartExecution {
    state_machine_arn: String,
    name: Option<String>,
    input: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeExecution {
    execution_arn: String,
    #[serde(default)]
    included_data: IncludedData,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum IncludedData {
    #[default]
    AllData,
    MetadataOnly,
}

impl IncludedData {
    fn is_metadata_only(self) -> bool {
        matches!(self, Self::MetadataOnly)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListExecutions {
    state_machine_arn: Option<String>,
    status_filter: Option<Status>,
    redrive_filter: Option<String>,
    max_results: Option<u64>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopExecution {
    execution_arn: String,
    error: Option<String>,
    cause: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedriveExecution {
    execution_arn: String,
    client_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GetExecutionHistory {
    execution_arn: String,
    max_results: Option<u64>,
    reverse_order: Option<bool>,
    next_token: Option<String>,
    include_execution_data: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeStateMachine {
    state_machine_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListStateMachines {
    max_results: Option<u64>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendTaskSuccess {
    task_token: String,
    output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendTaskFailure {
    task_token: String,
    error: Option<String>,
    cause: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendTaskHeartbeat {
    task_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValidateDefinition {
    definition: String,
    max_results: Option<u64>,
}
