//! Executions on disk: one append-only file each.
//!
//! A file is lines of JSON: first what the execution started from, then every input of the
//! interpreter with its time. The interpreter is pure, so this is enough to have the execution
//! again, history and all, and whatever it waits for. A redrive is one more line. Lines are not forced to the disk one by one: a
//! crash of this process loses nothing, a crash of the machine may lose the last lines, and a torn
//! last line is dropped.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archweld_states::{Definition, Effect, Execution, Input, Start, Task, TaskId, TimerId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::{Record, Redrive, StateMachine};

/// The version of the format; another one is not read.
const FORMAT: u32 = 1;

/// What may wait in memory for a disk that is full, for each execution.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The end of a journal's file name.
const EXTENSION: &str = "jsonl";

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Head {
    format: u32,
    pub(crate) execution_arn: String,
    pub(crate) execution_name: String,
    /// When it started: the time of [`Input::Start`], which has no line of its own.
    pub(crate) started: Timestamp,
    pub(crate) seed: u64,
    /// The input's text.
    pub(crate) input: String,
    state_machine_arn: String,
    state_machine_name: String,
    state_machine_created: Timestamp,
    role_arn: String,
    definition: String,
}

impl Head {
    pub(crate) fn new(
        state_machine: &StateMachine,
        execution_arn: String,
        execution_name: String,
        started: Timestamp,
        seed: u64,
        input: String,
    ) -> Self {
        Self {
            format: FORMAT,
            execution_arn,
            execution_name,
            started,
            seed,
            input,
            state_machine_arn: state_machine.arn.clone(),
            state_machine_name: state_machine.name.clone(),
            state_machine_created: state_machine.created,
            role_arn: state_machine.role_arn.clone(),
            definition: state_machine.text.clone(),
        }
    }

    /// The execution as it was before it began.
    pub(crate) fn begin(
        &self,
        state_machine: &Arc<StateMachine>,
    ) -> Result<(Record, Execution), serde_json::Error> {
        let start = Start {
            execution_arn: self.execution_arn.clone(),
            execution_name: self.execution_name.clone(),
            role_arn: state_machine.role_arn.clone(),
            state_machine_arn: state_machine.arn.clone(),
            state_machine_name: state_machine.name.clone(),
            input: serde_json::from_str(&self.input)?,
            seed: self.seed,
        };
        let record = Record {
            arn: self.execution_arn.clone(),
            name: self.execution_name.clone(),
            state_machine: state_machine.clone(),
            input: self.input.clone(),
            started: self.started,
            history: Vec::new(),
            tokens: Vec::new(),
            end: None,
            redrives: Vec::new(),
            dispatcher: None,
        };
        Ok((record, Execution::new(state_machine.definition.clone(), start)))
    }

    fn state_machine(&self) -> Result<StateMachine, ReadError> {
        let definition = Definition::parse(&self.definition)
            .map_err(|errors| ReadError::Definition(errors.to_string()))?;
        Ok(StateMachine {
            arn: self.state_machine_arn.clone(),
            name: self.state_machine_name.clone(),
            role_arn: self.role_arn.clone(),
            text: self.definition.clone(),
            definition: Arc::new(definition),
            created: self.state_machine_created,
        })
    }

    fn is_of(&self, state_machine: &StateMachine) -> bool {
        self.state_machine_arn == state_machine.arn
            && self.state_machine_created == state_machine.created
            && self.role_arn == state_machine.role_arn
            && self.definition == state_machine.text
    }
}

/// Every other line.
#[derive(Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    #[serde(with = "InputForm")]
    input: Input,
    /// Of a redrive, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_token: Option<String>,
}

/// How an input is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Input", tag = "type")]
enum InputForm {
    Start,
    TaskStarted {
        #[serde(with = "TaskIdForm")]
        task: TaskId,
    },
    TaskSubmitted {
        #[serde(with = "TaskIdForm")]
        task: TaskId,
        output: serde_json::Value,
    },
    TaskSucceeded {
        #[serde(with = "TaskIdForm")]
        task: TaskId,
        output: serde_json::Value,
    },
    TaskFailed {
        #[serde(with = "TaskIdForm")]
        task: TaskId,
        error: String,
        cause: String,
    },
    TaskHeartbeat {
        #[serde(with = "TaskIdForm")]
        task: TaskId,
    },
    TimerFired {
        #[serde(with = "TimerIdForm")]
        timer: TimerId,
    },
    Stop {
        error: Option<String>,
        cause: Option<String>,
    },
    Redrive,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TaskId")]
struct TaskIdForm(u64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "TimerId")]
struct TimerIdForm(u64);

/// The folder that executions are kept in. The files are numbered in the order of their starts.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("executions");
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The numbers of its journals, in order.
    pub(crate) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Starts a journal.
    pub(crate) fn create(&self, number: u64, head: &Head) -> io::Result<Journal> {
        let path = self.file(number);
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let mut journal =
            Journal { path: path.clone(), file: Some(file), bytes: 0, waiting: Vec::new() };
        match journal.write(head) {
            Ok(()) => Ok(journal),
            Err(error) => {
                // The number is free again; a file that stays is removed on the next opening.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Forgets a journal.
    pub(crate) fn remove(&self, number: u64) -> io::Result<()> {
        std::fs::remove_file(self.file(number))
    }

    /// Reads an execution back. `known` saves definitions from being parsed once an execution.
    pub(crate) fn read(
        &self,
        number: u64,
        known: &mut Vec<Arc<StateMachine>>,
    ) -> Result<Replayed, ReadError> {
        let path = self.file(number);
        let bytes = std::fs::read(&path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate();
        let (_, head) = lines.next().ok_or(ReadError::Empty)?;
        let head: Head = read_line(1, head)?;
        if head.format != FORMAT {
            return Err(ReadError::Format(head.format));
        }
        let state_machine = match known.iter().find(|known| head.is_of(known)) {
            Some(known) => known.clone(),
            None => {
                let state_machine = Arc::new(head.state_machine()?);
                known.push(state_machine.clone());
                state_machine
            }
        };
        let (mut record, mut execution) =
            head.begin(&state_machine).map_err(|source| ReadError::Line { line: 1, source })?;
        let mut outstanding = Outstanding::default();
        let mut step = |record: &mut Record, input, at| {
            outstanding.settle(&input);
            for effect in execution.step(input, at) {
                record.note(&effect, at);
                outstanding.note(effect);
            }
        };
        step(&mut record, Input::Start, head.started);
        for (index, line) in lines {
            let Line { at, input, client_token } = read_line(index + 1, line)?;
            if input == Input::Redrive {
                record.redrive(Redrive { at, client_token });
            }
            step(&mut record, input, at);
        }
        let bytes = u64::try_from(whole).unwrap_or(u64::MAX);
        let journal = Journal { path, file: None, bytes, waiting: Vec::new() };
        Ok(Replayed { record, execution, journal, outstanding })
    }

    fn file(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:08}.{EXTENSION}"))
    }
}

/// An execution that was read back.
pub(crate) struct Replayed {
    pub(crate) record: Record,
    pub(crate) execution: Execution,
    pub(crate) journal: Journal,
    pub(crate) outstanding: Outstanding,
}

/// What an execution waits for.
#[derive(Default)]
pub(crate) struct Outstanding {
    pub(crate) timers: BTreeMap<TimerId, Timestamp>,
    /// Tasks that were handed out and whose service has not answered.
    pub(crate) tasks: BTreeMap<TaskId, InFlight>,
}

/// A task that was handed out.
pub(crate) struct InFlight {
    pub(crate) task: Task,
    /// Whether the history says that it was.
    pub(crate) started: bool,
}

impl Outstanding {
    /// Takes account of an input that comes.
    fn settle(&mut self, input: &Input) {
        match input {
            Input::TaskStarted { task } => {
                if let Some(in_flight) = self.tasks.get_mut(task) {
                    in_flight.started = true;
                }
            }
            Input::TaskSubmitted { task, .. }
            | Input::TaskSucceeded { task, .. }
            | Input::TaskFailed { task, .. } => {
                self.tasks.remove(task);
            }
            Input::TimerFired { timer } => {
                self.timers.remove(timer);
            }
            Input::Start | Input::TaskHeartbeat { .. } | Input::Stop { .. } | Input::Redrive => {}
        }
    }

    /// Takes account of an effect of the input.
    fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Schedule(task) => {
                self.tasks.insert(task.task, InFlight { task, started: false });
            }
            Effect::Cancel { task } => {
                self.tasks.remove(&task);
            }
            Effect::SetTimer { timer, at } => {
                self.timers.insert(timer, at);
            }
            Effect::ClearTimer { timer } => {
                self.timers.remove(&timer);
            }
            Effect::Record(_) | Effect::Finish(_) => {}
        }
    }
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("read the file")]
    Io(#[from] io::Error),
    #[error("no whole line: it never started")]
    Empty,
    #[error("format {0}, expected {FORMAT}")]
    Format(u32),
    #[error("line {line}")]
    Line { line: usize, source: serde_json::Error },
    #[error("a definition that is not supported any more: {0}")]
    Definition(String),
}

fn read_line<T: serde::de::DeserializeOwned>(line: usize, text: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(text).map_err(|source| ReadError::Line { line, source })
}

/// The journal of one execution, to be written.
///
/// Lines that the disk did not take wait in memory and go first next time, so that the file has no
/// gap: one with a gap would replay to something else.
pub(crate) struct Journal {
    path: PathBuf,
    /// The file, while it is open.
    file: Option<File>,
    /// How far the file is whole. A failed write may have left part of a line behind that.
    bytes: u64,
    waiting: Vec<u8>,
}

impl Journal {
    /// Appends an input.
    ///
    /// # Errors
    /// When the disk does not take it; it is kept for the next attempt.
    pub(crate) fn append(&mut self, input: &Input, at: Timestamp) -> io::Result<()> {
        self.write(&Line { at, input: input.clone(), client_token: None })
    }

    /// Appends a redrive.
    ///
    /// # Errors
    /// See [`Journal::append`].
    pub(crate) fn append_redrive(&mut self, redrive: &Redrive) -> io::Result<()> {
        let Redrive { at, client_token } = redrive.clone();
        self.write(&Line { at, input: Input::Redrive, client_token })
    }

    /// Closes the file, until there is something to write.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Whether lines wait for the disk.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether more lines wait than may.
    pub(crate) fn is_lost(&self) -> bool {
        self.waiting.len() > WAITING_BYTES_MAX
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let is_torn = self.is_behind();
        serde_json::to_writer(&mut self.waiting, line)?;
        self.waiting.push(b'\n');
        self.write_waiting(is_torn)
    }

    /// Writes what waits for the disk.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn catch_up(&mut self) -> io::Result<()> {
        self.write_waiting(true)
    }

    /// One call of the operating system where all goes well, so that a crash tears one line at most.
    fn write_waiting(&mut self, is_torn: bool) -> io::Result<()> {
        let may_be_torn = is_torn || self.file.is_none();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().append(true).open(&self.path)?),
        };
        if may_be_torn {
            file.set_len(self.bytes)?;
        }
        file.write_all(&self.waiting)?;
        self.bytes += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}
