//! Image indexes: one name for the images of several platforms.

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

    /// Every type that a build may push. Asked for by tag, ECR converts what is not accepted.
    pub const ALL: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
}

/// An image index or a Docker manifest list; the two differ in their media types only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    platform: Option<EntryPlatform>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EntryPlatform {
    architecture: String,
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// Why an index is not the one that a run planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// What should be an index is not.
    #[error("not an index: {0}")]
    NotAnIndex(String),
    /// An image that is an index itself cannot stand in an index.
    #[error(
        "the image of {0} is itself an index, expected a single image: build it with \
         `--provenance=false`"
    )]
    Nested(Platform),
    /// An entry of no platform that can be built.
    #[error("entry {digest}: {problem}")]
    Entry {
        /// The entry.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
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

impl Index {
    /// Makes the index of a run's images, in the plan's order: a Docker manifest list where every
    /// image is a Docker image, an OCI index otherwise.
    ///
    /// # Errors
    /// When an image is itself an index.
    pub fn assemble(images: &[(Platform, Built)]) -> Result<Self, IndexError> {
        let index = |(_, built): &&(Platform, Built)| {
            [media_type::OCI_INDEX, media_type::DOCKER_LIST].contains(&built.media_type.as_str())
        };
        if let Some((platform, _)) = images.iter().find(index) {
            return Err(IndexError::Nested(*platform));
        }
        let docker =
            images.iter().all(|(_, built)| built.media_type == media_type::DOCKER_MANIFEST);
        let kind = if docker { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
        let entry = |(platform, built): &(Platform, Built)| Entry {
            media_type: built.media_type.clone(),
            digest: built.digest,
            size: built.manifest_bytes,
            platform: Some(EntryPlatform {
                architecture: platform.architecture_field().to_owned(),
                os: platform.os().to_owned(),
                variant: platform.variant_field().map(str::to_owned),
            }),
        };
        Ok(Self {
            schema_version: 2,
            media_type: Some(kind.to_owned()),
            manifests: images.iter().map(entry).collect(),
        })
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

    /// Confirms that the index holds exactly these images, in whatever order.
    ///
    /// # Errors
    /// When it holds others, fewer or more; both sides are named.
    pub fn confirm(&self, images: &[(Platform, Built)]) -> Result<(), IndexError> {
        let mut found = self
            .manifests
            .iter()
            .map(|entry| Ok((entry.platform()?, entry.digest)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut expected: Vec<_> =
            images.iter().map(|(platform, built)| (*platform, built.digest)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        if found == expected {
            return Ok(());
        }
        let list = |images: &[(Platform, Digest)]| {
            let images = images.iter().map(|(platform, digest)| format!("{platform}={digest}"));
            images.collect::<Vec<_>>().join(" ")
        };
        Err(IndexError::Differs { found: list(&found), expected: list(&expected) })
    }
}

impl Entry {
    fn platform(&self) -> Result<Platform, IndexError> {
        let wrong = |problem: String| IndexError::Entry { digest: self.digest, problem };
        let platform = self.platform.as_ref().ok_or_else(|| wrong("no platform".to_owned()))?;
        let EntryPlatform { architecture, os, variant } = platform;
        Platform::from_fields(os, architecture, variant.as_deref())
            .map_err(|error: PlatformError| wrong(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(kinds: [&str; 2]) -> Vec<(Platform, Built)> {
        ["linux/amd64", "linux/arm/v7"]
            .into_iter()
            .zip(kinds)
            .map(|(platform, media_type)| {
                let built = Built {
                    digest: Digest::of(platform.as_bytes()),
                    media_type: media_type.to_owned(),
                    manifest_bytes: 500,
                    size_bytes: 1_000,
                };
                (platform.parse().unwrap(), built)
            })
            .collect()
    }

    #[test]
    fn docker_images_make_a_docker_list_and_others_an_oci_index() {
        use media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
        for (kinds, expected) in [
            ([DOCKER_MANIFEST, DOCKER_MANIFEST], DOCKER_LIST),
            ([OCI_MANIFEST, DOCKER_MANIFEST], OCI_INDEX),
            ([OCI_MANIFEST, OCI_MANIFEST], OCI_INDEX),
        ] {
            let index = Index::assemble(&images(kinds)).unwrap();
            assert_eq!(index.media_type(), Some(expected));
        }
    }

    #[test]
    fn what_it_assembles_it_confirms_after_a_round_trip() {
        let images = images([media_type::OCI_MANIFEST; 2]);
        let text = serde_json::to_string(&Index::assemble(&images).unwrap()).unwrap();
        insta::assert_snapshot!(text, @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942","size":500,"platform":{"architecture":"amd64","os":"linux"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:35df9beb9b1c4fe630707bc51e4360b94b506b4e6d5372d5d0d52a385350621b","size":500,"platform":{"architecture":"arm","os":"linux","variant":"v7"}}]}"#);
        assert_eq!(Index::parse(&text).unwrap().confirm(&images), Ok(()));
    }

    #[test]
    fn refuses_an_index_with_other_fewer_or_more_images() {
        let planned = images([media_type::OCI_MANIFEST; 2]);
        let mut other = planned.clone();
        other[1].1.digest = Digest::of(b"of another run");
        for index in [&other[..], &planned[..1]] {
            let error = Index::assemble(index).unwrap().confirm(&planned).unwrap_err();
            assert!(matches!(error, IndexError::Differs { .. }), "{error}");
        }
        let error = Index::assemble(&planned).unwrap().confirm(&planned[..1]).unwrap_err();
        assert!(matches!(error, IndexError::Differs { .. }), "{error}");
        let mut twice = planned.clone();
        twice.push(planned[0].clone());
        assert!(Index::assemble(&twice).unwrap().confirm(&planned).is_err());
    }

    #[test]
    fn refuses_an_image_that_is_itself_an_index() {
        let nested = images([media_type::OCI_MANIFEST, media_type::OCI_INDEX]);
        assert!(matches!(Index::assemble(&nested), Err(IndexError::Nested(_))));
    }

    #[test]
    fn an_image_is_not_an_index() {
        let error = Index::parse(r#"{"schemaVersion":2,"config":{},"layers":[]}"#).unwrap_err();
        assert!(error.to_string().starts_with("not an index: missing field `manifests`"));
    }
}
