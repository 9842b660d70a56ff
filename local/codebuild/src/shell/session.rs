//! Runs commands one after the other as one shell would, and logs what they print.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::io::Errno;
use tokio::net::unix::pipe;
use tokio::process::Command;

use super::group::Group;
use crate::logs::LOG_LINE_BYTES_MAX;
use crate::worker::Reporter;

const COMMAND_SCRIPT: &str = include_str!("command.sh");
/// What is kept of a line beyond what the log shows, so that a secret across the cut is masked.
const LINE_OVERHANG_BYTES_MAX: usize = 4 * 1024;
/// How many lines of a command's output are remembered.
const TAIL_LINES_MAX: usize = 100;
/// More than a pipe holds: what a command wrote before it ended has been read by then, and what
/// follows is from processes that it left behind.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// The program that runs the commands.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// The name that it is called by, on which its behaviour may depend.
    pub(super) name: &'static str,
}

/// The commands of one build.
pub(super) struct Session<'a> {
    group: &'a Group,
    reporter: &'a Reporter,
    program: Program,
    state: PathBuf,
    source: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    output: pipe::Receiver,
    writer: io::PipeWriter,
    line: LineBuffer,
    tail: VecDeque<String>,
}

impl<'a> Session<'a> {
    /// A session that keeps its state in `state` and begins in `source` with `environment`.
    pub(super) fn new(
        group: &'a Group,
        reporter: &'a Reporter,
        program: Program,
        state: PathBuf,
        source: PathBuf,
        environment: BTreeMap<OsString, OsString>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&state)?;
        fs::write(state.join("script.sh"), COMMAND_SCRIPT)?;
        let (reader, writer) = io::pipe()?;
        let output = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok(Self {
            group,
            reporter,
            program,
            state,
            source,
            environment,
            output,
            writer,
            line: LineBuffer::default(),
            tail: VecDeque::new(),
        })
    }

    /// Runs one command; tells its exit status as a shell would.
    pub(super) async fn run(&mut self, command: &str, succeeding: bool) -> io::Result<i32> {
        fs::write(self.state.join("command"), command)?;
        let mut process = Command::new(&self.program.path);
        process
            .arg0(self.program.name)
            .arg(self.state.join("script.sh"))
            .arg(&self.state)
            .arg(if succeeding { "1" } else { "0" })
            .current_dir(self.directory())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(self.writer.try_clone()?)
            .stderr(self.writer.try_clone()?);
        // Once there is a state it holds the environment, too, less what was unset.
        if !self.state.join("variables").exists() {
            process.envs(&self.environment);
        }
        self.group.adopt(&mut process);
        self.tail.clear();
        let mut child = process.spawn()?;
        // The copies in it would keep the pipe open.
        drop(process);
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status?,
                ready = self.output.readable() => {
                    ready?;
                    self.read()?;
                }
            }
        };
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            match self.read()? {
                0 => break,
                bytes => drained += bytes,
            }
        }
        if let Some(line) = self.line.finish() {
            self.log(line);
        }
        self.keep_state()?;
        Ok(exit_code(status))
    }

    /// The last lines that the last command printed.
    pub(super) fn tail(&self) -> String {
        Vec::from_iter(self.tail.iter().map(String::as_str)).join("\n")
    }

    /// The values that exported variables of these names have now.
    pub(super) async fn exported(&mut self, names: &[String]) -> io::Result<Vec<(String, String)>> {
        // Only a shell can read the state, so one is asked what it would hand to a program.
        self.run("/usr/bin/env -0 >\"$__archweld/environment\"", true).await?;
        let bytes = fs::read(self.state.join("environment"))?;
        let mut values = BTreeMap::new();
        for variable in bytes.split(|&byte| byte == 0) {
            let variable = String::from_utf8_lossy(variable);
            if let Some((name, value)) = variable.split_once('=') {
                values.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(names
            .iter()
            .filter_map(|name| Some((name.clone(), values.get(name)?.clone())))
            .collect())
    }

    /// Where the last command was when it ended.
    fn directory(&self) -> PathBuf {
        let Ok(mut bytes) = fs::read(self.state.join("directory")) else {
            return self.source.clone();
        };
        // `pwd` ends the path with a line end of its own.
        bytes.pop();
        let directory = PathBuf::from(OsString::from_vec(bytes));
        if directory.is_dir() { directory } else { self.source.clone() }
    }

    /// Takes over the state that the command left, if it left a whole one.
    fn keep_state(&self) -> io::Result<()> {
        let directory = self.state.join("directory.new");
        if fs::metadata(&directory).is_ok_and(|data| data.len() > 0) {
            for name in ["variables", "options", "directory"] {
                fs::rename(self.state.join(format!("{name}.new")), self.state.join(name))?;
            }
        }
        Ok(())
    }

    /// Reads what there is, without waiting; 0 when there is nothing.
    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        // Read past tokio, which may not have heard yet that there is something.
        let count = match rustix::io::read(&self.output, &mut bytes) {
            Ok(count) => count,
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                // Tells tokio to wait for news.
                match self.output.try_read(&mut bytes) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let read = bytes.get(..count).unwrap_or_default();
        for line in self.line.push(read) {
            self.log(line);
        }
        Ok(count)
    }

    fn log(&mut self, line: String) {
        self.reporter.log(&line);
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// What a shell gives as `$?` for a process that ended so.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Cuts a stream of bytes into lines, however long and of whatever encoding they are.
#[derive(Default)]
struct LineBuffer {
    bytes: Vec<u8>,
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = (LOG_LINE_BYTES_MAX + LINE_OVERHANG_BYTES_MAX) - self.bytes.len();
            self.bytes.extend_from_slice(text.get(..room).unwrap_or(text));
            if ends {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The line that has not ended.
    fn finish(&mut self) -> Option<String> {
        if self.bytes.is_empty() { None } else { Some(self.take()) }
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.bytes);
        let line = line.strip_suffix('\r').unwrap_or(&line).to_owned();
        self.bytes.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_lines_wherever_the_pieces_end() {
        let mut buffer = LineBuffer::default();
        assert_eq!(buffer.push(b"one\r\ntw"), ["one"]);
        assert_eq!(buffer.push(b"o\n\n\xff\n"), ["two", "", "\u{fffd}"]);
        assert_eq!(buffer.push(b"rest"), Vec::<String>::new());
        assert_eq!(buffer.finish().as_deref(), Some("rest"));
        assert_eq!(buffer.finish(), None);
    }

    #[test]
    fn an_endless_line_takes_no_more_than_its_bound() {
        let mut buffer = LineBuffer::default();
        for _ in 0..100 {
            assert_eq!(buffer.push(&[b'x'; 1024]), Vec::<String>::new());
        }
        let line = buffer.push(b"\n").remove(0);
        assert_eq!(line.len(), LOG_LINE_BYTES_MAX + LINE_OVERHANG_BYTES_MAX);
        assert_eq!(buffer.push(b"next\n"), ["next"]);
    }
}
