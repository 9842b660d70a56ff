//! The states language: definitions, and a pure interpreter for one execution.
//!
//! No clock, no randomness of its own, no I/O: the same inputs at the same times give the same
//! effects, so that one interpreter serves the command, the tests and the simulation.
//!
//! A [`Definition`] is read once; anything that the interpreter does not run is refused then.
//! An [`Execution`] is told what happens outside ([`Input`]) and answers what is to be done
//! ([`Effect`]). The query language is JSONata; of JSONPath there is as much as Pass and Task
//! states need to stand beside JSONata states.
//!
//! An execution that ended without success keeps where it stood, and a redrive goes on from there:
//! [`Execution::is_redrivable`].

mod bound;
mod definition;
mod error_name;
mod execution;
mod expression;
mod interpreter;
mod json;
mod payload;
mod reference_path;
mod timestamp;

pub use definition::{
    Catcher, Choice, ChoiceRule, Condition, DataFlow, Definition, DefinitionError,
    DefinitionErrors, Handlers, Map, Moment, Parallel, Paths, Problem, Produce, Quantity, Retrier,
    State, StateId, StateKind, Task as TaskState, Transition, WaitUntil, Workflow, WorkflowId,
};
pub use execution::{Effect, HistoryEvent, Input, Outcome, Resource, Start, Task, TaskId, TimerId};
pub use expression::{Expression, Template};
pub use interpreter::{CurrentState, Execution};
pub use reference_path::{PathTemplate, ReferencePath};
