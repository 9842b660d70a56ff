//! The interpreter.
//!
//! Each workflow that runs (the top level, a branch, an iteration) is a [`Thread`], which is in
//! one state at a time. Whatever can go on without waiting goes on within one step, one piece
//! of work after the other in a queue, so that threads advance side by side.
//!
//! Events name the event that led to them. What AWS records there is not always the event before:
//! comments say where it is not.

mod children;
mod data;
mod handlers;
mod history;
mod redrive;
mod tasks;
mod thread;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::data::Given;
use self::history::{Details, History};
use self::thread::{Activity, Thread, ThreadId};
use crate::definition::{
    self, Condition, DataFlow, Definition, Moment, State, StateId, StateKind, Transition,
    WaitUntil, WorkflowId,
};
use crate::error_name;
use crate::execution::{Effect, Input, Outcome, Start, TaskId, TimerId};
use crate::payload::Payload;
use crate::timestamp;

/// One execution of a state machine.
///
/// It is driven by [`Execution::step`] alone.
pub struct Execution {
    definition: Arc<Definition>,
    start: Start,
    input: Arc<Payload>,
    started_at: Timestamp,
    phase: Phase,
    threads: BTreeMap<ThreadId, Thread>,
    /// Where it stood when it ended without success.
    stopped: BTreeMap<ThreadId, Thread>,
    redrive_count: u32,
    redriven_at: Option<Timestamp>,
    tasks: BTreeMap<TaskId, ThreadId>,
    timers: BTreeMap<TimerId, Timer>,
    /// The threads that can go on without waiting.
    queue: VecDeque<ThreadId>,
    ids: u64,
    history: History,
    random: StdRng,
    now: Timestamp,
    effects: Vec<Effect>,
}

#[derive(Debug, PartialEq)]
enum Phase {
    New,
    Running,
    Finished(Outcome),
}

/// What a timer is for.
#[derive(Debug, Clone, Copy)]
enum Timer {
    /// The `TimeoutSeconds` of the definition.
    Execution,
    TaskTimeout(ThreadId),
    TaskHeartbeat(ThreadId),
    /// A Wait state.
    Wait(ThreadId),
    /// The delay before a retry.
    Backoff(ThreadId),
}

/// How a thread goes on.
enum Then {
    /// It waits for something outside or for its children.
    Park,
    /// It enters a state.
    Goto(StateId, Arc<Payload>),
    /// Its workflow is over.
    End(Arc<Payload>),
}

/// An error on its way to a handler.
#[derive(Debug)]
struct Failure {
    error: Option<String>,
    cause: Option<String>,
    missed_heartbeat: bool,
}

impl Failure {
    fn new(error: &str, cause: String) -> Self {
        Self { error: Some(error.to_owned()), cause: Some(cause), missed_heartbeat: false }
    }

    fn matches(&self, patterns: &[String]) -> bool {
        let name = self.error.as_deref().unwrap_or_default();
        patterns.iter().any(|pattern| error_name::matches(pattern, name, self.missed_heartbeat))
    }

    /// `$states.errorOutput`. AWS binds an empty string where there is nothing.
    fn output(&self) -> Value {
        json!({
            "Error": self.error.as_deref().unwrap_or_default(),
            "Cause": self.cause.as_deref().unwrap_or_default(),
        })
    }
}

type Progress = Result<Then, Failure>;

/// Where a thread is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentState {
    /// The name of the state.
    pub name: String,
    /// When it was entered.
    pub entered_at: Timestamp,
    /// The states around it, outermost first, each with the index of the branch or iteration.
    pub path: Vec<(String, usize)>,
    /// The task that it waits for.
    pub task: Option<TaskId>,
}

impl Execution {
    /// An execution that has not begun: the first input to give it is [`Input::Start`].
    pub fn new(definition: Arc<Definition>, mut start: Start) -> Self {
        // The ARN is in the seed so that no two executions share a task token.
        let mut hash = Sha256::new();
        hash.update(start.seed.to_be_bytes());
        hash.update(start.execution_arn.as_bytes());
        let random = StdRng::from_seed(hash.finalize().into());
        let input = Payload::new(start.input.take());
        Self {
            definition,
            start,
            input,
            started_at: Timestamp::UNIX_EPOCH,
            phase: Phase::New,
            threads: BTreeMap::new(),
            stopped: BTreeMap::new(),
            redrive_count: 0,
            redriven_at: None,
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            queue: VecDeque::new(),
            ids: 0,
            history: History::default(),
            random,
            now: Timestamp::UNIX_EPOCH,
            effects: Vec::new(),
        }
    }

    /// Tells the execution what happened. An input that comes too late (its task is closed, its
    /// timer cleared, the execution over) changes nothing.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        self.now = now;
        match (&self.phase, input) {
            (Phase::New, Input::Start) => self.begin(),
            (Phase::Running, input) => self.receive(input),
            (Phase::Finished(_), Input::Redrive) if self.is_redrivable() => self.redrive(),
            (Phase::New | Phase::Finished(_), _) => {}
        }
        while let Some(id) = self.queue.pop_front() {
            // The thread is gone where a sibling failed first.
            if let Some(mut thread) = self.threads.remove(&id) {
                let progress = match thread.activity {
                    Activity::Between => self.enter(&mut thread),
                    _ => self.run(&mut thread),
                };
                self.settle(thread, progress);
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether it has begun and not ended.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// How it ended, where it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Finished(outcome) => Some(outcome),
            Phase::New | Phase::Running => None,
        }
    }

    /// Whether the outcome of a task is still wanted.
    pub fn is_open(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// The tasks whose outcome is still wanted.
    pub fn open_tasks(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.keys().copied()
    }

    /// The definition that it runs.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The states that it is in, outer ones before those inside them.
    pub fn current_states(&self) -> Vec<CurrentState> {
        self.threads
            .values()
            .map(|thread| CurrentState {
                name: self.definition.state(thread.state).name.clone(),
                entered_at: thread.entered_at,
                path: self.path(thread),
                task: match &thread.activity {
                    Activity::Task(running) => Some(running.task),
                    _ => None,
                },
            })
            .collect()
    }

    fn path(&self, thread: &Thread) -> Vec<(String, usize)> {
        let mut path = Vec::new();
        let mut next = thread.parent;
        while let Some((parent, index)) = next {
            let Some(parent) = self.threads.get(&parent) else { break };
            path.push((self.definition.state(parent.state).name.clone(), index));
            next = parent.parent;
        }
        path.reverse();
        path
    }

    fn begin(&mut self) {
        self.phase = Phase::Running;
        self.started_at = self.now;
        let details = history::execution_started(&self.input, &self.start.role_arn);
        self.record(0, "ExecutionStarted", details);
        self.set_execution_timer();
        let definition = Arc::clone(&self.definition);
        let input = Arc::clone(&self.input);
        self.spawn(&definition, definition.top(), input, Thread::top);
    }

    fn receive(&mut self, input: Input) {
        match input {
            Input::Start | Input::Redrive => {}
            Input::TaskStarted { task } => {
                self.with_task(task, |execution, thread, _, definition| {
                    execution.task_started(thread, definition)
                });
            }
            Input::TaskSubmitted { task, output } => {
                self.with_task(task, |execution, thread, _, definition| {
                    execution.task_submitted(thread, definition, output)
                });
            }
            Input::TaskSucceeded { task, output } => {
                self.with_task(task, |execution, thread, state, definition| {
                    execution.task_succeeded(thread, state, definition, output)
                });
            }
            Input::TaskFailed { task, error, cause } => {
                self.with_task(task, |execution, thread, _, definition| {
                    execution.task_failed(thread, definition, error, cause)
                });
            }
            Input::TaskHeartbeat { task } => {
                self.with_task(task, |execution, thread, _, _| {
                    execution.set_heartbeat_timer(thread);
                    Ok(Then::Park)
                });
            }
            Input::TimerFired { timer } => self.timer_fired(timer),
            Input::Stop { error, cause } => {
                // Nothing in the history led to it.
                let details = history::error("executionAbortedEventDetails", &error, &cause);
                self.finish(0, "ExecutionAborted", details, Outcome::Aborted { error, cause });
            }
        }
    }

    /// Does something to the thread that waits for an open task.
    fn with_task(
        &mut self,
        task: TaskId,
        act: impl FnOnce(&mut Self, &mut Thread, &State, &definition::Task) -> Progress,
    ) {
        let Some(id) = self.tasks.get(&task) else { return };
        let Some(mut thread) = self.threads.remove(id) else { return };
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        let progress = match &state.kind {
            StateKind::Task(task) => act(self, &mut thread, state, task),
            _ => Ok(Then::Park),
        };
        self.settle(thread, progress);
    }

    fn timer_fired(&mut self, id: TimerId) {
        let Some(timer) = self.timers.remove(&id) else { return };
        let thread_id = match timer {
            Timer::Execution => {
                let details = history::execution_timed_out();
                let previous = self.threads.values().next().map_or(0, |top| top.last_event);
                self.finish(previous, "ExecutionTimedOut", details, Outcome::TimedOut);
                return;
            }
            Timer::TaskTimeout(thread)
            | Timer::TaskHeartbeat(thread)
            | Timer::Wait(thread)
            | Timer::Backoff(thread) => thread,
        };
        let Some(mut thread) = self.threads.remove(&thread_id) else { return };
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        let progress = match (timer, &state.kind) {
            (Timer::TaskTimeout(_), StateKind::Task(task)) => {
                self.task_timed_out(&mut thread, task, false)
            }
            (Timer::TaskHeartbeat(_), StateKind::Task(task)) => {
                self.task_timed_out(&mut thread, task, true)
            }
            (Timer::Wait(_), StateKind::Wait { transition, .. }) => {
                thread.decision_event = thread.last_event;
                self.leave(&mut thread, state, Given::Input, *transition)
            }
            (Timer::Backoff(_), _) => {
                thread.decision_event = thread.last_event;
                self.run(&mut thread)
            }
            _ => Ok(Then::Park),
        };
        self.settle(thread, progress);
    }

    /// Lets a thread go on as its progress says, through handlers and parents.
    fn settle(&mut self, mut thread: Thread, mut progress: Progress) {
        loop {
            if self.phase != Phase::Running {
                return;
            }
            if self.history.is_full() {
                let failure = Failure::new(error_name::RUNTIME, history::FULL_CAUSE.to_owned());
                self.fail(thread.last_event, failure);
                return;
            }
            progress = match progress {
                Ok(Then::Park) => {
                    self.threads.insert(thread.id, thread);
                    return;
                }
                Ok(Then::Goto(state, input)) => {
                    thread.state = state;
                    thread.input = input;
                    thread.activity = Activity::Between;
                    self.queue.push_back(thread.id);
                    Ok(Then::Park)
                }
                Ok(Then::End(output)) => {
                    let Some((mut parent, index)) = self.take_parent(&thread) else {
                        self.succeed(thread.last_event, &output);
                        return;
                    };
                    let progress = self.child_ended(&mut parent, index, &thread, output);
                    thread = parent;
                    progress
                }
                Err(failure) => match self.handle(&mut thread, failure) {
                    Ok(then) => Ok(then),
                    Err(failure) => {
                        let Some((mut parent, index)) = self.take_parent(&thread) else {
                            let last_event = thread.last_event;
                            self.threads.insert(thread.id, thread);
                            self.fail(last_event, failure);
                            return;
                        };
                        self.child_failed(&mut parent, index, thread);
                        thread = parent;
                        Err(failure)
                    }
                },
            };
        }
    }

    fn take_parent(&mut self, thread: &Thread) -> Option<(Thread, usize)> {
        let (parent, index) = thread.parent?;
        self.threads.remove(&parent).map(|parent| (parent, index))
    }

    fn succeed(&mut self, previous: u64, output: &Payload) {
        let outcome = Outcome::Succeeded { output: output.value.clone() };
        let details = history::execution_succeeded(output);
        self.finish(previous, "ExecutionSucceeded", details, outcome);
    }

    fn fail(&mut self, previous: u64, failure: Failure) {
        let Failure { error, cause, .. } = failure;
        let details = history::error("executionFailedEventDetails", &error, &cause);
        self.finish(previous, "ExecutionFailed", details, Outcome::Failed { error, cause });
    }

    fn finish(
        &mut self,
        previous: u64,
        event_type: &'static str,
        details: Option<Details>,
        outcome: Outcome,
    ) {
        for task in std::mem::take(&mut self.tasks).into_keys() {
            self.effects.push(Effect::Cancel { task });
        }
        for timer in std::mem::take(&mut self.timers).into_keys() {
            self.effects.push(Effect::ClearTimer { timer });
        }
        // None are left where it succeeded.
        self.stopped = std::mem::take(&mut self.threads);
        self.queue.clear();
        let event = self.history.last(previous, self.now, event_type, details);
        self.effects.push(Effect::Record(event));
        self.effects.push(Effect::Finish(outcome.clone()));
        self.phase = Phase::Finished(outcome);
    }

    // Recording.

    /// Records an event that does not advance any thread.
    fn record(&mut self, previous: u64, event_type: &'static str, details: Option<Details>) -> u64 {
        let (id, event) = self.history.next(previous, self.now, event_type, details);
        self.effects.extend(event.map(Effect::Record));
        id
    }

    /// Records an event that follows from a thread's last one.
    fn advance(&mut self, thread: &mut Thread, event_type: &'static str, details: Option<Details>) {
        thread.last_event = self.record(thread.last_event, event_type, details);
    }

    // Threads.

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn spawn(
        &mut self,
        definition: &Definition,
        workflow: WorkflowId,
        input: Arc<Payload>,
        make: impl FnOnce(ThreadId, StateId, Arc<Payload>) -> Thread,
    ) -> ThreadId {
        let id = ThreadId(self.next_id());
        let start_at = definition.workflow(workflow).start_at;
        self.threads.insert(id, make(id, start_at, input));
        self.queue.push_back(id);
        id
    }

    fn enter(&mut self, thread: &mut Thread) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        thread.decision_event = thread.last_event;
        let details = history::state_entered(&state.name, &thread.input);
        self.advance(thread, history::entered_type(&state.kind), details);
        let retriers = state.kind.handlers().map_or(0, |handlers| handlers.retry.len());
        thread.enter(self.now, retriers);
        self.queue.push_back(thread.id);
        Ok(Then::Park)
    }

    fn run(&mut self, thread: &mut Thread) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        match &state.kind {
            StateKind::Pass { result, transition } => match &state.data {
                DataFlow::Jsonata(_) => self.leave(thread, state, Given::Input, *transition),
                DataFlow::JsonPath(paths) => {
                    let input = Arc::clone(&thread.input);
                    let result = match (result, &paths.parameters) {
                        (Some(result), _) => result.clone(),
                        (None, Some(parameters)) => {
                            self.path_template(thread, state, parameters, &input.value)?
                        }
                        (None, None) => input.value.clone(),
                    };
                    self.leave(thread, state, Given::Result(&result), *transition)
                }
            },
            StateKind::Task(task) => self.schedule(thread, state, task),
            StateKind::Choice(choice) => self.choose(thread, state, choice),
            StateKind::Wait { until, transition } => self.wait(thread, state, until, *transition),
            StateKind::Succeed => self.leave(thread, state, Given::Input, Transition::End),
            StateKind::Fail { error, cause } => {
                let error = self.text(thread, state, error.as_ref(), "Error")?;
                let cause = self.text(thread, state, cause.as_ref(), "Cause")?;
                Err(Failure { error, cause, missed_heartbeat: false })
            }
            StateKind::Parallel(parallel) => self.fork(thread, state, parallel, &definition),
            StateKind::Map(map) => self.iterate(thread, state, map, &definition),
        }
    }

    fn choose(
        &mut self,
        thread: &mut Thread,
        state: &State,
        choice: &definition::Choice,
    ) -> Progress {
        for (index, rule) in choice.rules.iter().enumerate() {
            let holds = match &rule.condition {
                Condition::Literal(literal) => *literal,
                Condition::Expression(expression) => {
                    let field = format!("Choices[{index}]/Condition");
                    self.expression(thread, state, expression, &field, "boolean", Value::as_bool)?
                }
            };
            if holds {
                let prefix = format!("Choices[{index}]/");
                let transition = Transition::Next(rule.next);
                return self.produce(
                    thread,
                    state,
                    &rule.produce,
                    &prefix,
                    Given::Input,
                    transition,
                );
            }
        }
        match choice.default {
            Some(next) => self.leave(thread, state, Given::Input, Transition::Next(next)),
            None => {
                let message = "Failed to transition out of the state. The state does not point to \
                               a next state.";
                Err(Failure::new(error_name::NO_CHOICE_MATCHED, thread.cause(state, message)))
            }
        }
    }

    fn wait(
        &mut self,
        thread: &mut Thread,
        state: &State,
        until: &WaitUntil,
        transition: Transition,
    ) -> Progress {
        let delay = match until {
            WaitUntil::Seconds(seconds) => {
                let seconds = self.quantity(thread, state, seconds, "Seconds", 0)?;
                SignedDuration::from_secs(seconds.into())
            }
            WaitUntil::Timestamp(moment) => {
                let at = match moment {
                    Moment::Literal(at) => *at,
                    Moment::Expression(expression) => {
                        let text = |value: &Value| value.as_str().map(str::to_owned);
                        let text = self.expression(
                            thread,
                            state,
                            expression,
                            "Timestamp",
                            "string",
                            text,
                        )?;
                        timestamp::parse(&text).ok_or_else(|| {
                            let message = format!(
                                "The Timestamp parameter does not reference a valid ISO-8601 \
                                 extended offset date-time format string: {} == {text}",
                                expression.source()
                            );
                            self.query_failed(thread, state, &message, Some("Timestamp"))
                        })?
                    }
                };
                at.duration_since(self.now)
            }
        };
        if delay.is_positive() {
            thread.activity = Activity::Wait(self.set_timer(Timer::Wait(thread.id), delay));
            return Ok(Then::Park);
        }
        self.leave(thread, state, Given::Input, transition)
    }

    // Timers.

    /// The definition's own time-out.
    fn set_execution_timer(&mut self) {
        if let Some(seconds) = self.definition.timeout_seconds() {
            self.set_timer(Timer::Execution, SignedDuration::from_secs(seconds.into()));
        }
    }

    fn set_timer(&mut self, purpose: Timer, after: SignedDuration) -> TimerId {
        let timer = TimerId(self.next_id());
        let at = self.now.checked_add(after).unwrap_or(Timestamp::MAX);
        self.timers.insert(timer, purpose);
        self.effects.push(Effect::SetTimer { timer, at });
        timer
    }

    fn clear_timer(&mut self, timer: Option<TimerId>) {
        if let Some(timer) = timer
            && self.timers.remove(&timer).is_some()
        {
            self.effects.push(Effect::ClearTimer { timer });
        }
    }
}
