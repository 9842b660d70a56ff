//! Build projects and the parts that they share with builds, in the shapes of the API.

use std::fmt;

use archweld_local_api::ApiError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::invalid_input;

/// How long a build may run, in minutes.
pub(crate) const TIMEOUT_MINUTES: std::ops::RangeInclusive<u32> = 5..=2160;
/// How long a build may wait for its turn, in minutes.
pub(crate) const QUEUED_TIMEOUT_MINUTES: std::ops::RangeInclusive<u32> = 5..=480;

/// Where a source comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are CodeBuild's and say it")]
pub enum SourceType {
    #[serde(rename = "CODECOMMIT")]
    CodeCommit,
    #[serde(rename = "CODEPIPELINE")]
    CodePipeline,
    #[serde(rename = "GITHUB")]
    GitHub,
    #[serde(rename = "GITLAB")]
    GitLab,
    #[serde(rename = "GITLAB_SELF_MANAGED")]
    GitLabSelfManaged,
    S3,
    Bitbucket,
    #[serde(rename = "GITHUB_ENTERPRISE")]
    GitHubEnterprise,
    NoSource,
}

/// The source of a project or build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Where it comes from.
    #[serde(rename = "type")]
    pub source_type: SourceType,
    /// The URL or path of the git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How many commits AWS fetches; 0 is all of them. Recorded only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_clone_depth: Option<u32>,
    /// A buildspec, or the path of one within the source; `buildspec.yml` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildspec: Option<String>,
    /// Whether AWS reports the status to the provider. Recorded only.
    #[serde(default)]
    pub report_build_status: bool,
}

impl Source {
    /// A git repository, by URL or path.
    pub fn git(source_type: SourceType, location: impl Into<String>) -> Self {
        Self { location: Some(location.into()), ..Self::none(source_type) }
    }

    /// A source without a location.
    pub fn none(source_type: SourceType) -> Self {
        Self {
            source_type,
            location: None,
            git_clone_depth: None,
            buildspec: None,
            report_build_status: false,
        }
    }
}

/// What kind of machine a build runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are CodeBuild's and say it")]
pub enum EnvironmentType {
    WindowsContainer,
    LinuxContainer,
    LinuxGpuContainer,
    ArmContainer,
    #[serde(rename = "WINDOWS_SERVER_2019_CONTAINER")]
    WindowsServer2019Container,
    #[serde(rename = "WINDOWS_SERVER_2022_CONTAINER")]
    WindowsServer2022Container,
    LinuxLambdaContainer,
    ArmLambdaContainer,
    #[serde(rename = "LINUX_EC2")]
    LinuxEc2,
    #[serde(rename = "ARM_EC2")]
    ArmEc2,
    #[serde(rename = "WINDOWS_EC2")]
    WindowsEc2,
    MacArm,
}

impl EnvironmentType {
    /// The platform that Docker builds for on such a machine.
    pub fn docker_platform(self) -> Option<&'static str> {
        match self {
            Self::LinuxContainer
            | Self::LinuxGpuContainer
            | Self::LinuxLambdaContainer
            | Self::LinuxEc2 => Some("linux/amd64"),
            Self::ArmContainer | Self::ArmLambdaContainer | Self::ArmEc2 => Some("linux/arm64"),
            Self::WindowsContainer
            | Self::WindowsServer2019Container
            | Self::WindowsServer2022Container
            | Self::WindowsEc2
            | Self::MacArm => None,
        }
    }
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VariableType {
    /// The value is the value.
    #[default]
    Plaintext,
    /// The value names a parameter of Systems Manager.
    ParameterStore,
    /// The value names a secret.
    SecretsManager,
}

/// An environment variable of a project or build.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    #[serde(rename = "type", default)]
    pub variable_type: VariableType,
}

impl EnvironmentVariable {
    /// A variable whose value is its value.
    pub fn plaintext(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), variable_type: VariableType::Plaintext }
    }
}

/// Values may be secret, so only the name is shown.
impl fmt::Debug for EnvironmentVariable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EnvironmentVariable")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a project or build runs on. Only the type and the variables have an effect on this
/// machine; the rest is recorded and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// What kind of machine.
    #[serde(rename = "type")]
    pub environment_type: EnvironmentType,
    /// The build image.
    pub image: String,
    /// The size of the machine, such as `BUILD_GENERAL1_SMALL`.
    pub compute_type: String,
    /// The variables, later ones of a name winning.
    #[serde(default)]
    pub environment_variables: Vec<EnvironmentVariable>,
    /// Whether the build may run a Docker daemon.
    #[serde(default)]
    pub privileged_mode: bool,
    /// Who pulls the build image: `CODEBUILD` or `SERVICE_ROLE`.
    #[serde(default = "codebuild")]
    pub image_pull_credentials_type: String,
}

fn codebuild() -> String {
    "CODEBUILD".to_owned()
}

impl Environment {
    /// An environment without variables of its own.
    pub fn new(environment_type: EnvironmentType, image: &str, compute_type: &str) -> Self {
        Self {
            environment_type,
            image: image.to_owned(),
            compute_type: compute_type.to_owned(),
            environment_variables: Vec::new(),
            privileged_mode: false,
            image_pull_credentials_type: codebuild(),
        }
    }
}

/// A build project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// 2 to 150 letters, digits, `-` and `_`.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where the source comes from.
    pub source: Source,
    /// The branch, tag or commit that is built unless a build says otherwise.
    pub source_version: Option<String>,
    /// What builds run on.
    pub environment: Environment,
    /// The role of its builds.
    pub service_role: Option<String>,
    /// How long a build may run, in minutes: 5 to 2160.
    pub timeout_in_minutes: u32,
    /// How long a build may wait for its turn, in minutes: 5 to 480.
    pub queued_timeout_in_minutes: u32,
    /// How many builds of the project may be going on; more are refused.
    pub concurrent_build_limit: Option<u32>,
    /// How often a failed build is tried again.
    pub auto_retry_limit: u32,
}

impl Project {
    /// A project with CodeBuild's defaults: an hour to run, eight to wait, no limit, no retries.
    pub fn new(name: impl Into<String>, source: Source, environment: Environment) -> Self {
        Self {
            name: name.into(),
            description: None,
            source,
            source_version: None,
            environment,
            service_role: None,
            timeout_in_minutes: 60,
            queued_timeout_in_minutes: 480,
            concurrent_build_limit: None,
            auto_retry_limit: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(2..=150).contains(&self.name.len())
            || !self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !self.name.chars().all(of_name)
        {
            return Err(invalid_input(format!(
                "Invalid project name: {:?} is not 2 to 150 letters, digits, - and _, the first a \
                 letter or digit",
                self.name
            )));
        }
        check_minutes("timeoutInMinutes", self.timeout_in_minutes, TIMEOUT_MINUTES)?;
        check_minutes(
            "queuedTimeoutInMinutes",
            self.queued_timeout_in_minutes,
            QUEUED_TIMEOUT_MINUTES,
        )?;
        if self.concurrent_build_limit == Some(0) {
            return Err(invalid_input(
                "Invalid concurrentBuildLimit: 0 is not a number of builds from 1",
            ));
        }
        self.environment.environment_variables.iter().try_for_each(check_variable)
    }

    /// The project as `BatchGetProjects` shows it.
    pub(crate) fn describe(&self, arn: &str, created: Timestamp) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit in 53 bits")]
        let created = created.as_millisecond() as f64 / 1000.0;
        let mut project = json!({
            "name": self.name,
            "arn": arn,
            "source": self.source,
            "artifacts": {"type": "NO_ARTIFACTS"},
            "cache": {"type": "NO_CACHE"},
            "environment": self.environment,
            "timeoutInMinutes": self.timeout_in_minutes,
            "queuedTimeoutInMinutes": self.queued_timeout_in_minutes,
            "autoRetryLimit": self.auto_retry_limit,
            "created": created,
            "lastModified": created,
            "projectVisibility": "PRIVATE",
        });
        let optional = [
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("sourceVersion", self.source_version.as_ref().map(|text| json!(text))),
            ("serviceRole", self.service_role.as_ref().map(|text| json!(text))),
            ("concurrentBuildLimit", self.concurrent_build_limit.map(|limit| json!(limit))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                project[name] = value;
            }
        }
        project
    }
}

/// Whether a number of minutes is within its bounds.
pub(crate) fn check_minutes(
    field: &str,
    minutes: u32,
    bounds: std::ops::RangeInclusive<u32>,
) -> Result<(), ApiError> {
    if bounds.contains(&minutes) {
        return Ok(());
    }
    Err(invalid_input(format!(
        "Invalid {field}: {minutes} is not a number of minutes from {} to {}",
        bounds.start(),
        bounds.end()
    )))
}

/// Whether a variable can be one of a process here.
pub(crate) fn check_variable(variable: &EnvironmentVariable) -> Result<(), ApiError> {
    let name = &variable.name;
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(invalid_input(format!(
            "Invalid environment variable name: {name:?} is empty or holds = or NUL"
        )));
    }
    if variable.value.contains('\0') {
        return Err(invalid_input(format!("Invalid environment variable {name}: it holds NUL")));
    }
    if variable.variable_type != VariableType::Plaintext {
        return Err(invalid_input(format!(
            "Invalid environment variable {name}: only PLAINTEXT variables can be resolved on this \
             machine, not PARAMETER_STORE or SECRETS_MANAGER"
        )));
    }
    Ok(())
}
