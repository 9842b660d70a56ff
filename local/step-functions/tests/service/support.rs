//! A Step Functions service with services around it that remember what they did.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archweld_local_api::{ApiError, Event, EventSink, Host};
use archweld_step_functions::{Integrations, LambdaResponse, StateMachineSettings, StepFunctions};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

pub(crate) const MACHINE: &str = "arn:aws:states:us-east-1:000000000000:stateMachine:build";
pub(crate) const EXECUTION: &str = "arn:aws:states:us-east-1:000000000000:execution:build";

/// Functions by name, and a bus.
#[derive(Clone, Default)]
pub(crate) struct Services {
    calls: Arc<Mutex<BTreeMap<String, usize>>>,
    tokens: Arc<Mutex<Vec<String>>>,
    entries: Arc<Mutex<Vec<Value>>>,
}

impl Services {
    /// How often a function was invoked.
    pub(crate) fn calls(&self, function: &str) -> usize {
        self.calls.lock().unwrap().get(function).copied().unwrap_or_default()
    }

    /// The task tokens that the function `hold` was given.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    /// What was put on the bus.
    pub(crate) fn entries(&self) -> Vec<Value> {
        self.entries.lock().unwrap().clone()
    }

    async fn run(self, function: String, payload: Value) -> Result<Result<Value, Value>, ApiError> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            let calls = calls.entry(function.clone()).or_default();
            *calls += 1;
            *calls
        };
        let error = |error_type: &str| {
            Ok(Err(json!({ "errorType": error_type, "errorMessage": "on purpose" })))
        };
        match function.as_str() {
            "echo" => Ok(Ok(payload)),
            "fail" => error("Build.Failed"),
            "fail-twice" if call <= 2 => error("Build.Capacity"),
            "fail-twice" => Ok(Ok(json!("done"))),
            "untyped" => Ok(Err(json!({ "oops": true }))),
            "slow" => {
                sleep(Duration::from_secs(payload["seconds"].as_u64().unwrap())).await;
                Ok(Ok(payload))
            }
            "hold" => {
                self.tokens.lock().unwrap().push(payload["token"].as_str().unwrap().to_owned());
                Ok(Ok(json!({})))
            }
            "throttled" => Err(ApiError {
                status: 429,
                ..ApiError::client("TooManyRequestsException", "Rate Exceeded.")
            }),
            other => Err(ApiError {
                status: 404,
                ..ApiError::client(
                    "ResourceNotFoundException",
                    format!("Function not found: {other}"),
                )
            }),
        }
    }
}

impl Integrations for Services {
    fn invoke(
        &self,
        function: String,
        payload: Value,
    ) -> BoxFuture<'static, Result<LambdaResponse, ApiError>> {
        let run = self.clone().run(function, payload);
        async move {
            Ok(LambdaResponse {
                request_id: "8a2c7a5c-0000-4000-8000-000000000000".to_owned(),
                trace_id: "Root=1-00000000-000000000000000000000000".to_owned(),
                result: run.await?,
            })
        }
        .boxed()
    }

    fn put_events(&self, input: Value) -> BoxFuture<'static, Result<Value, ApiError>> {
        let mut failed = 0;
        let mut answers = Vec::new();
        for entry in input["Entries"].as_array().unwrap() {
            self.entries.lock().unwrap().push(entry.clone());
            if entry["Source"] == "aws.forged" {
                failed += 1;
                answers.push(json!({
                    "ErrorCode": "NotAuthorizedForSourceException",
                    "ErrorMessage": "Not authorized for the source.",
                }));
            } else {
                answers.push(json!({ "EventId": format!("event-{}", answers.len()) }));
            }
        }
        async move { Ok(json!({ "Entries": answers, "FailedEntryCount": failed })) }.boxed()
    }
}

/// A service with the state machine `build`.
pub(crate) struct World {
    pub(crate) service: StepFunctions,
    pub(crate) services: Services,
    events: Arc<Mutex<Vec<Event>>>,
}

impl World {
    pub(crate) fn new(definition: &Value) -> Self {
        Self::with(definition, |host, services, events| {
            StepFunctions::in_memory(host, services, events)
        })
    }

    /// A service that starts at `second` of its host's time, keeps its executions, and goes on with
    /// those that it finds.
    pub(crate) fn open(definition: &Value, folder: &Path, second: i64) -> Self {
        let world = Self::suspended(definition, folder, second);
        world.service.resume();
        world
    }

    /// The same, before it goes on with any.
    pub(crate) fn suspended(definition: &Value, folder: &Path, second: i64) -> Self {
        let origin = Timestamp::from_second(second).unwrap();
        let seed = u64::try_from(second).unwrap();
        Self::on(Host::seeded("000000000000", "us-east-1", origin, seed), definition, {
            |host, services, events| StepFunctions::open(host, services, events, folder).unwrap()
        })
    }

    fn with(
        definition: &Value,
        make: impl FnOnce(Host, Arc<dyn Integrations>, EventSink) -> StepFunctions,
    ) -> Self {
        let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
        Self::on(host, definition, make)
    }

    fn on(
        host: Host,
        definition: &Value,
        make: impl FnOnce(Host, Arc<dyn Integrations>, EventSink) -> StepFunctions,
    ) -> Self {
        let services = Services::default();
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink: EventSink = {
            let events = events.clone();
            Arc::new(move |event| events.lock().unwrap().push(event))
        };
        let service = make(host, Arc::new(services.clone()), sink);
        let settings = StateMachineSettings {
            name: "build".to_owned(),
            definition: definition.to_string(),
            role_arn: "arn:aws:iam::000000000000:role/build".to_owned(),
        };
        assert_eq!(service.create_state_machine(settings).unwrap(), MACHINE);
        Self { service, services, events }
    }

    pub(crate) async fn ok(&self, operation: &str, input: Value) -> Value {
        match self.service.call(operation, input).await {
            Ok(answer) => answer,
            Err(error) => panic!("{operation}: {error}"),
        }
    }

    /// The code and the message of an error.
    pub(crate) async fn err(&self, operation: &str, input: Value) -> (String, String) {
        let error = self.service.call(operation, input).await.unwrap_err();
        (error.code, error.message)
    }

    pub(crate) async fn start(&self, name: &str, input: Value) -> String {
        let input = json!({ "stateMachineArn": MACHINE, "name": name, "input": input.to_string() });
        let answer = self.ok("StartExecution", input).await;
        answer["executionArn"].as_str().unwrap().to_owned()
    }

    /// Waits for an execution's end, in virtual time.
    pub(crate) async fn end(&self, arn: &str) -> Value {
        for _ in 0..1000 {
            let execution = self.ok("DescribeExecution", json!({ "executionArn": arn })).await;
            if execution["status"] != "RUNNING" {
                return execution;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("{arn} does not end");
    }

    /// Runs an execution to its end.
    pub(crate) async fn run(&self, name: &str, input: Value) -> Value {
        let arn = self.start(name, input).await;
        self.end(&arn).await
    }

    pub(crate) async fn describe(&self, arn: &str) -> Value {
        self.ok("DescribeExecution", json!({ "executionArn": arn })).await
    }

    pub(crate) async fn stop(&self, arn: &str) {
        self.ok("StopExecution", json!({ "executionArn": arn })).await;
    }

    /// Redrives an execution; gives the date.
    pub(crate) async fn redrive(&self, arn: &str) -> Value {
        self.ok("RedriveExecution", json!({ "executionArn": arn })).await["redriveDate"].clone()
    }

    pub(crate) async fn send(&self, token: &str, output: &str) {
        let input = json!({ "taskToken": token, "output": output });
        self.ok("SendTaskSuccess", input).await;
    }

    /// Waits, in virtual time, for the token that `hold` is given in its `n`th call, from 1.
    pub(crate) async fn token(&self, n: usize) -> String {
        for _ in 0..100_000 {
            if let Some(token) = self.services.tokens().get(n - 1) {
                return token.clone();
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("there is no token {n}");
    }

    pub(crate) async fn history(&self, arn: &str) -> Vec<Value> {
        let input = json!({ "executionArn": arn, "maxResults": 1000 });
        let answer = self.ok("GetExecutionHistory", input).await;
        answer["events"].as_array().unwrap().clone()
    }

    /// The types of an execution's events.
    pub(crate) async fn event_types(&self, arn: &str) -> Vec<String> {
        let history = self.history(arn).await;
        history.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

/// A definition of one Task state `Work`, with more fields.
pub(crate) fn task(resource: &str, arguments: Value, more: Value) -> Value {
    let mut state = json!({
        "Type": "Task",
        "Resource": resource,
        "Arguments": arguments,
        "End": true,
    });
    for (field, value) in more.as_object().unwrap() {
        state[field] = value.clone();
    }
    json!({ "QueryLanguage": "JSONata", "StartAt": "Work", "States": { "Work": state } })
}

/// A definition that invokes one function with the execution's input.
pub(crate) fn invoke(function: &str, more: Value) -> Value {
    let arguments = json!({ "FunctionName": function, "Payload": "{% $states.input %}" });
    task("arn:aws:states:::lambda:invoke", arguments, more)
}

/// A definition that hands its token to the function `hold` and waits.
pub(crate) fn hold(more: Value) -> Value {
    let arguments = json!({
        "FunctionName": "hold",
        "Payload": { "token": "{% $states.context.Task.Token %}" },
    });
    task("arn:aws:states:::lambda:invoke.waitForTaskToken", arguments, more)
}
