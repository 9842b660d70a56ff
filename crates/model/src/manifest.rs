//! Image manifests, as far as archweld reads them.

use serde::Deserialize;

use crate::Digest;

/// A manifest: the config and the layers of one image
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// The image's config.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The size of config and layers as they are stored, in bytes.
    pub fn size_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size);
        layers.fold(self.config.size, u64::saturating_add)
    }
}
