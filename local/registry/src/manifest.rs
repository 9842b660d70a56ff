//! Manifests and indexes, Docker's and OCI's: what the registry must know of them.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>,
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md>

use archweld_model::Digest;
use jiff::Timestamp;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::RegistryError;

/// The largest manifest that ECR takes
/// (<https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html>).
pub(crate) const MANIFEST_BYTES_MAX: usize = 4_194_304;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a repository remembers of a manifest besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// The length of the manifest itself.
    pub(crate) bytes: u64,
    /// The length of the config and the layers; 0 for an index.
    pub(crate) content_bytes: u64,
    pub(crate) pushed_at: Timestamp,
    /// The config and the layers that must be in the repository.
    pub(crate) blobs: Vec<Digest>,
    /// The images of an index.
    pub(crate) children: Vec<Digest>,
    /// What a signature, a bill of materials and the like is about.
    pub(crate) subject: Option<Digest>,
    /// The artifact type, or else the media type of the config.
    pub(crate) artifact_type: Option<String>,
}

/// What tells the kinds of manifest apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest. Its media type is the one it states; `declared`, where there is one, must
    /// agree, and where it states none `declared` decides.
    pub(crate) fn parse(
        bytes: &[u8],
        declared: Option<&str>,
        pushed_at: Timestamp,
    ) -> Result<Self, RegistryError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(RegistryError::ManifestTooLarge { bytes_max: MANIFEST_BYTES_MAX });
        }
        let outline: Outline = serde_json::from_slice(bytes).map_err(invalid)?;
        if outline.schema_version != Some(2) {
            return Err(invalid("schemaVersion is not 2"));
        }
        // One document must not be an image to one reader and an index to another:
        // https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh
        let content = outline.config.is_some() || outline.layers.is_some();
        if content && outline.manifests.is_some() {
            return Err(invalid("it has both layers and manifests"));
        }
        let media_type = match (outline.media_type, declared) {
            (Some(stated), Some(declared)) if stated != declared => {
                return Err(invalid(format!("its mediaType is {stated}, declared is {declared}")));
            }
            (Some(stated), _) => stated,
            (None, Some(declared)) => declared.to_owned(),
            (None, None) => return Err(invalid("neither it nor the request states a media type")),
        };
        let (blobs, children, subject, artifact_type) = match media_type.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => {
                let image: ImageManifest = serde_json::from_slice(bytes).map_err(invalid)?;
                let artifact_type = image.artifact_type().as_ref();
                let artifact_type =
                    artifact_type.unwrap_or(image.config().media_type()).to_string();
                let mut blobs = vec![image.config().clone()];
                blobs.extend(image.layers().iter().filter(|layer| !is_foreign(layer)).cloned());
                (blobs, Vec::new(), image.subject().clone(), Some(artifact_type))
            }
            OCI_INDEX | DOCKER_LIST => {
                let index: ImageIndex = serde_json::from_slice(bytes).map_err(invalid)?;
                let artifact_type = index.artifact_type().as_ref().map(ToString::to_string);
                (Vec::new(), index.manifests().clone(), index.subject().clone(), artifact_type)
            }
            _ => return Err(invalid(format!("media type {media_type} is not supported"))),
        };
        Ok(Self {
            media_type,
            bytes: bytes.len() as u64,
            content_bytes: blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size())),
            pushed_at,
            blobs: digests(&blobs)?,
            children: digests(&children)?,
            subject: subject.as_ref().map(digest).transpose()?,
            artifact_type,
        })
    }

    /// The annotations of the manifest with these bytes.
    pub(crate) fn annotations(bytes: &[u8]) -> serde_json::Map<String, serde_json::Value> {
        #[derive(Deserialize)]
        struct Annotated {
            annotations: Option<serde_json::Map<String, serde_json::Value>>,
        }
        let annotated = serde_json::from_slice(bytes).ok();
        annotated.and_then(|annotated: Annotated| annotated.annotations).unwrap_or_default()
    }
}

/// Layers that are fetched from elsewhere and never uploaded.
fn is_foreign(layer: &Descriptor) -> bool {
    let media_type = layer.media_type().as_ref();
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

fn digests(descriptors: &[Descriptor]) -> Result<Vec<Digest>, RegistryError> {
    descriptors.iter().map(digest).collect()
}

fn digest(descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    descriptor.digest().to_string().parse().map_err(invalid)
}

fn invalid(reason: impl ToString) -> RegistryError {
    RegistryError::ManifestInvalid(reason.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(document: &Value, declared: Option<&str>) -> Result<Manifest, String> {
        Manifest::parse(document.to_string().as_bytes(), declared, Timestamp::UNIX_EPOCH)
            .map_err(|error| error.to_string())
    }

    fn descriptor(media_type: &str, content: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(content.as_bytes()), "size": content.len()})
    }

    fn image(media_type: &str) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor("application/vnd.oci.image.config.v1+json", "config"),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "layer"),
                descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
            ],
        })
    }

    #[test]
    fn knows_what_an_image_needs_except_foreign_layers() {
        for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
            let manifest = parse(&image(media_type), Some(media_type)).unwrap();
            assert_eq!(manifest.blobs, [Digest::of(b"config"), Digest::of(b"layer")]);
            assert_eq!(manifest.content_bytes, 11);
            assert_eq!(
                manifest.artifact_type.as_deref(),
                Some("application/vnd.oci.image.config.v1+json")
            );
        }
    }

    #[test]
    fn refuses_what_is_ambiguous_or_unsupported() {
        let mut both = image(OCI_MANIFEST);
        both["manifests"] = json!([]);
        assert!(parse(&both, None).unwrap_err().contains("both layers and manifests"));

        let disagreement = parse(&image(OCI_MANIFEST), Some(OCI_INDEX)).unwrap_err();
        assert!(disagreement.contains("declared is"), "{disagreement}");

        let mut silent = image(OCI_MANIFEST);
        silent["mediaType"].take();
        assert!(parse(&silent, None).unwrap_err().contains("states a media type"));
        assert_eq!(parse(&silent, Some(OCI_MANIFEST)).unwrap().media_type, OCI_MANIFEST);

        let old = json!({"schemaVersion": 1, "name": "x"});
        assert!(parse(&old, None).unwrap_err().contains("schemaVersion"));

        let mut long = image(OCI_MANIFEST);
        long["config"]["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
        assert!(parse(&long, None).unwrap_err().contains("sha512"));
    }
}
