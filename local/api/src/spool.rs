//! Work that outlives the process: what was accepted and is not done yet.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Serialize, de::DeserializeOwned};

/// The end of the name of a piece's file, and of one that is being written.
const EXTENSION: &str = "json";
const EXTENSION_NEW: &str = "new";

/// A folder with a file for each piece of work, in the order in which they were accepted.
///
/// A piece is there in whole or not at all. It is not forced to the disk: it outlives the process,
/// and mostly the machine.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    next: AtomicU64,
}

impl Spool {
    /// Opens a folder, or makes it. What an earlier process left half written goes.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let spool = Self { folder: folder.to_owned(), next: AtomicU64::default() };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION_NEW) {
                fs::remove_file(path)?;
            }
        }
        let last = spool.numbers()?.last().copied();
        spool.next.store(last.map_or(0, |last| last + 1), Ordering::Relaxed);
        Ok(spool)
    }

    /// Keeps a piece of work; gives its number.
    ///
    /// # Errors
    /// When the disk does not take it: nothing is left of it then.
    pub fn add(&self, piece: &impl Serialize) -> io::Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.replace(number, piece)?;
        Ok(number)
    }

    /// Keeps a piece of work in place of what its number stood for.
    ///
    /// # Errors
    /// When the disk does not take it: the earlier one is still there then.
    pub fn replace(&self, number: u64, piece: &impl Serialize) -> io::Result<()> {
        let path = self.file(number);
        let new = path.with_extension(EXTENSION_NEW);
        let written = fs::write(&new, serde_json::to_vec(piece)?);
        written.and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            // What stays goes at the next opening.
            let _ = fs::remove_file(&new);
        })
    }

    /// Forgets a piece of work, which is done. One that is gone already is no error.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        match fs::remove_file(self.file(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// What there is to do, in the order in which it was accepted. A file that holds no such piece
    /// is left alone.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn pieces<T: DeserializeOwned>(&self) -> io::Result<Vec<(u64, T)>> {
        let mut pieces = Vec::new();
        for number in self.numbers()? {
            let bytes = fs::read(self.file(number))?;
            pieces.extend(serde_json::from_slice(&bytes).ok().map(|piece| (number, piece)));
        }
        Ok(pieces)
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                numbers.extend::<Option<u64>>(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.{EXTENSION}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_there_again_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let numbers = ["a", "b", "c"].map(|piece| spool.add(&piece).unwrap());
        spool.remove(numbers[1]).unwrap();
        spool.remove(numbers[1]).unwrap();
        spool.replace(numbers[0], &"A").unwrap();

        // One that was being written, and one of another make.
        fs::write(folder.path().join("00000009.new"), "\"hal").unwrap();
        fs::write(folder.path().join("00000003.json"), "{}").unwrap();
        let again = Spool::open(folder.path()).unwrap();
        let pieces: Vec<(u64, String)> = again.pieces().unwrap();
        assert_eq!(pieces, [(numbers[0], "A".to_owned()), (numbers[2], "c".to_owned())]);
        assert!(!folder.path().join("00000009.new").exists());
        assert_eq!(again.add(&"d").unwrap(), 4);
    }
}
