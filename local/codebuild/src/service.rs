//! The service: projects, the queue, and the life of each build.
//!
//! A build's record changes under one lock, and its events leave under the same lock, so every
//! observer sees one order. Each build has a task of its own that waits for a slot, lets the
//! worker run within the time-out, and frees the slot when the worker has ended.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use archweld_local_api::{ApiError, EventSink, Host};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::{AutoRetry, Build, LogsLocation, Phase, PhaseContext, PhaseType, Status};
use crate::error::{OpenError, invalid_input, limit_exceeded};
use crate::events;
use crate::logs::{LogLength, LogWindow, Logs};
use crate::notice::{BuildInfo, Notice};
use crate::project::Project;
use crate::records::{Idempotency, Record, Records};
use crate::worker::{Job, Outcome, Reporter, Worker};

/// How long a worker may clean up after a build that was stopped, in milliseconds.
pub const WORKER_END_MS_MAX: u64 = 1_500;
/// How many builds are remembered; the oldest finished ones are forgotten first.
pub const BUILDS_KEPT_MAX: usize = 10_000;
/// How long the service waits before it tries a disk again that was full.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// How many notices a slow subscriber may lag behind before it misses some.
const NOTICES_MAX: usize = 4_096;
/// How long an idempotency token counts, in seconds.
const IDEMPOTENCY_S: i64 = 5 * 60;
/// Why a build ended that was not over when this process, or an earlier one, ended.
const LOST: &str = "the local CodeBuild ended while the build ran";
/// Environment variables whose names end so hold secrets.
const SECRET_SUFFIX: &str = "_TASK_TOKEN";
/// A shorter value is no secret, and masking it would blot out half the log.
const SECRET_BYTES_MIN: usize = 8;

/// How the service runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where records and logs are kept; in memory only if absent.
    pub folder: Option<PathBuf>,
    /// How many builds run at once.
    pub concurrent_builds_max: usize,
    /// How many more may wait; further ones are refused.
    pub queued_builds_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        // AWS queues five times as many builds as may run.
        Self { folder: None, concurrent_builds_max: 4, queued_builds_max: 20 }
    }
}

/// CodeBuild on one machine; cheap to clone.
#[derive(Clone)]
pub struct CodeBuild {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    settings: Settings,
    worker: Arc<dyn Worker>,
    events: EventSink,
    notices: broadcast::Sender<Notice>,
    logs: Logs,
    records: Records,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// What stands before a build's id in the address of its page.
    shown_at: OnceLock<String>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) projects: BTreeMap<String, ProjectEntry>,
    pub(crate) builds: BTreeMap<String, Entry>,
    /// The ids of the builds, oldest first.
    pub(crate) order: BTreeMap<u64, String>,
    /// What idempotency tokens stand for.
    tokens: BTreeMap<String, Token>,
    closed: bool,
}

pub(crate) struct ProjectEntry {
    pub(crate) project: Project,
    pub(crate) created: Timestamp,
}

pub(crate) struct Entry {
    pub(crate) build: Build,
    sequence: u64,
    info: Arc<BuildInfo>,
    stop: CancellationToken,
    idempotency: Option<Idempotency>,
    /// Whether the folder holds the record as it is now.
    is_saved: bool,
}

/// What an idempotency token stands for.
struct Token {
    input: Value,
    id: String,
    used: Timestamp,
}

impl Inner {
    /// Keeps the record of a build; see [`CodeBuild::keep`] where the disk does not take it.
    fn save(&self, entry: &mut Entry) {
        entry.is_saved = self.records.save(&entry.build, entry.idempotency.as_ref());
    }
}

impl State {
    /// The builds of a project that are not over.
    fn active(&self, project: &str) -> usize {
        let of_project = |entry: &&Entry| entry.build.project_name == project;
        self.builds.values().filter(of_project).filter(|entry| !entry.build.build_complete).count()
    }

    fn insert(&mut self, build: Build, idempotency: Option<Idempotency>) -> &mut Entry {
        if let Some(Idempotency { token, input, used }) = idempotency.clone() {
            self.tokens.insert(token, Token { input, id: build.id.clone(), used });
        }
        let sequence = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        self.order.insert(sequence, build.id.clone());
        let info = BuildInfo::new(&build);
        let stop = CancellationToken::new();
        let entry = Entry { sequence, info, stop, build, idempotency, is_saved: true };
        self.builds.entry(entry.build.id.clone()).insert_entry(entry).into_mut()
    }

    /// Forgets the oldest finished builds beyond the bound.
    fn prune(&mut self) -> Vec<Build> {
        let excess = self.builds.len().saturating_sub(BUILDS_KEPT_MAX);
        let finished =
            |id: &&String| self.builds.get(*id).is_some_and(|entry| entry.build.build_complete);
        let oldest: Vec<_> = self.order.values().filter(finished).take(excess).cloned().collect();
        let removed = oldest.iter().filter_map(|id| self.builds.remove(id));
        let removed: Vec<_> = removed.collect();
        for entry in &removed {
            self.order.remove(&entry.sequence);
        }
        removed.into_iter().map(|entry| entry.build).collect()
    }
}

impl CodeBuild {
    /// Starts the service, with the builds of its folder. Those that were not over when an earlier
    /// process ended wait for [`CodeBuild::recover`].
    ///
    /// Events leave in order, under the service's lock: `events` must not call back.
    pub fn open(
        host: Host,
        settings: Settings,
        worker: Arc<dyn Worker>,
        events: EventSink,
    ) -> Result<Self, OpenError> {
        let records = Records::open(settings.folder.as_deref())?;
        let logs_folder = match &settings.folder {
            Some(folder) => Some(crate::records::make_folder(folder.join("logs"))?),
            None => None,
        };
        let logs = Logs::new(host.clone(), logs_folder.as_deref());
        let mut state = State::default();
        for Record { build, idempotency } in records.load()? {
            let location = &build.logs;
            logs.reopen(&location.group_name, &location.stream_name, build.start_time).map_err(
                |source| OpenError::Folder {
                    path: logs_folder.clone().unwrap_or_default(),
                    source,
                },
            )?;
            state.insert(build, idempotency);
        }
        let inner = Inner {
            slots: Arc::new(Semaphore::new(settings.concurrent_builds_max)),
            notices: broadcast::Sender::new(NOTICES_MAX),
            tasks: TaskTracker::new(),
            state: Mutex::new(state),
            host,
            settings,
            worker,
            events,
            logs,
            records,
            shown_at: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Says where builds that begin from now on can be looked at: at this address with their id at
    /// its end. The first address counts.
    pub fn show_builds_at(&self, address: String) {
        self.inner.shown_at.get_or_init(|| address);
    }

    /// Ends the builds that were not over when an earlier process ended: each is a `FAULT`, as its
    /// processes are gone, and an event tells of it. Gives their ids.
    pub fn recover(&self) -> Vec<String> {
        let lost: Vec<_> = {
            let state = self.state();
            let entries = state.order.values().filter_map(|id| state.builds.get(id));
            entries
                .map(|entry| &entry.build)
                .filter(|build| !build.build_complete)
                .cloned()
                .collect()
        };
        for build in &lost {
            let LogsLocation { group_name, stream_name, .. } = &build.logs;
            self.inner.logs.resume(group_name, stream_name, secrets(build));
            self.log(&build.id, &format!("[Container] {LOST}"));
            self.interrupt(&build.id);
        }
        lost.into_iter().map(|build| build.id).collect()
    }

    /// Ends a build that cannot go on, for no fault of its own.
    fn interrupt(&self, id: &str) {
        self.finish(id, Status::Fault.into(), vec![PhaseContext::new("INTERNAL_ERROR", LOST)]);
    }

    /// Adds a project, or replaces the one of its name; builds that go on are not affected.
    pub fn create_project(&self, project: Project) -> Result<(), ApiError> {
        project.check()?;
        let entry = ProjectEntry { created: self.inner.host.now(), project };
        self.state().projects.insert(entry.project.name.clone(), entry);
        Ok(())
    }

    /// Performs an operation of CloudWatch Logs on the logs of the builds.
    pub async fn call_logs(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.inner.logs.call(operation, input)
    }

    /// The file with a build's whole log, where logs are kept in files.
    pub fn log_file(&self, id: &str) -> Option<PathBuf> {
        let (_, stream) = id.rsplit_once(':')?;
        self.inner.logs.path(stream)
    }

    /// A build as it is now.
    pub fn build(&self, id: &str) -> Option<Build> {
        self.state().builds.get(id).map(|entry| entry.build.clone())
    }

    /// The builds that are `wanted`, oldest first. `wanted` must not call the service.
    pub fn builds(&self, wanted: impl Fn(&Build) -> bool) -> Vec<Build> {
        let state = self.state();
        let builds = state.order.values().filter_map(|id| state.builds.get(id));
        builds.map(|entry| &entry.build).filter(|build| wanted(build)).cloned().collect()
    }

    /// How long a build's log is; none where there is no such log. Reads a log of an earlier
    /// process whole when it is asked for the first time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_length(&self, id: &str) -> io::Result<Option<LogLength>> {
        self.log_of(id).map_or(Ok(None), |logs| self.inner.logs.length(&logs))
    }

    /// Lines of a build's log from `first` on, counted from 0: as many as `count` and as fit in
    /// [`LOG_WINDOW_BYTES_MAX`](crate::LOG_WINDOW_BYTES_MAX), but one at the least.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_window(&self, id: &str, first: u64, count: usize) -> io::Result<Option<LogWindow>> {
        self.log_of(id).map_or(Ok(None), |logs| self.inner.logs.window(&logs, first, count))
    }

    fn log_of(&self, id: &str) -> Option<LogsLocation> {
        self.state().builds.get(id).map(|entry| entry.build.logs.clone())
    }

    /// Hears of builds from now on. A subscriber that lags too far behind misses notices, which
    /// the receiver tells.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.inner.notices.subscribe()
    }

    /// Ends every build as a `FAULT` and waits, at most two seconds, until the workers have ended.
    /// Builds started from now on are refused.
    pub async fn shutdown(&self) {
        let ids: Vec<_> = {
            let mut state = self.state();
            state.closed = true;
            state.builds.keys().cloned().collect()
        };
        for id in ids {
            self.interrupt(&id);
            self.cancel(&id);
        }
        self.inner.tasks.close();
        let bound = Duration::from_millis(WORKER_END_MS_MAX + 500);
        if tokio::time::timeout(bound, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("some builds did not end in time");
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ARN of a project.
    pub(crate) fn project_arn(&self, name: &str) -> String {
        self.inner.host.arn("codebuild", &format!("project/{name}"))
    }

    /// Submits a build unless `token` already stands for one. `make` gets the project and answers
    /// the build to be, whose identity and place in the queue are filled in here.
    pub(crate) fn submit(
        &self,
        project: &str,
        token: Option<(String, Value)>,
        make: impl FnOnce(&Project) -> Result<NewBuild, ApiError>,
    ) -> Result<Build, ApiError> {
        let now = self.inner.host.now();
        let mut state = self.state();
        if state.closed {
            return Err(ApiError::server("ServiceUnavailableException", "CodeBuild is ending"));
        }
        let found = state.projects.get(project);
        let found = found
            .ok_or_else(|| crate::error::project_not_found(&self.project_arn(project)))?
            .project
            .clone();
        let new = make(&found)?;

        state.tokens.retain(|_, token| now.duration_since(token.used).as_secs() < IDEMPOTENCY_S);
        if let Some((token, input)) = &token
            && let Some(known) = state.tokens.get(token)
        {
            if known.input != *input {
                return Err(invalid_input(
                    "Parameters do not match those of the earlier request with the same \
                     idempotencyToken",
                ));
            }
            if let Some(entry) = state.builds.get(&known.id) {
                return Ok(entry.build.clone());
            }
        }

        if let Some(limit) = found.concurrent_build_limit
            && state.active(project) >= limit as usize
        {
            return Err(limit_exceeded(format!(
                "Cannot have more than {limit} active builds for the project"
            )));
        }
        let settings = &self.inner.settings;
        let active = state.builds.values().filter(|entry| !entry.build.build_complete).count();
        if active >= settings.concurrent_builds_max.saturating_add(settings.queued_builds_max) {
            return Err(limit_exceeded(format!(
                "Cannot have more than {} builds in queue for the account",
                settings.queued_builds_max
            )));
        }

        let idempotency = token.map(|(token, input)| Idempotency { token, input, used: now });
        Ok(self.insert(&mut state, new, idempotency, now))
    }

    /// Gives a new build its identity, tells of it and lets it run.
    fn insert(
        &self,
        state: &mut State,
        new: NewBuild,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Build {
        let inner = &self.inner;
        let uuid = inner.host.uuid().to_string();
        let group_name = format!("/aws/codebuild/{}", new.project_name);
        let last_number = state
            .builds
            .values()
            .filter(|entry| entry.build.project_name == new.project_name)
            .map(|entry| entry.build.build_number)
            .max();
        let id = format!("{}:{uuid}", new.project_name);
        let log = format!("log-group:{group_name}:log-stream:{uuid}");
        let phase = |phase_type, ended| Phase {
            phase_type,
            phase_status: if ended { Some(Status::Succeeded) } else { None },
            start_time: now,
            end_time: if ended { Some(now) } else { None },
            duration_in_seconds: if ended { Some(0) } else { None },
            contexts: Vec::new(),
        };
        let mut build = Build {
            arn: inner.host.arn("codebuild", &format!("build/{id}")),
            build_number: last_number.unwrap_or_default() + 1,
            start_time: now,
            end_time: None,
            current_phase: PhaseType::Submitted,
            build_status: Status::InProgress,
            source_version: new.source_version,
            resolved_source_version: None,
            project_name: new.project_name,
            phases: vec![phase(PhaseType::Submitted, false)],
            source: new.source,
            environment: new.environment,
            service_role: new.service_role,
            logs: LogsLocation {
                deep_link: inner.shown_at.get().map(|address| format!("{address}{id}")),
                cloud_watch_logs_arn: inner.host.arn("logs", &log),
                stream_name: uuid,
                group_name,
            },
            timeout_in_minutes: new.timeout_in_minutes,
            queued_timeout_in_minutes: new.queued_timeout_in_minutes,
            build_complete: false,
            initiator: new.initiator,
            exported_environment_variables: Vec::new(),
            auto_retry_config: new.auto_retry,
            id,
        };
        inner.logs.begin(&build.logs.group_name, &build.logs.stream_name, secrets(&build));
        (inner.events)(events::state_change(&inner.host, &build));
        build.phases = vec![phase(PhaseType::Submitted, true), phase(PhaseType::Queued, false)];
        build.current_phase = PhaseType::Queued;
        (inner.events)(events::phase_change(&inner.host, &build, &build.phases[0]));

        let entry = state.insert(build.clone(), idempotency);
        inner.save(entry);
        self.notify(Notice::Queued { build: Arc::clone(&entry.info) });
        let (service, id, stop) = (self.clone(), build.id.clone(), entry.stop.clone());
        inner.tasks.spawn(async move {
            service.run(&id, stop).await;
            service.keep(&id).await;
        });
        for forgotten in state.prune() {
            inner.records.remove(&forgotten);
            inner.logs.remove(&forgotten.logs.group_name, &forgotten.logs.stream_name);
        }
        build
    }

    /// Stops a build that is not over; gives it back as it is then, if there is such a build.
    pub(crate) fn stop(&self, id: &str) -> Option<Build> {
        self.finish(id, Status::Stopped.into(), Vec::new());
        self.cancel(id)
    }

    /// Ends the work of a build that is over by its record, which it gives back.
    fn cancel(&self, id: &str) -> Option<Build> {
        let state = self.state();
        let entry = state.builds.get(id)?;
        entry.stop.cancel();
        Some(entry.build.clone())
    }

    /// The life of one build: waits for a slot, works, frees the slot.
    async fn run(&self, id: &str, stop: CancellationToken) {
        let Some((queued_minutes, minutes)) =
            self.state().builds.get(id).map(|entry| {
                (entry.build.queued_timeout_in_minutes, entry.build.timeout_in_minutes)
            })
        else {
            return;
        };
        let _slot = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            slot = Arc::clone(&self.inner.slots).acquire_owned() => slot,
            () = tokio::time::sleep(minutes_of(queued_minutes)) => {
                let context = PhaseContext::new("QUEUE_TIMED_OUT", "Build has timed out in queue");
                self.finish(id, Status::TimedOut.into(), vec![context]);
                return;
            }
        };
        self.begin_phase(id, PhaseType::Provisioning);
        self.end_phase(id, Status::Succeeded, Vec::new());
        let cancelled = CancellationToken::new();
        let Some(job) = self.job(id, cancelled.clone()) else { return };
        let mut work = self.inner.worker.run(job);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            outcome = &mut work => {
                self.finish(id, outcome, Vec::new());
                return;
            }
            () = tokio::time::sleep(minutes_of(minutes)) => {
                let context = PhaseContext::new("BUILD_TIMED_OUT", "Build has timed out.");
                self.finish(id, Status::TimedOut.into(), vec![context]);
            }
        }
        cancelled.cancel();
        let bound = Duration::from_millis(WORKER_END_MS_MAX);
        if tokio::time::timeout(bound, work).await.is_err() {
            tracing::warn!(build.id = id, "a worker did not end in time");
        }
    }

    /// Writes what the disk did not take of a build, once there is room or for the last time.
    async fn keep(&self, id: &str) {
        loop {
            let is_last = {
                let mut state = self.state();
                let closed = state.closed;
                let Some(entry) = state.builds.get_mut(id) else { return };
                if !entry.is_saved {
                    self.inner.save(entry);
                }
                let logs = &entry.build.logs;
                let is_whole = self.inner.logs.end(&logs.group_name, &logs.stream_name);
                closed || (entry.is_saved && is_whole)
            };
            if is_last {
                return;
            }
            tokio::time::sleep(DISK_RETRY).await;
        }
    }

    /// The worker's view of a build that is not over.
    fn job(&self, id: &str, cancelled: CancellationToken) -> Option<Job> {
        let state = self.state();
        let build = &state.builds.get(id).filter(|entry| !entry.build.build_complete)?.build;
        Some(Job {
            id: build.id.clone(),
            arn: build.arn.clone(),
            number: build.build_number,
            project: build.project_name.clone(),
            environment: build.environment.clone(),
            source: build.source.clone(),
            source_version: build.source_version.clone(),
            initiator: build.initiator.clone(),
            started: build.start_time,
            logs: build.logs.clone(),
            reporter: Reporter { service: self.clone(), id: build.id.clone() },
            cancelled,
        })
    }

    pub(crate) fn begin_phase(&self, id: &str, phase: PhaseType) {
        self.end_phase(id, Status::Succeeded, Vec::new());
        self.change(id, |entry| {
            entry.build.current_phase = phase;
            entry.build.phases.push(Phase {
                phase_type: phase,
                phase_status: None,
                start_time: self.inner.host.now(),
                end_time: None,
                duration_in_seconds: None,
                contexts: Vec::new(),
            });
            // Should this process end, the next one knows in which phase that was.
            self.inner.save(entry);
            self.notify(Notice::PhaseBegan { build: Arc::clone(&entry.info), phase });
        });
    }

    pub(crate) fn end_phase(&self, id: &str, status: Status, contexts: Vec<PhaseContext>) {
        self.change(id, |entry| {
            let contexts = self.masked(&entry.build, contexts);
            if end_open_phase(&mut entry.build, status, contexts, self.inner.host.now()) {
                self.tell_phase_end(entry);
            }
        });
    }

    pub(crate) fn source_resolved(&self, id: &str, commit: &str) {
        self.change(id, |entry| entry.build.resolved_source_version = Some(commit.to_owned()));
    }

    pub(crate) fn log(&self, id: &str, text: &str) {
        let Some((info, logs)) = self
            .state()
            .builds
            .get(id)
            .map(|entry| (Arc::clone(&entry.info), entry.build.logs.clone()))
        else {
            return;
        };
        for line in text.split('\n') {
            if let Some(line) = self.inner.logs.append(&logs.group_name, &logs.stream_name, line) {
                self.notify(Notice::Log { build: Arc::clone(&info), line: line.into() });
            }
        }
    }

    /// Closes the record of a build that is not over, and tries the build again where it may be.
    fn finish(&self, id: &str, outcome: Outcome, contexts: Vec<PhaseContext>) {
        let now = self.inner.host.now();
        let mut again = None;
        self.change(id, |entry| {
            let build = &mut entry.build;
            build.exported_environment_variables = outcome.exported;
            let contexts = self.masked(build, contexts);
            let open = build.phases.last().is_some_and(|phase| phase.phase_status.is_none());
            close(build, outcome.status, contexts, now);
            if open {
                // The phase that was open is the last but one now: COMPLETED came after it.
                self.tell_phase_end(entry);
            }
            // In this order: a crash in between tells of the build's end twice, never not at all.
            (self.inner.events)(events::state_change(&self.inner.host, &entry.build));
            self.inner.save(entry);
            let build = &entry.build;
            self.inner.logs.end(&build.logs.group_name, &build.logs.stream_name);
            self.notify(Notice::Finished {
                build: Arc::clone(&entry.info),
                status: outcome.status,
            });
            tracing::info!(build.id = build.id, build.status = %outcome.status, "a build is over");
            if outcome.status == Status::Failed {
                again = next_try(build, outcome.retries_max);
            }
        });
        if let Some(again) = again {
            self.try_again(id, again);
        }
    }

    /// CodeBuild's own retry: a new build with the same settings.
    fn try_again(&self, id: &str, again: NewBuild) {
        let project = again.project_name.clone();
        match self.submit(&project, None, |_| Ok(again)) {
            Ok(next) => {
                let mut state = self.state();
                if let Some(entry) = state.builds.get_mut(id) {
                    let config = entry.build.auto_retry_config.get_or_insert_default();
                    config.next_auto_retry = Some(next.arn);
                    self.inner.save(entry);
                }
            }
            Err(error) => tracing::warn!(build.id = id, %error, "could not try a build again"),
        }
    }

    /// Changes a build that is not over.
    fn change(&self, id: &str, change: impl FnOnce(&mut Entry)) {
        let mut state = self.state();
        if let Some(entry) = state.builds.get_mut(id)
            && !entry.build.build_complete
        {
            change(entry);
        }
    }

    fn masked(&self, build: &Build, mut contexts: Vec<PhaseContext>) -> Vec<PhaseContext> {
        let logs = &build.logs;
        for context in &mut contexts {
            context.message =
                self.inner.logs.mask(&logs.group_name, &logs.stream_name, &context.message);
        }
        contexts
    }

    fn tell_phase_end(&self, entry: &Entry) {
        let build = &entry.build;
        let ended = build.phases.iter().rev().find(|phase| phase.phase_status.is_some());
        let Some((phase, status)) = ended.and_then(|phase| Some((phase, phase.phase_status?)))
        else {
            return;
        };
        (self.inner.events)(events::phase_change(&self.inner.host, build, phase));
        self.notify(Notice::PhaseEnded {
            build: Arc::clone(&entry.info),
            phase: phase.phase_type,
            status,
        });
    }

    fn notify(&self, notice: Notice) {
        // An error only says that nobody listens.
        drop(self.inner.notices.send(notice));
    }
}

impl std::fmt::Debug for CodeBuild {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CodeBuild").finish_non_exhaustive()
    }
}

/// A build before it has an identity.
pub(crate) struct NewBuild {
    pub(crate) project_name: String,
    pub(crate) source: crate::project::Source,
    pub(crate) source_version: Option<String>,
    pub(crate) environment: crate::project::Environment,
    pub(crate) service_role: Option<String>,
    pub(crate) timeout_in_minutes: u32,
    pub(crate) queued_timeout_in_minutes: u32,
    pub(crate) initiator: String,
    pub(crate) auto_retry: Option<AutoRetry>,
}

/// The next try of a failed build, if it may have one.
fn next_try(build: &Build, retries_max: Option<u32>) -> Option<NewBuild> {
    let config = build.auto_retry_config.clone().unwrap_or_default();
    let limit = retries_max.unwrap_or(config.auto_retry_limit);
    if config.auto_retry_number >= limit {
        return None;
    }
    Some(NewBuild {
        project_name: build.project_name.clone(),
        source: build.source.clone(),
        source_version: build.source_version.clone(),
        environment: build.environment.clone(),
        service_role: build.service_role.clone(),
        timeout_in_minutes: build.timeout_in_minutes,
        queued_timeout_in_minutes: build.queued_timeout_in_minutes,
        initiator: build.initiator.clone(),
        auto_retry: Some(AutoRetry {
            auto_retry_limit: limit,
            auto_retry_number: config.auto_retry_number + 1,
            next_auto_retry: None,
            previous_auto_retry: Some(build.arn.clone()),
        }),
    })
}

/// Ends the last phase if it is open; tells whether it was.
fn end_open_phase(
    build: &mut Build,
    status: Status,
    contexts: Vec<PhaseContext>,
    now: Timestamp,
) -> bool {
    let Some(phase) = build.phases.last_mut().filter(|phase| phase.phase_status.is_none()) else {
        return false;
    };
    phase.phase_status = Some(status);
    phase.end_time = Some(now);
    phase.duration_in_seconds = Some(now.duration_since(phase.start_time).as_secs());
    phase.contexts = contexts;
    // What the build container reports has a context even where there is nothing to say.
    if phase.contexts.is_empty() && phase.phase_type > PhaseType::Queued {
        phase.contexts.push(PhaseContext::default());
    }
    true
}

/// Ends the open phase and the build.
fn close(build: &mut Build, status: Status, contexts: Vec<PhaseContext>, now: Timestamp) {
    end_open_phase(build, status, contexts, now);
    build.phases.push(Phase {
        phase_type: PhaseType::Completed,
        phase_status: None,
        start_time: now,
        end_time: None,
        duration_in_seconds: None,
        contexts: Vec::new(),
    });
    build.current_phase = PhaseType::Completed;
    build.build_status = status;
    build.build_complete = true;
    build.end_time = Some(now);
}

/// The values of a build that must not show in its log.
fn secrets(build: &Build) -> Vec<String> {
    let variables = build.environment.environment_variables.iter();
    let mut secrets: Vec<_> = variables
        .filter(|variable| variable.name.ends_with(SECRET_SUFFIX))
        .filter(|variable| variable.value.len() >= SECRET_BYTES_MIN)
        .map(|variable| variable.value.clone())
        .collect();
    if let Some(password) = build.source.location.as_deref().and_then(url_password) {
        secrets.push(password.to_owned());
    }
    secrets
}

/// The `user:password` of a URL.
fn url_password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (credentials, _) = authority.rsplit_once('@')?;
    credentials.contains(':').then_some(credentials)
}

fn minutes_of(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes) * 60)
}
