//! Tasks: from their schedule to their outcome.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use rand::RngCore as _;
use serde_json::Value;

use super::data::Given;
use super::thread::{Activity, RunningTask, Thread, data_limit_exceeded};
use super::{Execution, Failure, Progress, Then, Timer, history};
use crate::definition::{self, DataFlow, Quantity, State};
use crate::error_name;
use crate::execution::{Effect, Resource, Task, TaskId};
use crate::payload::Payload;

/// Bytes of randomness in a task token; 680 characters of base64, AWS's have about 700.
const TOKEN_BYTES: usize = 510;

impl Execution {
    pub(super) fn schedule(
        &mut self,
        thread: &mut Thread,
        state: &State,
        definition: &definition::Task,
    ) -> Progress {
        let task = TaskId(self.next_id());
        thread.token = definition.waits_for_token.then(|| self.token());
        let arguments = match &state.data {
            DataFlow::Jsonata(_) => {
                self.template_or_input(thread, state, definition.arguments.as_ref(), "Arguments")?
            }
            DataFlow::JsonPath(paths) => match &paths.parameters {
                Some(parameters) => {
                    let input = Arc::clone(&thread.input);
                    Payload::new(self.path_template(thread, state, parameters, &input.value)?)
                }
                None => Arc::clone(&thread.input),
            },
        };
        let mut seconds = |quantity: &Option<Quantity>, field| {
            let quantity = quantity.as_ref();
            quantity.map(|quantity| self.quantity(thread, state, quantity, field, 1)).transpose()
        };
        let timeout_seconds = seconds(&definition.timeout_seconds, "TimeoutSeconds")?;
        let heartbeat_seconds = seconds(&definition.heartbeat_seconds, "HeartbeatSeconds")?;

        let (event_type, details) = history::task_scheduled(
            definition,
            &arguments,
            self.region(),
            timeout_seconds,
            heartbeat_seconds,
        );
        self.advance(thread, event_type, details);
        self.effects.push(Effect::Schedule(Task {
            task,
            resource: definition.resource.clone(),
            arguments: arguments.value.clone(),
            token: thread.token.clone(),
        }));
        self.tasks.insert(task, thread.id);
        let timeout = timeout_seconds.map(|seconds| {
            self.set_timer(Timer::TaskTimeout(thread.id), SignedDuration::from_secs(seconds.into()))
        });
        thread.activity = Activity::Task(RunningTask {
            task,
            timeout,
            heartbeat: None,
            heartbeat_seconds,
            started: false,
            submitted: false,
        });
        self.set_heartbeat_timer(thread);
        Ok(Then::Park)
    }

    fn token(&mut self) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        self.random.fill_bytes(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The execution's region, which its ARN names.
    fn region(&self) -> &str {
        self.start.execution_arn.split(':').nth(3).unwrap_or_default()
    }

    pub(super) fn set_heartbeat_timer(&mut self, thread: &mut Thread) {
        let timer = Timer::TaskHeartbeat(thread.id);
        let Activity::Task(running) = &mut thread.activity else { return };
        let Some(seconds) = running.heartbeat_seconds else { return };
        self.clear_timer(running.heartbeat.take());
        running.heartbeat = Some(self.set_timer(timer, SignedDuration::from_secs(seconds.into())));
    }

    pub(super) fn task_started(
        &mut self,
        thread: &mut Thread,
        definition: &definition::Task,
    ) -> Progress {
        if let Activity::Task(running) = &mut thread.activity
            && !std::mem::replace(&mut running.started, true)
        {
            let (event_type, details) = history::task_started(definition);
            self.advance(thread, event_type, details);
        }
        Ok(Then::Park)
    }

    pub(super) fn task_submitted(
        &mut self,
        thread: &mut Thread,
        definition: &definition::Task,
        output: Value,
    ) -> Progress {
        if let Activity::Task(running) = &mut thread.activity
            && definition.waits_for_token
            && !std::mem::replace(&mut running.submitted, true)
        {
            let details = history::task_submitted(definition, &Payload::new(output));
            self.advance(thread, "TaskSubmitted", details);
        }
        Ok(Then::Park)
    }

    pub(super) fn task_succeeded(
        &mut self,
        thread: &mut Thread,
        state: &State,
        definition: &definition::Task,
        output: Value,
    ) -> Progress {
        let output = Payload::new(output);
        if output.is_too_large() {
            let name = match &definition.resource {
                Resource::LambdaFunction(arn) => arn,
                Resource::LambdaInvoke | Resource::PutEvents => &state.name,
            };
            let Failure { error, cause, .. } = data_limit_exceeded(name);
            let (error, cause) = (error.unwrap_or_default(), cause.unwrap_or_default());
            return self.task_failed(thread, definition, error, cause);
        }
        self.close_task(thread);
        let (event_type, details) = history::task_succeeded(definition, &output);
        self.advance(thread, event_type, details);
        thread.decision_event = thread.last_event;
        self.leave(thread, state, Given::Result(&output.value), definition.transition)
    }

    pub(super) fn task_failed(
        &mut self,
        thread: &mut Thread,
        definition: &definition::Task,
        error: String,
        cause: String,
    ) -> Progress {
        self.close_task(thread);
        let (error, cause) = (Some(error), Some(cause));
        let (event_type, details) = history::task_failed(definition, &error, &cause);
        self.advance(thread, event_type, details);
        thread.decision_event = thread.last_event;
        Err(Failure { error, cause, missed_heartbeat: false })
    }

    pub(super) fn task_timed_out(
        &mut self,
        thread: &mut Thread,
        definition: &definition::Task,
        missed_heartbeat: bool,
    ) -> Progress {
        if let Some(task) = self.close_task(thread) {
            self.effects.push(Effect::Cancel { task });
        }
        let error = Some(error_name::TIMEOUT.to_owned());
        let (event_type, details) = history::task_timed_out(definition, &error);
        self.advance(thread, event_type, details);
        thread.decision_event = thread.last_event;
        Err(Failure { error, cause: None, missed_heartbeat })
    }

    /// From here on the task's outcome is late.
    pub(super) fn close_task(&mut self, thread: &mut Thread) -> Option<TaskId> {
        let Activity::Task(running) = std::mem::take(&mut thread.activity) else { return None };
        self.tasks.remove(&running.task);
        self.clear_timer(running.timeout);
        self.clear_timer(running.heartbeat);
        thread.token = None;
        Some(running.task)
    }
}
