//! The content-addressed store: blobs under their digest, on disk or in memory.
//!
//! On disk a blob is written to a file of its own under `uploads/`, synced, and only then renamed
//! to `blobs/sha256/<hex>`, so what has that name is always whole. Which repository holds which
//! blob is not known here.

use std::{
    collections::HashMap,
    fs, io,
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use archweld_model::Digest;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use crate::{
    RegistryError,
    space::{Reservation, Space},
};

/// The largest layer that ECR takes: 52,000 MiB
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html>).
const LAYER_BYTES_MAX: u64 = 52_000 << 20;

/// How much of a blob is read from disk at once.
const READ_BYTES: usize = 256 << 10;

/// All blobs of one registry.
#[derive(Debug)]
pub(crate) struct Blobs {
    place: Place,
    blobs: RwLock<HashMap<Digest, Blob>>,
    space: Arc<Space>,
}

#[derive(Debug)]
enum Place {
    Disk { directory: Arc<Path>, uploads: PathBuf },
    Memory,
}

/// One blob: cheap to clone, and readable for as long as somebody holds it open.
#[derive(Debug, Clone)]
pub(crate) enum Blob {
    File { path: Arc<Path>, bytes: u64 },
    Memory(Bytes),
}

impl Blobs {
    /// An empty store that dies with the process.
    pub(crate) fn in_memory(bytes_max: Option<u64>) -> Self {
        let space = Space::new(bytes_max, 0);
        Self { place: Place::Memory, blobs: RwLock::default(), space }
    }

    /// The store under `root`, less what a crash left half written.
    pub(crate) fn on_disk(root: &Path, bytes_max: Option<u64>) -> io::Result<Self> {
        let (directory, uploads) = (root.join("blobs/sha256"), root.join("uploads"));
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&uploads)?;
        for upload in fs::read_dir(&uploads)? {
            fs::remove_file(upload?.path())?;
        }
        let mut blobs = HashMap::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Ok(digest) = format!("sha256:{}", name.display()).parse() {
                let (path, bytes) = (entry.path().into(), entry.metadata()?.len());
                blobs.insert(digest, Blob::File { path, bytes });
            }
        }
        let space = Space::new(bytes_max, blobs.values().map(Blob::bytes).sum());
        let place = Place::Disk { directory: directory.into(), uploads };
        Ok(Self { place, blobs: RwLock::new(blobs), space })
    }

    /// Whether writing waits for a disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::Disk { .. })
    }

    /// The bytes of all blobs.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.blobs.read().unwrap_or_else(PoisonError::into_inner).values().map(Blob::bytes).sum()
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Blob> {
        self.blobs.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.blobs.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Begins an upload.
    pub(crate) fn stage(&self) -> io::Result<Staged> {
        let content = match &self.place {
            Place::Disk { directory, uploads } => {
                let (file, temporary) = NamedTempFile::new_in(uploads)?.into_parts();
                let file = tokio::fs::File::from_std(file);
                StagedContent::File { file, temporary, directory: Arc::clone(directory) }
            }
            Place::Memory => StagedContent::Memory(BytesMut::new()),
        };
        Ok(Staged { content, hasher: Sha256::new(), reservation: self.space.reserve() })
    }

    /// An upload of bytes that are all there. It may block on the disk.
    pub(crate) fn stage_bytes(&self, bytes: Bytes) -> Result<Finished, RegistryError> {
        let digest = Digest::of(&bytes);
        let mut reservation = self.space.reserve();
        reservation.grow(bytes.len() as u64)?;
        let content = match &self.place {
            Place::Disk { directory, uploads } => {
                let mut file = NamedTempFile::new_in(uploads)?;
                file.write_all(&bytes)?;
                file.as_file().sync_all()?;
                let path = blob_path(directory, &digest);
                FinishedContent::File { temporary: file.into_temp_path(), path }
            }
            Place::Memory => FinishedContent::Memory(bytes),
        };
        Ok(Finished { digest, content, reservation })
    }

    /// Gives an upload its name. Where that blob exists already, the upload is dropped. It may
    /// block on the disk.
    pub(crate) fn commit(&self, finished: Finished) -> Result<(), RegistryError> {
        let Finished { digest, content, reservation } = finished;
        let mut blobs = self.blobs.write().unwrap_or_else(PoisonError::into_inner);
        if blobs.contains_key(&digest) {
            return Ok(());
        }
        let blob = match content {
            FinishedContent::File { temporary, path } => {
                temporary.persist(&path).map_err(|error| error.error)?;
                sync_parent(&path)?;
                Blob::File { path, bytes: reservation.bytes() }
            }
            FinishedContent::Memory(bytes) => Blob::Memory(bytes),
        };
        reservation.keep();
        blobs.insert(digest, blob);
        Ok(())
    }

    /// Forgets a blob; whoever reads it at the moment reads on.
    pub(crate) fn remove(&self, digest: &Digest) {
        let removed = self.blobs.write().unwrap_or_else(PoisonError::into_inner).remove(digest);
        let Some(blob) = removed else { return };
        self.space.release(blob.bytes());
        if let Blob::File { path, .. } = blob
            && let Err(error) = fs::remove_file(&path)
        {
            // Nothing refers to it any more: the next start sweeps it.
            tracing::warn!(blob.digest = %digest, %error, "failed to delete a blob's file");
        }
    }
}

fn blob_path(directory: &Path, digest: &Digest) -> Arc<Path> {
    directory.join(digest.to_string().trim_start_matches("sha256:")).into()
}

impl Blob {
    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// All of it, in memory.
    pub(crate) async fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::File { path, .. } => Ok(tokio::fs::read(path).await?.into()),
            Self::Memory(bytes) => Ok(bytes.clone()),
        }
    }

    /// Part of it, as a body that is read from disk as it is sent.
    pub(crate) async fn body(&self, range: Range<u64>) -> io::Result<Body> {
        match self {
            Self::File { path, .. } => {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(io::SeekFrom::Start(range.start)).await?;
                let part = file.take(range.end - range.start);
                Ok(Body::from_stream(ReaderStream::with_capacity(part, READ_BYTES)))
            }
            Self::Memory(bytes) => {
                let whole = bytes.len() as u64;
                // Both ends are at most `whole`, which is a `usize`.
                let index = |offset: u64| offset.min(whole) as usize;
                Ok(Body::from(bytes.slice(index(range.start)..index(range.end))))
            }
        }
    }
}

/// An upload under way. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Staged {
    content: StagedContent,
    hasher: Sha256,
    reservation: Reservation,
}

#[derive(Debug)]
enum StagedContent {
    File { file: tokio::fs::File, temporary: TempPath, directory: Arc<Path> },
    Memory(BytesMut),
}

impl Staged {
    /// How much has arrived.
    pub(crate) fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }

    /// Appends what arrives on `body`. If the caller goes away in between, what was counted stays
    /// and the next call goes on from there.
    pub(crate) async fn append(&mut self, body: &mut Body) -> Result<(), RegistryError> {
        use http_body_util::BodyExt as _;
        if let StagedContent::File { file, .. } = &mut self.content {
            file.seek(io::SeekFrom::Start(self.reservation.bytes())).await?;
        }
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| RegistryError::UploadInterrupted(error.to_string()))?;
            if let Ok(chunk) = frame.into_data() {
                self.append_chunk(&chunk).await?;
            }
        }
        if let StagedContent::File { file, .. } = &mut self.content {
            // tokio reports a failed write with the next call.
            file.flush().await?;
        }
        Ok(())
    }

    async fn append_chunk(&mut self, chunk: &Bytes) -> Result<(), RegistryError> {
        let length = chunk.len() as u64;
        if self.bytes().saturating_add(length) > LAYER_BYTES_MAX {
            return Err(RegistryError::LayerTooLarge { bytes_max: LAYER_BYTES_MAX });
        }
        // Counted only once written: an interrupted write is written over.
        let mut reservation = self.reservation.split();
        reservation.grow(length)?;
        match &mut self.content {
            StagedContent::File { file, .. } => file.write_all(chunk).await?,
            StagedContent::Memory(bytes) => bytes.extend_from_slice(chunk),
        }
        self.hasher.update(chunk);
        self.reservation.absorb(reservation);
        Ok(())
    }

    /// Ends the upload: synced, and checked against the digest that the caller expects.
    pub(crate) async fn finish(self, expected: Digest) -> Result<Finished, RegistryError> {
        let Self { content, hasher, reservation } = self;
        let actual = format!("sha256:{}", hex::encode(hasher.finalize()));
        if actual != expected.to_string() {
            return Err(RegistryError::DigestMismatch { expected, actual });
        }
        let content = match content {
            StagedContent::File { mut file, temporary, directory } => {
                file.flush().await?;
                // An interrupted write may have left more than was counted.
                file.set_len(reservation.bytes()).await?;
                file.sync_all().await?;
                FinishedContent::File { temporary, path: blob_path(&directory, &expected) }
            }
            StagedContent::Memory(bytes) => FinishedContent::Memory(bytes.freeze()),
        };
        Ok(Finished { digest: expected, content, reservation })
    }
}

/// An upload that is whole and only lacks its name. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Finished {
    digest: Digest,
    content: FinishedContent,
    reservation: Reservation,
}

#[derive(Debug)]
enum FinishedContent {
    File { temporary: TempPath, path: Arc<Path> },
    Memory(Bytes),
}

impl Finished {
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}

/// Makes a file's name survive a crash of the machine.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

/// Replaces a file, by way of a temporary one in the directory `uploads`, so that a crash leaves
/// either the old one or the new one. Only its owner may read it.
pub(crate) fn write_atomically(uploads: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(uploads)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_parent(path)
}
