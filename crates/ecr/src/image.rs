//! Images as ECR answers them.

use std::fmt;

use archweld_model::{Built, Digest, ImageTag, Manifest, media_type};

/// The name of an image within its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Its content.
    Digest(Digest),
    /// A tag.
    Tag(ImageTag),
}

/// A manifest or an index: bytes that their digest vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    digest: Digest,
    media_type: String,
    text: String,
}

impl Image {
    /// An image of these bytes.
    pub fn new(text: String, media_type: String) -> Self {
        Self { digest: Digest::of(text.as_bytes()), media_type, text }
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Whether it names several images.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// What a build that pushed it reports, without attestations.
    ///
    /// # Errors
    /// When it is neither a manifest nor an index.
    pub fn built(&self) -> serde_json::Result<Built> {
        let size_bytes =
            if self.is_index() { 0 } else { Manifest::parse(&self.text)?.size_bytes() };
        Ok(Built {
            digest: self.digest,
            media_type: self.media_type.clone(),
            manifest_bytes: self.text.len() as u64,
            size_bytes,
            attestations: Vec::new(),
        })
    }

    /// The manifest or index.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<ImageTag> for Reference {
    fn from(tag: ImageTag) -> Self {
        Self::Tag(tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "{digest}"),
            Self::Tag(tag) => write!(f, "{tag}"),
        }
    }
}
