//! Checks an execution's input and makes the plan of its run.
//!
//! The plan depends on the input and on `archweld.toml` alone, but for one question to ECR: which
//! of the images were published before.

mod reuse;

use std::path::Path;

use archweld_ecr::Repository;
use archweld_model::{
    Config, Deployment, ErrorName, Execution, ExecutionInput, Named, Plan, PlanError, Projects, Run,
};
use archweld_runtime::{ConfigFileError, StartError, about_run, read_config, variable};
use aws_sdk_ecr::Client;
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
    config: Result<Config, ConfigFileError>,
    deployment: Deployment,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
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
        let deployment = Deployment {
            registry: variable("IMAGE_REGISTRY")?,
            source: variable("SOURCE_LOCATION")?,
            projects: Projects {
                amd64: variable("PROJECT_AMD64")?,
                arm64: variable("PROJECT_ARM64")?,
                manifest: variable("PROJECT_MANIFEST")?,
            },
        };
        Ok(Self::new(variable("ARCHWELD_CONFIG")?.as_ref(), deployment))
    }

    /// Settings with the configuration at `path`.
    pub fn new(path: &Path, deployment: Deployment) -> Self {
        Self { config: read_config(path), deployment }
    }
}

/// Makes the plan of an execution.
///
/// # Errors
/// `Plan.Invalid` when the input or the configuration is wrong.
pub async fn handle(request: Request, settings: &Settings, ecr: &Client) -> Result<Plan, Error> {
    about_run(Run::of_execution(&request.execution.name));
    let config = settings.config.as_ref().map_err(Clone::clone)?;
    let input = ExecutionInput::parse(request.input).map_err(PlanError::from)?;
    let mut plan = Plan::new(config, input, request.execution, &settings.deployment)?;
    if plan.reuse {
        let repository = Repository::new(ecr.clone(), plan.repository.clone());
        // Boxed: the layout of the whole future is otherwise too deep for the compiler.
        if let Err(error) = Box::pin(reuse::reuse(&mut plan, &repository)).await {
            // To build again is only slower.
            tracing::warn!(error.message = %error, "earlier images could not be looked up");
        }
    }
    let trigger = plan.trigger.as_ref();
    tracing::info!(
        image.name = %plan.image,
        execution.arn = plan.execution,
        trigger.kind = trigger.and_then(|trigger| trigger.kind.as_deref()),
        trigger.id = trigger.and_then(|trigger| trigger.id.as_deref()),
        "run planned"
    );
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecr::config::{BehaviorVersion, Region};
    use serde_json::json;

    use super::*;

    fn settings(config: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archweld.toml");
        std::fs::write(&path, config).unwrap();
        let projects = Projects {
            amd64: "amd64".to_owned(),
            arm64: "arm64".to_owned(),
            manifest: "manifest".to_owned(),
        };
        let deployment = Deployment {
            registry: "registry.example".to_owned(),
            source: "https://github.com/archweld/hello.git".to_owned(),
            projects,
        };
        Settings::new(&path, deployment)
    }

    /// A client that reaches nothing: without a commit, nothing is looked up.
    fn ecr() -> Client {
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("us-east-1"));
        Client::from_conf(config.build())
    }

    fn request(input: Value) -> Request {
        let execution = Execution {
            arn: "arn:aws:states:us-east-1:000000000000:execution:archweld:r1".to_owned(),
            name: "r1".to_owned(),
            start_time: "2026-11-23T10:00:00.000Z".parse().unwrap(),
        };
        Request { input, execution }
    }

    #[tokio::test]
    async fn plans_the_only_image_for_an_empty_input() {
        let settings = settings("[[image]]\nname = \"hello\"\nplatforms = [\"linux/arm64\"]\n");
        let plan = handle(request(json!({})), &settings, &ecr()).await.unwrap();
        assert_eq!(plan.run.as_str(), "r1");
        assert_eq!(plan.platforms[0].build.project, "arm64");
    }

    #[tokio::test]
    async fn tells_of_a_wrong_configuration_when_a_plan_is_wanted() {
        let settings = settings("[[image]]\nname = \"hello\"\nplatforms = [\"linux/vax\"]\n");
        let error = handle(request(json!({})), &settings, &ecr()).await.unwrap_err();
        assert!(error.to_string().starts_with("archweld.toml:3:14: unknown platform"), "{error}");
        assert_eq!(error.name(), ErrorName::PlanInvalid);
    }
}
