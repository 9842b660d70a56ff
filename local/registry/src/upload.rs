//! Uploads of blobs that arrive in pieces.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use archweld_model::{Digest, RepositoryName};
use axum::body::Body;
use tokio::time::Instant;

use crate::{Registry, RegistryError, blobs::Staged};

/// The most uploads at once; docker uses five a push.
const UPLOADS_MAX: usize = 1000;

/// An upload that nothing happened to for so long may be forgotten.
const IDLE: Duration = Duration::from_secs(3600);

/// The same, while there is no room.
const IDLE_WHILE_FULL: Duration = Duration::from_secs(60);

/// The uploads under way. They do not outlive the process.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Upload>>);

#[derive(Debug)]
struct Upload {
    repository: RepositoryName,
    used: Instant,
    /// `None` once it is finished or has failed. Locked while a request's body arrives.
    staged: Arc<tokio::sync::Mutex<Option<Staged>>>,
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those that nothing happened to for so long; one that is locked is not idle: its body
    /// may just be slow.
    fn forget_idle(&self, idle: Duration) {
        self.lock()
            .retain(|_, upload| upload.used.elapsed() < idle || upload.staged.try_lock().is_err());
    }

    fn find(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Arc<tokio::sync::Mutex<Option<Staged>>>, RegistryError> {
        let mut uploads = self.lock();
        let upload = uploads.get_mut(id).filter(|upload| upload.repository == *repository);
        let upload = upload.ok_or_else(|| RegistryError::UploadNotFound(id.to_owned()))?;
        upload.used = Instant::now();
        Ok(Arc::clone(&upload.staged))
    }
}

impl Registry {
    /// Begins an upload and returns its id.
    pub(crate) async fn begin_upload(
        &self,
        repository: &RepositoryName,
    ) -> Result<String, RegistryError> {
        let (name, create) = (repository.clone(), self.inner.create_on_push);
        self.transact(move |transaction| transaction.require_repository(&name, create)).await?;
        self.inner.uploads.forget_idle(IDLE);
        let mut uploads = self.inner.uploads.lock();
        if uploads.len() >= UPLOADS_MAX {
            return Err(RegistryError::TooManyUploads(UPLOADS_MAX));
        }
        let id = self.inner.host.uuid().to_string();
        let staged = Arc::new(tokio::sync::Mutex::new(Some(self.inner.blobs.stage()?)));
        let upload = Upload { repository: repository.clone(), used: Instant::now(), staged };
        uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// Appends a body to an upload, and returns how much there is of it now. The body must begin
    /// at `offset` where that is given.
    pub(crate) async fn append_upload(
        &self,
        repository: &RepositoryName,
        id: &str,
        offset: Option<u64>,
        body: &mut Body,
    ) -> Result<u64, RegistryError> {
        let upload = self.inner.uploads.find(repository, id)?;
        let mut slot = upload.lock().await;
        let unknown = || RegistryError::UploadNotFound(id.to_owned());
        let staged = slot.as_mut().ok_or_else(unknown)?;
        let expected = staged.bytes();
        if let Some(offset) = offset.filter(|&offset| offset != expected) {
            return Err(RegistryError::UploadOffset { offset, expected });
        }
        match staged.append(body).await {
            Ok(()) => Ok(staged.bytes()),
            // The client may resume.
            Err(error @ RegistryError::UploadInterrupted(_)) => Err(error),
            Err(error) => {
                *slot = None;
                self.inner.uploads.lock().remove(id);
                if matches!(error, RegistryError::Full { .. } | RegistryError::DiskFull(_)) {
                    // What was cut off and not resumed must not keep a retry from its room.
                    self.inner.uploads.forget_idle(IDLE_WHILE_FULL);
                }
                Err(error)
            }
        }
    }

    /// Ends an upload: its blob is in the repository now, or nothing is left of it.
    pub(crate) async fn finish_upload(
        &self,
        repository: &RepositoryName,
        id: &str,
        expected: Digest,
    ) -> Result<(), RegistryError> {
        let upload = self.inner.uploads.find(repository, id)?;
        let staged = upload.lock().await.take();
        self.inner.uploads.lock().remove(id);
        let staged = staged.ok_or_else(|| RegistryError::UploadNotFound(id.to_owned()))?;
        let finished = staged.finish(expected).await?;
        let repository = repository.clone();
        self.transact(move |transaction| {
            transaction.state.repository(&repository)?;
            transaction.blobs.commit(finished)?;
            transaction.link(repository, expected);
            Ok(())
        })
        .await
    }

    /// How much of an upload there is.
    pub(crate) async fn upload_bytes(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<u64, RegistryError> {
        let upload = self.inner.uploads.find(repository, id)?;
        let slot = upload.lock().await;
        let unknown = || RegistryError::UploadNotFound(id.to_owned());
        slot.as_ref().map(Staged::bytes).ok_or_else(unknown)
    }

    /// Forgets an upload.
    pub(crate) async fn cancel_upload(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<(), RegistryError> {
        let upload = self.inner.uploads.find(repository, id)?;
        self.inner.uploads.lock().remove(id);
        // Waits for a request that still appends.
        upload.lock().await.take();
        Ok(())
    }

    /// Makes a repository hold a blob that another one holds; says whether that one does.
    pub(crate) async fn mount_blob(
        &self,
        repository: &RepositoryName,
        from: &RepositoryName,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let (repository, from) = (repository.clone(), from.clone());
        let create = self.inner.create_on_push;
        self.transact(move |transaction| {
            let source = transaction.state.repositories.get(&from);
            let held = source.is_some_and(|source| source.blobs.contains(&digest));
            if held {
                transaction.require_repository(&repository, create)?;
                transaction.link(repository, digest);
            }
            Ok(held)
        })
        .await
    }
}
