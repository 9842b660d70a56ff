//! What functions print, line by line.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::broadcast;

/// A longer line arrives in pieces of this many bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A subscriber that falls behind by more lines than this loses the oldest.
pub(crate) const LINES_KEPT_MAX: usize = 4096;

/// A line that a function printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The name of the function.
    pub function: Arc<str>,
    /// The invocation that it was printed in; none while the function starts.
    pub request_id: Option<Arc<str>>,
    /// Where it was printed to.
    pub stream: LogStream,
    /// The line, without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Where a line was printed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Labels the lines of one instance.
#[derive(Clone)]
pub(crate) struct Logger {
    function: Arc<str>,
    request_id: Arc<Mutex<Option<Arc<str>>>>,
    lines: broadcast::Sender<LogLine>,
}

impl Logger {
    pub(crate) fn new(function: Arc<str>, lines: broadcast::Sender<LogLine>) -> Self {
        Self { function, request_id: Arc::default(), lines }
    }

    /// Lines read from now on belong to this invocation. It stays so after the invocation's end:
    /// what it printed last may still be in the pipe.
    pub(crate) fn begin(&self, request_id: &Arc<str>) {
        *self.request_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(request_id.clone());
    }

    /// Hands on every line until the pipe closes.
    pub(crate) async fn copy(self, stream: LogStream, pipe: impl AsyncRead + Unpin) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // A pipe that cannot be read any more ends like one that was closed.
        while let Ok(1..) = (&mut pipe).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let request_id = self.request_id.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // With no subscriber there is nobody to tell.
            let _ = self.lines.send(LogLine {
                function: self.function.clone(),
                request_id,
                stream,
                text: String::from_utf8_lossy(&line).into_owned(),
            });
            line.clear();
        }
    }
}
