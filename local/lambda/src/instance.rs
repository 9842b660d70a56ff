//! One child process and its Runtime API.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{self, Path};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use archweld_local_api::Host;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::FunctionError;
use crate::log::{LogStream, Logger};
use crate::runtime_api::{Delivery, End, RESPONSE_BYTES_MAX, Report, RuntimeApi, Unanswered};
use crate::watchdog::Watchdog;

/// How long an instance may take to ask for its first event.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const INIT_MAX: Duration = Duration::from_secs(10);

/// How long a process has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// The processes of one function that are alive.
pub(crate) type Children = Arc<Mutex<BTreeSet<u32>>>;

/// How to start an instance.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    pub(crate) environment: &'a BTreeMap<String, OsString>,
    pub(crate) logger: Logger,
    pub(crate) children: Children,
    pub(crate) watchdog: Arc<Watchdog>,
    /// The invocation that it is started for.
    pub(crate) request_id: &'a str,
}

/// An invocation of a child process.
pub(crate) struct Request<'a> {
    pub(crate) request_id: &'a Arc<str>,
    pub(crate) function_arn: &'a str,
    pub(crate) trace_id: &'a str,
    pub(crate) timeout: Duration,
    pub(crate) payload: &'a Bytes,
}

/// How an invocation ended.
pub(crate) enum Ended {
    /// The runtime answered; the instance can be used again.
    Answered(Result<Bytes, Bytes>),
    /// The instance is of no more use.
    Broken(FunctionError),
    /// It could not start, in the runtime's own words.
    InitError(Bytes),
    /// It had died before it was given the event, which another instance may run.
    Stale,
    /// The host is stopping.
    Stopped,
}

/// A running instance. Dropping it kills its whole process group.
pub(crate) struct Instance {
    child: Child,
    pid: u32,
    runtime: RuntimeApi,
    /// The runtime's request for the next event, once made.
    waiting: Option<oneshot::Sender<Result<Delivery, Unanswered>>>,
    /// Whether it ever asked for an event.
    initialised: bool,
    logger: Logger,
    children: Children,
    watchdog: Arc<Watchdog>,
}

impl Instance {
    /// Starts the process; it has not asked for an event yet.
    pub(crate) async fn start(start: Start<'_>) -> Result<Self, FunctionError> {
        let Start { program, environment, logger, children, watchdog, request_id } = start;
        let entrypoint = |error: std::io::Error| {
            let what = format!("fork/exec {}: {error}", program.display());
            FunctionError::of_platform("Runtime.InvalidEntrypoint", request_id, what)
        };
        let program_path = path::absolute(program).map_err(entrypoint)?;
        let task_root = program_path.parent().unwrap_or(Path::new("/"));
        let runtime = RuntimeApi::start().await.map_err(entrypoint)?;
        let mut child = Command::new(&program_path)
            .current_dir(task_root)
            .env_clear()
            .env("LAMBDA_TASK_ROOT", task_root)
            .envs(environment)
            .env("AWS_LAMBDA_RUNTIME_API", &runtime.address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(entrypoint)?;
        if let Some(pipe) = child.stdout.take() {
            tokio::spawn(logger.clone().copy(LogStream::Stdout, pipe));
        }
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(logger.clone().copy(LogStream::Stderr, pipe));
        }
        // A child that was not waited for has its id.
        let pid = child.id().unwrap_or_default();
        lock(&children).insert(pid);
        watchdog.watch(pid);
        Ok(Self {
            child,
            pid,
            runtime,
            waiting: None,
            initialised: false,
            logger,
            children,
            watchdog,
        })
    }

    /// Runs one invocation to its end.
    pub(crate) async fn run(
        &mut self,
        request: &Request<'_>,
        host: &Host,
        stop: &CancellationToken,
    ) -> Ended {
        self.logger.begin(request.request_id);
        let warm = self.initialised;
        let ready_by = Instant::now() + INIT_MAX;
        let mut deadline = None;
        loop {
            if deadline.is_none()
                && let Some(waiting) = self.waiting.take()
            {
                if warm && !matches!(self.child.try_wait(), Ok(None)) {
                    return Ended::Stale;
                }
                // A runtime that has hung up either asks again or is about to exit.
                if waiting.send(Ok(delivery(request, host))).is_ok() {
                    deadline = Some(Instant::now() + request.timeout);
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                // First, because what a runtime reported before it exited stands.
                Some(report) = self.runtime.reports.recv() => {
                    if let Some(ended) = self.on_report(report, request, deadline.is_some()) {
                        return ended;
                    }
                }
                status = self.child.wait() => {
                    self.signal(Signal::KILL);
                    return match status {
                        _ if warm && deadline.is_none() => Ended::Stale,
                        Ok(status) => Ended::Broken(exited(request.request_id, status)),
                        Err(error) => Ended::Broken(FunctionError::of_platform(
                            "Runtime.ExitError", request.request_id, error,
                        )),
                    };
                }
                () = sleep_until(deadline.unwrap_or(ready_by)) => {
                    self.signal(Signal::KILL);
                    let after = if deadline.is_some() { request.timeout } else { INIT_MAX };
                    return Ended::Broken(FunctionError::timed_out(request.request_id, after));
                }
            }
        }
    }

    fn on_report(
        &mut self,
        report: Report,
        request: &Request<'_>,
        delivered: bool,
    ) -> Option<Ended> {
        match report {
            // Kept, it would be given the next event, which the runtime may never read.
            Report::Next(sender) if delivered => {
                // Whoever asked may have hung up.
                let _ = sender.send(Err(Unanswered));
                None
            }
            Report::Next(sender) => {
                self.initialised = true;
                self.waiting = Some(sender);
                None
            }
            Report::InitError(error) if !self.initialised => Some(Ended::InitError(error)),
            // Too late to say so: it has started.
            Report::InitError(_) => None,
            Report::Finished { request_id, end, known } => {
                let is_known = delivered && request_id == **request.request_id;
                // The runtime may be gone by now; what it reported stands.
                let _ = known.send(is_known);
                is_known.then(|| {
                    Ended::Answered(match end {
                        End::Response(payload) => Ok(payload),
                        End::Error(payload) => Err(payload),
                        End::TooLarge => Err(response_too_large().to_payload()),
                    })
                })
            }
        }
    }

    /// Ends the process group: SIGTERM, and SIGKILL after [`GRACE`].
    pub(crate) async fn terminate(mut self) {
        self.signal(Signal::TERM);
        // Out of time or not, what is left of the group is killed next.
        let _ = timeout(GRACE, self.child.wait()).await;
        self.reap().await;
    }

    /// Kills the process group and waits until its leader is gone.
    pub(crate) async fn reap(mut self) {
        self.signal(Signal::KILL);
        // It cannot be refused SIGKILL, and an error means that there is nothing to wait for.
        let _ = self.child.wait().await;
    }

    /// Signals every process of the group. The group outlives its leader, so this is right after
    /// the leader was waited for, too; that it is gone altogether is no error.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        lock(&self.children).remove(&self.pid);
        self.watchdog.forget(self.pid);
    }
}

fn lock(children: &Children) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
    children.lock().unwrap_or_else(PoisonError::into_inner)
}

fn delivery(request: &Request<'_>, host: &Host) -> Delivery {
    let deadline = host.now().as_millisecond()
        + i64::try_from(request.timeout.as_millis()).unwrap_or(i64::MAX / 2);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (HeaderName::from_static("lambda-runtime-aws-request-id"), request.request_id),
        (HeaderName::from_static("lambda-runtime-deadline-ms"), &deadline.to_string()),
        (HeaderName::from_static("lambda-runtime-invoked-function-arn"), request.function_arn),
        (HeaderName::from_static("lambda-runtime-trace-id"), request.trace_id),
    ];
    let headers: HeaderMap = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value).ok()?)))
        .collect();
    Delivery { headers, payload: request.payload.clone() }
}

fn exited(request_id: &str, status: ExitStatus) -> FunctionError {
    let what = match (status.code(), status.signal()) {
        (Some(0), _) => "Runtime exited without providing a reason".to_owned(),
        (Some(code), _) => format!("Runtime exited with error: exit status {code}"),
        (None, Some(signal)) => match Signal::from_named_raw(signal) {
            Some(Signal::KILL) => "Runtime exited with error: signal: killed".to_owned(),
            Some(Signal::TERM) => "Runtime exited with error: signal: terminated".to_owned(),
            _ => format!("Runtime exited with error: signal: {signal}"),
        },
        (None, None) => "Runtime exited with error: unknown status".to_owned(),
    };
    FunctionError::of_platform("Runtime.ExitError", request_id, what)
}

pub(crate) fn response_too_large() -> FunctionError {
    FunctionError {
        error_type: "Function.ResponseSizeTooLarge".to_owned(),
        error_message: format!(
            "Response payload size exceeded maximum allowed payload size \
             ({RESPONSE_BYTES_MAX} bytes)."
        ),
    }
}
