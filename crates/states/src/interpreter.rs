//! The interpreter.
//!
//! Each workflow that runs (the top level, a branch, an iteration) is a [`Thread`], which is in
//! one state at a time. Whatever can go on without waiting goes on within one step, one piece
//! of work after the other in a queue, so that threads advance side by side.
//!
//! Events name the event that led to them. What AWS records there is not always the event before:
//! comments say where it is not.

mod data;
mod history;
mod thread;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::data::Given;
use self::history::{Details, History};
use self::thread::{Activity, Children, RunningTask, Thread, ThreadId, data_limit_exceeded};
use crate::definition::{
    self, Catcher, Condition, DataFlow, Definition, Moment, Quantity, Retrier, State, StateId,
    StateKind, Transition, WaitUntil, WorkflowId,
};
use crate::error_name;
use crate::execution::{Effect, Input, Outcome, Resource, Start, Task, TaskId, TimerId};
use crate::payload::Payload;

/// Bytes of randomness in a task token; 680 characters of base64, AWS's have about 700.
const TOKEN_BYTES: usize = 510;
/// A retry's delay is computed as a float; this bounds it before it becomes a duration.
const DELAY_SECONDS_MAX: f64 = 31_622_400.0;

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
    tasks: BTreeMap<TaskId, ThreadId>,
    timers: BTreeMap<TimerId, Timer>,
    queue: VecDeque<(ThreadId, Work)>,
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

/// A thread's next piece of work.
#[derive(Debug)]
enum Work {
    Enter(StateId, Arc<Payload>),
    /// Do what the state does.
    Run,
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
            (Phase::New | Phase::Finished(_), _) => {}
        }
        while let Some((id, work)) = self.queue.pop_front() {
            // The thread is gone where a sibling failed first.
            if let Some(mut thread) = self.threads.remove(&id) {
                let progress = match work {
                    Work::Enter(state, input) => self.enter(&mut thread, state, input),
                    Work::Run => self.run(&mut thread),
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
        if let Some(seconds) = self.definition.timeout_seconds() {
            self.set_timer(Timer::Execution, SignedDuration::from_secs(seconds.into()));
        }
        let definition = Arc::clone(&self.definition);
        let input = Arc::clone(&self.input);
        self.spawn(&definition, definition.top(), input, Thread::top);
    }

    fn receive(&mut self, input: Input) {
        match input {
            Input::Start => {}
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
                    thread.activity = Activity::Between;
                    self.queue.push_back((thread.id, Work::Enter(state, input)));
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
                            self.fail(thread.last_event, failure);
                            return;
                        };
                        self.child_failed(&mut parent, index, &thread);
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
        self.threads.clear();
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
        self.threads.insert(id, make(id, start_at, Arc::clone(&input)));
        self.queue.push_back((id, Work::Enter(start_at, input)));
        id
    }

    fn enter(&mut self, thread: &mut Thread, state_id: StateId, input: Arc<Payload>) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(state_id);
        thread.decision_event = thread.last_event;
        let details = history::state_entered(&state.name, &input);
        self.advance(thread, history::entered_type(&state.kind), details);
        let retriers = state.kind.handlers().map_or(0, |handlers| handlers.retry.len());
        thread.enter(state_id, input, self.now, retriers);
        self.queue.push_back((thread.id, Work::Run));
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
                        let at = |value: &Value| value.as_str()?.parse().ok();
                        self.expression(thread, state, expression, "Timestamp", "timestamp", at)?
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

    // Tasks.

    fn schedule(
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

    fn set_heartbeat_timer(&mut self, thread: &mut Thread) {
        let timer = Timer::TaskHeartbeat(thread.id);
        let Activity::Task(running) = &mut thread.activity else { return };
        let Some(seconds) = running.heartbeat_seconds else { return };
        self.clear_timer(running.heartbeat.take());
        running.heartbeat = Some(self.set_timer(timer, SignedDuration::from_secs(seconds.into())));
    }

    fn task_started(&mut self, thread: &mut Thread, definition: &definition::Task) -> Progress {
        if let Activity::Task(running) = &mut thread.activity
            && !std::mem::replace(&mut running.started, true)
        {
            let (event_type, details) = history::task_started(definition);
            self.advance(thread, event_type, details);
        }
        Ok(Then::Park)
    }

    fn task_submitted(
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

    fn task_succeeded(
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

    fn task_failed(
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

    fn task_timed_out(
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
    fn close_task(&mut self, thread: &mut Thread) -> Option<TaskId> {
        let Activity::Task(running) = std::mem::take(&mut thread.activity) else { return None };
        self.tasks.remove(&running.task);
        self.clear_timer(running.timeout);
        self.clear_timer(running.heartbeat);
        thread.token = None;
        Some(running.task)
    }

    // Branches and iterations.

    fn fork(
        &mut self,
        thread: &mut Thread,
        state: &State,
        parallel: &definition::Parallel,
        definition: &Definition,
    ) -> Progress {
        let input =
            self.template_or_input(thread, state, parallel.arguments.as_ref(), "Arguments")?;
        self.advance(thread, "ParallelStateStarted", None);
        let mut children = Children::new(parallel.branches.len());
        for (index, branch) in parallel.branches.iter().enumerate() {
            let child =
                self.spawn(definition, *branch, Arc::clone(&input), |id, start_at, input| {
                    thread.child(id, start_at, index, input, thread.last_event)
                });
            children.running.insert(index, child);
        }
        thread.activity = Activity::Children(children);
        Ok(Then::Park)
    }

    fn iterate(
        &mut self,
        thread: &mut Thread,
        state: &State,
        map: &definition::Map,
        definition: &Definition,
    ) -> Progress {
        let items = self.items(thread, state, map)?;
        let limit = match &map.max_concurrency {
            Some(quantity) => self.quantity(thread, state, quantity, "MaxConcurrency", 0)?,
            None => 0,
        };
        for (field, quantity) in &map.tolerated_failure {
            self.quantity(thread, state, quantity, field, 0)?;
        }
        self.advance(thread, "MapStateStarted", history::map_started(items.len()));
        let mut children = Children::new(items.len());
        children.waiting = items.into_iter();
        thread.activity = Activity::Children(children);
        let limit = if limit == 0 { usize::MAX } else { limit.try_into().unwrap_or(usize::MAX) };
        for _ in 0..limit {
            let previous = thread.last_event;
            if !self.start_iteration(thread, state, map, definition, previous)? {
                break;
            }
        }
        self.finish_children(thread, state)
    }

    /// Starts the next iteration, unless there is none.
    fn start_iteration(
        &mut self,
        thread: &mut Thread,
        state: &State,
        map: &definition::Map,
        definition: &Definition,
        previous: u64,
    ) -> Result<bool, Failure> {
        let Activity::Children(children) = &mut thread.activity else { return Ok(false) };
        let Some(item) = children.waiting.next() else { return Ok(false) };
        let index = children.results.len() - children.waiting.len() - 1;

        let outer_item = thread.map_item.take();
        thread.map_item = Some(Arc::new(json!({ "Index": index, "Value": item.clone() })));
        let input = match &map.item_selector {
            Some(selector) => self.template(thread, state, selector, "ItemSelector", Given::Input),
            None => Ok(item),
        };
        let map_item = std::mem::replace(&mut thread.map_item, outer_item);
        let input = match input.map(Payload::new) {
            Ok(input) if input.is_too_large() => Err(data_limit_exceeded(&state.name)),
            input => input,
        };
        let input = match input {
            Ok(input) => input,
            Err(failure) => {
                self.abort_children(thread);
                return Err(failure);
            }
        };

        let details = history::iteration("mapIterationStartedEventDetails", &state.name, index);
        let started = self.record(previous, "MapIterationStarted", details);
        let child = self.spawn(definition, map.item_processor, input, |id, start_at, input| {
            let mut child = thread.child(id, start_at, index, input, started);
            child.map_item = map_item;
            child
        });
        if let Activity::Children(children) = &mut thread.activity {
            children.running.insert(index, child);
        }
        Ok(true)
    }

    fn child_ended(
        &mut self,
        thread: &mut Thread,
        index: usize,
        child: &Thread,
        output: Arc<Payload>,
    ) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        let Activity::Children(children) = &mut thread.activity else { return Ok(Then::Park) };
        children.running.remove(&index);
        children.results[index] = Some(output);

        thread.last_event = child.last_event;
        if let StateKind::Map(map) = &state.kind {
            let details =
                history::iteration("mapIterationSucceededEventDetails", &state.name, index);
            self.advance(thread, "MapIterationSucceeded", details);
            // The next iteration follows from the end of the one before, not from its success.
            thread.decision_event = child.last_event;
            self.start_iteration(thread, state, map, &definition, child.last_event)?;
        }
        thread.decision_event = thread.last_event;
        self.finish_children(thread, state)
    }

    /// Leaves a Parallel or Map state whose children are all done.
    fn finish_children(&mut self, thread: &mut Thread, state: &State) -> Progress {
        let Activity::Children(children) = &mut thread.activity else { return Ok(Then::Park) };
        if !children.running.is_empty() {
            return Ok(Then::Park);
        }
        let results = std::mem::take(&mut children.results);
        let result: Value =
            results.into_iter().flatten().map(|output| output.value.clone()).collect();
        thread.activity = Activity::Ready;
        let (event_type, transition) = match &state.kind {
            StateKind::Parallel(parallel) => ("ParallelStateSucceeded", parallel.transition),
            StateKind::Map(map) => ("MapStateSucceeded", map.transition),
            _ => return Ok(Then::Park),
        };
        // The exit follows from the last child, not from this event.
        self.record(thread.last_event, event_type, None);
        self.leave(thread, state, Given::Result(&result), transition)
    }

    fn child_failed(&mut self, thread: &mut Thread, index: usize, child: &Thread) {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        if let Activity::Children(children) = &mut thread.activity {
            children.running.remove(&index);
        }
        // What comes next follows from the end of the child, not from the iteration's failure.
        thread.last_event = child.last_event;
        thread.decision_event = child.last_event;
        if matches!(state.kind, StateKind::Map(_)) {
            let details = history::iteration("mapIterationFailedEventDetails", &state.name, index);
            self.record(child.last_event, "MapIterationFailed", details);
        }
        self.abort_children(thread);
    }

    /// Stops whatever runs below a thread.
    fn abort_children(&mut self, thread: &mut Thread) {
        let activity = std::mem::replace(&mut thread.activity, Activity::Ready);
        let Activity::Children(children) = activity else { return };
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        for (index, child) in children.running {
            let Some(mut child) = self.threads.remove(&child) else { continue };
            self.abort(&mut child);
            if matches!(state.kind, StateKind::Map(_)) {
                let details =
                    history::iteration("mapIterationAbortedEventDetails", &state.name, index);
                self.record(child.last_event, "MapIterationAborted", details);
            }
        }
    }

    fn abort(&mut self, thread: &mut Thread) {
        match &thread.activity {
            // Its last state was left, and no event tells of the next one.
            Activity::Between => return,
            Activity::Ready => {}
            Activity::Task(_) => {
                if let Some(task) = self.close_task(thread) {
                    self.effects.push(Effect::Cancel { task });
                }
            }
            Activity::Wait(timer) | Activity::Backoff(timer) => self.clear_timer(Some(*timer)),
            Activity::Children(_) => self.abort_children(thread),
        }
        let kind = &self.definition.state(thread.state).kind;
        if let Some(event_type) = history::aborted_type(kind) {
            self.advance(thread, event_type, None);
        }
    }

    // Errors.

    /// Finds a handler: a retrier first, then a catcher.
    fn handle(&mut self, thread: &mut Thread, failure: Failure) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        let Some(handlers) = state.kind.handlers() else { return Err(failure) };
        let retrier = handlers
            .retry
            .iter()
            .zip(&mut thread.attempts)
            .find(|(retrier, _)| failure.matches(&retrier.error_equals));
        if let Some((retrier, attempts)) = retrier
            && *attempts < retrier.max_attempts
        {
            *attempts += 1;
            let delay = self.delay(retrier, *attempts);
            thread.retry_count += 1;
            thread.activity = Activity::Backoff(self.set_timer(Timer::Backoff(thread.id), delay));
            return Ok(Then::Park);
        }
        if let Some(event_type) = history::failed_type(&state.kind) {
            self.advance(thread, event_type, None);
        }
        let catcher = handlers
            .catch
            .iter()
            .enumerate()
            .find(|(_, catcher)| failure.matches(&catcher.error_equals));
        match catcher {
            Some((index, catcher)) => self.catch(thread, state, index, catcher, &failure),
            None => Err(failure),
        }
    }

    /// The delay before a retry, `attempt` counting from 1.
    fn delay(&mut self, retrier: &Retrier, attempt: u32) -> SignedDuration {
        let growth = retrier.backoff_rate.powf(f64::from(attempt - 1));
        let max = retrier.max_delay_seconds.map_or(DELAY_SECONDS_MAX, f64::from);
        let mut seconds = (f64::from(retrier.interval_seconds) * growth).min(max);
        if retrier.full_jitter {
            seconds = self.random.random_range(0.0..=seconds);
        }
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
    }

    fn catch(
        &mut self,
        thread: &mut Thread,
        state: &State,
        index: usize,
        catcher: &Catcher,
        failure: &Failure,
    ) -> Progress {
        let error_output = failure.output();
        let prefix = format!("Catch[{index}]/");
        let transition = Transition::Next(catcher.next);
        self.produce(
            thread,
            state,
            &catcher.produce,
            &prefix,
            Given::Error(&error_output),
            transition,
        )
    }

    // Timers.

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
