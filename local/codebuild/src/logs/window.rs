//! Logs by their lines: where each is, so that any part of a long log is read at once.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Logs, Stream, StreamName, lock};
use crate::build::LogsLocation;

/// How much text a window holds, in bytes.
pub const LOG_WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// The place of every so many lines is kept.
const LINES_PER_MARK: u64 = 256;
/// How much of a log is read at a time while its lines are counted, in bytes.
const COUNT_BYTES: u64 = 4 * 1024 * 1024;

/// How long a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogLength {
    /// In lines.
    pub lines: u64,
    /// In bytes, as it is kept: each line with its time.
    pub bytes: u64,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogText {
    /// When it was written; none of a line that a crash cut off.
    pub time: Option<Timestamp>,
    /// The line, with secrets masked.
    pub text: String,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWindow {
    /// Which line is the first, counted from 0.
    pub first: u64,
    /// The lines; none behind the end.
    pub lines: Vec<LogText>,
    /// The log's length at that moment.
    pub length: LogLength,
}

/// Where lines are.
#[derive(Debug, Default)]
pub(super) struct LineIndex {
    /// Whole lines so far.
    lines: u64,
    /// The bytes that were counted.
    bytes: u64,
    /// Where every [`LINES_PER_MARK`]th line begins.
    marks: Vec<u64>,
}

impl LineIndex {
    /// Counts a line that is added at `offset`. Of a log that was not counted so far, that is left
    /// to whoever asks.
    pub(super) fn append(&mut self, offset: u64, bytes: u64) {
        if offset == self.bytes {
            self.line(offset + bytes);
        }
    }

    /// A line from where the last one ended to `end`.
    fn line(&mut self, end: u64) {
        if self.lines.is_multiple_of(LINES_PER_MARK) {
            self.marks.push(self.bytes);
        }
        self.lines += 1;
        self.bytes = end;
    }

    fn mark(&self, line: u64) -> Option<u64> {
        let nth = usize::try_from(line / LINES_PER_MARK).ok()?;
        self.marks.get(nth).copied()
    }
}

impl Stream {
    /// Counts what was not counted yet.
    fn count(&mut self) -> io::Result<()> {
        while self.lines.bytes < self.bytes {
            let from = self.lines.bytes;
            let chunk = self.read(from, self.bytes.min(from + COUNT_BYTES))?;
            for (at, _) in chunk.iter().enumerate().filter(|&(_, &byte)| byte == b'\n') {
                self.lines.line(from + at as u64 + 1);
            }
            if self.lines.bytes == from {
                // What a crash left of a line, which ends nowhere.
                break;
            }
        }
        Ok(())
    }

    fn length(&mut self) -> io::Result<LogLength> {
        self.count()?;
        Ok(LogLength { lines: self.lines.lines, bytes: self.bytes })
    }

    fn window(&mut self, first: u64, count: usize) -> io::Result<LogWindow> {
        let length = self.length()?;
        let mut lines = Vec::new();
        let count = length.lines.saturating_sub(first).min(count as u64);
        if count > 0
            && let Some(begin) = self.lines.mark(first)
        {
            let behind = first + count + LINES_PER_MARK - 1;
            let end = self.lines.mark(behind).unwrap_or(self.lines.bytes);
            let skip = usize::try_from(first % LINES_PER_MARK).unwrap_or_default();
            let chunk = self.read(begin, end)?;
            let mut bytes = 0;
            for record in chunk.split(|&byte| byte == b'\n').skip(skip).take(count as usize) {
                bytes += record.len();
                if bytes > LOG_WINDOW_BYTES_MAX && !lines.is_empty() {
                    break;
                }
                lines.push(text(&String::from_utf8_lossy(record)));
            }
        }
        Ok(LogWindow { first, lines, length })
    }
}

fn text(record: &str) -> LogText {
    let parts = record.split_once(' ').and_then(|(time, text)| Some((time.parse().ok()?, text)));
    match parts {
        Some((time, text)) => LogText { time: Some(time), text: text.to_owned() },
        None => LogText { time: None, text: record.to_owned() },
    }
}

impl Logs {
    pub(crate) fn length(&self, logs: &LogsLocation) -> io::Result<Option<LogLength>> {
        self.stream(logs).map(|stream| lock(&stream).length()).transpose()
    }

    pub(crate) fn window(
        &self,
        logs: &LogsLocation,
        first: u64,
        count: usize,
    ) -> io::Result<Option<LogWindow>> {
        self.stream(logs).map(|stream| lock(&stream).window(first, count)).transpose()
    }

    fn stream(&self, logs: &LogsLocation) -> Option<Arc<std::sync::Mutex<Stream>>> {
        let (group, stream) = (logs.group_name.clone(), logs.stream_name.clone());
        lock(&self.streams).get(&StreamName { group, stream }).cloned()
    }
}
