//! Checks an execution's input and makes the plan of its run.
//!
//! Calls no service: what it says depends on the input and on `archweld.toml` alone.

use std::{fs, path::Path};

use archweld_model::{
    Config, ConfigError, ErrorName, Execution, ExecutionInput, Named, Plan, PlanError, Projects,
};
use archweld_runtime::{StartError, variable};
use serde::Deserialize;
use serde_json::Value;

/// What the state machine sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The execution's input, as it was given.
    pub input: Value,
    /// What the state machine knows of the execution.
    pub execution: Execution,
}

/// What the function is deployed with.
#[derive(Debug, Clone)]
pub struct Settings {
    config: Result<Config, Error>,
    registry: String,
    projects: Projects,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration is not readable.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The configuration is wrong.
    #[error("{path}:{error}")]
    Config {
        /// The file.
        path: String,
        /// Where and what.
        error: ConfigError,
    },
    /// The input does not fit the configuration.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        ErrorName::PlanInvalid
    }
}

impl Settings {
    /// Reads the environment that the template gives the function.
    ///
    /// A wrong `archweld.toml` is no failure to start: whoever starts an execution is told of it.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self, StartError> {
        let projects = Projects {
            amd64: variable("PROJECT_AMD64")?,
            arm64: variable("PROJECT_ARM64")?,
            manifest: variable("PROJECT_MANIFEST")?,
        };
        Ok(Self::new(variable("ARCHWELD_CONFIG")?.as_ref(), variable("IMAGE_REGISTRY")?, projects))
    }

    /// Settings with the configuration at `path`.
    pub fn new(path: &Path, registry: String, projects: Projects) -> Self {
        Self { config: read(path), registry, projects }
    }
}

fn read(path: &Path) -> Result<Config, Error> {
    let name = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let text = fs::read_to_string(path)
        .map_err(|error| Error::Unreadable { path: name(), reason: error.to_string() })?;
    Config::parse(&text).map_err(|error| Error::Config { path: name(), error })
}

/// Makes the plan of an execution.
///
/// # Errors
/// `Plan.Invalid` when the input or the configuration is wrong.
pub async fn handle(request: Request, settings: &Settings) -> Result<Plan, Error> {
    let config = settings.config.as_ref().map_err(Clone::clone)?;
    let input = ExecutionInput::parse(request.input).map_err(PlanError::from)?;
    let (registry, projects) = (&settings.registry, &settings.projects);
    Ok(Plan::new(config, input, request.execution, registry, projects)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(config: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archweld.toml");
        fs::write(&path, config).unwrap();
        let projects = Projects {
            amd64: "amd64".to_owned(),
            arm64: "arm64".to_owned(),
            manifest: "manifest".to_owned(),
        };
        Settings::new(&path, "registry.example".to_owned(), projects)
    }

    fn request(input: Value) -> Request {
        let execution = Execution {
            arn: "arn:aws:states:us-east-1:000000000000:execution:archweld:r1".to_owned(),
            name: "r1".to_owned(),
            start_time: "2026-11-23T10:00:00.000Z".to_owned(),
        };
        Request { input, execution }
    }

    #[tokio::test]
    async fn plans_the_only_image_for_an_empty_input() {
        let settings = settings("[[image]]\nname = \"hello\"\nplatforms = [\"linux/arm64\"]\n");
        let plan = handle(request(json!({})), &settings).await.unwrap();
        assert_eq!(plan.run.as_str(), "r1");
        assert_eq!(plan.platforms[0].build.project, "arm64");
    }

    #[tokio::test]
    async fn tells_of_a_wrong_configuration_when_a_plan_is_wanted() {
        let settings = settings("[[image]]\nname = \"hello\"\nplatforms = [\"linux/vax\"]\n");
        let error = handle(request(json!({})), &settings).await.unwrap_err();
        assert!(error.to_string().starts_with("archweld.toml:3:14: unknown platform"), "{error}");
        assert_eq!(error.name(), ErrorName::PlanInvalid);
    }
}
