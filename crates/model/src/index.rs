//! Image indexes: one name for the images of several platforms.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Built, Digest, Platform, PlatformError};

/// The media types of manifests and indexes
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md>,
/// <https://distribution.github.io/distribution/spec/manifest-v2-2/>).
pub mod media_type {
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// A Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A Docker image.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// Whether it is the type of what names several images.
    pub fn is_index(media_type: &str) -> bool {
        [OCI_INDEX, DOCKER_LIST].contains(&media_type)
    }

    /// Every type that a build may push. Asked for by tag, ECR converts what is not accepted.
    pub const ALL: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
}

/// The annotations by which BuildKit ties an attestation to its image
/// (<https://github.com/moby/buildkit/blob/v0.25.0/docs/attestations/attestation-storage.md>).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION_MANIFEST: &str = "attestation-manifest";
/// What BuildKit writes for the platform of what runs on none.
const UNKNOWN: &str = "unknown";

/// An image index or a Docker manifest list; the two differ in their media types, and only an image
/// index has annotations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Entry>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Annotations,
}

/// Names and values that tell of an index or of one of its entries.
pub type Annotations = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    platform: Option<PlatformFields>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Annotations,
}

/// What an image's config says of the platform that it is for, and an index's entry repeats
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#properties>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformFields {
    architecture: String,
    os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    os_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// The manifest of an attestation (provenance, SBOM) of an image: an entry of its index that runs
/// on no platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// The size of the manifest, in bytes.
    pub size: u64,
    /// The annotations of its entry.
    pub annotations: Annotations,
}

/// An image of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedImage {
    /// What it is for.
    pub platform: Platform,
    /// Its manifest.
    pub digest: Digest,
    /// Its attestations.
    pub attestations: Vec<Attestation>,
}

/// An image that stands in an index.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// What it was planned for.
    pub platform: Platform,
    /// What its config says.
    pub fields: PlatformFields,
    /// What was built.
    pub built: Built,
}

/// Why an index is not the one that a run planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// What should be an index is not.
    #[error("not an index: {0}")]
    NotAnIndex(String),
    /// An entry of no platform that can be built.
    #[error("entry {digest}: {problem}")]
    Entry {
        /// The entry.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// Two images for one platform.
    #[error("two images for {platform}: {one} and {other}")]
    Twice {
        /// The platform.
        platform: Platform,
        /// The one.
        one: Digest,
        /// The other.
        other: Digest,
    },
    /// The index holds other images than the run built.
    #[error("the index holds {found}, expected {expected}")]
    Differs {
        /// `<platform>=<digest>`, separated by spaces.
        found: String,
        /// `<platform>=<digest>`, separated by spaces.
        expected: String,
    },
}

impl PlatformFields {
    /// The platform, where it is one that can be built.
    ///
    /// # Errors
    /// When it is not.
    pub fn platform(&self) -> Result<Platform, PlatformError> {
        Platform::from_fields(&self.os, &self.architecture, self.variant.as_deref())
    }

    /// Whether it says that this runs nowhere.
    fn is_unknown(&self) -> bool {
        self.os == UNKNOWN && self.architecture == UNKNOWN
    }
}

impl fmt::Display for PlatformFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl From<Platform> for PlatformFields {
    fn from(platform: Platform) -> Self {
        Self {
            architecture: platform.architecture_field().to_owned(),
            os: platform.os().to_owned(),
            os_version: None,
            os_features: None,
            variant: platform.variant_field().map(str::to_owned),
        }
    }
}

impl Index {
    /// Makes the index of a run's images, in the plan's order, and of their attestations after
    /// them: a Docker manifest list where every manifest is Docker's, an OCI index otherwise. A
    /// Docker manifest list has no annotations.
    pub fn assemble(children: &[Child], annotations: Annotations) -> Self {
        let images = children.iter().map(|child| Entry {
            media_type: child.built.media_type.clone(),
            digest: child.built.digest,
            size: child.built.manifest_bytes,
            platform: Some(child.fields.clone()),
            annotations: Annotations::new(),
        });
        let attestations =
            children.iter().flat_map(|child| &child.built.attestations).map(|attestation| Entry {
                media_type: attestation.media_type.clone(),
                digest: attestation.digest,
                size: attestation.size,
                platform: Some(PlatformFields {
                    architecture: UNKNOWN.to_owned(),
                    os: UNKNOWN.to_owned(),
                    os_version: None,
                    os_features: None,
                    variant: None,
                }),
                annotations: attestation.annotations.clone(),
            });
        let manifests: Vec<Entry> = images.chain(attestations).collect();
        let docker = manifests.iter().all(|entry| entry.media_type == media_type::DOCKER_MANIFEST);
        let (kind, annotations) = if docker {
            (media_type::DOCKER_LIST, Annotations::new())
        } else {
            (media_type::OCI_INDEX, annotations)
        };
        Self { schema_version: 2, media_type: Some(kind.to_owned()), manifests, annotations }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, IndexError> {
        serde_json::from_str(text).map_err(|error| IndexError::NotAnIndex(error.to_string()))
    }

    /// The media type that it states.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    /// What it tells of itself.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// Its images, each with its attestations.
    ///
    /// # Errors
    /// When an entry is neither the one nor the other, or a platform has two images.
    pub fn images(&self) -> Result<Vec<IndexedImage>, IndexError> {
        let mut images: Vec<IndexedImage> = Vec::new();
        for entry in self.manifests.iter().filter(|entry| !entry.is_of_no_platform()) {
            let platform = entry.platform()?;
            if let Some(image) = images.iter().find(|image| image.platform == platform) {
                let (one, other) = (image.digest, entry.digest);
                return Err(IndexError::Twice { platform, one, other });
            }
            images.push(IndexedImage { platform, digest: entry.digest, attestations: vec![] });
        }
        for entry in self.manifests.iter().filter(|entry| entry.is_of_no_platform()) {
            let subject = entry.attested()?;
            let image = images.iter_mut().find(|image| image.digest == subject);
            let image = image.ok_or_else(|| {
                entry.wrong(format!("an attestation of {subject}, which the index does not hold"))
            })?;
            image.attestations.push(Attestation {
                media_type: entry.media_type.clone(),
                digest: entry.digest,
                size: entry.size,
                annotations: entry.annotations.clone(),
            });
        }
        Ok(images)
    }

    /// Confirms that the index holds exactly these images, in whatever order, and no attestation
    /// but theirs. An index may leave attestations out: a manifest build's tool decides on that.
    ///
    /// # Errors
    /// When it holds others, fewer or more; both sides are named.
    pub fn confirm(&self, children: &[Child]) -> Result<(), IndexError> {
        let mut found = self.images()?;
        found.sort_unstable_by_key(|image| image.platform);
        let mut expected: Vec<_> = children.iter().collect();
        expected.sort_unstable_by_key(|child| child.platform);
        let same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(image, child)| {
                image.platform == child.platform && image.digest == child.built.digest
            });
        if !same {
            return Err(IndexError::Differs {
                found: list(found.iter().map(|image| (image.platform, image.digest))),
                expected: list(expected.iter().map(|child| (child.platform, child.built.digest))),
            });
        }
        for (image, child) in found.iter().zip(expected) {
            let known = &child.built.attestations;
            let is_known = |digest| known.iter().any(|known| known.digest == digest);
            if let Some(other) = image.attestations.iter().find(|found| !is_known(found.digest)) {
                let problem =
                    format!("an attestation that the build of {} did not push", image.platform);
                return Err(IndexError::Entry { digest: other.digest, problem });
            }
            if let Some(entry) = self.manifests.iter().find(|entry| entry.digest == image.digest) {
                entry.check_descriptor(&child.built)?;
            }
        }
        Ok(())
    }
}

/// `<platform>=<digest>` of every image, separated by spaces.
fn list(images: impl Iterator<Item = (Platform, Digest)>) -> String {
    let images = images.map(|(platform, digest)| format!("{platform}={digest}"));
    images.collect::<Vec<_>>().join(" ")
}

impl Entry {
    fn wrong(&self, problem: String) -> IndexError {
        IndexError::Entry { digest: self.digest, problem }
    }

    fn platform(&self) -> Result<Platform, IndexError> {
        let fields = self.platform.as_ref().ok_or_else(|| self.wrong("no platform".to_owned()))?;
        fields.platform().map_err(|error| self.wrong(error.to_string()))
    }

    fn is_of_no_platform(&self) -> bool {
        self.platform.as_ref().is_some_and(PlatformFields::is_unknown)
    }

    /// What this entry attests.
    fn attested(&self) -> Result<Digest, IndexError> {
        let annotation = |name: &str| self.annotations.get(name).map(String::as_str);
        if annotation(REFERENCE_TYPE) != Some(ATTESTATION_MANIFEST) {
            return Err(self.wrong("neither an image nor an attestation".to_owned()));
        }
        let digest = annotation(REFERENCE_DIGEST).unwrap_or_default();
        digest.parse().map_err(|error| self.wrong(format!("{REFERENCE_DIGEST}: {error}")))
    }

    /// A client that pulls compares what it gets with the entry.
    fn check_descriptor(&self, built: &Built) -> Result<(), IndexError> {
        if self.size == built.manifest_bytes && self.media_type == built.media_type {
            return Ok(());
        }
        Err(self.wrong(format!(
            "{} bytes of {}, expected {} bytes of {}",
            self.size, self.media_type, built.manifest_bytes, built.media_type
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::subsequence};

    use super::*;

    const PLATFORMS: [&str; 6] =
        ["linux/amd64", "linux/386", "linux/arm64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7"];

    fn child(platform: &str, media_type: &str) -> Child {
        let platform: Platform = platform.parse().unwrap();
        let built = Built {
            digest: Digest::of(platform.to_string().as_bytes()),
            media_type: media_type.to_owned(),
            manifest_bytes: 500,
            size_bytes: 1_000,
            attestations: vec![],
        };
        Child { platform, fields: platform.into(), built }
    }

    fn attestation(of: &Built, kind: &str) -> Attestation {
        let annotations = [
            (REFERENCE_TYPE.to_owned(), ATTESTATION_MANIFEST.to_owned()),
            (REFERENCE_DIGEST.to_owned(), of.digest.to_string()),
        ];
        Attestation {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            digest: Digest::of(format!("{kind} of {}", of.digest).as_bytes()),
            size: 800,
            annotations: annotations.into(),
        }
    }

    fn children(kinds: [&str; 2]) -> Vec<Child> {
        ["linux/amd64", "linux/arm/v7"]
            .into_iter()
            .zip(kinds)
            .map(|(platform, kind)| child(platform, kind))
            .collect()
    }

    fn annotations() -> Annotations {
        [("org.opencontainers.image.revision".to_owned(), "0123456".to_owned())].into()
    }

    fn text(index: &Index) -> String {
        serde_json::to_string(index).unwrap()
    }

    #[test]
    fn docker_images_make_a_docker_list_and_others_an_oci_index() {
        use media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
        for (kinds, expected) in [
            ([DOCKER_MANIFEST, DOCKER_MANIFEST], DOCKER_LIST),
            ([OCI_MANIFEST, DOCKER_MANIFEST], OCI_INDEX),
            ([OCI_MANIFEST, OCI_MANIFEST], OCI_INDEX),
        ] {
            let index = Index::assemble(&children(kinds), annotations());
            assert_eq!(index.media_type(), Some(expected));
            assert_eq!(index.annotations().is_empty(), expected == DOCKER_LIST);
        }
    }

    #[test]
    fn what_it_assembles_it_confirms_after_a_round_trip() {
        let children = children([media_type::OCI_MANIFEST; 2]);
        let text = text(&Index::assemble(&children, annotations()));
        insta::assert_snapshot!(text, @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942","size":500,"platform":{"architecture":"amd64","os":"linux"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:35df9beb9b1c4fe630707bc51e4360b94b506b4e6d5372d5d0d52a385350621b","size":500,"platform":{"architecture":"arm","os":"linux","variant":"v7"}}],"annotations":{"org.opencontainers.image.revision":"0123456"}}"#);
        assert_eq!(Index::parse(&text).unwrap().confirm(&children), Ok(()));
    }

    #[test]
    fn refuses_an_index_with_other_fewer_or_more_images() {
        let planned = children([media_type::OCI_MANIFEST; 2]);
        let index = |children: &[Child]| Index::assemble(children, Annotations::new());
        let mut other = planned.clone();
        other[1].built.digest = Digest::of(b"of another run");
        for held in [&other[..], &planned[..1]] {
            let error = index(held).confirm(&planned).unwrap_err();
            assert!(matches!(error, IndexError::Differs { .. }), "{error}");
        }
        let error = index(&planned).confirm(&planned[..1]).unwrap_err();
        assert!(matches!(error, IndexError::Differs { .. }), "{error}");
        let mut twice = planned.clone();
        twice.push(other[1].clone());
        let error = index(&twice).confirm(&planned).unwrap_err();
        assert!(matches!(error, IndexError::Twice { .. }), "{error}");
    }

    #[test]
    fn refuses_an_entry_that_describes_its_image_wrongly() {
        let planned = children([media_type::OCI_MANIFEST; 2]);
        let mut other = planned.clone();
        other[0].built.manifest_bytes = 501;
        let error = Index::assemble(&other, Annotations::new()).confirm(&planned).unwrap_err();
        assert!(error.to_string().contains("501 bytes"), "{error}");
    }

    #[test]
    fn refuses_an_attestation_of_something_else() {
        let mut planned = children([media_type::OCI_MANIFEST; 2]);
        let plain = planned.clone();
        let foreign =
            attestation(&child("linux/386", media_type::OCI_MANIFEST).built, "provenance");
        planned[0].built.attestations = vec![foreign];
        let error = Index::assemble(&planned, Annotations::new()).images().unwrap_err();
        assert!(error.to_string().contains("which the index does not hold"), "{error}");

        planned[0].built.attestations = vec![attestation(&plain[0].built, "forged")];
        let index = Index::assemble(&planned, Annotations::new());
        let error = index.confirm(&plain).unwrap_err();
        assert!(error.to_string().contains("did not push"), "{error}");
    }

    #[test]
    fn an_image_is_not_an_index() {
        let error = Index::parse(r#"{"schemaVersion":2,"config":{},"layers":[]}"#).unwrap_err();
        assert!(error.to_string().starts_with("not an index: missing field `manifests`"));
    }

    proptest! {
        #[test]
        fn every_assembled_index_is_stable_ordered_and_holds_each_attestation_with_its_image(
            platforms in subsequence(PLATFORMS.to_vec(), 1..=6).prop_shuffle(),
            docker in vec(any::<bool>(), 6),
            attested in vec(0..3_usize, 6),
        ) {
            let children: Vec<Child> = platforms
                .iter()
                .zip(docker.into_iter().zip(attested))
                .map(|(platform, (docker, attested))| {
                    let kind =
                        if docker { media_type::DOCKER_MANIFEST } else { media_type::OCI_MANIFEST };
                    let mut child = child(platform, kind);
                    child.built.attestations = ["provenance", "sbom"][..attested]
                        .iter()
                        .map(|kind| attestation(&child.built, kind))
                        .collect();
                    child
                })
                .collect();
            let written = text(&Index::assemble(&children, annotations()));
            prop_assert_eq!(&written, &text(&Index::assemble(&children.clone(), annotations())));
            let index = Index::parse(&written).unwrap();
            prop_assert_eq!(&written, &text(&index));
            prop_assert_eq!(index.confirm(&children), Ok(()));
            let images = index.images().unwrap();
            prop_assert_eq!(images.len(), children.len());
            for (image, child) in images.iter().zip(&children) {
                prop_assert_eq!(image.platform, child.platform);
                prop_assert_eq!(&image.attestations, &child.built.attestations);
            }
            for (position, child) in children.iter().enumerate() {
                let mut changed = children.clone();
                changed[position].built.digest = Digest::of(b"another run's");
                changed[position].built.attestations.clear();
                let changed = Index::assemble(&changed, annotations());
                prop_assert!(changed.confirm(&children).is_err());
                let mut fewer = children.clone();
                fewer.remove(position);
                let fewer = Index::assemble(&fewer, annotations());
                prop_assert!(fewer.confirm(&children).is_err());
                let more = Index::assemble(&children, annotations());
                let expected: Vec<Child> =
                    children.iter().filter(|other| *other != child).cloned().collect();
                prop_assert!(more.confirm(&expected).is_err());
            }
        }
    }
}
