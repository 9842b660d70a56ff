//! Step Functions on one machine: state machines, executions, their histories and task tokens.
//!
//! The states language itself is [`archweld_states`]: a pure interpreter. Here one dispatcher, a
//! task of its own, owns each execution: it feeds the interpreter, sets timers, runs tasks
//! through [`Integrations`] and keeps the journal. [`StepFunctions`] is the handle to all of it.
//!
//! An execution that ended without success can be redriven, under the conditions of
//! <https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html>: its dispatcher stays
//! for that. A redrive outlives the service like everything else of an execution, and so does the
//! client token that makes it idempotent. How an execution goes on is the interpreter's.
//!
//! Standard workflows only. Express workflows, activities, versions, aliases and distributed Map
//! runs are not served.

mod dispatcher;
mod error;
mod integrations;
mod journal;
mod operations;
mod page;
mod record;
mod service;
mod view;

pub use error::{CreateStateMachineError, OpenError};
pub use integrations::{Integrations, LambdaResponse};
pub use record::Status;
pub use service::{Notice, StateMachineSettings, StepFunctions};
pub use view::ExecutionView;
