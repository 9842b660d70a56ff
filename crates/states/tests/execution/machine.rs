//! Drives an execution: keeps its time, its timers and its open tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use archweld_states::{
    Definition, Effect, Execution, HistoryEvent, Input, Outcome, Start, Task, TaskId, TimerId,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

pub(crate) const EXECUTION_ARN: &str =
    "arn:aws:states:eu-west-1:111111111111:execution:machine:name";

pub(crate) fn start(input: Value) -> Start {
    Start {
        execution_arn: EXECUTION_ARN.to_owned(),
        execution_name: "name".to_owned(),
        role_arn: "arn:aws:iam::111111111111:role/machine".to_owned(),
        state_machine_arn: "arn:aws:states:eu-west-1:111111111111:stateMachine:machine".to_owned(),
        state_machine_name: "machine".to_owned(),
        input,
        seed: 7,
    }
}

pub(crate) fn parse(definition: &Value) -> Arc<Definition> {
    match Definition::parse(&definition.to_string()) {
        Ok(definition) => Arc::new(definition),
        Err(errors) => panic!("{errors}"),
    }
}

pub(crate) struct Machine {
    pub(crate) execution: Execution,
    pub(crate) now: Timestamp,
    pub(crate) events: Vec<HistoryEvent>,
    /// Scheduled and neither answered nor cancelled.
    pub(crate) tasks: Vec<Task>,
    pub(crate) cancelled: Vec<TaskId>,
    pub(crate) timers: BTreeMap<TimerId, Timestamp>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) effects: Vec<Effect>,
}

impl Machine {
    /// Begins an execution.
    pub(crate) fn start(definition: Value, input: Value) -> Self {
        Self::with(parse(&definition), start(input))
    }

    pub(crate) fn with(definition: Arc<Definition>, start: Start) -> Self {
        let mut machine = Self {
            execution: Execution::new(definition, start),
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
            events: Vec::new(),
            tasks: Vec::new(),
            cancelled: Vec::new(),
            timers: BTreeMap::new(),
            outcome: None,
            effects: Vec::new(),
        };
        machine.step(Input::Start);
        machine
    }

    pub(crate) fn step(&mut self, input: Input) -> usize {
        let effects = self.execution.step(input, self.now);
        let count = effects.len();
        self.effects.extend(effects.iter().cloned());
        for effect in effects {
            assert_eq!(self.outcome, None, "an effect after the last one: {effect:?}");
            match effect {
                Effect::Record(event) => self.events.push(event),
                Effect::Schedule(task) => self.tasks.push(task),
                Effect::Cancel { task } => {
                    self.tasks.retain(|open| open.task != task);
                    self.cancelled.push(task);
                }
                Effect::SetTimer { timer, at } => {
                    assert_eq!(self.timers.insert(timer, at), None, "{timer:?} is set twice");
                }
                Effect::ClearTimer { timer } => {
                    assert!(self.timers.remove(&timer).is_some(), "{timer:?} is not set");
                }
                Effect::Finish(outcome) => self.outcome = Some(outcome),
            }
        }
        count
    }

    /// The open task with these arguments at `pointer`.
    pub(crate) fn take(&mut self, pointer: &str, value: impl Into<Value>) -> Task {
        let value = value.into();
        let at = self.tasks.iter().position(|task| task.arguments.pointer(pointer) == Some(&value));
        self.tasks.remove(at.unwrap_or_else(|| panic!("no task has {value} at {pointer}")))
    }

    /// The only open task.
    pub(crate) fn only(&mut self) -> Task {
        assert_eq!(self.tasks.len(), 1, "{:?}", self.tasks);
        self.tasks.remove(0)
    }

    pub(crate) fn succeed(&mut self, task: TaskId, output: Value) -> usize {
        self.step(Input::TaskSucceeded { task, output })
    }

    pub(crate) fn fail(&mut self, task: TaskId, error: &str) -> usize {
        self.step(Input::TaskFailed { task, error: error.to_owned(), cause: "because".to_owned() })
    }

    /// Redrives the execution, which has ended.
    pub(crate) fn redrive(&mut self) {
        assert!(self.outcome.take().is_some() && self.execution.is_redrivable());
        self.step(Input::Redrive);
    }

    /// Lets the next timer run out; returns how long that takes.
    pub(crate) fn fire(&mut self) -> SignedDuration {
        let (timer, at) =
            self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at)).unwrap();
        self.timers.remove(&timer);
        let waited = at.duration_since(self.now);
        self.now = self.now.max(at);
        self.step(Input::TimerFired { timer });
        waited
    }

    /// `id < previous type`, one an event.
    pub(crate) fn history(&self) -> Vec<String> {
        self.events
            .iter()
            .map(|event| format!("{} < {} {}", event.previous_event_id, event.id, event.event_type))
            .collect()
    }

    pub(crate) fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.event_type).collect()
    }

    /// The details of the only event of a type.
    pub(crate) fn details(&self, event_type: &str) -> &Map<String, Value> {
        let mut found = self.events.iter().filter(|event| event.event_type == event_type);
        let event = found.next().unwrap_or_else(|| panic!("no {event_type}"));
        assert!(found.next().is_none(), "more than one {event_type}");
        &event.details.as_ref().unwrap().1
    }

    pub(crate) fn output(&self) -> &Value {
        match &self.outcome {
            Some(Outcome::Succeeded { output }) => output,
            other => panic!("not succeeded: {other:?}"),
        }
    }

    /// The error and the cause that it failed with.
    pub(crate) fn failure(&self) -> (&str, &str) {
        match &self.outcome {
            Some(Outcome::Failed { error, cause }) => {
                (error.as_deref().unwrap_or(""), cause.as_deref().unwrap_or(""))
            }
            other => panic!("not failed: {other:?}"),
        }
    }
}

pub(crate) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}
