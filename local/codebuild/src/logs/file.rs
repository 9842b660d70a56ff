//! The file of a log, on a disk that may be full.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that only grows.
///
/// What the disk does not take waits in memory, is read as if it were in the file, and goes first
/// next time: the log has no gap.
pub(super) struct LogFile {
    path: PathBuf,
    /// The file, while the build goes on: thousands of finished builds must not hold one open each.
    writer: Option<File>,
    /// How far the file is whole. A failed write may have left part of a line behind that.
    bytes: u64,
    waiting: Vec<u8>,
}

impl LogFile {
    /// A file that holds `bytes` so far; it is made with its first line.
    pub(super) fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, writer: None, bytes, waiting: Vec::new() }
    }

    /// How much waits for the disk, in bytes.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Adds to it.
    ///
    /// # Errors
    /// When the disk does not take it; it is kept for the next attempt.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let may_be_torn = !self.waiting.is_empty();
        self.waiting.extend_from_slice(record);
        self.write_waiting(may_be_torn)
    }

    /// Writes what waits for the disk.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn catch_up(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { self.write_waiting(true) }
    }

    /// Closes the file, until there is something to write.
    pub(super) fn close(&mut self) {
        self.writer = None;
    }

    fn write_waiting(&mut self, may_be_torn: bool) -> io::Result<()> {
        let file = match &mut self.writer {
            Some(file) => file,
            None => self.writer.insert(open_to_write(&self.path)?),
        };
        if may_be_torn {
            file.set_len(self.bytes)?;
        }
        file.write_all(&self.waiting)?;
        self.bytes += self.waiting.len() as u64;
        // Not only emptied: what waited was perhaps much.
        self.waiting = Vec::new();
        Ok(())
    }

    /// The bytes from `start` to `end`.
    pub(super) fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length(start, end.min(self.bytes))];
        if !bytes.is_empty() {
            File::open(&self.path)?.read_exact_at(&mut bytes, start)?;
        }
        let behind = length(self.bytes, start)..length(self.bytes, end);
        bytes.extend_from_slice(self.waiting.get(behind).unwrap_or_default());
        Ok(bytes)
    }
}

fn length(start: u64, end: u64) -> usize {
    usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)
}

/// Opens a log to add to it. It is for the user alone: a build may print what it should not.
fn open_to_write(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_disk_did_not_take_is_read_and_written_later_without_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let (here, away) = (folder.path().join("logs"), folder.path().join("away"));
        fs::create_dir(&here).unwrap();
        let path = here.join("build.log");
        let mut file = LogFile::new(path.clone(), 0);
        file.append(b"one\n").unwrap();
        file.close();
        fs::rename(&here, &away).unwrap();
        file.append(b"two\n").unwrap_err();
        file.append(b"three\n").unwrap_err();
        file.catch_up().unwrap_err();
        assert_eq!(file.waiting(), 10);
        assert_eq!(file.read(4, 9).unwrap(), b"two\nt");
        fs::rename(&away, &here).unwrap();
        assert_eq!(file.read(2, 14).unwrap(), b"e\ntwo\nthree\n");

        // What a write left behind that failed halfway.
        fs::write(&path, "one\ntw").unwrap();
        file.catch_up().unwrap();
        assert_eq!(file.waiting(), 0);
        file.append(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
        assert_eq!(file.read(0, 19).unwrap(), b"one\ntwo\nthree\nfour\n");
    }
}
