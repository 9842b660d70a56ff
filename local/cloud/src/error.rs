//! Why a cloud did not open.

use std::{io, path::PathBuf};

use archweld_codebuild::ShellError;
use archweld_events::RuleError;
use archweld_local_api::ApiError;
use archweld_registry::RegistryError;
use archweld_scheduler::CreateScheduleError;
use archweld_step_functions::CreateStateMachineError;
use archweld_template::{DefinitionError, TemplateError};

/// Why a cloud did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state folder cannot be made or locked.
    #[error("cannot use the state folder {}", folder.display())]
    State {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another archweld has the state folder.
    #[error(
        "the state folder {} is in use by another archweld: stop that one, or choose another \
         folder with --state",
        .0.display()
    )]
    InUse(PathBuf),
    /// The port cannot be listened on.
    #[error("cannot listen on port {port} of loopback: choose another with --port")]
    Listen {
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The template cannot be used.
    #[error("cannot use the template {}", path.display())]
    Template {
        /// The template.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<TemplateError>,
    },
    /// The definition of a state machine cannot be read.
    #[error("cannot read the definition of state machine {state_machine}")]
    Definition {
        /// The state machine's id in the template.
        state_machine: String,
        /// What is wrong.
        source: DefinitionError,
    },
    /// A state machine cannot be created.
    #[error("cannot create a state machine")]
    StateMachine(#[from] CreateStateMachineError),
    /// A function's binary is not there.
    #[error("function {function} has no binary {}: build it first", path.display())]
    Binary {
        /// The function's id in the template.
        function: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A rule or a schedule aims at something that is not served.
    #[error("{rule}: target {arn} is neither a function nor a state machine of the template")]
    Target {
        /// The rule's or schedule's id in the template.
        rule: String,
        /// The target.
        arn: String,
    },
    /// A part of the template asks for something that is not served.
    #[error("resource {resource}: {problem}")]
    Unsupported {
        /// Its id in the template.
        resource: String,
        /// What is not served.
        problem: String,
    },
    /// A rule cannot be created.
    #[error("cannot create a rule")]
    Rule(#[from] RuleError),
    /// A service refuses a part of the template.
    #[error("resource {resource}")]
    Refused {
        /// Its id in the template.
        resource: String,
        /// What the service says.
        source: ApiError,
    },
    /// A schedule cannot be created.
    #[error("resource {resource}")]
    Schedule {
        /// Its id in the template.
        resource: String,
        /// What is wrong.
        source: CreateScheduleError,
    },
    /// A repository cannot be created.
    #[error("repository {repository}")]
    Repository {
        /// The repository.
        repository: String,
        /// What is wrong.
        source: Box<RegistryError>,
    },
    /// The registry's folder cannot be opened.
    #[error("cannot open the registry")]
    Registry(#[from] archweld_registry::OpenError),
    /// The builds' folder cannot be opened.
    #[error("cannot open the builds")]
    Builds(#[from] archweld_codebuild::OpenError),
    /// Builds cannot be run.
    #[error("cannot run builds")]
    Shell(#[from] ShellError),
    /// The secrets' folder cannot be opened.
    #[error("cannot open the secrets")]
    Secrets(#[from] archweld_secrets::OpenError),
    /// The schedules' folder cannot be opened.
    #[error("cannot open the schedules")]
    Schedules(#[from] archweld_scheduler::OpenError),
    /// The git remote cannot be made.
    #[error("cannot make the git remote")]
    Git(#[from] archweld_git::OpenError),
    /// The executions' folder cannot be opened.
    #[error("cannot open the executions")]
    Executions(#[from] archweld_step_functions::OpenError),
}
