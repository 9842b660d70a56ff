//! Which layer to read on, and what it all comes to.

use std::ops::Range;

use archweld_model::{Digest, Platform};
use bytes::Bytes;
use futures_util::future;
use tokio::task;

use crate::{
    Blobs, Bound, Bounds, Finding, Layer, Program, ReadError, Reason, Start,
    archive::Limits,
    layer::Reading,
    tree::{Executable, Followed, Tree},
};

/// Reads that are under way at once.
const READS_MAX: usize = 4;
/// How much is decompressed before other tasks have their turn.
const SLICE_BYTES: usize = 16 << 10;

/// An image as far as it was read.
pub(crate) struct Search<'start> {
    platform: Platform,
    start: &'start Start,
    /// The uppermost first.
    layers: Vec<Reading>,
    bounds: Bounds,
    read_bytes: u64,
}

/// What to do about an image as far as it was read.
enum Next {
    /// More reading would not better the answer.
    Conclude,
    /// Read layers from the top down to `depth`, for one of `wanted` above all.
    Read { depth: usize, wanted: Vec<String> },
}

impl<'start> Search<'start> {
    pub(crate) fn new(
        platform: Platform,
        start: &'start Start,
        layers: Vec<Layer>,
        bounds: Bounds,
    ) -> Self {
        let layers = layers.into_iter().rev().map(Reading::new).collect();
        Self { platform, start, layers, bounds, read_bytes: 0 }
    }

    /// Reads layers until the answer is known or all are read.
    ///
    /// # Errors
    /// When a bound is reached before.
    pub(crate) async fn read<B: Blobs>(&mut self, blobs: &B) -> Result<(), Bound> {
        while let Next::Read { depth, wanted } = self.next() {
            let reads = self.reads(depth, &wanted);
            if reads.is_empty() {
                return Err(Bound::Read);
            }
            let reads = reads.into_iter().map(async |read| (read.depth, read.run(blobs).await));
            for (depth, answer) in future::join_all(reads).await {
                match answer {
                    Ok(bytes) => {
                        for slice in bytes.chunks(SLICE_BYTES) {
                            self.push(depth, slice)?;
                            if matches!(self.next(), Next::Conclude) {
                                return Ok(());
                            }
                            task::yield_now().await;
                        }
                    }
                    Err(error) => self.layers[depth].fail(error),
                }
            }
        }
        Ok(())
    }

    /// Says what was found; `bound` is what ended the reading, if not the answer.
    pub(crate) fn conclude(&self, bound: Option<Bound>) -> Finding {
        let tree = self.tree();
        for followed in [tree.started(self.start), tree.shell(self.start)] {
            if let Followed::Executable(executable) = followed {
                return self.finding(&executable);
            }
        }
        let programs = tree.programs(self.start);
        let all_run = programs.iter().all(|program| program.machine.runs_on(self.platform));
        Finding::Unknown(match (&programs[..], bound) {
            ([first], _) => return self.finding(first),
            ([first, ..], _) if all_run => return self.finding(first),
            ([first, second, ..], _) => {
                Reason::Mixed { first: self.program(first), second: self.program(second) }
            }
            ([], Some(bound)) => {
                Reason::Bound { bound, read_bytes: self.read_bytes, layer_count: self.layers.len() }
            }
            ([], None) => self.problem().unwrap_or(Reason::NoProgram),
        })
    }

    fn next(&self) -> Next {
        let is_open = |depth: usize| self.layers[..depth].iter().any(|layer| !layer.is_closed());
        let tree = self.tree();
        let mut followed = tree.started(self.start);
        if let Followed::Strange { depth } = followed
            && !is_open(depth)
        {
            followed = tree.shell(self.start);
        }
        let (depth, wanted) = match followed {
            Followed::Executable(executable) if executable.machine.runs_on(self.platform) => {
                return Next::Conclude;
            }
            Followed::Executable(executable) => (executable.depth, vec![executable.path]),
            Followed::Strange { depth } => (depth, Vec::new()),
            Followed::Missing(paths) => (self.layers.len(), paths),
        };
        if is_open(depth) { Next::Read { depth, wanted } } else { Next::Conclude }
    }

    /// The next reads, within the bound; of the layers that were read least, for the program is as
    /// likely at the beginning of one as at that of another.
    fn reads(&mut self, depth: usize, wanted: &[String]) -> Vec<Read> {
        let open = (0..depth).filter(|depth| !self.layers[*depth].is_closed());
        let may_follow = |depth: &usize| {
            let contents = self.layers[*depth].contents();
            wanted.is_empty() || wanted.iter().any(|path| !contents.is_past(path))
        };
        let (mut chosen, past): (Vec<_>, Vec<_>) = open.partition(may_follow);
        if chosen.is_empty() {
            chosen = past;
        }
        chosen.sort_by_key(|depth| (self.layers[*depth].position(), *depth));
        let mut reads = Vec::new();
        for depth in chosen.into_iter().take(READS_MAX) {
            let layer = &self.layers[depth];
            let range = layer.next_range(self.bounds.read_bytes_max - self.read_bytes);
            if !range.is_empty() {
                self.read_bytes += range.end - range.start;
                reads.push(Read { depth, digest: layer.digest(), range });
            }
        }
        reads
    }

    fn push(&mut self, depth: usize, bytes: &[u8]) -> Result<(), Bound> {
        let unpacked_bytes: u64 = self.layers.iter().map(Reading::unpacked_bytes).sum();
        let memory_bytes: usize = self.layers.iter().map(Reading::memory_bytes).sum();
        let contents_bytes = self.layers[depth].contents().bytes();
        let free_bytes =
            self.bounds.memory_bytes_max.checked_sub(memory_bytes).ok_or(Bound::Memory)?;
        self.layers[depth].push(
            bytes,
            Limits {
                unpacked_bytes_max: self.bounds.unpacked_bytes_max.saturating_sub(unpacked_bytes),
                contents_bytes_max: contents_bytes.saturating_add(free_bytes),
            },
        )
    }

    fn tree(&self) -> Tree<'_> {
        Tree(self.layers.iter().map(Reading::contents).collect())
    }

    fn finding(&self, executable: &Executable) -> Finding {
        let program = self.program(executable);
        if program.machine.runs_on(self.platform) {
            Finding::Runs(program)
        } else {
            Finding::Foreign(program)
        }
    }

    fn program(&self, executable: &Executable) -> Program {
        Program {
            path: format!("/{}", executable.path),
            machine: executable.machine,
            layer: self.layers[executable.depth].digest(),
        }
    }

    /// The uppermost layer that could not be read to its end.
    fn problem(&self) -> Option<Reason> {
        self.layers.iter().find_map(|layer| {
            let problem = layer.problem()?.clone();
            Some(Reason::Layer { digest: layer.digest(), problem })
        })
    }
}

/// One read of a layer.
struct Read {
    depth: usize,
    digest: Digest,
    range: Range<u64>,
}

impl Read {
    async fn run<B: Blobs>(self, blobs: &B) -> Result<Bytes, ReadError> {
        let expected = self.range.end - self.range.start;
        let bytes = blobs.read(self.digest, self.range).await?;
        if bytes.len() as u64 == expected {
            Ok(bytes)
        } else {
            Err(ReadError(format!("{} bytes came instead of {expected}", bytes.len())))
        }
    }
}
