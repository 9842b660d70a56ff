//! What can go wrong with the command, and its exit status.

use std::{fmt, io, path::PathBuf};

use archweld_cloud::OpenError;
use archweld_local_api::ApiError;
use archweld_model::{ConfigError, PlanError};

/// Why the command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No configuration.
    #[error("cannot read the configuration {}", path.display())]
    NoConfig {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A configuration under another name than the functions look for.
    #[error("the configuration {} must be called archweld.toml", .0.display())]
    ConfigName(PathBuf),
    /// A wrong configuration.
    #[error("{}:{error}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: ConfigError,
    },
    /// No template.
    #[error("no template {}: run archweld in a checkout of it, or name one with --template", .0.display())]
    NoTemplate(PathBuf),
    /// No folder of functions.
    #[error("cannot find this command's own folder: name the functions' with --functions")]
    NoFunctions,
    /// A source that cannot be built from.
    #[error("source {place}: {reason}")]
    Source {
        /// What was asked for.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// An input that makes no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The template has no state machine.
    #[error("the template has no state machine")]
    NoStateMachine,
    /// The local cloud does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The local cloud refuses a call.
    #[error("the local cloud refused a call")]
    Call(#[from] ApiError),
    /// The parts of a deployment do not agree.
    #[error("{} found", count(.0))]
    Disagreement(Vec<String>),
    /// The operating system refuses something.
    #[error("cannot {what}")]
    System {
        /// What.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// A file of the command line that cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that holds no secret.
    #[error("no secret in {}: expected a line of text", .0.display())]
    NoSecret(PathBuf),
    /// The template has nothing that takes webhooks.
    #[error(
        "no function of the template takes webhooks: expected one with a FunctionUrlConfig of \
         AuthType NONE and a secret in its environment"
    )]
    NoWebhook,
    /// What should be sent is no request.
    #[error("cannot send this to {url}: {reason}")]
    Request {
        /// Where to.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers.
    #[error("no answer from {url}: {reason}")]
    NoAnswer {
        /// Who should.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A webhook that was not taken.
    #[error("the webhook was answered {0}")]
    Refused(u16),
    /// A run that published nothing.
    #[error("{error}: {cause}")]
    Run {
        /// The name of the error.
        error: String,
        /// What was wrong.
        cause: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn count(problems: &[String]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        several => format!("{several} problems"),
    }
}

impl Error {
    /// The status that the command exits with.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Run { error, .. } if error == "Plan.Invalid" => 2,
            Self::Run { .. }
            | Self::Call(_)
            | Self::System { .. }
            | Self::NoAnswer { .. }
            | Self::Refused(_) => 1,
            // 128 and the number of SIGINT, as shells have it.
            Self::Interrupted => 130,
            _ => 2,
        }
    }
}

/// An error with everything that led to it, and the problems that it lists.
pub(crate) struct Report<'a>(pub &'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archweld: {}", self.0)?;
        let mut error: &dyn std::error::Error = self.0;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        if let Error::Disagreement(problems) = self.0 {
            for problem in problems {
                write!(f, "\n  {problem}")?;
            }
        }
        Ok(())
    }
}
