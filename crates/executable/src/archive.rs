//! A tar archive, pushed in piece by piece; of each entry only what [`Contents`] remembers is kept.
//!
//! What Go's `archive/tar` makes of an archive is what counts, for the engines use it. Fields of a
//! header are read by the `tar` crate; its own reader pulls, and holds a long name of any length.

use std::{io, mem};

use tar::{EntryType, GnuHeader, Header};

use crate::{
    contents::{Contents, Node},
    machine::Machine,
    start,
};

const BLOCK_BYTES: usize = 512;
/// How much of an executable file is looked at: what the kernel reads of it (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: u64 = 256;
/// The longest extended header that Go reads.
const METADATA_BYTES_MAX: u64 = 1 << 20;
const UNREADABLE: Stop = Stop::Damaged("it has an extended header that cannot be read");

/// An archive as far as it was pushed in.
#[derive(Debug)]
pub(crate) struct Archive {
    contents: Contents,
    /// What the bytes in `buffer` are, once there are `wanted` of them.
    stage: Stage,
    buffer: Vec<u8>,
    wanted: usize,
    /// Bytes to pass over before those.
    skip: u64,
    /// What extended headers say of the entry that follows.
    extended: Extended,
    unpacked_bytes: u64,
    limits: Limits,
    stop: Option<Stop>,
}

/// How far an archive may still be read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) unpacked_bytes_max: u64,
    pub(crate) contents_bytes_max: usize,
}

/// Why an archive takes no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is over.
    End,
    /// [`Limits::unpacked_bytes_max`].
    Unpacked,
    /// [`Limits::contents_bytes_max`].
    Contents,
    /// It is no tar archive, from here at least; and what is wrong with it.
    Damaged(&'static str),
}

#[derive(Debug)]
enum Stage {
    Header,
    Metadata(EntryType),
    /// A block that goes on with a sparse file's map, `data` bytes of which follow.
    SparseMap {
        data: u64,
    },
    /// The first bytes of the executable file at `path`, `after` of which follow.
    Head {
        path: String,
        after: u64,
    },
}

#[derive(Debug, Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            contents: Contents::default(),
            stage: Stage::Header,
            buffer: Vec::new(),
            wanted: BLOCK_BYTES,
            skip: 0,
            extended: Extended::default(),
            unpacked_bytes: 0,
            limits: Limits::default(),
            stop: None,
        }
    }
}

impl Archive {
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(crate) fn take_contents(&mut self) -> Contents {
        mem::take(&mut self.contents)
    }

    pub(crate) fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    pub(crate) fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Whether it may be over: some builders leave out the blocks that end an archive.
    pub(crate) fn is_between_entries(&self) -> bool {
        matches!(self.stage, Stage::Header) && self.buffer.is_empty() && self.skip == 0
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes the next bytes of the archive.
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped as u64;
            if self.skip > 0 {
                return Ok(());
            }
            let (filling, rest) = bytes.split_at(bytes.len().min(self.wanted - self.buffer.len()));
            self.buffer.extend_from_slice(filling);
            bytes = rest;
            if self.buffer.len() < self.wanted {
                return Ok(());
            }
            let whole = mem::take(&mut self.buffer);
            self.take(&whole)?;
            if self.contents.bytes() > self.limits.contents_bytes_max {
                return Err(Stop::Contents);
            }
        }
    }

    /// Acts on what the stage waited for, and says what to wait for next.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.wanted = BLOCK_BYTES;
        match mem::replace(&mut self.stage, Stage::Header) {
            Stage::Header => self.header(bytes)?,
            Stage::Metadata(kind) => {
                self.skip = padding(bytes.len() as u64);
                match kind {
                    EntryType::GNULongName => self.extended.path = Some(text(bytes)),
                    EntryType::GNULongLink => self.extended.link = Some(text(bytes)),
                    _ => self.extended.read(bytes).ok_or(UNREADABLE)?,
                }
            }
            Stage::SparseMap { data } => {
                // `isextended` of the block.
                if bytes.get(504) == Some(&1) {
                    self.stage = Stage::SparseMap { data };
                } else {
                    self.skip = data;
                }
            }
            Stage::Head { path, after } => {
                let node = match (Machine::of(bytes), start::interpreter(bytes)) {
                    (Some(machine), _) => Node::Elf(machine),
                    (None, Some(interpreter)) => Node::Script(interpreter),
                    (None, None) => Node::Other,
                };
                self.contents.add(&path, Some(node));
                self.skip = after;
            }
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8]) -> Result<(), Stop> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(Stop::End);
        }
        let header = Header::from_byte_slice(block);
        if header.cksum().ok() != Some(checksum(block)) {
            return Err(Stop::Damaged("it has a header whose checksum is wrong"));
        }
        let kind = header.entry_type();
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
                let bytes = size(header)?;
                if bytes > METADATA_BYTES_MAX {
                    return Err(Stop::Damaged("it has an extended header that is too long"));
                }
                self.wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
                self.stage = Stage::Metadata(kind);
            }
            EntryType::XGlobalHeader => self.skip = padded(size(header)?),
            _ => self.entry(header, kind)?,
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, kind: EntryType) -> Result<(), Stop> {
        let extended = mem::take(&mut self.extended);
        let path = extended.path.unwrap_or_else(|| text(&header.path_bytes()));
        let link = || {
            let target = || text(&header.link_name_bytes().unwrap_or_default());
            extended.link.unwrap_or_else(target)
        };
        let node = match kind {
            EntryType::Symlink => Some(Node::Symlink(link())),
            EntryType::Link => Some(Node::HardLink(link())),
            // None of these has data, whatever its size field says.
            EntryType::Directory | EntryType::Char | EntryType::Block | EntryType::Fifo => None,
            _ => {
                let bytes = extended.size.map_or_else(|| size(header), Ok)?;
                let is_file = matches!(
                    kind,
                    EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
                );
                // Before ustar, a directory was a file whose name ends in a slash.
                let executable = is_file
                    && !path.ends_with('/')
                    && header.mode().is_ok_and(|mode| mode & 0o111 != 0);
                let is_extended = header.as_gnu().is_some_and(GnuHeader::is_extended);
                if kind.is_gnu_sparse() && is_extended {
                    self.stage = Stage::SparseMap { data: padded(bytes) };
                } else if executable && !extended.sparse && !kind.is_gnu_sparse() {
                    let head = bytes.min(HEAD_BYTES);
                    self.wanted = usize::try_from(head).unwrap_or(usize::MAX);
                    self.stage = Stage::Head { path, after: padded(bytes) - head };
                    return Ok(());
                } else {
                    self.skip = padded(bytes);
                }
                executable.then_some(Node::Other)
            }
        };
        self.contents.add(&path, node);
        Ok(())
    }
}

/// Takes what a decompressor puts out; fails with any error once [`Archive::stop`] says why.
impl io::Write for Archive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.limits.unpacked_bytes_max.saturating_sub(self.unpacked_bytes);
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).min(bytes.len());
        if self.stop.is_none() {
            self.unpacked_bytes += allowed as u64;
            self.stop = self.push(&bytes[..allowed]).err();
        }
        if self.stop.is_none() && allowed < bytes.len() {
            self.stop = Some(Stop::Unpacked);
        }
        match self.stop {
            None => Ok(bytes.len()),
            Some(_) => Err(io::ErrorKind::Other.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Extended {
    /// Reads records of `"%d %s=%s\n", length, key, value`
    /// (<https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_03>).
    ///
    /// `tar::PaxExtensions` splits at line ends, which the values of file capabilities hold.
    fn read(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ')?;
            let length: usize = str::from_utf8(&records[..space]).ok()?.parse().ok()?;
            let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], text(&record[equals + 1..]));
            match key {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => self.size = Some(value.parse().ok()?),
                b"GNU.sparse.name" => (self.path, self.sparse) = (Some(value), true),
                _ => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
            records = &records[length..];
        }
        Some(())
    }
}

fn size(header: &Header) -> Result<u64, Stop> {
    header.entry_size().map_err(|_| Stop::Damaged("it has an entry whose size is no number"))
}

/// The sum of a header's bytes, its own checksum's taken as spaces.
fn checksum(block: &[u8]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// `bytes` and the rest of their last block; a size that no archive can have stays as it is.
fn padded(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK_BYTES as u64).unwrap_or(bytes)
}

fn padding(bytes: u64) -> u64 {
    padded(bytes) - bytes
}

/// A field's text, which a NUL ends.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
