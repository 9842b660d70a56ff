//! What is kept, and the file that keeps it.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::OpenError;

const FILE: &str = "secrets.json";
/// Only its owner may read the file.
const MODE: u32 = 0o600;

/// All secrets and parameters, by name.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Store {
    #[serde(skip)]
    path: Option<PathBuf>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) parameters: BTreeMap<String, Parameter>,
}

/// A secret with its versions.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) arn: String,
    pub(crate) description: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) changed: Timestamp,
    /// The text that the template gave it last, where it gave one.
    pub(crate) of_template: Option<String>,
    /// By version id.
    pub(crate) versions: BTreeMap<String, Version>,
}

/// One value of a secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) value: SecretValue,
    pub(crate) stages: Vec<String>,
    pub(crate) created: Timestamp,
}

/// A value: text, or bytes in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SecretValue {
    String(String),
    Binary(String),
}

/// A parameter with its newest value.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Parameter {
    pub(crate) kind: String,
    pub(crate) value: String,
    pub(crate) version: u64,
    pub(crate) modified: Timestamp,
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(not shown)")
    }
}

impl Store {
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, OpenError> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let store = match fs::read(&path) {
            // What serde says of the error may quote a value.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| OpenError::Damaged {
                line: error.line(),
                column: error.column(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { path: Some(path), ..store })
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn save(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let new = path.with_extension("new");
        // A file that was left behind may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}
