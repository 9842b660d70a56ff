//! What can go wrong with the command, and its exit status.

use std::{fmt, io, path::PathBuf};

use archweld_cloud::OpenError;
use archweld_local_api::ApiError;
use archweld_model::{ConfigError, InputError, PlanError};

use crate::{
    aws::{CallError, CallErrorKind, chain},
    progress::plain,
};

/// What to do where there are no credentials.
pub(crate) const NO_CREDENTIALS: &str = "set AWS_PROFILE or --profile, log in with `aws sso \
                                         login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

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
    /// AWS, or the local cloud over HTTP, does not do what it is asked for.
    #[error(transparent)]
    Aws(#[from] CallError),
    /// An answer in XML that is none.
    #[error("CloudFormation's answer cannot be read: {0}")]
    Xml(String),
    /// Nobody serves the local cloud.
    #[error(
        "no local cloud answers at {endpoint}: start one with `archweld up`, or name a deployed \
         stack with --stack"
    )]
    NoLocalCloud {
        /// Where it was looked for.
        endpoint: String,
        /// What happened.
        source: CallError,
    },
    /// No credentials for AWS.
    #[error("no credentials for AWS: {NO_CREDENTIALS} ({reason})")]
    NoCredentials {
        /// What each source of them says.
        reason: String,
    },
    /// No region.
    #[error("no region: name it with --region or AWS_REGION, or in the profile")]
    NoRegion,
    /// No such stack.
    #[error("no stack {stack} in {region}: another --region, or another --profile?")]
    NoStack {
        /// Its name.
        stack: String,
        /// Where it was looked for.
        region: String,
    },
    /// A stack of something else.
    #[error("stack {stack} has no state machine: it is none of archweld's, or half deployed")]
    NotOurs {
        /// Its name.
        stack: String,
    },
    /// Nothing has run yet.
    #[error("there are no runs yet: start one with `archweld start`")]
    NoRuns,
    /// No such run.
    #[error("no run {0}: `archweld status` lists the last ones")]
    NoRun(String),
    /// A run of that name exists.
    #[error("there was a run {0}: a name is free again 90 days after its run ended")]
    RunExists(String),
    /// A run without such builds.
    #[error("run {run} has no build of {targets}")]
    NoBuild {
        /// The run.
        run: String,
        /// What was asked for.
        targets: String,
    },
    /// An input that is no JSON.
    #[error("--input: expected JSON, @FILE or -: {0}")]
    InputJson(serde_json::Error),
    /// An input that does not fit.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A doctor's visit that ends with a prescription.
    #[error("{} to mend", count(.0))]
    Unhealthy(usize),
    /// The parts of a deployment do not agree.
    #[error("{} found", count(&.0.len()))]
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
    /// No fault plan.
    #[error(transparent)]
    Faults(#[from] archweld_simulation::PlanError),
    /// The simulation cannot begin.
    #[error(transparent)]
    Simulation(#[from] archweld_simulation::WorldError),
    /// The simulation found something.
    #[error("{0}")]
    Violation(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn count(problems: &usize) -> String {
    match problems {
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
            | Self::NoLocalCloud { .. }
            | Self::NoRuns
            | Self::RunExists(_)
            | Self::Unhealthy(_)
            | Self::Xml(_)
            | Self::System { .. }
            | Self::NoAnswer { .. }
            | Self::Violation(_)
            | Self::Refused(_) => 1,
            Self::Aws(error) => match error.kind {
                CallErrorKind::Exists | CallErrorKind::Refused => 2,
                CallErrorKind::Denied | CallErrorKind::NotFound | CallErrorKind::Unavailable => 1,
            },
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
        // A cause may hold what a build wrote.
        let text = chain(self.0);
        let lines: Vec<String> = text.lines().map(plain).collect();
        write!(f, "archweld: {}", lines.join("\n"))?;
        if let Error::Disagreement(problems) = self.0 {
            for problem in problems {
                write!(f, "\n  {problem}")?;
            }
        }
        Ok(())
    }
}
