//! The logs of builds, and the operations of CloudWatch Logs that read them.
//!
//! A log is a run of lines, each `<time> <text>`, in a file of the state folder or, without one,
//! in memory. Secrets are masked before a line is kept or shown. The operations are those that
//! `aws logs get-log-events`, `aws logs tail` and `aws logs describe-log-streams` need.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archweld_local_api::{ApiError, Host};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use file::LogFile;
use filter::Filter;

mod file;
mod filter;
mod window;

use window::LineIndex;
pub use window::{LOG_WINDOW_BYTES_MAX, LogLength, LogText, LogWindow};

/// The longest line that a log keeps, in bytes; what is beyond is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// The longest log that is kept in a file, in bytes.
pub const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The longest log that is kept in memory, in bytes; and how much of one waits there for a disk that
/// is full.
const MEMORY_LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How much of a log one answer holds, in bytes, and in events.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
const PAGE_EVENTS_MAX: usize = 10_000;
const CUT: &str = " [cut]";

/// All logs of one service; cheap to clone.
#[derive(Clone)]
pub(crate) struct Logs {
    host: Host,
    folder: Option<Arc<Path>>,
    streams: Arc<Mutex<BTreeMap<StreamName, Arc<Mutex<Stream>>>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct StreamName {
    group: String,
    stream: String,
}

struct Stream {
    backing: Backing,
    bytes: u64,
    full: bool,
    secrets: Vec<String>,
    created_ms: i64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    lines: LineIndex,
}

enum Backing {
    Memory(Vec<u8>),
    File(LogFile),
}

/// A line of a log where it was found.
struct Line {
    start: u64,
    end: u64,
    ms: i64,
    text: String,
}

impl Logs {
    pub(crate) fn new(host: Host, folder: Option<&Path>) -> Self {
        Self { host, folder: folder.map(Arc::from), streams: Arc::default() }
    }

    pub(crate) fn path(&self, stream: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{stream}.log")))
    }

    /// Begins a log. None of `secrets` will appear in it.
    pub(crate) fn begin(&self, group: &str, stream: &str, secrets: Vec<String>) {
        let backing = match self.path(stream) {
            Some(path) => Backing::File(LogFile::new(path, 0)),
            None => Backing::Memory(Vec::new()),
        };
        let now = self.host.now().as_millisecond();
        let stream_state = Stream {
            backing,
            bytes: 0,
            full: false,
            secrets,
            created_ms: now,
            first_ms: None,
            last_ms: None,
            lines: LineIndex::default(),
        };
        self.insert(group, stream, stream_state);
    }

    /// Takes up the log that an earlier process wrote, or was about to.
    pub(crate) fn reopen(&self, group: &str, stream: &str, created: Timestamp) -> io::Result<()> {
        let Some(path) = self.path(stream) else { return Ok(()) };
        let bytes = match std::fs::metadata(&path) {
            Ok(data) => data.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let mut state = Stream {
            backing: Backing::File(LogFile::new(path, bytes)),
            bytes,
            full: true,
            secrets: Vec::new(),
            created_ms: created.as_millisecond(),
            first_ms: None,
            last_ms: None,
            lines: LineIndex::default(),
        };
        state.first_ms = state.forward(0)?.first().map(|line| line.ms);
        state.last_ms = state.backward(bytes)?.last().map(|line| line.ms);
        self.insert(group, stream, state);
        Ok(())
    }

    /// Lets a log that was reopened be added to, after what a crash may have left of a last line.
    pub(crate) fn resume(&self, group: &str, stream: &str, secrets: Vec<String>) {
        let name = StreamName { group: group.to_owned(), stream: stream.to_owned() };
        let Some(stream) = lock(&self.streams).get(&name).cloned() else { return };
        let mut stream = lock(&stream);
        stream.full = false;
        stream.secrets = secrets;
        stream.change(&name, Stream::end_line);
    }

    fn insert(&self, group: &str, stream: &str, state: Stream) {
        let name = StreamName { group: group.to_owned(), stream: stream.to_owned() };
        lock(&self.streams).insert(name, Arc::new(Mutex::new(state)));
    }

    /// Ends a log; a line that comes late is still added. Says whether the disk took all of it: if
    /// not, try again later.
    pub(crate) fn end(&self, group: &str, stream: &str) -> bool {
        let name = StreamName { group: group.to_owned(), stream: stream.to_owned() };
        let Some(stream) = lock(&self.streams).get(&name).cloned() else { return true };
        let mut stream = lock(&stream);
        stream.change(&name, Stream::close);
        stream.waiting() == 0
    }

    /// Forgets a log, and its file.
    pub(crate) fn remove(&self, group: &str, stream: &str) {
        let name = StreamName { group: group.to_owned(), stream: stream.to_owned() };
        lock(&self.streams).remove(&name);
        if let Some(path) = self.path(stream)
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(log.path = %path.display(), %error, "could not remove an old log");
        }
    }

    /// Adds one line and gives it back as it was kept: masked and cut.
    pub(crate) fn append(&self, group: &str, stream: &str, line: &str) -> Option<String> {
        let name = StreamName { group: group.to_owned(), stream: stream.to_owned() };
        let stream = lock(&self.streams).get(&name).cloned()?;
        let mut stream = lock(&stream);
        let line = cut(mask(line, &stream.secrets));
        stream.change(&name, |stream| stream.append(self.host.now(), &line));
        Some(line)
    }

    /// Masks the secrets of a log in a text that is not part of it.
    pub(crate) fn mask(&self, group: &str, stream: &str, text: &str) -> String {
        let name = StreamName { group: group.to_owned(), stream: stream.to_owned() };
        let Some(stream) = lock(&self.streams).get(&name).cloned() else { return text.to_owned() };
        mask(text, &lock(&stream).secrets)
    }

    /// Performs an operation of CloudWatch Logs.
    pub(crate) fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        match operation {
            "DescribeLogStreams" => self.describe_log_streams(parse(input)?),
            "FilterLogEvents" => self.filter_log_events(parse(input)?),
            "GetLogEvents" => self.get_log_events(parse(input)?),
            _ => Err(ApiError::unknown_operation(operation)),
        }
    }

    /// The streams of a group, by name.
    fn group(&self, group: &Group) -> Result<(String, Vec<NamedStream>), ApiError> {
        let group = group.name()?;
        let streams: Vec<_> = lock(&self.streams)
            .iter()
            .filter(|(name, _)| name.group == group)
            .map(|(name, stream)| (name.stream.clone(), Arc::clone(stream)))
            .collect();
        if streams.is_empty() {
            return Err(not_found("The specified log group does not exist."));
        }
        Ok((group, streams))
    }

    fn describe_log_streams(&self, input: DescribeLogStreams) -> Result<Value, ApiError> {
        let (group, streams) = self.group(&input.group)?;
        let limit = limit("limit", input.limit, 50)?;
        let by_time = input.order_by == OrderBy::LastEventTime;
        if by_time && input.log_stream_name_prefix.is_some() {
            return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
        let prefix = input.log_stream_name_prefix.unwrap_or_default();
        let mut streams: Vec<_> = streams
            .into_iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(name, stream)| {
                let stream = lock(&stream);
                let key = if by_time { stream.last_ms.unwrap_or(stream.created_ms) } else { 0 };
                let mut described = json!({
                    "logStreamName": name,
                    "creationTime": stream.created_ms,
                    "arn": self.host.arn("logs", &format!("log-group:{group}:log-stream:{name}")),
                    "storedBytes": 0,
                });
                if let (Some(first), Some(last)) = (stream.first_ms, stream.last_ms) {
                    described["firstEventTimestamp"] = json!(first);
                    described["lastEventTimestamp"] = json!(last);
                    described["lastIngestionTime"] = json!(last);
                }
                (key, name, described)
            })
            .collect();
        streams.sort_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
        if input.descending {
            streams.reverse();
        }
        let skip: usize = match input.next_token.as_deref() {
            None => 0,
            Some(token) => token.parse().map_err(|_| bad_token())?,
        };
        let page: Vec<_> =
            streams.iter().skip(skip).take(limit).map(|(_, _, described)| described).collect();
        let mut output = json!({"logStreams": page});
        if streams.len() > skip.saturating_add(limit) {
            output["nextToken"] = json!((skip + limit).to_string());
        }
        Ok(output)
    }

    fn get_log_events(&self, input: GetLogEvents) -> Result<Value, ApiError> {
        let (_, streams) = self.group(&input.group)?;
        let Some((_, stream)) =
            streams.into_iter().find(|(name, _)| *name == input.log_stream_name)
        else {
            return Err(not_found("The specified log stream does not exist."));
        };
        let limit = limit("limit", input.limit, PAGE_EVENTS_MAX)?;
        let stream = lock(&stream);
        let (forward, offset) = match input.next_token.as_deref() {
            None if input.start_from_head => (true, 0),
            None => (false, stream.bytes),
            Some(token) => {
                let (direction, offset) = token.split_once('/').ok_or_else(bad_token)?;
                let offset = offset.parse().map_err(|_| bad_token())?;
                match direction {
                    "f" => (true, offset),
                    "b" => (false, offset),
                    _ => return Err(bad_token()),
                }
            }
        };
        let offset = offset.min(stream.bytes);
        let lines = if forward { stream.forward(offset) } else { stream.backward(offset) };
        let mut lines = lines.map_err(unreadable)?;
        let read = lines.first().map_or(offset, |line| line.start)
            ..lines.last().map_or(offset, |line| line.end);
        lines.retain(|line| input.span.holds(line.ms));
        let mut shown = read.clone();
        if lines.len() > limit {
            if forward {
                lines.truncate(limit);
                shown.end = lines.last().map_or(read.end, |line| line.end);
            } else {
                lines.drain(..lines.len() - limit);
                shown.start = lines.first().map_or(read.start, |line| line.start);
            }
        }
        let events: Vec<_> = lines.iter().map(Line::event).collect();
        Ok(json!({
            "events": events,
            "nextForwardToken": format!("f/{}", shown.end),
            "nextBackwardToken": format!("b/{}", shown.start),
        }))
    }

    fn filter_log_events(&self, input: FilterLogEvents) -> Result<Value, ApiError> {
        let (_, streams) = self.group(&input.group)?;
        let limit = limit("limit", input.limit, PAGE_EVENTS_MAX)?;
        let filter: Filter = input.filter_pattern.parse().map_err(invalid)?;
        let after = input.next_token.as_deref().map(Position::parse).transpose()?;
        let begin_ms = input.span.start_time.max(after.as_ref().map(|after| after.ms));
        let mut found = Vec::new();
        for (name, stream) in streams {
            let wanted = match (&input.log_stream_names, &input.log_stream_name_prefix) {
                (Some(_), Some(_)) => {
                    return Err(invalid("Give logStreamNames or logStreamNamePrefix, not both."));
                }
                (Some(names), None) => names.contains(&name),
                (None, Some(prefix)) => name.starts_with(prefix),
                (None, None) => true,
            };
            if wanted {
                lock(&stream)
                    .find(begin_ms, limit + 1, |line| {
                        input.span.holds(line.ms)
                            && filter.matches(&line.text)
                            && after.as_ref().is_none_or(|after| after.precedes(&name, line))
                    })
                    .map_err(unreadable)?
                    .into_iter()
                    .for_each(|line| found.push((name.clone(), line)));
            }
        }
        found.sort_by(|(left_name, left), (right_name, right)| {
            (left.ms, left_name, left.start).cmp(&(right.ms, right_name, right.start))
        });
        let more = found.len() > limit;
        found.truncate(limit);
        let events: Vec<_> = found
            .iter()
            .map(|(name, line)| {
                let mut event = line.event();
                event["logStreamName"] = json!(name);
                event["eventId"] = json!(format!("{}{:020}", line.ms, line.start));
                event
            })
            .collect();
        let mut output = json!({"events": events, "searchedLogStreams": []});
        if let (true, Some((name, line))) = (more, found.last()) {
            output["nextToken"] = json!(format!("{}/{}/{name}", line.ms, line.start));
        }
        Ok(output)
    }
}

type NamedStream = (String, Arc<Mutex<Stream>>);

/// Where a page of `FilterLogEvents` ended.
struct Position {
    ms: i64,
    start: u64,
    stream: String,
}

impl Position {
    fn parse(token: &str) -> Result<Self, ApiError> {
        let mut parts = token.splitn(3, '/');
        let mut part = || parts.next().ok_or_else(bad_token);
        Ok(Self {
            ms: part()?.parse().map_err(|_| bad_token())?,
            start: part()?.parse().map_err(|_| bad_token())?,
            stream: part()?.to_owned(),
        })
    }

    fn precedes(&self, stream: &str, line: &Line) -> bool {
        (self.ms, self.stream.as_str(), self.start) < (line.ms, stream, line.start)
    }
}

impl Line {
    fn event(&self) -> Value {
        // CodeBuild's events keep their line end; without it an empty line would be an empty
        // message, which CloudWatch does not have.
        json!({
            "timestamp": self.ms,
            "message": format!("{}\n", self.text),
            "ingestionTime": self.ms,
        })
    }
}

impl Stream {
    /// Ends a line that has no end.
    fn end_line(&mut self) -> io::Result<()> {
        let last = self.read(self.bytes.saturating_sub(1), self.bytes)?;
        if last.last().is_none_or(|&last| last == b'\n') {
            return Ok(());
        }
        self.write(b"\n")
    }

    /// Changes the log, and tells when the disk ceases to take it and when it has taken all of it.
    fn change(&mut self, name: &StreamName, change: impl FnOnce(&mut Self) -> io::Result<()>) {
        let was_behind = self.waiting() > 0;
        match change(self) {
            Ok(()) if was_behind => {
                tracing::info!(log.stream = name.stream, "a log is whole again");
            }
            Err(error) if !was_behind => {
                tracing::warn!(log.stream = name.stream, %error, "a log waits for the disk");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// How much waits for the disk, in bytes.
    fn waiting(&self) -> u64 {
        match &self.backing {
            Backing::Memory(_) => 0,
            Backing::File(file) => file.waiting(),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        let Backing::File(file) = &mut self.backing else { return Ok(()) };
        let written = file.catch_up();
        file.close();
        written
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        self.bytes += record.len() as u64;
        match &mut self.backing {
            Backing::Memory(bytes) => {
                bytes.extend_from_slice(record);
                Ok(())
            }
            Backing::File(file) => file.append(record),
        }
    }

    fn append(&mut self, now: Timestamp, line: &str) -> io::Result<()> {
        if self.full {
            return Ok(());
        }
        let mut record = format!("{now:.3} {line}\n");
        let (kept_max, in_memory) = match &self.backing {
            Backing::Memory(bytes) => (MEMORY_LOG_BYTES_MAX, bytes.len() as u64),
            Backing::File(file) => (LOG_BYTES_MAX, file.waiting()),
        };
        let more = record.len() as u64;
        if self.bytes + more > kept_max || in_memory + more > MEMORY_LOG_BYTES_MAX {
            self.full = true;
            record = format!("{now:.3} [the log ends here: it holds {} bytes]\n", self.bytes);
        }
        let offset = self.bytes;
        self.lines.append(offset, record.len() as u64);
        let ms = now.as_millisecond();
        self.first_ms.get_or_insert(ms);
        self.last_ms = Some(ms);
        self.write(record.as_bytes())
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        match &self.backing {
            Backing::Memory(bytes) => {
                let length = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                Ok(bytes.iter().skip(start).take(length).copied().collect())
            }
            Backing::File(file) => file.read(start, end),
        }
    }

    /// The lines from `offset` on, as many as fit in a page.
    fn forward(&self, offset: u64) -> io::Result<Vec<Line>> {
        let end = self.bytes.min(offset + PAGE_BYTES_MAX);
        Ok(lines(&self.read(offset, end)?, offset))
    }

    /// The lines before `offset`, as many as fit in a page.
    fn backward(&self, offset: u64) -> io::Result<Vec<Line>> {
        let start = offset.saturating_sub(PAGE_BYTES_MAX);
        let bytes = self.read(start, offset)?;
        let skip = match start {
            0 => 0,
            _ => bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1),
        };
        Ok(lines(bytes.get(skip..).unwrap_or_default(), start + skip as u64))
    }

    /// The first lines that were written at `begin_ms` or after and are `wanted`.
    fn find(
        &self,
        begin_ms: Option<i64>,
        count_max: usize,
        wanted: impl Fn(&Line) -> bool,
    ) -> io::Result<Vec<Line>> {
        let mut found = Vec::new();
        let mut offset = match begin_ms {
            Some(ms) => self.seek(ms)?,
            None => 0,
        };
        loop {
            let lines = self.forward(offset)?;
            let Some(last) = lines.last() else { return Ok(found) };
            offset = last.end;
            for line in lines.into_iter().filter(&wanted) {
                found.push(line);
                if found.len() == count_max {
                    return Ok(found);
                }
            }
        }
    }

    /// A place where a line begins, with every line before it older than `ms`: times only grow.
    fn seek(&self, ms: i64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.bytes);
        // A window of a few lines at their longest always holds a whole one.
        let window = 4 * LOG_LINE_BYTES_MAX as u64;
        while high - low > window {
            let middle = low + (high - low) / 2;
            let bytes = self.read(middle, high.min(middle + window))?;
            let skip = bytes.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let rest = bytes.get(skip..).unwrap_or_default();
            match lines(rest, middle + skip as u64).first() {
                Some(line) if line.ms < ms => low = line.start,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

/// The whole lines of a piece of a log that begins at `offset`.
fn lines(bytes: &[u8], offset: u64) -> Vec<Line> {
    let mut start = offset;
    let mut found = Vec::new();
    for record in bytes.split_inclusive(|&byte| byte == b'\n') {
        let end = start + record.len() as u64;
        if let Some(record) = record.strip_suffix(b"\n") {
            let record = String::from_utf8_lossy(record);
            // A line without a time is what a crash left of one.
            let (time, text) = record.split_once(' ').unwrap_or_default();
            if let Ok(time) = time.parse::<Timestamp>() {
                found.push(Line { start, end, ms: time.as_millisecond(), text: text.to_owned() });
            }
        }
        start = end;
    }
    found
}

fn mask(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

fn cut(mut line: String) -> String {
    if line.len() > LOG_LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LOG_LINE_BYTES_MAX - CUT.len()));
        line.push_str(CUT);
    }
    line
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const INVALID_PARAMETER: &str = "InvalidParameterException";

fn parse<T: serde::de::DeserializeOwned>(input: Value) -> Result<T, ApiError> {
    ApiError::parse_input(INVALID_PARAMETER, input)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client(INVALID_PARAMETER, message)
}

fn bad_token() -> ApiError {
    invalid("The specified nextToken is invalid.")
}

fn not_found(message: &str) -> ApiError {
    ApiError::client("ResourceNotFoundException", message)
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unreadable(error: io::Error) -> ApiError {
    ApiError::server("ServiceUnavailableException", format!("cannot read the log: {error}"))
}

fn limit(field: &str, limit: Option<usize>, limit_max: usize) -> Result<usize, ApiError> {
    match limit {
        None => Ok(limit_max),
        Some(limit) if (1..=limit_max).contains(&limit) => Ok(limit),
        Some(limit) => Err(invalid(format!("{field} is {limit}, not 1 to {limit_max}."))),
    }
}

/// A log group by name or ARN.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
}

impl Group {
    fn name(&self) -> Result<String, ApiError> {
        match (&self.log_group_name, &self.log_group_identifier) {
            (Some(name), None) => Ok(name.clone()),
            (None, Some(identifier)) => {
                let name = identifier.split_once(":log-group:").map_or(&**identifier, |(_, n)| n);
                Ok(name.strip_suffix(":*").unwrap_or(name).to_owned())
            }
            _ => Err(invalid("Give one of logGroupName and logGroupIdentifier.")),
        }
    }
}

/// The time that events are wanted from, in milliseconds since the epoch: from `start_time` on,
/// before `end_time`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    start_time: Option<i64>,
    end_time: Option<i64>,
}

impl Span {
    fn holds(&self, ms: i64) -> bool {
        self.start_time.is_none_or(|start| ms >= start) && self.end_time.is_none_or(|end| ms < end)
    }
}

#[derive(Default, PartialEq, Deserialize)]
enum OrderBy {
    #[default]
    LogStreamName,
    LastEventTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeLogStreams {
    #[serde(flatten)]
    group: Group,
    log_stream_name_prefix: Option<String>,
    #[serde(default)]
    order_by: OrderBy,
    #[serde(default)]
    descending: bool,
    next_token: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GetLogEvents {
    #[serde(flatten)]
    group: Group,
    log_stream_name: String,
    #[serde(flatten)]
    span: Span,
    next_token: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    start_from_head: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FilterLogEvents {
    #[serde(flatten)]
    group: Group,
    log_stream_names: Option<Vec<String>>,
    log_stream_name_prefix: Option<String>,
    #[serde(flatten)]
    span: Span,
    #[serde(default)]
    filter_pattern: String,
    next_token: Option<String>,
    limit: Option<usize>,
}
