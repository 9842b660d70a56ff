//! What the answers are made from.

use std::{collections::BTreeMap, sync::Arc};

use archweld_cloud::Cloud;
use archweld_codebuild::CodeBuild;
use archweld_local_api::Host;
use archweld_model::{Config, Deployment, Projects};
use archweld_registry::Registry;
use archweld_scheduler::Scheduler;
use archweld_step_functions::StepFunctions;
use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::DropGuard;

use crate::{facts::FactsCache, hub::Hub, masks::Masks, notices};

/// The function of the template whose environment says what plans are made with.
const PLANNER: &str = "plan-build";

/// What a route is given; cheap to clone.
pub(crate) type Shared = State<Arc<App>>;

/// The services' handles, and what the console remembers.
pub(crate) struct App {
    pub(crate) host: Host,
    pub(crate) config: Config,
    /// What plans are made with, so that a form can be told what a run would do.
    pub(crate) deployment: Deployment,
    pub(crate) machines: Vec<Machine>,
    pub(crate) states: StepFunctions,
    pub(crate) codebuild: CodeBuild,
    pub(crate) registry: Registry,
    pub(crate) scheduler: Scheduler,
    pub(crate) facts: FactsCache,
    pub(crate) hub: Hub,
    pub(crate) masks: Masks,
    about: About,
    /// Ends the task that listens to the services.
    _listening: DropGuard,
}

/// A state machine of the deployment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) arn: String,
}

/// What the page says of the local cloud as a whole.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    version: &'static str,
    endpoint: String,
    registry: String,
    region: String,
    /// The git remote, where there is one.
    git: Option<String>,
    machines: Vec<Machine>,
    images: Vec<String>,
}

impl App {
    pub(crate) async fn new(cloud: &Cloud, config: Config) -> Arc<Self> {
        let stack = cloud.stack();
        let machines: Vec<Machine> = stack
            .state_machines
            .iter()
            .map(|machine| Machine { name: machine.name.clone(), arn: machine.arn.clone() })
            .collect();
        let planner = stack.functions.iter().find(|function| function.binary == PLANNER);
        let about = About {
            version: env!("CARGO_PKG_VERSION"),
            endpoint: cloud.endpoint(),
            registry: cloud.address().to_owned(),
            region: cloud.host().region().to_owned(),
            git: cloud.git().map(|git| git.url().to_owned()),
            machines: machines.clone(),
            images: config.images().iter().map(|image| image.name.to_string()).collect(),
        };
        let arns = stack.secrets.iter().map(|secret| secret.settings.arn.clone());
        let masks = Masks::new(cloud.secrets().clone(), arns.collect(), cloud.registry());
        masks.refresh().await;
        let (listening, stop) = notices::channel(cloud);
        let app = Arc::new(Self {
            host: cloud.host().clone(),
            config,
            deployment: deployment(planner.map(|function| &function.environment)),
            machines,
            states: cloud.step_functions().clone(),
            codebuild: cloud.codebuild().clone(),
            registry: cloud.registry().clone(),
            scheduler: cloud.scheduler().clone(),
            facts: FactsCache::default(),
            hub: Hub::new(&cloud.host().uuid().simple().to_string()),
            masks,
            about,
            _listening: stop,
        });
        tokio::spawn(listening.run(Arc::downgrade(&app)));
        app
    }

    /// The state machine of a name.
    pub(crate) fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == name)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.host.now().as_millisecond()
    }
}

fn deployment(environment: Option<&BTreeMap<String, String>>) -> Deployment {
    let value = |name: &str| environment.and_then(|it| it.get(name)).cloned().unwrap_or_default();
    Deployment {
        registry: value("IMAGE_REGISTRY"),
        source: value("SOURCE_LOCATION"),
        projects: Projects {
            amd64: value("PROJECT_AMD64"),
            arm64: value("PROJECT_ARM64"),
            manifest: value("PROJECT_MANIFEST"),
        },
    }
}

/// An execution as paths and notices name it: `<state machine>/<name>`.
pub(crate) fn execution_id(arn: &str) -> Option<String> {
    let mut parts = arn.splitn(8, ':').skip(5);
    let (kind, machine, name) = (parts.next()?, parts.next()?, parts.next()?);
    (kind == "execution").then(|| format!("{machine}/{name}"))
}

/// The ARN of an execution of a state machine.
pub(crate) fn execution_arn(machine_arn: &str, name: &str) -> String {
    format!("{}:{name}", machine_arn.replacen(":stateMachine:", ":execution:", 1))
}

pub(crate) fn milliseconds(time: Timestamp) -> i64 {
    time.as_millisecond()
}

pub(crate) async fn about(State(app): Shared) -> Json<About> {
    Json(app.about.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_named_both_ways() {
        let machine = "arn:aws:states:us-east-1:000000000000:stateMachine:build";
        let arn = execution_arn(machine, "r1");
        assert_eq!(arn, "arn:aws:states:us-east-1:000000000000:execution:build:r1");
        assert_eq!(execution_id(&arn).as_deref(), Some("build/r1"));
        for other in [machine, "", "arn:aws:states:us-east-1:000000000000:execution:build"] {
            assert_eq!(execution_id(other), None, "{other}");
        }
    }
}
