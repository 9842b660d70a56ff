//! Builds whose work is simulated, and whose images are real manifests in the real registry.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, OnceLock, PoisonError},
};

use archweld_codebuild::{Job, Outcome, PhaseContext, PhaseType, Status, Worker};
use archweld_model::{
    Annotations, Built, Child, Digest, ImageTag, Index, Platform, RepositoryName, media_type,
    variable,
};
use archweld_registry::Registry;
use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::json;

use crate::{
    checks::Truth,
    faults::Fault,
    network::Network,
    state::{Shared, between_ms},
};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// How long a build works, in milliseconds.
const WORK_MS: (u64, u64) = (15_000, 200_000);
/// How long somebody else's build takes a machine, in milliseconds.
const FOREIGN_MS: (u64, u64) = (240_000, 600_000);

/// The builds of a world.
pub(crate) struct SimulatedBuilds {
    pub(crate) shared: Shared,
    pub(crate) network: Network,
    pub(crate) registry: OnceLock<Registry>,
}

impl Worker for SimulatedBuilds {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        async move {
            let outcome = self.work(&job).await;
            self.network.forget(&job.id);
            outcome
        }
        .boxed()
    }
}

impl SimulatedBuilds {
    async fn work(&self, job: &Job) -> Outcome {
        let shared = &self.shared;
        let Some(execution) = job.variable(variable::EXECUTION) else {
            tokio::time::sleep(shared.draw_ms(FOREIGN_MS.0, FOREIGN_MS.1)).await;
            return Status::Succeeded.into();
        };
        let inject = |fault| shared.inject(fault, Some(execution));
        if inject(Fault::BuildFault).is_some() {
            job.reporter.begin(PhaseType::Provisioning);
            let context = PhaseContext::new("INTERNAL_SERVICE_ERROR", "no machine");
            job.reporter.end(Status::Fault, vec![context]);
            self.ended(job, Truth::NotUsersFault);
            return Status::Fault.into();
        }
        job.reporter.begin(PhaseType::Build);
        let now = self.network.finish_now(&job.id);
        if inject(Fault::BuildHangs).is_some() {
            job.cancelled.cancelled().await;
            return Status::Stopped.into();
        }
        let works = shared.draw_ms(WORK_MS.0, WORK_MS.1);
        let by_hand = inject(Fault::BuildStopped).map(|size| between_ms(size, 1_000, 60_000));
        tokio::select! {
            biased;
            () = job.cancelled.cancelled() => return Status::Stopped.into(),
            () = now.notified() => {}
            () = tokio::time::sleep(by_hand.unwrap_or(works)) => {}
        }
        if by_hand.is_some() {
            self.ended(job, Truth::NotUsersFault);
            return Status::Stopped.into();
        }
        let failed = |context: PhaseContext, truth| {
            job.reporter.end(Status::Failed, vec![context]);
            self.ended(job, truth);
            Outcome::from(Status::Failed)
        };
        if inject(Fault::BuildFailed).is_some() {
            let message = "Error while executing command: make. Reason: exit status 2";
            let context = PhaseContext::new("COMMAND_EXECUTION_ERROR", message);
            return failed(context, Truth::UsersFault);
        }
        if inject(Fault::BuildOutOfMemory).is_some() {
            let message = "Build container found dead before completing the build. Build container \
                           died because it was out of memory";
            let context = PhaseContext::new("INTERNAL_SERVICE_ERROR", message);
            return failed(context, Truth::NotUsersFault);
        }
        let Some(()) = self.push(job, execution).await else {
            let context = PhaseContext::new("COMMAND_EXECUTION_ERROR", "denied");
            return failed(context, Truth::UsersFault);
        };
        self.ended(job, Truth::Pushed);
        Status::Succeeded.into()
    }

    fn ended(&self, job: &Job, truth: Truth) {
        if let Some(build) = self.shared.state().model.builds.get_mut(&job.id) {
            build.truth = Some(truth);
        }
    }

    /// Pushes what the build is for; none where the registry refuses.
    async fn push(&self, job: &Job, execution: &str) -> Option<()> {
        let registry = self.registry.get()?;
        let repository: RepositoryName = job.variable(variable::IMAGE_REPO_NAME)?.parse().ok()?;
        let tag: ImageTag = job.variable(variable::IMAGE_TAG)?.parse().ok()?;
        let put = async |kind: &str, manifest: String| {
            let digest = Digest::of(manifest.as_bytes());
            let put =
                registry.put_manifest(&repository, Some(&tag), Some(kind), manifest.into_bytes());
            put.await.ok().map(|_| digest)
        };
        let Some(sources) = job.variable(variable::IMAGE_SOURCES) else {
            let platform: Platform = job.variable(variable::IMAGE_PLATFORM)?.parse().ok()?;
            let layer = layer(platform);
            // No two builds make the same image.
            let config = json!({
                "architecture": platform.architecture_field(),
                "os": platform.os(),
                "variant": platform.variant_field(),
                "created": "2026-11-24T00:00:00Z",
                "config": {"Entrypoint": ["/app"], "Labels": {"build": job.id}},
                "rootfs": {"type": "layers", "diff_ids": []},
            })
            .to_string();
            let (config_size, layer_size) = (config.len(), layer.len());
            let config = registry.put_blob(&repository, config.into_bytes()).await.ok()?;
            let layer = registry.put_blob(&repository, layer).await.ok()?;
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": media_type::OCI_MANIFEST,
                "config": {"mediaType": CONFIG, "digest": config, "size": config_size},
                "layers": [{"mediaType": LAYER, "digest": layer, "size": layer_size}],
            });
            let digest = put(media_type::OCI_MANIFEST, manifest.to_string()).await?;
            let (digest, tag) = (digest.to_string(), tag.to_string());
            let now = self.shared.host().now();
            let platform = platform.to_string();
            let mut state = self.shared.state();
            state.model.image_pushed((&digest, &tag), execution, &platform, now);
            return Some(());
        };
        let mut children = Vec::new();
        for source in sources.split(' ') {
            let (platform, digest) = source.split_once('=')?;
            let platform: Platform = platform.parse().ok()?;
            let digest: Digest = digest.parse().ok()?;
            let image = registry.manifest(&repository, digest).await.ok()?;
            let built = Built {
                digest,
                media_type: image.media_type,
                manifest_bytes: image.bytes.len() as u64,
                size_bytes: 0,
                attestations: vec![],
            };
            children.push(Child { platform, fields: platform.into(), built });
        }
        let index = Index::assemble(&children, Annotations::new());
        let kind = index.media_type()?.to_owned();
        put(&kind, serde_json::to_string(&index).ok()?).await.map(drop)
    }
}

/// The layer of a platform, with the program that the image starts.
fn layer(platform: Platform) -> Vec<u8> {
    static LAYERS: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut layers = LAYERS.lock().unwrap_or_else(PoisonError::into_inner);
    let layer = layers.entry(platform.to_string());
    layer.or_insert_with(|| pack(&program(platform)).unwrap_or_default()).clone()
}

fn pack(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    layer.append_data(&mut header, "app", program)?;
    layer.into_inner()?.finish()
}

/// The header of a program (<https://gabi.xinuos.com/elf/02-eheader.html>).
fn program(platform: Platform) -> Vec<u8> {
    let machine: u16 = if platform.architecture_field() == "amd64" { 62 } else { 183 };
    let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    header.resize(16, 0);
    header.extend(2_u16.to_le_bytes());
    header.extend(machine.to_le_bytes());
    header.resize(64, 0);
    header
}
