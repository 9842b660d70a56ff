//! ECR on one machine: the ECR API and the OCI distribution API over one content-addressed store.
//!
//! [`Registry::call`] answers ECR's operations and [`Registry::router`] `docker push` and
//! `docker pull`; both keep ECR's rules: a repository must exist, an index's images and an image's
//! layers must be there first, an immutable tag does not move. The store lives in a folder or, for
//! tests and the simulation, in memory.
//!
//! The distribution API is our own because `ferro-oci-server` 1.0 takes every upload into memory
//! whole, shares blobs across repositories without mounts or ranges, and leaves its caller no
//! place to refuse a request by ECR's rules.
//!
//! What it deliberately does not do: scanning, replication, lifecycle policies, pull-through
//! caches, converting a manifest to another format, and ECR's layer upload API, which nobody but
//! ECR's own proxy uses.

mod auth;
mod blobs;
mod distribution;
mod ecr;

mod error;
mod journal;
mod manifest;
mod mutability;
mod rate;
mod space;
mod state;
mod tags;
mod upload;

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use archweld_local_api::{EventSink, Host};
use archweld_model::{Digest, ImageTag, RepositoryName};
use bytes::Bytes;
use serde_json::{Value, json};

use self::{
    auth::Secret,
    blobs::{Blob, Blobs},
    journal::Journal,
    manifest::Manifest,
    rate::Rate,
    state::{Change, Repository, State},
    upload::Uploads,
};
pub use self::{error::RegistryError, mutability::TagMutability};

/// How many tags an image may have
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html>).
const IMAGE_TAGS_MAX: usize = 1_000;

/// What a registry is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where images are kept.
    pub storage: Storage,
    /// The host and port that images' names begin with, such as `localhost:4577`; see
    /// [`Registry::set_address`].
    pub address: String,
    /// The most bytes that blobs and uploads may take together. An upload beyond it fails.
    pub bytes_max: Option<u64>,
    /// Whether a push makes a missing repository, as an ECR repository creation template with
    /// `CREATE_ON_PUSH` does.
    pub create_on_push: bool,
}

/// Where a registry keeps its images.
#[derive(Debug, Clone)]
pub enum Storage {
    /// In a folder, which is made when absent and belongs to one registry at a time.
    Folder(PathBuf),
    /// In memory, for as long as the registry lives.
    Memory,
}

/// Why a registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be read or written.
    #[error("registry's folder could not be read or written")]
    Io(#[from] io::Error),
    /// Another process has it.
    #[error("registry in {0} is in use by another process")]
    InUse(PathBuf),
    /// The journal is damaged.
    #[error("line {line} of {path} is not a transaction of the registry")]
    Journal {
        /// The journal.
        path: PathBuf,
        /// The first bad line, from 1.
        line: usize,
        /// What was wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file was deleted behind the registry's back.
    #[error("repository {repository} needs {digest}, which is missing from the folder {folder}")]
    BlobMissing {
        /// What needs it.
        repository: RepositoryName,
        /// What is missing.
        digest: Digest,
        /// Where it was.
        folder: PathBuf,
    },
}

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The media type of the manifest.
    pub media_type: String,
    /// The manifest, byte for byte.
    pub bytes: Bytes,
}

/// What names an image in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Whatever the tag points at.
    Tag(ImageTag),
    /// That manifest.
    Digest(Digest),
}

impl From<ImageTag> for Reference {
    fn from(tag: ImageTag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A registry: cheap to clone, one store behind all clones.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    events: EventSink,
    address: RwLock<String>,
    create_on_push: bool,
    secret: Secret,
    blobs: Blobs,
    uploads: Uploads,
    put_image_rate: Mutex<Rate>,
    /// Held while a transaction is decided, written and made, so that they happen one by one.
    journal: Mutex<Option<Journal>>,
    state: RwLock<State>,
    /// Held open for its lock.
    _lock: Option<File>,
}

/// What a transaction reads, and what it is going to do.
struct Transaction<'a> {
    state: &'a State,
    blobs: &'a Blobs,
    host: &'a Host,
    changes: Vec<Change>,
    /// Details of `ECR Image Action` events.
    events: Vec<Value>,
}

/// What a push of a manifest came to.
struct Put {
    digest: Digest,
    manifest: Manifest,
    /// Whether the repository was changed by it.
    changed: bool,
}

impl Registry {
    /// Opens the registry, and makes it where there is none. `events` gets its `ECR Image Action`
    /// events.
    pub fn open(host: Host, options: Options, events: EventSink) -> Result<Self, OpenError> {
        let Options { storage, address, bytes_max, create_on_push } = options;
        let (secret, blobs, journal, state, lock) = match storage {
            Storage::Memory => {
                let blobs = Blobs::in_memory(bytes_max);
                (Secret::generate(&host), blobs, None, State::default(), None)
            }
            Storage::Folder(folder) => {
                fs::create_dir_all(&folder)?;
                let lock = lock(&folder)?;
                let blobs = Blobs::on_disk(&folder, bytes_max)?;
                let uploads = folder.join("uploads");
                let secret = Secret::open(&folder.join("secret"), &uploads, &host)?;
                let (journal, state) = Journal::open(&folder.join("journal.jsonl"), &uploads)?;
                check_blobs(&state, &blobs, &folder)?;
                (secret, blobs, Some(journal), state, Some(lock))
            }
        };
        let inner = Inner {
            put_image_rate: Mutex::new(Rate::new(host.now())),
            host,
            events,
            address: RwLock::new(address),
            create_on_push,
            secret,
            blobs,
            uploads: Uploads::default(),
            journal: Mutex::new(journal),
            state: RwLock::new(state),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Changes the host and port that images' names begin with, once they are known.
    pub fn set_address(&self, address: impl Into<String>) {
        *self.inner.address.write().unwrap_or_else(PoisonError::into_inner) = address.into();
    }

    /// The host and port that images' names begin with.
    pub fn address(&self) -> String {
        self.inner.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `AWS:<password>` in base64: the credential that allows a push.
    pub fn authorization_token(&self) -> String {
        self.inner.secret.authorization_token()
    }

    /// Makes a repository.
    pub async fn create_repository(
        &self,
        name: &RepositoryName,
        mutability: TagMutability,
    ) -> Result<(), RegistryError> {
        let name = name.clone();
        self.transact(move |transaction| {
            if transaction.state.repositories.contains_key(&name) {
                return Err(RegistryError::RepositoryExists(name));
            }
            transaction.create_repository(name, mutability);
            Ok(())
        })
        .await
    }

    /// Changes which tags of a repository may move.
    pub async fn set_tag_mutability(
        &self,
        name: &RepositoryName,
        mutability: TagMutability,
    ) -> Result<(), RegistryError> {
        let repository = name.clone();
        self.transact(move |transaction| {
            transaction.state.repository(&repository)?;
            transaction.changes.push(Change::MutabilitySet { repository, mutability });
            Ok(())
        })
        .await
    }

    /// Deletes a repository, and with `force` all its images.
    pub async fn delete_repository(
        &self,
        name: &RepositoryName,
        force: bool,
    ) -> Result<(), RegistryError> {
        let name = name.clone();
        self.transact(move |transaction| {
            let is_empty = transaction.state.repository(&name)?.manifests.is_empty();
            if !is_empty && !force {
                return Err(RegistryError::RepositoryNotEmpty(name));
            }
            transaction.changes.push(Change::RepositoryDeleted { repository: name });
            Ok(())
        })
        .await
    }

    /// The names of all repositories, in order.
    pub fn repositories(&self) -> Vec<RepositoryName> {
        self.inner.state().repositories.keys().cloned().collect()
    }

    /// The tags of a repository, and what they point at.
    pub fn tags(
        &self,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<ImageTag, Digest>, RegistryError> {
        Ok(self.inner.state().repository(repository)?.tags.all().clone())
    }

    /// The bytes of all blobs and manifests in the store.
    pub fn total_bytes(&self) -> u64 {
        self.inner.blobs.total_bytes()
    }

    /// Puts a config or a layer into a repository.
    pub async fn put_blob(
        &self,
        repository: &RepositoryName,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, RegistryError> {
        let (repository, bytes) = (repository.clone(), bytes.into());
        let create = self.inner.create_on_push;
        self.transact(move |transaction| {
            transaction.require_repository(&repository, create)?;
            let finished = transaction.blobs.stage_bytes(bytes)?;
            let digest = finished.digest();
            transaction.blobs.commit(finished)?;
            transaction.link(repository, digest);
            Ok(digest)
        })
        .await
    }

    /// Puts a manifest or an index into a repository, and with a tag points that at it. The media
    /// type may be left to the manifest where that states it.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        tag: Option<&ImageTag>,
        media_type: Option<&str>,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, RegistryError> {
        let put = self.put(repository, tag, media_type, bytes.into(), None).await?;
        Ok(put.digest)
    }

    /// The manifest that a tag points at or that has a digest.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: impl Into<Reference>,
    ) -> Result<Image, RegistryError> {
        let (digest, media_type) = {
            let state = self.inner.state();
            let (digest, manifest) = find(&state, repository, &reference.into())?;
            (digest, manifest.media_type.clone())
        };
        let bytes = self.read(&digest).await?;
        Ok(Image { digest, media_type, bytes })
    }

    /// A config or a layer, whole.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Bytes, RegistryError> {
        Ok(self.find_blob(repository, digest)?.read().await?)
    }

    /// What is attached to an image, such as signatures.
    fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<(Digest, Manifest)>, RegistryError> {
        let state = self.inner.state();
        let manifests = state.repository(repository)?.manifests.iter();
        let referrers =
            manifests.filter(|(_, manifest)| manifest.subject.as_ref() == Some(subject));
        Ok(referrers.map(|(digest, manifest)| (*digest, manifest.clone())).collect())
    }

    fn find_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Blob, RegistryError> {
        let held = self.inner.state().repository(repository)?.blobs.contains(digest);
        let blob = self.inner.blobs.get(digest).filter(|_| held);
        blob.ok_or_else(|| RegistryError::BlobNotFound {
            repository: repository.clone(),
            digest: *digest,
        })
    }

    /// The bytes of a manifest that was found a moment ago.
    async fn read(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        match self.inner.blobs.get(digest) {
            Some(blob) => Ok(blob.read().await?),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "deleted meanwhile").into()),
        }
    }

    async fn put(
        &self,
        repository: &RepositoryName,
        tag: Option<&ImageTag>,
        media_type: Option<&str>,
        bytes: Bytes,
        expected: Option<Digest>,
    ) -> Result<Put, RegistryError> {
        let manifest = Manifest::parse(&bytes, media_type, self.inner.host.now())?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = expected
            && expected != digest
        {
            let actual = digest.to_string();
            return Err(RegistryError::DigestMismatch { expected, actual });
        }
        let (repository, tag) = (repository.clone(), tag.cloned());
        let create = self.inner.create_on_push;
        self.transact(move |transaction| {
            transaction.require_repository(&repository, create)?;
            let changed =
                transaction.put_manifest(&repository, tag.as_ref(), digest, &manifest, bytes)?;
            Ok(Put { digest, manifest, changed })
        })
        .await
    }

    /// Deletes a blob that no image of the repository needs.
    pub(crate) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let repository = repository.clone();
        self.transact(move |transaction| transaction.delete_blob(&repository, digest)).await
    }

    /// Deletes a tag, or an image with all its tags.
    pub(crate) async fn delete_reference(
        &self,
        repository: &RepositoryName,
        reference: Reference,
    ) -> Result<(), RegistryError> {
        let repository = repository.clone();
        self.transact(move |transaction| match reference {
            Reference::Tag(tag) => transaction.delete_tag(&repository, &tag),
            Reference::Digest(digest) => transaction.delete_image(&repository, digest).map(drop),
        })
        .await
    }

    /// Runs one transaction: `work` decides on the changes, which are then written, made and told
    /// about. It is run to its end even when the caller goes away.
    async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let inner = Arc::clone(&self.inner);
        if inner.blobs.is_on_disk() {
            let run = tokio::task::spawn_blocking(move || inner.transact(work));
            run.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
        } else {
            inner.transact(work)
        }
    }
}

impl Inner {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, changes, events) = {
            let state = self.state();
            let mut transaction = Transaction {
                state: &state,
                blobs: &self.blobs,
                host: &self.host,
                changes: Vec::new(),
                events: Vec::new(),
            };
            let value = work(&mut transaction)?;
            (value, transaction.changes, transaction.events)
        };
        if changes.is_empty() {
            return Ok(value);
        }
        let touched = self.touched(&changes);
        let written = journal.as_mut().map_or(Ok(()), |journal| journal.append(&changes));
        if written.is_ok() {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            changes.into_iter().for_each(|change| state.apply(change));
        }
        // What no repository holds any more goes; so does what a failed transaction brought.
        let state = self.state();
        touched.iter().filter(|digest| !state.holds(digest)).for_each(|digest| {
            self.blobs.remove(digest);
        });
        written?;
        for detail in events {
            let event = self.host.event("aws.ecr", "ECR Image Action", Vec::new(), detail);
            (self.events)(event);
        }
        Ok(value)
    }

    /// The blobs that may be held by nobody once these changes are made, or are not.
    fn touched(&self, changes: &[Change]) -> Vec<Digest> {
        let state = self.state();
        let digests = changes.iter().flat_map(|change| match change {
            Change::BlobLinked { digest, .. }
            | Change::BlobUnlinked { digest, .. }
            | Change::ManifestPut { digest, .. }
            | Change::ManifestDeleted { digest, .. } => vec![*digest],
            Change::RepositoryDeleted { repository } => state
                .repositories
                .get(repository)
                .into_iter()
                .flat_map(|repository| repository.blobs.iter().chain(repository.manifests.keys()))
                .copied()
                .collect(),
            Change::RepositoryCreated { .. }
            | Change::MutabilitySet { .. }
            | Change::TagSet { .. }
            | Change::TagDeleted { .. } => Vec::new(),
        });
        digests.collect()
    }
}

impl Transaction<'_> {
    fn create_repository(&mut self, repository: RepositoryName, mutability: TagMutability) {
        let created_at = self.host.now();
        self.changes.push(Change::RepositoryCreated { repository, created_at, mutability });
    }

    /// The repository must exist, or is made where pushes may.
    fn require_repository(
        &mut self,
        name: &RepositoryName,
        create: bool,
    ) -> Result<(), RegistryError> {
        if create && !self.state.repositories.contains_key(name) {
            self.create_repository(name.clone(), TagMutability::default());
            return Ok(());
        }
        self.state.repository(name).map(|_| ())
    }

    /// Makes a repository hold a blob that is in the store.
    fn link(&mut self, repository: RepositoryName, digest: Digest) {
        let held = self.state.repositories.get(&repository);
        if !held.is_some_and(|held| held.blobs.contains(&digest)) {
            self.changes.push(Change::BlobLinked { repository, digest });
        }
    }

    /// Puts a manifest whose repository exists; says whether that changed anything.
    fn put_manifest(
        &mut self,
        name: &RepositoryName,
        tag: Option<&ImageTag>,
        digest: Digest,
        manifest: &Manifest,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        // One that this transaction makes is still empty.
        let repository = self.state.repositories.get(name);
        let missing = |digests: &[Digest], held: &dyn Fn(&Repository, &Digest) -> bool| {
            let missing =
                digests.iter().filter(|digest| !repository.is_some_and(|it| held(it, digest)));
            missing.copied().collect::<Vec<_>>()
        };
        let layers = missing(&manifest.blobs, &|it, digest| it.blobs.contains(digest));
        if !layers.is_empty() {
            return Err(RegistryError::LayersNotFound(layers));
        }
        let images = missing(&manifest.children, &|it, digest| it.manifests.contains_key(digest));
        if !images.is_empty() {
            return Err(RegistryError::ReferencedImagesNotFound(images));
        }
        let tagged = tag.and_then(|tag| repository?.tags.get(tag));
        if let (Some(tag), Some(repository), Some(_)) = (tag, repository, tagged)
            && repository.mutability.is_immutable(tag)
        {
            // ECR refuses even what would change nothing:
            // https://github.com/aws/containers-roadmap/issues/2179
            return Err(RegistryError::TagImmutable { repository: name.clone(), tag: tag.clone() });
        }
        let known = repository.is_some_and(|it| it.manifests.contains_key(&digest));
        let tag = tag.filter(|_| tagged != Some(&digest));
        if known && tag.is_none() {
            return Ok(false);
        }
        if tag.is_some() && repository.is_some_and(|it| it.tags.of(&digest).len() >= IMAGE_TAGS_MAX)
        {
            return Err(RegistryError::TooManyTags { image: digest, tags_max: IMAGE_TAGS_MAX });
        }
        if !known {
            let finished = self.blobs.stage_bytes(bytes)?;
            self.blobs.commit(finished)?;
            let (repository, manifest) = (name.clone(), manifest.clone());
            self.changes.push(Change::ManifestPut { repository, digest, manifest });
        }
        if let Some(tag) = tag {
            let (repository, tag) = (name.clone(), tag.clone());
            self.changes.push(Change::TagSet { repository, tag, digest });
        }
        self.event("PUSH", name, &digest, manifest, tag);
        Ok(true)
    }

    fn delete_tag(&mut self, name: &RepositoryName, tag: &ImageTag) -> Result<(), RegistryError> {
        let (digest, manifest) = find(self.state, name, &Reference::Tag(tag.clone()))?;
        self.changes.push(Change::TagDeleted { repository: name.clone(), tag: tag.clone() });
        self.event("DELETE", name, &digest, manifest, Some(tag));
        Ok(())
    }

    /// Deletes an image with all its tags, and those of its layers that no other image of the
    /// repository needs. Returns the tags.
    fn delete_image(
        &mut self,
        name: &RepositoryName,
        digest: Digest,
    ) -> Result<Vec<ImageTag>, RegistryError> {
        let (_, manifest) = find(self.state, name, &Reference::Digest(digest))?;
        let repository = self.state.repository(name)?;
        if let Some(index) = repository.index_of(&digest) {
            return Err(RegistryError::ReferencedByIndex { image: digest, index });
        }
        let tags: Vec<ImageTag> = repository.tags.of(&digest).cloned().collect();
        for tag in &tags {
            self.delete_tag(name, tag)?;
        }
        if tags.is_empty() {
            self.event("DELETE", name, &digest, manifest, None);
        }
        self.changes.push(Change::ManifestDeleted { repository: name.clone(), digest });
        for blob in &manifest.blobs {
            if repository.image_of(blob, Some(&digest)).is_none() {
                self.changes.push(Change::BlobUnlinked { repository: name.clone(), digest: *blob });
            }
        }
        Ok(tags)
    }

    fn delete_blob(&mut self, name: &RepositoryName, digest: Digest) -> Result<(), RegistryError> {
        let repository = self.state.repository(name)?;
        if !repository.blobs.contains(&digest) {
            return Err(RegistryError::BlobNotFound { repository: name.clone(), digest });
        }
        if let Some(image) = repository.image_of(&digest, None) {
            return Err(RegistryError::ReferencedByImage { blob: digest, image });
        }
        self.changes.push(Change::BlobUnlinked { repository: name.clone(), digest });
        Ok(())
    }

    /// Tells of a push or a deletion
    /// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>).
    fn event(
        &mut self,
        action: &str,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: &Manifest,
        tag: Option<&ImageTag>,
    ) {
        let mut detail = json!({
            "result": "SUCCESS",
            "repository-name": repository,
            "image-digest": digest,
            "action-type": action,
            "manifest-media-type": manifest.media_type,
        });
        if let Some(tag) = tag {
            detail["image-tag"] = json!(tag);
        }
        if let Some(artifact_type) = &manifest.artifact_type {
            detail["artifact-media-type"] = json!(artifact_type);
        }
        self.events.push(detail);
    }
}

/// What a reference points at.
fn find<'a>(
    state: &'a State,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<(Digest, &'a Manifest), RegistryError> {
    let repository = state.repository(name)?;
    let digest = match reference {
        Reference::Tag(tag) => repository.tags.get(tag),
        Reference::Digest(digest) => Some(digest),
    };
    let found = digest.and_then(|digest| Some((*digest, repository.manifests.get(digest)?)));
    found.ok_or_else(|| RegistryError::ImageNotFound {
        repository: name.clone(),
        reference: reference.to_string(),
    })
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let file =
        File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Every blob that a repository holds must be there; what no repository holds is what a crash
/// left behind, and goes.
fn check_blobs(state: &State, blobs: &Blobs, folder: &Path) -> Result<(), OpenError> {
    for (name, repository) in &state.repositories {
        for digest in repository.blobs.iter().chain(repository.manifests.keys()) {
            if blobs.get(digest).is_none() {
                let (repository, folder) = (name.clone(), folder.to_owned());
                return Err(OpenError::BlobMissing { repository, digest: *digest, folder });
            }
        }
    }
    let unheld = blobs.digests().into_iter().filter(|digest| !state.holds(digest));
    unheld.for_each(|digest| blobs.remove(&digest));
    Ok(())
}
