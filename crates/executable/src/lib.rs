//! Which processor the program that an image starts was compiled for.
//!
//! An image's config may state one platform and its layers hold another: a base image or a copied
//! binary of the wrong architecture builds and pushes well, and fails where it is run. [`examine`]
//! finds the program that the image starts and reads the head of its file, with ranged reads of the
//! layers that stop as soon as the answer is known.
//!
//! # What is looked for
//! The program that the entrypoint names or, where there is none, the command; looked up in the
//! image's `PATH` and working directory, through links, and through scripts to their interpreter.
//! Where neither is set it is the shell, and any shell will do for it. If that program is not found within the [`Bounds`], or is
//! no ELF file, the shell stands for it, and if there is none, the programs in the directories of
//! the image's and Docker's usual `PATH`.
//!
//! An image may well carry programs of other processors that it does not start: emulators, cross
//! toolchains, firmware, agents to be installed elsewhere. Therefore nothing outside of those
//! directories stands for the image's own program, nor does an emulator (`qemu-…`) in them, and
//! they tell nothing when they hold programs of several processors.
//!
//! # What is read
//! All layers' first 64 KiB, the uppermost layer first and four at once, then more and more of those
//! that may hold what is missing; layers whose entries are sorted and past that path come last. What
//! a layer was seen to hold is remembered, so that no byte is read twice.
//!
//! What was not read is taken to change nothing: a program found in a lower layer is the answer even
//! if an upper layer, whose rest was not read, might replace it. Only before a program is called
//! foreign, all layers above it are read as far as the bounds allow.
//!
//! This crate does not verify digests, and knows no registry: see [`Blobs`].

mod archive;
mod contents;
mod layer;
mod machine;
mod search;
mod start;
mod tree;

use std::{ops::Range, time::Duration};

use archweld_model::{Digest, Platform};
use bytes::Bytes;

pub use layer::{Layer, LayerProblem};
pub use machine::Machine;
pub use start::Start;

/// Where the bytes of layers come from.
pub trait Blobs {
    /// The bytes of a blob in `range`, which is neither empty nor beyond the layer's size: all of
    /// them, and no more. At most four reads are under way at once.
    fn read(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Bytes, ReadError>> + Send;
}

/// Why a blob cannot be read: a fragment that fits after "could not be read: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(pub String);

/// How much is done for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes read of all layers, as they are stored.
    pub read_bytes_max: u64,
    /// Bytes that these decompress to.
    pub unpacked_bytes_max: u64,
    /// Memory for what is remembered and for decompression, roughly; beside it, the reads under way
    /// take up to 4 MiB.
    pub memory_bytes_max: usize,
    /// Time from first to last.
    pub time_max: Duration,
}

impl Default for Bounds {
    /// What six images at once can take of a function with 256 MB, and of its share of a processor.
    fn default() -> Self {
        Self {
            read_bytes_max: 16 << 20,
            unpacked_bytes_max: 128 << 20,
            memory_bytes_max: 24 << 20,
            time_max: Duration::from_secs(10),
        }
    }
}

/// One of [`Bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// [`Bounds::read_bytes_max`].
    #[error("the bound on bytes read")]
    Read,
    /// [`Bounds::unpacked_bytes_max`].
    #[error("the bound on bytes unpacked")]
    Unpacked,
    /// [`Bounds::memory_bytes_max`].
    #[error("the bound on memory")]
    Memory,
    /// [`Bounds::time_max`].
    #[error("the bound on time")]
    Time,
}

/// A program of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The absolute path of the file itself, links and scripts followed.
    pub path: String,
    /// What it was compiled for.
    pub machine: Machine,
    /// The layer that has it.
    pub layer: Digest,
}

/// What [`examine`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The image's program runs on the platform.
    Runs(Program),
    /// The image's program was compiled for another.
    Foreign(Program),
    /// It could not tell.
    Unknown(Reason),
}

/// Why [`examine`] could not tell: a fragment that fits after "could not tell: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There was more to read.
    #[error(
        "{bound} was reached after {read_bytes} bytes of {layer_count} layers, before any program \
         was found"
    )]
    Bound {
        /// Which bound ended the search.
        bound: Bound,
        /// Bytes read of all layers.
        read_bytes: u64,
        /// How many layers the image has.
        layer_count: usize,
    },
    /// The program may be in a layer that cannot be read.
    #[error("layer {digest} {problem}, and the other layers have no program")]
    Layer {
        /// The uppermost such layer.
        digest: Digest,
        /// What is the matter with it.
        problem: LayerProblem,
    },
    /// The program that is started is none of them.
    #[error(
        "the program that is started was not found, and of the others {} is compiled for {}, but \
         {} for {}", first.path, first.machine, second.path, second.machine
    )]
    Mixed {
        /// The uppermost of the programs.
        first: Program,
        /// The uppermost that was compiled for another processor.
        second: Program,
    },
    /// There is no ELF executable where programs are.
    #[error("no layer has a program")]
    NoProgram,
}

/// Finds out whether the program that an image starts was compiled for `platform`.
///
/// `layers` are those of the image's manifest, in its order: the base image's first. All but the
/// reads happens on the task that polls, which yields often.
pub async fn examine<B: Blobs>(
    platform: Platform,
    start: &Start,
    layers: Vec<Layer>,
    blobs: &B,
    bounds: Bounds,
) -> Finding {
    let mut search = search::Search::new(platform, start, layers, bounds);
    let end = tokio::time::timeout(bounds.time_max, search.read(blobs)).await;
    let bound = end.unwrap_or(Err(Bound::Time)).err();
    search.conclude(bound)
}
