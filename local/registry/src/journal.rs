//! The state on disk: a file to which each transaction appends one line.
//!
//! A line is a JSON array of changes, so a transaction is there in whole or not at all; its cost
//! does not depend on how many tags there are. Opening rewrites the file as the shortest one that
//! leads to the same state.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use crate::{
    OpenError,
    blobs::write_atomically,
    state::{Change, State},
};

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// How far the file is whole. A failed append may have left part of a line behind that.
    bytes: u64,
}

impl Journal {
    /// Reads the journal at `path`, or begins one; `uploads` is where temporary files may be.
    pub(crate) fn open(path: &Path, uploads: &Path) -> Result<(Self, State), OpenError> {
        let lines = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            lines => lines?,
        };
        let mut state = State::default();
        for (index, line) in lines.split_inclusive(|&byte| byte == b'\n').enumerate() {
            // A crash while appending leaves a last line without its end: it never was.
            let Some(line) = line.strip_suffix(b"\n") else { break };
            let changes: Vec<Change> = serde_json::from_slice(line).map_err(|source| {
                OpenError::Journal { path: path.to_owned(), line: index + 1, source }
            })?;
            changes.into_iter().for_each(|change| state.apply(change));
        }
        let mut compact = Vec::new();
        for changes in state.changes() {
            compact.extend(encode(&changes)?);
        }
        write_atomically(uploads, path, &compact)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok((Self { file, bytes: compact.len() as u64 }, state))
    }

    /// Appends one transaction; once this returns `Ok`, it survives a crash of the machine. After
    /// an error nothing of it is left, not even if this was the disk's last byte.
    pub(crate) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let line = encode(changes)?;
        self.file.set_len(self.bytes)?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Should this fail as well, the next append does it first.
                drop(self.file.set_len(self.bytes));
                Err(error)
            }
        }
    }
}

fn encode(changes: &[Change]) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(changes)?;
    line.push(b'\n');
    Ok(line)
}
