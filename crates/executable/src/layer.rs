//! One layer, read from its beginning as far as need be.

use std::{
    io::{self, Write as _},
    mem,
    ops::Range,
};

use archweld_model::Digest;
use flate2::write::MultiGzDecoder;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use crate::{
    Bound, ReadError,
    archive::{Archive, Limits, Stop},
    contents::Contents,
};

/// The first read: most of the layers that a Dockerfile's steps add are smaller.
const READ_BYTES_MIN: u64 = 64 << 10;
/// The last reads: what is held of a layer at once.
const READ_BYTES_MAX: u64 = 1 << 20;
/// The largest zstd window that is held, as a power of two: 32 MiB, which is the largest that
/// BuildKit's encoder uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// What is taken of zstd's output at once.
const ZSTD_OUTPUT_BYTES: usize = 16 << 10;
/// What a decoder takes beside a large window, roughly.
const DECODER_BYTES: usize = 128 << 10;

/// A layer of an image, as the image's manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the blob.
    pub digest: Digest,
    /// The blob's media type.
    pub media_type: String,
    /// The blob's size.
    pub size_bytes: u64,
}

/// Why a layer, or the rest of it, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerProblem {
    /// Its media type says that the registry does not have it.
    #[error("is kept outside the registry ({0})")]
    Foreign(String),
    /// Its media type says so.
    #[error("is encrypted ({0})")]
    Encrypted(String),
    /// It may be anything.
    #[error("is of the unknown media type {0:?}")]
    MediaType(String),
    /// The registry did not hand it out.
    #[error("could not be read: {0}")]
    Unreadable(ReadError),
    /// It is no tar archive, or none that can be decompressed.
    #[error("is damaged: {0}")]
    Damaged(String),
}

/// A layer as far as it was read.
pub(crate) struct Reading {
    layer: Layer,
    position: u64,
    unpacked_bytes: u64,
    state: State,
}

enum State {
    /// With nothing in it yet.
    Unread(Contents),
    Open(Box<Decoder>),
    /// Read to the end of the archive, or up to a problem.
    Closed(Contents, Option<LayerProblem>),
}

/// What the layer is compressed with, as its first bytes say: the engines go by them, too, rather
/// than by the media type.
enum Decoder {
    Plain(Archive),
    Gzip(MultiGzDecoder<Archive>),
    Zstd(Zstd),
}

/// Frames, one after another. `zstd`'s own writer does not tell the memory that it takes.
struct Zstd {
    context: DCtx<'static>,
    archive: Archive,
    /// A frame ended with the last byte.
    is_whole: bool,
}

impl Reading {
    pub(crate) fn new(layer: Layer) -> Self {
        let state = match refusal(&layer.media_type) {
            None if layer.size_bytes > 0 => State::Unread(Contents::default()),
            problem => State::Closed(Contents::default(), problem),
        };
        Self { layer, position: 0, unpacked_bytes: 0, state }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.layer.digest
    }

    /// What was found so far.
    pub(crate) fn contents(&self) -> &Contents {
        match &self.state {
            State::Open(decoder) => decoder.archive().contents(),
            State::Unread(contents) | State::Closed(contents, _) => contents,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(..))
    }

    /// Why less was read than the layer holds.
    pub(crate) fn problem(&self) -> Option<&LayerProblem> {
        match &self.state {
            State::Closed(_, problem) => problem.as_ref(),
            State::Unread(_) | State::Open(_) => None,
        }
    }

    /// The bytes of the blob that were taken so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The bytes that came out of the decompressor so far.
    pub(crate) fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    /// Roughly the memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let decoder = match &self.state {
            State::Open(decoder) => match **decoder {
                Decoder::Plain(_) => 0,
                Decoder::Gzip(_) => DECODER_BYTES,
                // A large window is allocated at once, but takes memory only as it is filled.
                Decoder::Zstd(ref zstd) => {
                    let filled = usize::try_from(self.unpacked_bytes).unwrap_or(usize::MAX);
                    zstd.context.sizeof().min(filled.saturating_add(DECODER_BYTES))
                }
            },
            State::Unread(_) | State::Closed(..) => 0,
        };
        decoder + self.contents().bytes()
    }

    /// What to read next, of at most `bytes_max`: three times as much as was read, for what is not
    /// found at a layer's beginning may be anywhere.
    pub(crate) fn next_range(&self, bytes_max: u64) -> Range<u64> {
        let bytes = self.position.saturating_mul(3).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let rest = self.layer.size_bytes.saturating_sub(self.position);
        self.position..self.position + bytes.min(rest).min(bytes_max)
    }

    /// Takes the next bytes of the blob.
    ///
    /// # Errors
    /// When `limits`, which count from here, are reached.
    pub(crate) fn push(&mut self, bytes: &[u8], mut limits: Limits) -> Result<(), Bound> {
        if matches!(self.state, State::Unread(_)) {
            match Decoder::of(bytes) {
                Ok(decoder) => self.state = State::Open(Box::new(decoder)),
                Err(error) => self.close(Some(LayerProblem::Damaged(error.to_string()))),
            }
        }
        let State::Open(decoder) = &mut self.state else { return Ok(()) };
        self.position += bytes.len() as u64;
        limits.unpacked_bytes_max = limits.unpacked_bytes_max.saturating_add(self.unpacked_bytes);
        decoder.archive_mut().set_limits(limits);
        let is_last = self.position == self.layer.size_bytes;
        let written = decoder.write(bytes, is_last);
        let archive = decoder.archive();
        self.unpacked_bytes = archive.unpacked_bytes();
        match (archive.stop(), written) {
            (Some(Stop::Unpacked), _) => return Err(Bound::Unpacked),
            (Some(Stop::Contents), _) => return Err(Bound::Memory),
            (Some(Stop::Damaged(what)), _) => self.damaged(what.to_owned()),
            (Some(Stop::End), _) => self.close(None),
            (None, Err(error)) => self.damaged(format!("it cannot be decompressed: {error}")),
            (None, Ok(())) if !is_last => {}
            (None, Ok(())) if archive.is_between_entries() => self.close(None),
            (None, Ok(())) => self.damaged("it ends within an entry".to_owned()),
        }
        Ok(())
    }

    /// Gives the layer up, for the rest of it cannot be had.
    pub(crate) fn fail(&mut self, error: ReadError) {
        self.close(Some(LayerProblem::Unreadable(error)));
    }

    fn damaged(&mut self, what: String) {
        self.close(Some(LayerProblem::Damaged(what)));
    }

    /// Lets the decompressor's memory go.
    fn close(&mut self, problem: Option<LayerProblem>) {
        let contents = match &mut self.state {
            State::Open(decoder) => decoder.archive_mut().take_contents(),
            State::Unread(contents) | State::Closed(contents, _) => mem::take(contents),
        };
        self.state = State::Closed(contents, problem);
    }
}

impl Decoder {
    fn of(magic: &[u8]) -> io::Result<Self> {
        let archive = Archive::default();
        Ok(match magic {
            [0x1f, 0x8b, ..] => Self::Gzip(MultiGzDecoder::new(archive)),
            // https://www.rfc-editor.org/rfc/rfc8878#section-3.1: a frame, or one to pass over.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Self::Zstd(Zstd::new(archive)?)
            }
            _ => Self::Plain(archive),
        })
    }

    /// Passes on all that can be decompressed of `bytes`; with the last, the stream must be whole.
    fn write(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        match self {
            Self::Plain(archive) => archive.write_all(bytes),
            Self::Gzip(decoder) => {
                decoder.write_all(bytes)?;
                if is_last { decoder.try_finish() } else { decoder.flush() }
            }
            Self::Zstd(zstd) => {
                zstd.write(bytes)?;
                if is_last && !zstd.is_whole {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(())
                }
            }
        }
    }

    fn archive(&self) -> &Archive {
        match self {
            Self::Plain(archive) => archive,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(zstd) => &zstd.archive,
        }
    }

    fn archive_mut(&mut self) -> &mut Archive {
        match self {
            Self::Plain(archive) => archive,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(zstd) => &mut zstd.archive,
        }
    }
}

impl Zstd {
    fn new(archive: Archive) -> io::Result<Self> {
        let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(zstd_error)?;
        Ok(Self { context, archive, is_whole: false })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut unpacked = [0; ZSTD_OUTPUT_BYTES];
        let mut input = InBuffer::around(bytes);
        loop {
            let mut output = OutBuffer::around(&mut unpacked[..]);
            let expected =
                self.context.decompress_stream(&mut output, &mut input).map_err(zstd_error)?;
            self.is_whole = expected == 0;
            self.archive.write_all(output.as_slice())?;
            // A full output may have left some behind.
            let is_drained = self.is_whole || output.pos() < ZSTD_OUTPUT_BYTES;
            if is_drained && input.pos == bytes.len() {
                return Ok(());
            }
        }
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

/// Why no layer of `media_type` can be read, if so
/// (<https://github.com/opencontainers/image-spec/blob/main/layer.md>).
fn refusal(media_type: &str) -> Option<LayerProblem> {
    let of = |problem: fn(String) -> LayerProblem| Some(problem(media_type.to_owned()));
    let suffix =
        ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"]
            .into_iter()
            .find_map(|tar| media_type.strip_prefix(tar));
    match suffix {
        Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd") => None,
        _ if media_type.ends_with("+encrypted") => of(LayerProblem::Encrypted),
        _ if media_type.contains(".nondistributable.") || media_type.contains(".foreign.") => {
            of(LayerProblem::Foreign)
        }
        _ => of(LayerProblem::MediaType),
    }
}
