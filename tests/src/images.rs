//! Images as builds push them: a config, and a layer with the program that the image starts.

use archweld_model::{
    Annotations, Attestation, Built, Child, Digest, ImageTag, Index, Platform, RepositoryName,
    media_type,
};
use archweld_registry::Registry;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

/// An image to push.
#[derive(Debug, Clone)]
pub struct TestImage {
    /// What its config says.
    pub platform: Platform,
    /// What the program in it is made for.
    pub program: Platform,
    /// Something that sets it apart from other images.
    pub content: String,
    /// Whether it is a Docker image, and not an OCI image.
    pub docker: bool,
    /// Whether it comes in an index, with its provenance, as BuildKit pushes it.
    pub attested: bool,
    /// Whether the program is compressed in a way that nobody knows.
    pub sealed: bool,
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The image, as a build reports it.
    pub built: Built,
    /// What the tag names: the image, or the index that it comes in.
    pub top: Digest,
}

impl TestImage {
    /// An honest image.
    pub fn of(platform: Platform, content: &str) -> Self {
        Self {
            platform,
            program: platform,
            content: content.to_owned(),
            docker: false,
            attested: false,
            sealed: false,
        }
    }

    /// Pushes it.
    pub async fn push(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        tag: Option<&ImageTag>,
    ) -> Pushed {
        let layer = layer(&self.program, &self.content);
        let config = json!({
            "architecture": self.platform.architecture_field(),
            "os": self.platform.os(),
            "variant": self.platform.variant_field(),
            "created": "2026-11-23T09:59:58.123456789Z",
            "config": {"Entrypoint": ["/app"]},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let (kind, config_kind, layer_kind) = match (self.docker, self.sealed) {
            (_, true) => (
                media_type::OCI_MANIFEST,
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+sealed",
            ),
            (false, _) => (
                media_type::OCI_MANIFEST,
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            (true, _) => (
                media_type::DOCKER_MANIFEST,
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": blob(registry, repository, config_kind, config.to_string().into()).await,
            "layers": [blob(registry, repository, layer_kind, layer).await],
        });
        let size_bytes = size(&manifest["config"]) + size(&manifest["layers"][0]);
        let manifest = manifest.to_string();
        let mut built = Built {
            digest: Digest::of(manifest.as_bytes()),
            media_type: kind.to_owned(),
            manifest_bytes: manifest.len() as u64,
            size_bytes,
            attestations: vec![],
        };
        let tag_of_image = tag.filter(|_| !self.attested);
        put(registry, repository, tag_of_image, kind, manifest).await;
        let mut top = built.digest;
        if self.attested {
            built.attestations = vec![attestation(registry, repository, built.digest).await];
            top = push_index(registry, repository, tag, &[self.child(&built)]).await;
        }
        Pushed { built, top }
    }

    /// Its place in an index, as its config has it.
    pub fn child(&self, built: &Built) -> Child {
        Child { platform: self.platform, fields: self.platform.into(), built: built.clone() }
    }
}

/// Pushes an index of images.
pub async fn push_index(
    registry: &Registry,
    repository: &RepositoryName,
    tag: Option<&ImageTag>,
    children: &[Child],
) -> Digest {
    let index = Index::assemble(children, Annotations::new());
    let kind = index.media_type().unwrap().to_owned();
    let text = serde_json::to_string(&index).unwrap();
    let digest = Digest::of(text.as_bytes());
    put(registry, repository, tag, &kind, text).await;
    digest
}

async fn put(
    registry: &Registry,
    repository: &RepositoryName,
    tag: Option<&ImageTag>,
    kind: &str,
    text: String,
) {
    registry.put_manifest(repository, tag, Some(kind), text.into_bytes()).await.unwrap();
}

/// Provenance, as BuildKit stores it: a manifest of its own that is tied to the image by the
/// annotations of its entry.
async fn attestation(
    registry: &Registry,
    repository: &RepositoryName,
    subject: Digest,
) -> Attestation {
    let config = blob(
        registry,
        repository,
        "application/vnd.oci.image.config.v1+json",
        json!({"architecture": "unknown", "os": "unknown"}).to_string().into(),
    )
    .await;
    let statement = json!({"_type": "https://in-toto.io/Statement/v0.1", "subject": [subject]});
    let layer =
        blob(registry, repository, "application/vnd.in-toto+json", statement.to_string().into())
            .await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": [layer],
    });
    let manifest = manifest.to_string();
    let (digest, size) = (Digest::of(manifest.as_bytes()), manifest.len() as u64);
    put(registry, repository, None, media_type::OCI_MANIFEST, manifest).await;
    let annotations = [
        ("vnd.docker.reference.digest".to_owned(), subject.to_string()),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ];
    Attestation {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest,
        size,
        annotations: annotations.into(),
    }
}

async fn blob(
    registry: &Registry,
    repository: &RepositoryName,
    media_type: &str,
    bytes: Vec<u8>,
) -> Value {
    let size = bytes.len();
    let digest = registry.put_blob(repository, bytes).await.unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn size(descriptor: &Value) -> u64 {
    descriptor["size"].as_u64().unwrap()
}

/// A layer with the program `/app` and a file that sets it apart.
fn layer(program: &Platform, content: &str) -> Vec<u8> {
    let mut layer = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, mode, bytes) in
        [("content", 0o644, content.as_bytes()), ("app", 0o755, &elf(program))]
    {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        layer.append_data(&mut header, path, bytes).unwrap();
    }
    layer.into_inner().unwrap().finish().unwrap()
}

/// The header of a program (<https://gabi.xinuos.com/elf/02-eheader.html>).
fn elf(platform: &Platform) -> Vec<u8> {
    let (class, machine): (u8, u16) = match platform.architecture_field() {
        "amd64" => (2, 62),
        "386" => (1, 3),
        "arm64" => (2, 183),
        _ => (1, 40),
    };
    let mut header = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
    header.resize(16, 0);
    header.extend(2_u16.to_le_bytes());
    header.extend(machine.to_le_bytes());
    header.resize(64, 0);
    header
}
