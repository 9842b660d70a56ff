//! What can go wrong in the registry, before either API has put it into its own words.

use std::io;

use archweld_model::{Digest, ImageTag, RepositoryName};

/// Why the registry refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such repository.
    #[error("repository {0} does not exist in this registry")]
    RepositoryNotFound(RepositoryName),
    /// The repository is there already.
    #[error("repository {0} already exists in this registry")]
    RepositoryExists(RepositoryName),
    /// A repository that holds images is only deleted by force.
    #[error("repository {0} still holds images, delete it with force")]
    RepositoryNotEmpty(RepositoryName),
    /// No image of that tag or digest.
    #[error("image {reference} does not exist in repository {repository}")]
    ImageNotFound {
        /// Where it was looked for.
        repository: RepositoryName,
        /// The tag or digest.
        reference: String,
    },
    /// The repository does not hold that blob; another one may.
    #[error("blob {digest} does not exist in repository {repository}")]
    BlobNotFound {
        /// Where it was looked for.
        repository: RepositoryName,
        /// What was looked for.
        digest: Digest,
    },
    /// The tag exists and must not move.
    #[error("tag {tag} exists in repository {repository} and is immutable")]
    TagImmutable {
        /// The tag's repository.
        repository: RepositoryName,
        /// The tag.
        tag: ImageTag,
    },
    /// The image has as many tags as an image may have.
    #[error("image {image} has {tags_max} tags, which is the most of one image")]
    TooManyTags {
        /// The image.
        image: Digest,
        /// The most that it may have.
        tags_max: usize,
    },
    /// A manifest whose config or layers were not uploaded.
    #[error("layers {} must be uploaded to the repository first", list(.0))]
    LayersNotFound(Vec<Digest>),
    /// An index whose images were not pushed.
    #[error("images {} must be pushed to the repository first", list(.0))]
    ReferencedImagesNotFound(Vec<Digest>),
    /// An image that an index needs.
    #[error("image {image} is part of index {index}, which must be deleted first")]
    ReferencedByIndex {
        /// What was to be deleted.
        image: Digest,
        /// What needs it.
        index: Digest,
    },
    /// A blob that an image needs.
    #[error("blob {blob} is part of image {image}, which must be deleted first")]
    ReferencedByImage {
        /// What was to be deleted.
        blob: Digest,
        /// What needs it.
        image: Digest,
    },
    /// Not a manifest that the registry takes.
    #[error("manifest is not valid: {0}")]
    ManifestInvalid(String),
    /// A manifest that is too large.
    #[error("manifest is larger than {bytes_max} bytes")]
    ManifestTooLarge {
        /// The most that is taken.
        bytes_max: usize,
    },
    /// The bytes are not those of the digest.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What the caller said.
        expected: Digest,
        /// What came.
        actual: String,
    },
    /// No such upload: never begun, finished, cancelled, or idle for too long.
    #[error("upload {0} does not exist")]
    UploadNotFound(String),
    /// A chunk that does not begin where the last one ended.
    #[error("chunk begins at byte {offset}, expected byte {expected}")]
    UploadOffset {
        /// Where the chunk begins.
        offset: u64,
        /// Where it should begin.
        expected: u64,
    },
    /// The rest of a request's body did not arrive.
    #[error("request body ended early: {0}")]
    UploadInterrupted(String),
    /// Too many uploads at once.
    #[error("{0} uploads are under way, which is the most at once")]
    TooManyUploads(usize),
    /// A layer that is too large.
    #[error("layer is larger than {bytes_max} bytes")]
    LayerTooLarge {
        /// The most that is taken.
        bytes_max: u64,
    },
    /// The registry's own limit.
    #[error("registry is full: its limit of {bytes_max} bytes does not leave room for this upload")]
    Full {
        /// The limit.
        bytes_max: u64,
    },
    /// The disk's limit.
    #[error("registry's disk is full")]
    DiskFull(#[source] io::Error),
    /// The store could not be read or written.
    #[error("registry's store failed")]
    Store(#[source] io::Error),
}

impl From<io::Error> for RegistryError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(error),
            _ => Self::Store(error),
        }
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
}
