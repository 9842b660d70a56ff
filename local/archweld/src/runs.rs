//! Runs as Step Functions and CodeBuild tell of them: the same on AWS and in the local cloud.

use std::{collections::BTreeMap, time::Duration};

use archweld_model::{BuildOutcome, ExecutionInput, Plan, Published, variable};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::{
    aws::{Api, CODEBUILD, CallError, CallErrorKind, STATES},
    error::Error,
    target::Target,
};

/// The state machine's variable that has the plan.
const PLAN: &str = "plan";
/// The state that moves tags, and those after it.
const PUBLISHING: [&str; 3] = ["Publish", "Announce success", "Published"];
/// What a build is called that makes an index.
pub(crate) const MANIFEST: &str = "manifest";
/// How many events a page of a history has, and how many builds are asked for at once.
const EVENTS_MAX: u32 = 1_000;
const BUILDS_MAX: usize = 100;

/// An execution of the state machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Execution {
    pub(crate) execution_arn: String,
    pub(crate) name: String,
    pub(crate) status: String,
    #[serde(deserialize_with = "seconds")]
    pub(crate) start_date: Timestamp,
    #[serde(default, deserialize_with = "some_seconds")]
    pub(crate) stop_date: Option<Timestamp>,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
}

/// What an execution's history tells of its run.
#[derive(Debug, Default, Clone)]
pub(crate) struct History {
    /// The plan, once it is made.
    pub(crate) plan: Option<Plan>,
    /// The ids of the builds that were started, in order.
    pub(crate) builds: Vec<String>,
    /// What builds that succeeded reported, by their ids.
    pub(crate) outcomes: BTreeMap<String, BuildOutcome>,
    /// The state that was entered last.
    pub(crate) state: Option<String>,
}

/// A build of CodeBuild's. Of its environment only what tells builds apart is kept: the rest may be
/// secret, and the task token is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Build {
    pub(crate) id: String,
    pub(crate) build_status: String,
    #[serde(default)]
    pub(crate) current_phase: String,
    #[serde(default, deserialize_with = "some_seconds")]
    pub(crate) start_time: Option<Timestamp>,
    #[serde(default, deserialize_with = "some_seconds")]
    pub(crate) end_time: Option<Timestamp>,
    #[serde(default)]
    pub(crate) phases: Vec<Phase>,
    #[serde(default)]
    pub(crate) logs: Option<Log>,
    #[serde(default, rename = "environment", deserialize_with = "kept_variables")]
    variables: BTreeMap<String, String>,
}

/// A phase of a build.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Phase {
    pub(crate) phase_type: String,
    pub(crate) phase_status: Option<String>,
    #[serde(default)]
    pub(crate) contexts: Vec<PhaseContext>,
}

/// Why a phase ended as it did.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PhaseContext {
    #[serde(default)]
    pub(crate) status_code: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// Where a build's log is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    pub(crate) group_name: Option<String>,
    pub(crate) stream_name: Option<String>,
}

/// The variables by which builds are told apart.
const KEPT: [&str; 5] = [
    variable::EXECUTION,
    variable::IMAGE_CONTEXT,
    variable::IMAGE_DOCKERFILE,
    variable::IMAGE_PLATFORM,
    variable::IMAGE_REPO_NAME,
];

impl Execution {
    /// What it was asked to do, as far as it can be understood.
    pub(crate) fn asked(&self) -> ExecutionInput {
        let input = self.input.as_deref().and_then(|input| serde_json::from_str(input).ok());
        input.and_then(|input| ExecutionInput::parse(input).ok()).unwrap_or_default()
    }

    /// What it published, if it did.
    pub(crate) fn published(&self) -> Option<Published> {
        serde_json::from_str(self.output.as_deref()?).ok()
    }

    /// Whether it goes on.
    pub(crate) fn is_running(&self) -> bool {
        self.status == "RUNNING" || self.status == "PENDING_REDRIVE"
    }

    /// How long it took, or has taken until now.
    pub(crate) fn took(&self) -> Duration {
        between(self.start_date, self.stop_date.unwrap_or_else(Timestamp::now))
    }

    /// Its end as an error, where it published nothing.
    pub(crate) fn failure(&self) -> Error {
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        Error::Run {
            error: text(&self.error).unwrap_or_else(|| self.status.clone()),
            cause: text(&self.cause).unwrap_or_else(|| "no cause is given".to_owned()),
        }
    }
}

impl Build {
    /// A variable of those that are kept.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// What it builds: a platform, or `manifest`.
    pub(crate) fn target(&self) -> &str {
        self.variable(variable::IMAGE_PLATFORM).unwrap_or(MANIFEST)
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.build_status != "IN_PROGRESS"
    }

    /// How long it took from the request to its end, or has taken until now.
    pub(crate) fn took(&self) -> Option<Duration> {
        Some(between(self.start_time?, self.end_time.unwrap_or_else(Timestamp::now)))
    }

    /// The phase that failed, and what it says.
    pub(crate) fn failed_phase(&self) -> Option<(&str, String)> {
        let ended_well =
            |phase: &Phase| phase.phase_status.as_deref().is_none_or(|it| it == "SUCCEEDED");
        let phase = self.phases.iter().find(|phase| !ended_well(phase))?;
        let said = phase.contexts.iter().map(|PhaseContext { status_code, message }| {
            let parts = [status_code.trim(), message.trim()];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        });
        let said: Vec<String> = said.filter(|text| !text.is_empty()).collect();
        Some((&phase.phase_type, said.join("; ")))
    }
}

impl Target {
    /// Starts an execution; gives its ARN.
    pub(crate) async fn start(
        &self,
        name: Option<&str>,
        input: &ExecutionInput,
    ) -> Result<String, CallError> {
        let mut request =
            json!({"stateMachineArn": self.state_machine, "input": json!(input).to_string()});
        if let Some(name) = name {
            request["name"] = json!(name);
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Started {
            execution_arn: String,
        }
        let started: Started = self.api.call(STATES, "StartExecution", request).await?;
        Ok(started.execution_arn)
    }

    /// Stops an execution.
    pub(crate) async fn stop(&self, execution: &str, cause: &str) -> Result<(), CallError> {
        let request = json!({"executionArn": execution, "cause": cause});
        let _: Value = self.api.call(STATES, "StopExecution", request).await?;
        Ok(())
    }

    /// The newest executions, without their inputs and outputs.
    pub(crate) async fn executions(
        &self,
        count_max: usize,
        status: Option<&str>,
    ) -> Result<Vec<Execution>, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            executions: Vec<Execution>,
            next_token: Option<String>,
        }
        let mut found = Vec::new();
        let mut token = None::<String>;
        loop {
            let mut request = json!({
                "stateMachineArn": self.state_machine,
                "maxResults": (count_max - found.len()).min(1_000),
            });
            let options = [("statusFilter", status), ("nextToken", token.as_deref())];
            for (name, value) in options.into_iter().filter_map(|(name, it)| Some((name, it?))) {
                request[name] = json!(value);
            }
            let page: Page = self.api.call(STATES, "ListExecutions", request).await?;
            found.extend(page.executions);
            token = page.next_token;
            if token.is_none() || found.len() >= count_max {
                found.truncate(count_max);
                return Ok(found);
            }
        }
    }

    /// An execution in full.
    pub(crate) async fn execution(&self, arn: &str) -> Result<Execution, CallError> {
        self.api.call(STATES, "DescribeExecution", json!({"executionArn": arn})).await
    }

    /// The execution of a run: of that name or ARN, or the newest.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn run(&self, run: Option<&str>) -> Result<Execution, Error> {
        let arn = match run {
            None => match self.executions(1, None).await?.pop() {
                Some(newest) => newest.execution_arn,
                None => return Err(Error::NoRuns),
            },
            Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
            Some(name) => {
                let executions = self.state_machine.replacen(":stateMachine:", ":execution:", 1);
                format!("{executions}:{name}")
            }
        };
        self.execution(&arn).await.map_err(|error| match (error.kind, run) {
            (CallErrorKind::NotFound, Some(run)) => Error::NoRun(run.to_owned()),
            _ => error.into(),
        })
    }

    /// What an execution's history tells.
    pub(crate) async fn history(&self, execution: &str) -> Result<History, CallError> {
        self.api.history(execution).await
    }

    /// The builds of those ids that CodeBuild still knows.
    pub(crate) async fn builds(&self, ids: &[String]) -> Result<Vec<Build>, CallError> {
        self.api.builds(ids).await
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl Api {
    async fn history(&self, execution: &str) -> Result<History, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            events: Vec<Event>,
            next_token: Option<String>,
        }
        let mut history = History::default();
        let mut token = None::<String>;
        loop {
            let mut request = json!({
                "executionArn": execution, "maxResults": EVENTS_MAX, "includeExecutionData": true,
            });
            if let Some(token) = &token {
                request["nextToken"] = json!(token);
            }
            let page: Page = self.call(STATES, "GetExecutionHistory", request).await?;
            for event in &page.events {
                history.add(event);
            }
            token = page.next_token;
            if token.is_none() {
                return Ok(history);
            }
        }
    }

    /// The builds of those ids that CodeBuild still knows, in their order.
    pub(crate) async fn builds(&self, ids: &[String]) -> Result<Vec<Build>, CallError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            builds: Vec<Build>,
        }
        let mut builds = Vec::new();
        for ids in ids.chunks(BUILDS_MAX) {
            let request = json!({ "ids": ids });
            let answer: Answer = self.call(CODEBUILD, "BatchGetBuilds", request).await?;
            builds.extend(answer.builds);
        }
        builds.sort_by_key(|build| ids.iter().position(|id| *id == build.id));
        Ok(builds)
    }
}

impl History {
    /// Whether the run may have moved its tags.
    pub(crate) fn may_have_published(&self) -> bool {
        self.state.as_deref().is_some_and(|state| PUBLISHING.contains(&state))
    }

    /// Takes in an event. The plan is what a state assigned, a build's id what `start-build`
    /// answered, an outcome what was sent back with a task token.
    fn add(&mut self, event: &Event) {
        let of = |details: &str, field: &str| {
            let text = event.details.get(details)?.get(field)?.as_str()?;
            serde_json::from_str::<Value>(text).ok()
        };
        match event.kind.as_str() {
            "TaskSubmitted" => {
                let output = of("taskSubmittedEventDetails", "output").unwrap_or_default();
                if let Some(id) = output["Payload"]["build_id"].as_str() {
                    self.builds.push(id.to_owned());
                }
            }
            "TaskSucceeded" => {
                let output = of("taskSucceededEventDetails", "output");
                let outcome = output.and_then(|it| serde_json::from_value::<BuildOutcome>(it).ok());
                if let Some(outcome) = outcome {
                    self.outcomes.insert(outcome.build_id.clone(), outcome);
                }
            }
            kind if kind.ends_with("StateEntered") => {
                let name = event.details.get("stateEnteredEventDetails").map(|it| &it["name"]);
                self.state = name.and_then(Value::as_str).map(str::to_owned);
            }
            kind if kind.ends_with("StateExited") && self.plan.is_none() => {
                let details = event.details.get("stateExitedEventDetails");
                let plan = details.and_then(|it| it.get("assignedVariables")?.get(PLAN)?.as_str());
                self.plan = plan.and_then(|plan| serde_json::from_str(plan).ok());
            }
            _ => {}
        }
    }
}

pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Seconds since 1970, with a fraction, as AWS's JSON protocols write times.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    let duration = jiff::SignedDuration::try_from_secs_f64(seconds);
    duration
        .and_then(Timestamp::from_duration)
        .map_err(|error| serde::de::Error::custom(format!("a time: {error}")))
}

fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    struct Seconds(#[serde(deserialize_with = "seconds")] Timestamp);
    Ok(Option::<Seconds>::deserialize(deserializer)?.map(|Seconds(time)| time))
}

fn kept_variables<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Environment {
        environment_variables: Vec<Variable>,
    }
    #[derive(Deserialize)]
    struct Variable {
        name: String,
        value: String,
    }
    let variables = Environment::deserialize(deserializer)?.environment_variables;
    let kept = variables.into_iter().filter(|variable| KEPT.contains(&variable.name.as_str()));
    Ok(kept.map(|Variable { name, value }| (name, value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_keeps_no_token_and_tells_what_failed() {
        let build: Build = serde_json::from_value(json!({
            "id": "p:1", "buildStatus": "FAILED", "currentPhase": "COMPLETED",
            "startTime": 1_700_000_000.25, "endTime": 1_700_000_042.75,
            "phases": [
                {"phaseType": "INSTALL", "phaseStatus": "SUCCEEDED",
                 "contexts": [{"statusCode": "", "message": ""}]},
                {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [
                    {"statusCode": "COMMAND_EXECUTION_ERROR", "message": "exit status 1"},
                ]},
                {"phaseType": "COMPLETED"},
            ],
            "environment": {"environmentVariables": [
                {"name": "IMAGE_PLATFORM", "value": "linux/arm64", "type": "PLAINTEXT"},
                {"name": "ARCHWELD_TASK_TOKEN", "value": "secret", "type": "PLAINTEXT"},
            ]},
        }))
        .unwrap();
        assert_eq!(build.target(), "linux/arm64");
        assert_eq!(build.took(), Some(Duration::from_millis(42_500)));
        let said = "COMMAND_EXECUTION_ERROR: exit status 1".to_owned();
        assert_eq!(build.failed_phase(), Some(("BUILD", said)));
        assert!(!format!("{build:?}").contains("secret"));
    }

    #[test]
    fn a_history_tells_builds_and_the_state_that_it_is_in() {
        let mut history = History::default();
        for event in [
            json!({"type": "MapStateEntered", "id": 1,
                   "stateEnteredEventDetails": {"name": "Build platforms"}}),
            json!({"type": "TaskSubmitted", "id": 2, "taskSubmittedEventDetails":
                   {"output": "{\"StatusCode\":200,\"Payload\":{\"build_id\":\"p:1\"}}"}}),
            json!({"type": "TaskSucceeded", "id": 3,
                   "taskSucceededEventDetails": {"output": "{\"Payload\":{}}"}}),
        ] {
            history.add(&serde_json::from_value(event).unwrap());
        }
        assert_eq!(history.builds, ["p:1"]);
        assert_eq!(history.state.as_deref(), Some("Build platforms"));
        assert!(history.plan.is_none() && history.outcomes.is_empty());
    }
}
