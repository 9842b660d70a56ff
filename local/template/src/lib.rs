//! Reads a SAM template: what the local host wires up.
//!
//! The template that AWS deploys is the only wiring there is. [`Stack::read`] evaluates its
//! parameters, conditions, mappings and intrinsic functions as CloudFormation would and gives the
//! functions, state machines, event rules, schedules, secrets, builds and repositories in types. Only what
//! the local host uses is evaluated; there, anything that cannot be resolved is an error that
//! names line, column, resource and property. Resources that it has no use for are listed in
//! [`Stack::not_run`], never dropped in silence.
//!
//! Names are those that CloudFormation would give where the template states them. Where it does
//! not, CloudFormation makes up `<stack>-<logical id>-<random>`; here they are
//! `<stack>-<logical id>`, in lower case for ECR repositories, so that they are the same each time.
//!
//! It deliberately does not validate a template as a whole (`cfn-lint` does), and it knows no
//! macros but SAM's, no nested stacks, no imports and no dynamic references.

mod definition;
mod error;
mod evaluate;
mod property;
mod resources;
mod stack;
mod yaml;

pub use definition::{Definition, DefinitionError};
pub use error::{Position, TemplateError};
pub use stack::{
    Build, BuildSource, BuildVariable, Deployment, EventRule, Function, FunctionUrl, Layer, NotRun,
    Parameter, Repository, Schedule, Secret, Stack, StateMachine, TagMutability,
};
