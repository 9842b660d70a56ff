//! State machine definitions, parsed once into types.
//!
//! What archweld does not run is refused when a definition is loaded, never met at run time.
//! All states stand in one list, whatever they are nested in; a [`StateId`] is an index into it
//! and a [`WorkflowId`] names a group of states that transitions connect.

mod error;
mod fields;
mod parse;

use serde_json::Value;

pub use error::{DefinitionError, DefinitionErrors, Problem};

use crate::execution::Resource;
use crate::expression::{Expression, Template};
use crate::reference_path::{PathTemplate, ReferencePath};

/// A state machine.
#[derive(Debug)]
pub struct Definition {
    timeout_seconds: Option<u32>,
    states: Vec<State>,
    workflows: Vec<Workflow>,
}

/// A state of one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(usize);

impl StateId {
    /// Where it stands in [`Definition::states`].
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// A workflow of one definition: the top level, a branch or an item processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkflowId(usize);

/// States that transitions connect.
#[derive(Debug)]
pub struct Workflow {
    /// Where it starts.
    pub start_at: StateId,
    /// Its states, in the order of the text.
    pub states: Vec<StateId>,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with the state and the field.
    pub fn parse(text: &str) -> Result<Self, DefinitionErrors> {
        parse::definition(text).map_err(DefinitionErrors::new)
    }

    /// The `TimeoutSeconds` of the whole execution.
    pub fn timeout_seconds(&self) -> Option<u32> {
        self.timeout_seconds
    }

    /// The outermost workflow.
    pub fn top(&self) -> WorkflowId {
        WorkflowId(0)
    }

    /// A workflow. The id has to be one of this definition.
    pub fn workflow(&self, id: WorkflowId) -> &Workflow {
        &self.workflows[id.0]
    }

    /// A state. The id has to be one of this definition.
    pub fn state(&self, id: StateId) -> &State {
        &self.states[id.0]
    }

    /// Every state, those inside branches and item processors included.
    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.states.iter()
    }

    /// The Task states with what they run.
    pub fn tasks(&self) -> impl Iterator<Item = (&State, &Task)> {
        self.states().filter_map(|state| match &state.kind {
            StateKind::Task(task) => Some((state, task)),
            _ => None,
        })
    }

    /// The names in every `ErrorEquals`, with their state.
    pub fn error_names(&self) -> impl Iterator<Item = (&State, &str)> {
        self.states().flat_map(|state| {
            let handlers = state.kind.handlers();
            let retried = handlers.into_iter().flat_map(|handlers| &handlers.retry);
            let caught = handlers.into_iter().flat_map(|handlers| &handlers.catch);
            retried
                .flat_map(|retrier| &retrier.error_equals)
                .chain(caught.flat_map(|catcher| &catcher.error_equals))
                .map(move |name| (state, name.as_str()))
        })
    }
}

/// A state.
#[derive(Debug)]
pub struct State {
    /// Its name, unique within the definition.
    pub name: String,
    /// How its data flows.
    pub data: DataFlow,
    /// What it is.
    pub kind: StateKind,
}

/// What comes after a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Another state of the same workflow.
    Next(StateId),
    /// The workflow is over.
    End,
}

/// How a state makes its output and its variables.
#[derive(Debug)]
pub enum DataFlow {
    /// The query language archweld is made for.
    Jsonata(Produce),
    /// As much of JSONPath as Pass and Task states need beside JSONata states.
    JsonPath(Paths),
}

/// `Output` and `Assign` in JSONata.
#[derive(Debug, Default)]
pub struct Produce {
    /// The output, where it is not the default.
    pub output: Option<Template>,
    /// Variables.
    pub assign: Vec<(String, Template)>,
}

/// The data flow fields of a JSONPath state.
#[derive(Debug)]
pub struct Paths {
    /// What a Task gets or a Pass gives.
    pub parameters: Option<PathTemplate>,
    /// Where the result goes in the input; `None` discards it.
    pub result_path: Option<ReferencePath>,
    /// What of that is the output; `None` gives `{}`.
    pub output_path: Option<ReferencePath>,
    /// Variables.
    pub assign: Vec<(String, PathTemplate)>,
}

/// The types of states.
#[derive(Debug)]
pub enum StateKind {
    /// Passes data on.
    Pass {
        /// `Result`, which only JSONPath has.
        result: Option<Value>,
        /// What comes next.
        transition: Transition,
    },
    /// Runs something outside.
    Task(Task),
    /// Chooses what comes next.
    Choice(Choice),
    /// Waits.
    Wait {
        /// For how long.
        until: WaitUntil,
        /// What comes next.
        transition: Transition,
    },
    /// Ends its workflow.
    Succeed,
    /// Ends its workflow with an error.
    Fail {
        /// The name of the error.
        error: Option<Template>,
        /// What is wrong, for people.
        cause: Option<Template>,
    },
    /// Runs several workflows at once.
    Parallel(Parallel),
    /// Runs a workflow for each element of an array.
    Map(Map),
}

impl StateKind {
    /// The type as the language and the history events name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass { .. } => "Pass",
            Self::Task(_) => "Task",
            Self::Choice(_) => "Choice",
            Self::Wait { .. } => "Wait",
            Self::Succeed => "Succeed",
            Self::Fail { .. } => "Fail",
            Self::Parallel(_) => "Parallel",
            Self::Map(_) => "Map",
        }
    }

    /// `Retry` and `Catch`, where the type has them.
    pub fn handlers(&self) -> Option<&Handlers> {
        match self {
            Self::Task(task) => Some(&task.handlers),
            Self::Parallel(parallel) => Some(&parallel.handlers),
            Self::Map(map) => Some(&map.handlers),
            _ => None,
        }
    }
}

/// A Task state.
#[derive(Debug)]
pub struct Task {
    /// What it runs.
    pub resource: Resource,
    /// Whether it waits for its token (`.waitForTaskToken`).
    pub waits_for_token: bool,
    /// What it is given; the state's input where there is nothing. In a JSONPath state,
    /// `Parameters` takes its place.
    pub arguments: Option<Template>,
    /// How long it may take.
    pub timeout_seconds: Option<Quantity>,
    /// How far apart heartbeats may be.
    pub heartbeat_seconds: Option<Quantity>,
    /// What happens to errors.
    pub handlers: Handlers,
    /// What comes next.
    pub transition: Transition,
}

/// A number in the definition.
#[derive(Debug)]
pub enum Quantity {
    /// Known.
    Literal(u32),
    /// Known at run time.
    Expression(Expression),
}

/// `Retry` and `Catch`.
#[derive(Debug, Default)]
pub struct Handlers {
    /// Tried first.
    pub retry: Vec<Retrier>,
    /// Tried when no retrier has attempts left.
    pub catch: Vec<Catcher>,
}

/// An element of `Retry`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrier {
    /// The errors that it is for.
    pub error_equals: Vec<String>,
    /// How long before the first retry.
    pub interval_seconds: u32,
    /// How many retries.
    pub max_attempts: u32,
    /// By what each interval is longer than the one before.
    pub backoff_rate: f64,
    /// The longest interval.
    pub max_delay_seconds: Option<u32>,
    /// Whether each interval is drawn between nothing and its length (`FULL`).
    pub full_jitter: bool,
}

/// An element of `Catch`.
#[derive(Debug)]
pub struct Catcher {
    /// The errors that it is for.
    pub error_equals: Vec<String>,
    /// Output and variables.
    pub produce: Produce,
    /// What comes next.
    pub next: StateId,
}

/// A Choice state.
#[derive(Debug)]
pub struct Choice {
    /// The rules, of which the first that holds wins.
    pub rules: Vec<ChoiceRule>,
    /// What comes next when none holds.
    pub default: Option<StateId>,
}

/// An element of `Choices`.
#[derive(Debug)]
pub struct ChoiceRule {
    /// When it holds.
    pub condition: Condition,
    /// Output and variables when it holds.
    pub produce: Produce,
    /// What comes next.
    pub next: StateId,
}

/// The condition of a choice rule.
#[derive(Debug)]
pub enum Condition {
    /// Always the same.
    Literal(bool),
    /// Evaluated.
    Expression(Expression),
}

/// What a Wait state waits for.
#[derive(Debug)]
pub enum WaitUntil {
    /// So many seconds.
    Seconds(Quantity),
    /// A time.
    Timestamp(Moment),
}

/// A time in the definition.
#[derive(Debug)]
pub enum Moment {
    /// Known.
    Literal(jiff::Timestamp),
    /// Known at run time.
    Expression(Expression),
}

/// A Parallel state.
#[derive(Debug)]
pub struct Parallel {
    /// Its branches.
    pub branches: Vec<WorkflowId>,
    /// What each branch is given; the state's input where there is nothing.
    pub arguments: Option<Template>,
    /// What happens to errors.
    pub handlers: Handlers,
    /// What comes next.
    pub transition: Transition,
}

/// A Map state. It runs inline.
#[derive(Debug)]
pub struct Map {
    /// What runs for each element.
    pub item_processor: WorkflowId,
    /// The array; the state's input where there is nothing.
    pub items: Option<Template>,
    /// What each run is given; the element where there is nothing.
    pub item_selector: Option<Template>,
    /// How many run at once; 0 or nothing for all.
    pub max_concurrency: Option<Quantity>,
    /// `ToleratedFailureCount` and `ToleratedFailurePercentage` where they are expressions, each
    /// with its field. AWS evaluates them in an inline Map, too, where they change nothing.
    pub tolerated_failure: Vec<(&'static str, Expression)>,
    /// What happens to errors.
    pub handlers: Handlers,
    /// What comes next.
    pub transition: Transition,
}
