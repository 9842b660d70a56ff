//! The records of builds in the state folder: one JSON file a build, as `BatchGetBuilds` shows it.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::{Build, PhaseType};
use crate::error::OpenError;

/// What a record says beside the build itself.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) build: Build,
    /// Absent where the request for the build gave no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency: Option<Idempotency>,
}

/// The idempotency token that a build was started with: repeated after a restart, it starts no other.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Idempotency {
    pub(crate) token: String,
    /// The request's input.
    pub(crate) input: Value,
    pub(crate) used: Timestamp,
}

/// Where records are kept, if they are.
pub(crate) struct Records {
    folder: Option<PathBuf>,
}

impl Records {
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, OpenError> {
        let folder = folder.map(|folder| make_folder(folder.join("builds"))).transpose()?;
        Ok(Self { folder })
    }

    /// All records, oldest first.
    pub(crate) fn load(&self) -> Result<Vec<Record>, OpenError> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let unusable = |source| OpenError::Folder { path: folder.clone(), source };
        let mut records = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unusable)? {
            let path = entry.map_err(unusable)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // What a crash left of a file that was being written.
                if path.extension().is_some_and(|extension| extension == "new") {
                    std::fs::remove_file(&path).map_err(unusable)?;
                }
                continue;
            }
            let bytes = std::fs::read(&path)
                .map_err(|source| OpenError::Folder { path: path.clone(), source })?;
            let record: Record = serde_json::from_slice(&bytes)
                .map_err(|source| OpenError::Record { path, source })?;
            records.push(record);
        }
        records.sort_by(|left, right| {
            let (left, right) = (&left.build, &right.build);
            let key = |build: &Build| (build.start_time, build.build_number);
            key(left).cmp(&key(right)).then_with(|| left.id.cmp(&right.id))
        });
        Ok(records)
    }

    /// Keeps a record, and says whether it could.
    pub(crate) fn save(&self, build: &Build, idempotency: Option<&Idempotency>) -> bool {
        let Some(folder) = &self.folder else { return true };
        let record = Record { build: build.clone(), idempotency: idempotency.cloned() };
        let written = write(folder, &record);
        if let Err(error) = &written {
            tracing::warn!(build.id = build.id, %error, "could not keep the record of a build");
        }
        written.is_ok()
    }

    pub(crate) fn remove(&self, build: &Build) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = std::fs::remove_file(path(folder, build)) {
            tracing::warn!(build.id = build.id, %error, "could not remove the record of a build");
        }
    }
}

fn path(folder: &Path, build: &Build) -> PathBuf {
    folder.join(format!("{}.json", build.uuid()))
}

/// Whole or not at all: a reader never sees half a record. Only the user may read it, since a
/// build's variables may be secret.
fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let mut file = tempfile::Builder::new().suffix(".new").tempfile_in(folder)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    // A crash of the machine must not leave a new name without its content, which no start would
    // read. How far a build came is not worth the wait.
    if record.build.current_phase <= PhaseType::Queued || record.build.build_complete {
        file.as_file().sync_all()?;
    }
    file.persist(path(folder, &record.build))?;
    Ok(())
}

/// Makes a folder that only the user may enter, unless it is there.
pub(crate) fn make_folder(path: PathBuf) -> Result<PathBuf, OpenError> {
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(OpenError::Folder { path, source }),
    }
}
