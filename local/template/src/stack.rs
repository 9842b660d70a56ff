//! The typed stack, and how it is read.

mod compute;
mod routing;
mod secret;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use archweld_events::Rule;
use archweld_scheduler::ScheduleSettings;
use archweld_secrets::SecretSettings;

use crate::evaluate::Evaluator;
use crate::resources::{
    FUNCTION, LAYER, PROJECT, REPOSITORY, RULE, SCHEDULE, SECRET, STATE_MACHINE,
};
use crate::{Definition, DefinitionError, TemplateError, yaml};

/// What a template is deployed as.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The name of the stack.
    pub stack_name: String,
    /// The twelve digits of the account.
    pub account: String,
    /// The region.
    pub region: String,
    /// The values of parameters; for others the default is taken.
    pub parameters: BTreeMap<String, String>,
}

impl Deployment {
    pub(crate) fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account)
    }
}

/// What a template says that the local host uses.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// The Lambda functions.
    pub functions: Vec<Function>,
    /// The state machines.
    pub state_machines: Vec<StateMachine>,
    /// The event rules, those declared on functions and state machines included.
    pub rules: Vec<EventRule>,
    /// The schedules, those declared on functions and state machines included.
    pub schedules: Vec<Schedule>,
    /// The secrets.
    pub secrets: Vec<Secret>,
    /// The CodeBuild projects.
    pub builds: Vec<Build>,
    /// The ECR repositories.
    pub repositories: Vec<Repository>,
    /// The parameters and their values.
    pub parameters: Vec<Parameter>,
    /// What is in the template and not run here.
    pub not_run: Vec<NotRun>,
}

/// A Lambda function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its id in the template.
    pub logical_id: String,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The name of its binary: `Metadata.BuildProperties.Binary`, or the last part of `CodeUri`.
    pub binary: String,
    /// Where its code is.
    pub code: PathBuf,
    /// Its environment variables.
    pub environment: BTreeMap<String, String>,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// Its memory, in MB.
    pub memory_mb: u32,
    /// How many invocations may run at once, where the template reserves them.
    pub reserved_concurrency: Option<u32>,
    /// The layers of this template that are mounted at `/opt`, in this order.
    pub layers: Vec<Layer>,
    /// How often an asynchronous invocation is run again: 0 to 2.
    pub asynchronous_retries_max: u32,
    /// The age after which an asynchronous invocation is given up.
    pub asynchronous_age_max: Duration,
    /// Its URL, if it has one.
    pub url: Option<FunctionUrl>,
}

/// A function's own HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionUrl {
    /// Whether callers must sign (`AWS_IAM`) or not (`NONE`).
    pub signed: bool,
}

/// Files that a function finds under `/opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its id in the template.
    pub logical_id: String,
    /// Its ARN, with a version.
    pub arn: String,
    /// The folder with the files.
    pub content: PathBuf,
}

/// A Step Functions state machine.
#[derive(Debug, Clone, PartialEq)]
pub struct StateMachine {
    /// Its id in the template.
    pub logical_id: String,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Whether it is of type `EXPRESS`.
    pub express: bool,
    /// The role that it runs in, where the template states one.
    pub role_arn: Option<String>,
    /// Where its definition is.
    pub definition: Definition,
    /// What replaces `${name}` in the definition.
    pub substitutions: BTreeMap<String, String>,
}

impl StateMachine {
    /// The definition, with its substitutions made.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or where the definition and the substitutions do not have
    /// the same names.
    pub fn definition_text(&self) -> Result<String, DefinitionError> {
        self.definition.text(&self.substitutions)
    }
}

/// An event rule with its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRule {
    /// Its id in the template; SAM's own for a rule that is declared on a function.
    pub logical_id: String,
    /// The name of its bus.
    pub bus: String,
    /// The rule.
    pub rule: Rule,
}

/// A schedule with its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its id in the template; SAM's own for a schedule that is declared on a function.
    pub logical_id: String,
    /// The schedule.
    pub settings: ScheduleSettings,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id in the template.
    pub logical_id: String,
    /// The secret.
    pub settings: SecretSettings,
}

/// A CodeBuild project.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Its id in the template.
    pub logical_id: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where the source comes from.
    pub source: BuildSource,
    /// The branch, tag or commit that is built unless a build says otherwise.
    pub source_version: Option<String>,
    /// What kind of machine, such as `ARM_CONTAINER`.
    pub environment_type: String,
    /// The build image.
    pub image: String,
    /// The size of the machine, such as `BUILD_GENERAL1_SMALL`.
    pub compute_type: String,
    /// Whether the build may run a Docker daemon.
    pub privileged: bool,
    /// The environment variables.
    pub variables: Vec<BuildVariable>,
    /// How long a build may run, in minutes.
    pub timeout_minutes: u32,
    /// How long a build may wait for its turn, in minutes.
    pub queued_timeout_minutes: u32,
    /// The role of its builds.
    pub service_role: String,
}

/// The source of a CodeBuild project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSource {
    /// The provider, such as `GITHUB`.
    pub source_type: String,
    /// The address of the repository.
    pub location: Option<String>,
    /// A buildspec, or the path of one within the source.
    pub buildspec: Option<String>,
    /// How many commits are fetched; 0 is all of them.
    pub git_clone_depth: Option<u32>,
}

/// An environment variable of a CodeBuild project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildVariable {
    /// Its name.
    pub name: String,
    /// Its value, or what names it.
    pub value: String,
    /// `PLAINTEXT`, `PARAMETER_STORE` or `SECRETS_MANAGER`.
    pub variable_type: &'static str,
}

/// An ECR repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its id in the template.
    pub logical_id: String,
    /// Its name.
    pub name: String,
    /// Which tags may move, where the template says so.
    pub mutability: Option<TagMutability>,
}

/// Which tags of a repository may move; filters are names with `*` in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagMutability {
    /// All.
    Mutable,
    /// None.
    Immutable,
    /// All but these.
    MutableExcept(Vec<String>),
    /// Only these.
    ImmutableExcept(Vec<String>),
}

/// A parameter and its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value: as given, or the default.
    pub value: String,
    /// Whether the value must not be shown (`NoEcho`).
    pub secret: bool,
    /// For people.
    pub description: Option<String>,
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = if self.secret { "(not shown)" } else { &self.value };
        formatter
            .debug_struct("Parameter")
            .field("name", &self.name)
            .field("value", &value)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// Something in the template that the local host does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// Its id in the template; for a part of a resource, with the part's name after a dot.
    pub logical_id: String,
    /// Its type.
    pub kind: String,
}

impl Stack {
    /// Reads a template file. Paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// Where the file, a parameter or any part that the local host uses is not as it should be.
    pub fn read(path: &Path, deployment: &Deployment) -> Result<Self, TemplateError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TemplateError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")), deployment)
    }

    /// Reads a template's text. Paths in it are relative to `folder`.
    ///
    /// # Errors
    ///
    /// Where a parameter or any part that the local host uses is not as it should be.
    pub fn parse(
        text: &str,
        folder: &Path,
        deployment: &Deployment,
    ) -> Result<Self, TemplateError> {
        let root = yaml::load(text)?;
        let evaluator = Evaluator::new(&root, deployment)?;
        let mut stack = Self { parameters: evaluator.parameters()?, ..Self::default() };
        let mut reader = Reader { evaluator: &evaluator, folder, stack: &mut stack };
        for resource in evaluator.resources()? {
            match resource.kind {
                FUNCTION => reader.function(resource)?,
                STATE_MACHINE => reader.state_machine(resource)?,
                RULE => reader.rule(resource)?,
                SCHEDULE => reader.schedule(resource)?,
                SECRET => reader.secret(resource)?,
                PROJECT => reader.build(resource)?,
                REPOSITORY => reader.repository(resource)?,
                LAYER => {}
                kind => reader.not_run(resource.logical_id, kind),
            }
        }
        Ok(stack)
    }
}

/// Reads resources into a stack.
struct Reader<'e, 'a> {
    evaluator: &'e Evaluator<'a>,
    folder: &'e Path,
    stack: &'e mut Stack,
}

impl Reader<'_, '_> {
    fn not_run(&mut self, logical_id: impl Into<String>, kind: impl Into<String>) {
        self.stack.not_run.push(NotRun { logical_id: logical_id.into(), kind: kind.into() });
    }
}
