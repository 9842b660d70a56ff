//! Builds whose work is simulated, and whose images are real manifests in the real registry.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use archweld_codebuild::{Job, Outcome, PhaseContext, PhaseType, Status, Worker};
use archweld_model::{
    Built, Digest, ImageTag, Index, Platform, RepositoryName, media_type, variable,
};
use archweld_registry::Registry;
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::json;

/// What builds of a target do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Push their image.
    #[default]
    Push,
    /// Succeed without pushing.
    PushNothing,
    /// Fail in the build phase, with this context.
    Fail(String),
    /// Fault while they are provisioned, this many times, and push then.
    Fault(u32),
    /// Go on until they are stopped.
    Hang,
    /// Push an index that has another platform's image in place of one.
    PushWrongIndex,
}

/// The builds of a test.
#[derive(Default)]
pub struct SimulatedBuilds {
    registry: OnceLock<Registry>,
    behaviours: Mutex<BTreeMap<String, Behaviour>>,
    started: Mutex<Vec<String>>,
}

impl SimulatedBuilds {
    /// Where images go.
    pub(crate) fn push_to(&self, registry: Registry) {
        assert!(self.registry.set(registry).is_ok(), "builds push to one registry");
    }

    /// Says what builds of a target do from now on.
    pub fn behave(&self, target: &str, behaviour: Behaviour) {
        let mut behaviours = self.behaviours.lock().unwrap_or_else(PoisonError::into_inner);
        behaviours.insert(target.to_owned(), behaviour);
    }

    /// The targets of all builds that were started, in order.
    pub fn started(&self) -> Vec<String> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn behaviour(&self, target: &str) -> Behaviour {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_owned());
        let mut behaviours = self.behaviours.lock().unwrap_or_else(PoisonError::into_inner);
        let behaviour = behaviours.get(target).cloned().unwrap_or_default();
        if let Behaviour::Fault(times) = &behaviour {
            let next = if *times > 1 { Behaviour::Fault(times - 1) } else { Behaviour::Push };
            behaviours.insert(target.to_owned(), next);
        }
        behaviour
    }

    async fn work(&self, job: Job) -> Outcome {
        let target = job.variable(variable::IMAGE_PLATFORM).unwrap_or("manifest").to_owned();
        let behaviour = self.behaviour(&target);
        if let Behaviour::Fault(_) = behaviour {
            job.reporter.begin(PhaseType::Provisioning);
            let context = PhaseContext::new("INTERNAL_SERVICE_ERROR", "no machine");
            job.reporter.end(Status::Fault, vec![context]);
            return Status::Fault.into();
        }
        for phase in [PhaseType::DownloadSource, PhaseType::Install, PhaseType::PreBuild] {
            job.reporter.begin(phase);
        }
        job.reporter.begin(PhaseType::Build);
        job.reporter.log(&format!("building {target}"));
        match behaviour {
            Behaviour::Hang => {
                job.cancelled.cancelled().await;
                return Status::Stopped.into();
            }
            Behaviour::Fail(message) => {
                let context = PhaseContext::new("COMMAND_EXECUTION_ERROR", message);
                job.reporter.end(Status::Failed, vec![context]);
                return Status::Failed.into();
            }
            Behaviour::PushNothing => {}
            Behaviour::Push | Behaviour::Fault(_) | Behaviour::PushWrongIndex => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let wrong = behaviour == Behaviour::PushWrongIndex;
                self.push(&job, &target, wrong).await;
            }
        }
        for phase in [PhaseType::PostBuild, PhaseType::UploadArtifacts, PhaseType::Finalizing] {
            job.reporter.begin(phase);
        }
        Status::Succeeded.into()
    }

    async fn push(&self, job: &Job, target: &str, wrong: bool) {
        let registry = self.registry.get().unwrap();
        let repository: RepositoryName =
            job.variable(variable::IMAGE_REPO_NAME).unwrap().parse().unwrap();
        let tag: ImageTag = job.variable(variable::IMAGE_TAG).unwrap().parse().unwrap();
        let (kind, bytes) = match job.variable(variable::IMAGE_SOURCES) {
            None => {
                let content = format!("{target} of {}", job.variable(variable::RUN).unwrap());
                let platform: Platform = target.parse().unwrap();
                let image = push_image(registry, &repository, platform, &content).await;
                (media_type::OCI_MANIFEST, image)
            }
            Some(sources) => {
                let mut images = Vec::new();
                for source in sources.split(' ') {
                    let (platform, digest) = source.split_once('=').unwrap();
                    let digest: Digest = digest.parse().unwrap();
                    let image = registry.manifest(&repository, digest).await.unwrap();
                    images.push((platform.parse().unwrap(), built(digest, image.bytes.len())));
                }
                if wrong {
                    images[1].1 = images[0].1.clone();
                }
                let index = Index::assemble(&images).unwrap();
                (media_type::OCI_INDEX, serde_json::to_vec(&index).unwrap())
            }
        };
        registry.put_manifest(&repository, Some(&tag), Some(kind), bytes).await.unwrap();
    }
}

fn built(digest: Digest, manifest_bytes: usize) -> Built {
    Built {
        digest,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        manifest_bytes: manifest_bytes as u64,
        size_bytes: 0,
    }
}

/// Puts config and layer of an image into the registry; gives its manifest.
async fn push_image(
    registry: &Registry,
    repository: &RepositoryName,
    platform: Platform,
    content: &str,
) -> Vec<u8> {
    let config = json!({
        "architecture": platform.architecture_field(),
        "os": platform.os(),
        "variant": platform.variant_field(),
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = config.to_string().into_bytes();
    let layer = content.as_bytes().to_vec();
    let (config_bytes, layer_bytes) = (config.len(), layer.len());
    let config = registry.put_blob(repository, config).await.unwrap();
    let layer = registry.put_blob(repository, layer).await.unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config, "size": config_bytes,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer, "size": layer_bytes,
        }],
    });
    manifest.to_string().into_bytes()
}

impl Worker for SimulatedBuilds {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        self.work(job).boxed()
    }
}
