//! What the registry knows besides its blobs, as the sum of the changes made to it.

use std::collections::{BTreeMap, BTreeSet};

use archweld_model::{Digest, ImageTag, RepositoryName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{RegistryError, TagMutability, manifest::Manifest, tags::Tags};

/// One step from one state to the next. Changes are what the journal holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub(crate) enum Change {
    RepositoryCreated {
        repository: RepositoryName,
        created_at: Timestamp,
        mutability: TagMutability,
    },
    RepositoryDeleted {
        repository: RepositoryName,
    },
    MutabilitySet {
        repository: RepositoryName,
        mutability: TagMutability,
    },
    BlobLinked {
        repository: RepositoryName,
        digest: Digest,
    },
    BlobUnlinked {
        repository: RepositoryName,
        digest: Digest,
    },
    ManifestPut {
        repository: RepositoryName,
        digest: Digest,
        manifest: Manifest,
    },
    ManifestDeleted {
        repository: RepositoryName,
        digest: Digest,
    },
    TagSet {
        repository: RepositoryName,
        tag: ImageTag,
        digest: Digest,
    },
    TagDeleted {
        repository: RepositoryName,
        tag: ImageTag,
    },
}

/// All repositories.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) repositories: BTreeMap<RepositoryName, Repository>,
}

/// One repository: what it holds is invisible to the others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Repository {
    pub(crate) created_at: Timestamp,
    pub(crate) mutability: TagMutability,
    /// Configs and layers.
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) manifests: BTreeMap<Digest, Manifest>,
    pub(crate) tags: Tags,
}

impl State {
    pub(crate) fn repository(&self, name: &RepositoryName) -> Result<&Repository, RegistryError> {
        let repository = self.repositories.get(name);
        repository.ok_or_else(|| RegistryError::RepositoryNotFound(name.clone()))
    }

    /// Whether any repository needs this blob or manifest.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.repositories.values().any(|repository| {
            repository.blobs.contains(digest) || repository.manifests.contains_key(digest)
        })
    }

    /// Makes a change. One about a repository that is not there changes nothing.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::RepositoryCreated { repository, created_at, mutability } => {
                let (blobs, manifests, tags) = Default::default();
                let created = Repository { created_at, mutability, blobs, manifests, tags };
                self.repositories.insert(repository, created);
            }
            Change::RepositoryDeleted { repository } => {
                self.repositories.remove(&repository);
            }
            Change::MutabilitySet { repository, mutability } => {
                self.change(&repository, |repository| repository.mutability = mutability);
            }
            Change::BlobLinked { repository, digest } => {
                self.change(&repository, |repository| {
                    repository.blobs.insert(digest);
                });
            }
            Change::BlobUnlinked { repository, digest } => {
                self.change(&repository, |repository| {
                    repository.blobs.remove(&digest);
                });
            }
            Change::ManifestPut { repository, digest, manifest } => {
                self.change(&repository, |repository| {
                    repository.manifests.insert(digest, manifest);
                });
            }
            Change::ManifestDeleted { repository, digest } => {
                self.change(&repository, |repository| {
                    repository.manifests.remove(&digest);
                });
            }
            Change::TagSet { repository, tag, digest } => {
                self.change(&repository, |repository| repository.tags.set(tag, digest));
            }
            Change::TagDeleted { repository, tag } => {
                self.change(&repository, |repository| repository.tags.remove(&tag));
            }
        }
    }

    fn change(&mut self, name: &RepositoryName, change: impl FnOnce(&mut Repository)) {
        if let Some(repository) = self.repositories.get_mut(name) {
            change(repository);
        }
    }

    /// The shortest list of changes that leads here, one repository after another.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Vec<Change>> {
        self.repositories.iter().map(|(name, repository)| {
            let created = Change::RepositoryCreated {
                repository: name.clone(),
                created_at: repository.created_at,
                mutability: repository.mutability.clone(),
            };
            let blobs = repository
                .blobs
                .iter()
                .map(|&digest| Change::BlobLinked { repository: name.clone(), digest });
            let manifests = repository.manifests.iter().map(|(&digest, manifest)| {
                Change::ManifestPut { repository: name.clone(), digest, manifest: manifest.clone() }
            });
            let tags = repository.tags.all().iter().map(|(tag, &digest)| Change::TagSet {
                repository: name.clone(),
                tag: tag.clone(),
                digest,
            });
            std::iter::once(created).chain(blobs).chain(manifests).chain(tags).collect()
        })
    }
}

impl Repository {
    /// An index that needs this image.
    pub(crate) fn index_of(&self, image: &Digest) -> Option<Digest> {
        let mut manifests = self.manifests.iter();
        manifests.find(|(_, manifest)| manifest.children.contains(image)).map(|(&index, _)| index)
    }

    /// An image other than `except` that needs this blob.
    pub(crate) fn image_of(&self, blob: &Digest, except: Option<&Digest>) -> Option<Digest> {
        let mut manifests = self.manifests.iter().filter(|(image, _)| Some(*image) != except);
        manifests.find(|(_, manifest)| manifest.blobs.contains(blob)).map(|(&image, _)| image)
    }
}
