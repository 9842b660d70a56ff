//! When schedules were made: a rate counts from there, across restarts.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const FILE: &str = "schedules.json";

/// One schedule, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Another expression makes it another schedule.
    pub(crate) expression: String,
    pub(crate) created: Timestamp,
}

/// The schedules, by group and name; in a file where there is a folder.
#[derive(Debug, Default)]
pub(crate) struct Store {
    path: Option<PathBuf>,
    made: BTreeMap<String, Made>,
}

impl Store {
    /// A folder's file, or an empty one.
    pub(crate) fn open(folder: Option<&Path>) -> io::Result<Self> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let made = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: Some(path), made })
    }

    /// When a schedule was made, and whether that is now.
    pub(crate) fn created(
        &mut self,
        key: &str,
        expression: &str,
        now: Timestamp,
    ) -> io::Result<(Timestamp, bool)> {
        if let Some(made) = self.made.get(key).filter(|made| made.expression == expression) {
            return Ok((made.created, false));
        }
        let made = Made { expression: expression.to_owned(), created: now };
        self.made.insert(key.to_owned(), made);
        if let Some(path) = &self.path {
            // A file that is half written must not take the place of a whole one.
            let new = path.with_extension("new");
            fs::write(&new, serde_json::to_vec_pretty(&self.made)?)?;
            fs::rename(new, path)?;
        }
        Ok((now, true))
    }
}
