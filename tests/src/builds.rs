//! Builds whose work is simulated, and whose images are real manifests in the real registry.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use archweld_codebuild::{ExportedVariable, Job, Outcome, PhaseContext, PhaseType, Status, Worker};
use archweld_model::{Built, Child, Digest, ImageTag, Platform, RepositoryName, variable};
use archweld_registry::Registry;
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{TestImage, images::push_index};

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
    /// Push an image whose config says another platform.
    PushImageOf(Platform),
    /// Push an image whose program is made for another platform.
    PushProgramOf(Platform),
    /// Push their image in an index, with its provenance.
    PushAttested,
    /// Push an index of the images of two platforms.
    PushTwoPlatforms,
    /// Push their image without a tag, and export its digest.
    ExportDigest,
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
        let mut exported = None;
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
            Behaviour::Push
            | Behaviour::Fault(_)
            | Behaviour::PushWrongIndex
            | Behaviour::PushImageOf(_)
            | Behaviour::PushProgramOf(_)
            | Behaviour::PushAttested
            | Behaviour::PushTwoPlatforms
            | Behaviour::ExportDigest => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                exported = self.push(&job, &target, &behaviour).await;
            }
        }
        for phase in [PhaseType::PostBuild, PhaseType::UploadArtifacts, PhaseType::Finalizing] {
            job.reporter.begin(phase);
        }
        let exported = exported
            .into_iter()
            .map(|value| ExportedVariable { name: variable::IMAGE_DIGEST.to_owned(), value });
        Outcome { exported: exported.collect(), ..Status::Succeeded.into() }
    }

    /// Pushes what a build of that behaviour does; gives the digest that it exports.
    async fn push(&self, job: &Job, target: &str, behaviour: &Behaviour) -> Option<String> {
        let registry = self.registry.get().unwrap();
        let repository: RepositoryName =
            job.variable(variable::IMAGE_REPO_NAME).unwrap().parse().unwrap();
        let tag: ImageTag = job.variable(variable::IMAGE_TAG).unwrap().parse().unwrap();
        let Some(sources) = job.variable(variable::IMAGE_SOURCES) else {
            let content = format!("{target} of {}", job.variable(variable::RUN).unwrap());
            let mut image = TestImage::of(target.parse().unwrap(), &content);
            match behaviour {
                Behaviour::PushImageOf(other) => image.platform = *other,
                Behaviour::PushProgramOf(other) => image.program = *other,
                Behaviour::PushAttested => image.attested = true,
                _ => {}
            }
            if *behaviour == Behaviour::PushTwoPlatforms {
                let other = TestImage::of("linux/386".parse().unwrap(), &content);
                let mut children = Vec::new();
                for image in [&image, &other] {
                    let pushed = image.push(registry, &repository, None).await;
                    children.push(image.child(&pushed.built));
                }
                push_index(registry, &repository, Some(&tag), &children).await;
                return None;
            }
            if *behaviour == Behaviour::ExportDigest {
                let pushed = image.push(registry, &repository, None).await;
                return Some(format!("registry.example/{repository}@{}", pushed.top));
            }
            image.push(registry, &repository, Some(&tag)).await;
            return None;
        };
        let mut children = Vec::new();
        for source in sources.split(' ') {
            let (platform, digest) = source.split_once('=').unwrap();
            let platform: Platform = platform.parse().unwrap();
            let digest: Digest = digest.parse().unwrap();
            let image = registry.manifest(&repository, digest).await.unwrap();
            let built = Built {
                digest,
                media_type: image.media_type,
                manifest_bytes: image.bytes.len() as u64,
                size_bytes: 0,
                attestations: vec![],
            };
            children.push(Child { platform, fields: platform.into(), built });
        }
        if *behaviour == Behaviour::PushWrongIndex {
            children[1].built = children[0].built.clone();
        }
        push_index(registry, &repository, Some(&tag), &children).await;
        None
    }
}

impl Worker for SimulatedBuilds {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        self.work(job).boxed()
    }
}
