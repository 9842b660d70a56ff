//! What the tests of the whole share: a cloud with the real functions, and simulated builds.
//!
//! The builds push real manifests into the real registry; all that is simulated is the work
//! between.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod builds;
mod gate;
mod images;
mod publishing;
mod recorder;
mod webhooks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use archweld_cloud::{Builds, Cloud, Functions, Settings};
use archweld_local_api::Host;
use archweld_model::{Digest, ImageTag, RepositoryName};
use archweld_registry::Image;
use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

pub use builds::{Behaviour, SimulatedBuilds};
pub use gate::{Gates, delayed};
pub use images::{Pushed, TestImage, push_index};
pub use publishing::{outcome, plan, plan_at, plan_of};
pub use recorder::{Asked, Recorder, Resource, Told};
pub use webhooks::{Push, commit};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Through which door functions reach the cloud, and clients it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Unmodified binaries and clients, over HTTP.
    Http,
    /// `handle` itself, through the SDK, in process.
    InProcess,
}

/// Makes a test of each function for each door.
#[macro_export]
macro_rules! over_both_doors {
    ($($name:ident,)+) => {
        mod in_process {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name($crate::Door::InProcess).await;
                }
            )+
        }
        mod over_http {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($crate::Door::Http).await;
                }
            )+
        }
    };
}

/// A cloud with the real template, state machine and functions.
pub struct World {
    pub cloud: Cloud,
    pub builds: Arc<SimulatedBuilds>,
    pub sfn: aws_sdk_sfn::Client,
    pub codebuild: aws_sdk_codebuild::Client,
    pub ecr: aws_sdk_ecr::Client,
    /// What functions in process ask of AWS.
    pub recorder: Recorder,
    _folder: TempDir,
}

/// How an execution ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExecutionStatus,
    pub output: Value,
    pub error: String,
    pub cause: String,
}

/// Where a test's builds could be looked at.
pub const BUILD_PAGES: &str = "https://builds.example";

pub const CONFIG: &str = r#"
[[image]]
name = "hello"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["{sha7}", "latest"]
"#;

impl World {
    /// A cloud with the repository's template.
    pub async fn open(door: Door) -> Self {
        Self::with(door, CONFIG, &std::fs::read_to_string(template()).unwrap()).await
    }

    /// A cloud with another configuration and template.
    pub async fn with(door: Door, config: &str, template: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let infra = folder.path().join("infra");
        std::fs::create_dir_all(&infra).unwrap();
        std::fs::write(infra.join("template.yaml"), template).unwrap();
        std::fs::write(infra.join("archweld.toml"), config).unwrap();
        let definitions = folder.path().join("state-machine");
        std::fs::create_dir_all(&definitions).unwrap();
        let definition = "multi-arch-build.asl.json";
        std::fs::copy(root().join("state-machine").join(definition), definitions.join(definition))
            .unwrap();

        let recorder = Recorder::default();
        let (host, functions, port) = match door {
            Door::Http => {
                let host = Host::real("123456789012", "us-east-1");
                (host, Functions::Folder(binaries()), Some(0))
            }
            Door::InProcess => {
                let origin: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
                let host = Host::seeded("123456789012", "us-east-1", origin, 7);
                let recorder = recorder.clone();
                let functions =
                    Functions::InProcess(Box::new(move |function, environment, config| {
                        let config = recorder.of(&function.binary, config);
                        archweld_simulation::in_process(function, environment, &config)
                    }));
                (host, functions, None)
            }
        };
        let builds = Arc::new(SimulatedBuilds::default());
        let cloud = Cloud::open(Settings {
            host,
            template: infra.join("template.yaml"),
            stack_name: "archweld".to_owned(),
            parameters: BTreeMap::new(),
            layers: BTreeMap::from([("ConfigLayer".to_owned(), infra)]),
            state: (door == Door::Http).then(|| folder.path().join("state")),
            port,
            registry_bytes_max: None,
            git: None,
            functions,
            builds: Builds::Worker(builds.clone()),
        })
        .await
        .unwrap();
        builds.push_to(cloud.registry().clone());
        cloud.codebuild().show_builds_at(format!("{BUILD_PAGES}/"));
        let config = cloud.sdk_config();
        Self {
            sfn: aws_sdk_sfn::Client::new(&config),
            codebuild: aws_sdk_codebuild::Client::new(&config),
            ecr: aws_sdk_ecr::Client::new(&config),
            cloud,
            builds,
            recorder,
            _folder: folder,
        }
    }

    /// The ARN of the state machine.
    pub fn state_machine(&self) -> String {
        self.cloud.stack().state_machines.first().unwrap().arn.clone()
    }

    /// Starts an execution; gives its ARN.
    pub async fn start(&self, name: &str, input: Value) -> String {
        let start = self.sfn.start_execution().state_machine_arn(self.state_machine());
        let started = start.name(name).input(input.to_string()).send().await.unwrap();
        started.execution_arn
    }

    /// Waits for an execution to end.
    pub async fn ended(&self, execution: &str) -> Ended {
        let mut notices = self.cloud.step_functions().subscribe();
        loop {
            let describe = self.sfn.describe_execution().execution_arn(execution);
            let described = describe.send().await.unwrap();
            if described.status != ExecutionStatus::Running {
                let output = described.output.unwrap_or_else(|| "null".to_owned());
                return Ended {
                    status: described.status,
                    output: serde_json::from_str(&output).unwrap(),
                    error: described.error.unwrap_or_default(),
                    cause: described.cause.unwrap_or_default(),
                };
            }
            notices.recv().await.expect("the cloud is open");
        }
    }

    /// Runs an execution to its end.
    pub async fn run(&self, name: &str, input: Value) -> Ended {
        let execution = self.start(name, input).await;
        self.ended(&execution).await
    }

    /// What a tag of the repository points at.
    pub async fn tagged(&self, tag: &str) -> Option<Image> {
        let tag: ImageTag = tag.parse().unwrap();
        self.cloud.registry().manifest(&repository(), tag).await.ok()
    }

    /// The tags of the repository, but for archweld's own.
    pub fn tags(&self) -> Vec<String> {
        self.all_tags().into_keys().filter(|tag| !tag.starts_with("archweld.")).collect()
    }

    /// The tags of the repository, and what they point at.
    pub fn all_tags(&self) -> BTreeMap<String, Digest> {
        let tags = self.cloud.registry().tags(&repository()).unwrap();
        tags.into_iter().map(|(tag, digest)| (tag.into(), digest)).collect()
    }
}

/// The template that is deployed.
pub fn template() -> PathBuf {
    root().join("infra/template.yaml")
}

/// The image's repository.
pub fn repository() -> RepositoryName {
    "hello".parse().unwrap()
}

/// The folder of the functions' binaries: where cargo puts them beside this test.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap().to_owned();
    assert!(
        folder.join("plan-build").is_file(),
        "no functions in {}: run `make test`, or `cargo build --bins` first",
        folder.display()
    );
    folder
}
