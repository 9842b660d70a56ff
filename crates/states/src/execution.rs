//! The interpreter of one execution: inputs in, effects out.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// What an execution is told when it begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// The ARN of the execution.
    pub execution_arn: String,
    /// The name of the execution.
    pub execution_name: String,
    /// The ARN of the role that the execution runs under.
    pub role_arn: String,
    /// The ARN of the state machine.
    pub state_machine_arn: String,
    /// The name of the state machine.
    pub state_machine_name: String,
    /// The input.
    pub input: Value,
    /// What every random choice follows from: jitter, `$uuid`, `$random`, task tokens.
    pub seed: u64,
}

/// One attempt at one task, unique within its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// One timer, unique within its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub u64);

/// What happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The execution begins. The first input, once.
    Start,
    /// A scheduled task was handed to its service.
    TaskStarted {
        /// The task.
        task: TaskId,
    },
    /// The service accepted a task that waits for its token.
    TaskSubmitted {
        /// The task.
        task: TaskId,
        /// The service's answer.
        output: Value,
    },
    /// A task succeeded: the service answered, or, where it waits for its token,
    /// `SendTaskSuccess` arrived.
    TaskSucceeded {
        /// The task.
        task: TaskId,
        /// The task's result.
        output: Value,
    },
    /// A task failed.
    TaskFailed {
        /// The task.
        task: TaskId,
        /// The name of the error.
        error: String,
        /// What was wrong, for people.
        cause: String,
    },
    /// `SendTaskHeartbeat` arrived.
    TaskHeartbeat {
        /// The task.
        task: TaskId,
    },
    /// A timer that was set has run out.
    TimerFired {
        /// The timer.
        timer: TimerId,
    },
    /// `StopExecution` was called.
    Stop {
        /// The name of the error, where one was given.
        error: Option<String>,
        /// The cause, where one was given.
        cause: Option<String>,
    },
    /// `RedriveExecution` was called: an execution that ended without success goes on.
    Redrive,
}

/// What the interpreter wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Append an event to the execution's history.
    Record(HistoryEvent),
    /// Run a task. The dispatcher answers with `TaskStarted`, then its outcome.
    Schedule(Task),
    /// A task's outcome is not wanted any more (time-out, stopped branch, stopped execution);
    /// whoever sends its token is told `TaskTimedOut`.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// Set a timer.
    SetTimer {
        /// The timer.
        timer: TimerId,
        /// When it runs out.
        at: Timestamp,
    },
    /// A timer is not wanted any more.
    ClearTimer {
        /// The timer.
        timer: TimerId,
    },
    /// The execution is over. The last effect, unless it is redriven.
    Finish(Outcome),
}

/// A task to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The attempt.
    pub task: TaskId,
    /// Where it runs.
    pub resource: Resource,
    /// Its arguments, evaluated.
    pub arguments: Value,
    /// The token it waits for, where it waits for one.
    pub token: Option<String>,
}

/// The integrations that are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// `arn:aws:states:::lambda:invoke`, with or without `.waitForTaskToken`.
    LambdaInvoke,
    /// A function's ARN as the resource itself: the arguments are the payload.
    LambdaFunction(String),
    /// `arn:aws:states:::events:putEvents`.
    PutEvents,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// `SUCCEEDED`
    Succeeded {
        /// The output.
        output: Value,
    },
    /// `FAILED`
    Failed {
        /// The name of the error.
        error: Option<String>,
        /// The cause.
        cause: Option<String>,
    },
    /// `TIMED_OUT`: the definition's own `TimeoutSeconds` ran out.
    TimedOut,
    /// `ABORTED`: it was stopped.
    Aborted {
        /// The name of the error.
        error: Option<String>,
        /// The cause.
        cause: Option<String>,
    },
}

/// An event of an execution's history, as `GetExecutionHistory` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEvent {
    /// Counts from 1.
    pub id: u64,
    /// The event that led to this one; 0 for none.
    pub previous_event_id: u64,
    /// When.
    pub timestamp: Timestamp,
    /// Such as `TaskStateEntered`.
    pub event_type: &'static str,
    /// The field that the details stand under, such as `stateEnteredEventDetails`, with the
    /// details as the API has them (`input` and `output` being JSON in a string).
    pub details: Option<(&'static str, Map<String, Value>)>,
}
