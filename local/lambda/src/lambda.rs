//! The service: functions by name, their instances, and invocations.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archweld_local_api::{ApiError, Host, Spool};
use bytes::Bytes;
use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, TryAcquireError, broadcast};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::asynchronous::{AsynchronousEvent, Kept};
use crate::environment;
use crate::function::InProcessHandler;
use crate::instance::{Children, Ended, Instance, Request, Start, response_too_large};
use crate::log::{LINES_KEPT_MAX, Logger};
use crate::notice::{NOTICES_KEPT_MAX, Notice};
use crate::runtime_api::RESPONSE_BYTES_MAX;
use crate::watchdog::Watchdog;
use crate::{FunctionError, FunctionSettings, Handler, Invocation, LogLine};

/// The largest payload of a synchronous invocation.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const REQUEST_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The largest payload of an asynchronous invocation.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Asynchronous invocations that may wait at once, over all functions.
const EVENTS_WAITING_MAX: usize = 10_000;

/// How to invoke a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvocationType {
    /// Wait for the response.
    RequestResponse,
    /// Accept the event; run it later, and again if it fails.
    Event,
    /// Only check that the function could be invoked.
    DryRun,
}

/// An invocation that the service took on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoked {
    /// Identifies the invocation.
    pub request_id: Arc<str>,
    /// The X-Ray trace header.
    pub trace_id: Arc<str>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function's response: JSON.
    Succeeded(Bytes),
    /// The function failed, timed out or crashed: a JSON object with `errorType` and
    /// `errorMessage`. To the caller this is a successful call (`X-Amz-Function-Error`).
    FunctionError(Bytes),
    /// An asynchronous invocation was accepted.
    Accepted,
    /// A dry run found nothing wrong.
    Checked,
}

/// Lambda on one machine; cheap to clone. When the last clone is gone, so are its processes.
#[derive(Clone)]
pub struct Lambda {
    pub(crate) service: Arc<Service>,
    _stop: Arc<DropGuard>,
}

/// What running invocations share with the handle.
pub(crate) struct Service {
    pub(crate) host: Host,
    /// Set for every child process, over all else.
    environment: BTreeMap<String, String>,
    functions: Mutex<BTreeMap<String, Arc<Function>>>,
    lines: broadcast::Sender<LogLine>,
    notices: broadcast::Sender<Notice>,
    events: Arc<Semaphore>,
    spool: Option<Spool>,
    watchdog: Arc<Watchdog>,
    pub(crate) stop: CancellationToken,
    tasks: TaskTracker,
}

pub(crate) struct Function {
    pub(crate) settings: FunctionSettings,
    name: Arc<str>,
    pub(crate) arn: Arc<str>,
    slots: Semaphore,
    /// The last one in is the first one out, so that few instances stay warm.
    idle: Mutex<Vec<Instance>>,
    children: Children,
}

/// An invocation on its way.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) request_id: Arc<str>,
    pub(crate) trace_id: Arc<str>,
    pub(crate) payload: Bytes,
}

impl Lambda {
    /// A service without functions. `environment` is set for every child process, over what the
    /// function's own settings say: `AWS_ENDPOINT_URL`, say, or other credentials.
    pub fn new(host: Host, environment: BTreeMap<String, String>) -> Self {
        Self::with(host, environment, None)
    }

    /// The same, which keeps asynchronous invocations in a folder until they are over:
    /// [`Lambda::recover`] goes on with those that an earlier process left.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(
        host: Host,
        environment: BTreeMap<String, String>,
        folder: &Path,
    ) -> io::Result<Self> {
        Ok(Self::with(host, environment, Some(Spool::open(folder)?)))
    }

    fn with(host: Host, environment: BTreeMap<String, String>, spool: Option<Spool>) -> Self {
        let stop = CancellationToken::new();
        let service = Service {
            host,
            environment,
            functions: Mutex::default(),
            lines: broadcast::Sender::new(LINES_KEPT_MAX),
            notices: broadcast::Sender::new(NOTICES_KEPT_MAX),
            events: Arc::new(Semaphore::new(EVENTS_WAITING_MAX)),
            spool,
            watchdog: Arc::default(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        };
        Self { service: Arc::new(service), _stop: Arc::new(stop.drop_guard()) }
    }

    /// Adds a function. Nothing is started before the first invocation.
    ///
    /// # Errors
    /// `ResourceConflictException` if there is one of that name,
    /// `InvalidParameterValueException` if the environment sets a reserved variable.
    pub fn create_function(&self, settings: FunctionSettings) -> Result<(), ApiError> {
        environment::check(&settings)?;
        let mut functions = lock(&self.service.functions);
        if functions.contains_key(&settings.name) {
            let message = format!("Function already exist: {}", settings.name);
            return Err(api_error("ResourceConflictException", 409, message));
        }
        let function = Function {
            name: settings.name.as_str().into(),
            arn: settings.arn.as_str().into(),
            slots: Semaphore::new(settings.concurrency_max.min(Semaphore::MAX_PERMITS)),
            idle: Mutex::default(),
            children: Children::default(),
            settings,
        };
        functions.insert(function.name.to_string(), Arc::new(function));
        Ok(())
    }

    /// Invokes a function by its name, its ARN or `<account>:function:<name>`.
    ///
    /// The invocation goes on when this future is dropped, as on AWS when a caller hangs up.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `InvalidRequestContentException`, `RequestTooLargeException`,
    /// `TooManyRequestsException`; `ServiceException` while the service stops.
    pub async fn invoke(
        &self,
        function: &str,
        payload: Bytes,
        invocation_type: InvocationType,
    ) -> Result<Invoked, ApiError> {
        let service = &self.service;
        let function = service.find(function)?;
        let payload = check_payload(payload, invocation_type)?;
        let call = Call {
            request_id: service.host.uuid().to_string().into(),
            trace_id: service.trace_id(),
            payload,
        };
        let Call { request_id, trace_id, .. } = call.clone();
        let outcome = match invocation_type {
            InvocationType::DryRun => Outcome::Checked,
            InvocationType::Event => {
                service.accept(AsynchronousEvent {
                    function,
                    call,
                    accepted: service.host.now(),
                    failures: 0,
                    number: None,
                })?;
                Outcome::Accepted
            }
            InvocationType::RequestResponse => {
                let service_of_call = service.clone();
                let run = service
                    .spawn(async move { service_of_call.attempt(&function, &call).await })?;
                match run.await.map_err(|_| stopping())?? {
                    Ok(response) => Outcome::Succeeded(response),
                    Err(error) => Outcome::FunctionError(error),
                }
            }
        };
        Ok(Invoked { request_id, trace_id, outcome })
    }

    /// Goes on with the asynchronous invocations that an earlier process left; their functions must
    /// be there by now. One that was running then runs again.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn recover(&self) -> io::Result<()> {
        let Some(spool) = &self.service.spool else { return Ok(()) };
        for (number, kept) in spool.pieces::<Kept>()? {
            let accepted = self.service.find(&kept.function).and_then(|function| {
                self.service.accept(AsynchronousEvent {
                    function,
                    call: Call {
                        request_id: kept.request_id.into(),
                        trace_id: kept.trace_id.into(),
                        payload: Box::<str>::from(kept.payload).into_boxed_bytes().into(),
                    },
                    accepted: kept.accepted,
                    failures: kept.failures,
                    number: Some(number),
                })
            });
            if let Err(error) = accepted {
                tracing::warn!(
                    function.name = kept.function,
                    error.code = error.code,
                    "an asynchronous invocation of an earlier process is left alone"
                );
            }
        }
        Ok(())
    }

    /// What the functions print from now on.
    pub fn subscribe_logs(&self) -> broadcast::Receiver<LogLine> {
        self.service.lines.subscribe()
    }

    /// What happens to functions from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.service.notices.subscribe()
    }

    /// The process ids of a function's living instances, idle or busy; none for a function that
    /// is not known.
    pub fn children(&self, function: &str) -> BTreeSet<u32> {
        match self.service.find(function) {
            Ok(function) => lock(&function.children).clone(),
            Err(_) => BTreeSet::new(),
        }
    }

    /// Ends every invocation and every process, within a second: SIGTERM first, then SIGKILL.
    /// Asynchronous invocations are forgotten, unless there is a folder that keeps them.
    pub async fn shutdown(&self) {
        let service = &self.service;
        service.stop.cancel();
        service.tasks.close();
        let functions: Vec<Arc<Function>> = lock(&service.functions).values().cloned().collect();
        let idle = functions.iter().flat_map(|function| std::mem::take(&mut *lock(&function.idle)));
        join_all(idle.map(Instance::terminate)).await;
        service.tasks.wait().await;
    }
}

impl Service {
    fn find(&self, function: &str) -> Result<Arc<Function>, ApiError> {
        let (name, qualifier) = parse_function_name(function);
        let found = match qualifier {
            None | Some("$LATEST") => lock(&self.functions).get(name).cloned(),
            Some(_) => None,
        };
        found
            .filter(|found| !function.starts_with("arn:") || function.starts_with(&*found.arn))
            .ok_or_else(|| {
                let arn = match function.starts_with("arn:") {
                    true => function.to_owned(),
                    false => self.host.arn("lambda", &format!("function:{name}")),
                };
                api_error("ResourceNotFoundException", 404, format!("Function not found: {arn}"))
            })
    }

    /// Takes on an asynchronous invocation.
    fn accept(self: &Arc<Self>, mut event: AsynchronousEvent) -> Result<(), ApiError> {
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        let slot = self.events.clone().try_acquire_owned().map_err(|_| throttled())?;
        if event.number.is_none() {
            self.keep_event(&mut event);
        }
        let service = self.clone();
        self.spawn(async move {
            event.run(&service).await;
            drop(slot);
        })?;
        Ok(())
    }

    /// Keeps an asynchronous invocation as it is now. It runs all the same where the disk is full.
    pub(crate) fn keep_event(&self, event: &mut AsynchronousEvent) {
        let Some(spool) = &self.spool else { return };
        let AsynchronousEvent { function, call, accepted, failures, number } = event;
        let kept = || -> io::Result<u64> {
            let payload = String::from_utf8(call.payload.to_vec()).map_err(io::Error::other)?;
            let kept = Kept {
                function: function.settings.name.clone(),
                request_id: call.request_id.to_string(),
                trace_id: call.trace_id.to_string(),
                accepted: *accepted,
                failures: *failures,
                payload: RawValue::from_string(payload)?,
            };
            match *number {
                Some(number) => spool.replace(number, &kept).map(|()| number),
                None => spool.add(&kept),
            }
        };
        match kept() {
            Ok(kept) => *number = Some(kept),
            Err(error) => tracing::error!(
                function.name = &*function.name,
                request.id = &*call.request_id,
                %error,
                "an asynchronous invocation could not be written: a restart would lose it"
            ),
        }
    }

    /// Forgets an asynchronous invocation that is over.
    pub(crate) fn forget(&self, number: Option<u64>) {
        if let (Some(spool), Some(number)) = (&self.spool, number)
            && let Err(error) = spool.remove(number)
        {
            tracing::warn!(
                %error,
                "an asynchronous invocation could not be removed: a restart runs it again"
            );
        }
    }

    /// Runs a task that `shutdown` waits for.
    fn spawn<F>(&self, task: F) -> Result<tokio::task::JoinHandle<F::Output>, ApiError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        Ok(self.tasks.spawn(task))
    }

    /// Runs a function once: its response, or the error that it ended in.
    pub(crate) async fn attempt(
        &self,
        function: &Function,
        call: &Call,
    ) -> Result<Result<Bytes, Bytes>, ApiError> {
        let _slot = match function.slots.try_acquire() {
            Ok(slot) => slot,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => return Err(throttled()),
        };
        tracing::debug!(
            function.name = &*function.name,
            request.id = &*call.request_id,
            "a function is invoked"
        );
        let (name, request_id) = (&function.name, &call.request_id);
        self.notify(Notice::Began { function: name.clone(), request_id: request_id.clone() });
        let began = Instant::now();
        let ended = match &function.settings.handler {
            Handler::Process(program) => self.attempt_in_child(function, program, call).await,
            Handler::InProcess(handler) => self.attempt_in_process(function, handler, call).await,
        };
        let error = match &ended {
            Ok(Ok(_)) => None,
            Ok(Err(payload)) => Some(error_type(payload)),
            Err(error) => Some(error.code.clone()),
        };
        self.notify(Notice::Ended {
            function: name.clone(),
            request_id: request_id.clone(),
            duration: began.elapsed(),
            error,
        });
        ended
    }

    fn notify(&self, notice: Notice) {
        // Without subscribers a notice is nobody's business.
        self.notices.send(notice).ok();
    }

    async fn attempt_in_process(
        &self,
        function: &Function,
        handler: &InProcessHandler,
        call: &Call,
    ) -> Result<Result<Bytes, Bytes>, ApiError> {
        let timeout = function.settings.timeout;
        let payload = serde_json::from_slice(&call.payload)
            .map_err(|error| invalid_request_content(&error))?;
        let invocation = Invocation {
            request_id: call.request_id.clone(),
            deadline: SignedDuration::try_from(timeout)
                .ok()
                .and_then(|timeout| self.host.now().checked_add(timeout).ok())
                .unwrap_or(jiff::Timestamp::MAX),
            function_arn: function.arn.clone(),
            trace_id: call.trace_id.clone(),
            payload,
        };
        // A task of its own, so that a panic ends the invocation and nothing else.
        let mut run = AbortOnDropHandle::new(tokio::spawn(handler(invocation)));
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopping()),
            ended = tokio::time::timeout(timeout, &mut run) => ended,
        };
        Ok(match ended {
            Ok(Ok(Ok(response))) => {
                let response = Bytes::from(response.to_string());
                match response.len() {
                    ..=RESPONSE_BYTES_MAX => Ok(response),
                    _ => Err(response_too_large().to_payload()),
                }
            }
            Ok(Ok(Err(error))) => Err(error.to_payload()),
            Ok(Err(panic)) => {
                let id = &call.request_id;
                Err(FunctionError::of_platform("Runtime.ExitError", id, panic).to_payload())
            }
            Err(_) => Err(FunctionError::timed_out(&call.request_id, timeout).to_payload()),
        })
    }

    async fn attempt_in_child(
        &self,
        function: &Function,
        program: &Path,
        call: &Call,
    ) -> Result<Result<Bytes, Bytes>, ApiError> {
        let request = Request {
            request_id: &call.request_id,
            function_arn: &function.arn,
            trace_id: &call.trace_id,
            timeout: function.settings.timeout,
            payload: &call.payload,
        };
        loop {
            let warm = lock(&function.idle).pop();
            let mut instance = match warm {
                Some(instance) => instance,
                None => match self.start_instance(function, program, &call.request_id).await {
                    Ok(instance) => instance,
                    Err(error) => return Ok(Err(error.to_payload())),
                },
            };
            match instance.run(&request, &self.host, &self.stop).await {
                Ended::Answered(answer) => {
                    self.keep(function, instance).await;
                    return Ok(answer);
                }
                Ended::Broken(error) => {
                    instance.reap().await;
                    return Ok(Err(error.to_payload()));
                }
                Ended::InitError(error) => {
                    instance.reap().await;
                    return Ok(Err(error));
                }
                Ended::Stale => instance.reap().await,
                Ended::Stopped => {
                    instance.terminate().await;
                    return Err(stopping());
                }
            }
        }
    }

    /// Puts an instance back for the next invocation, unless there will be none.
    async fn keep(&self, function: &Function, instance: Instance) {
        let unwanted = {
            let mut idle = lock(&function.idle);
            // Asked under the lock: `shutdown` stops first and empties the list then.
            if self.stop.is_cancelled() {
                Some(instance)
            } else {
                idle.push(instance);
                None
            }
        };
        if let Some(instance) = unwanted {
            instance.terminate().await;
        }
    }

    async fn start_instance(
        &self,
        function: &Function,
        program: &Path,
        request_id: &str,
    ) -> Result<Instance, FunctionError> {
        Instance::start(Start {
            program,
            environment: &environment::of(&self.host, &function.settings, &self.environment),
            logger: Logger::new(function.name.clone(), self.lines.clone()),
            children: function.children.clone(),
            watchdog: self.watchdog.clone(),
            request_id,
        })
        .await
    }

    /// <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>
    pub(crate) fn trace_id(&self) -> Arc<str> {
        let host = &self.host;
        let root = host.uuid().simple().to_string();
        format!(
            "Root=1-{:08x}-{};Parent={:016x};Sampled=0",
            host.now().as_second(),
            &root[..24],
            host.random()
        )
        .into()
    }
}

/// The name and the version or alias, from any of the forms that `FunctionName` may have.
fn parse_function_name(function: &str) -> (&str, Option<&str>) {
    // `arn:aws:lambda:<region>:<account>:function:<name>[:<qualifier>]`, of which a caller may
    // leave out what stands before the account, or before the name.
    let name = match function.split_once(":function:") {
        Some((_, name)) => name,
        None => function,
    };
    match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    }
}

fn check_payload(payload: Bytes, invocation_type: InvocationType) -> Result<Bytes, ApiError> {
    let bytes_max = match invocation_type {
        InvocationType::Event => EVENT_BYTES_MAX,
        InvocationType::RequestResponse | InvocationType::DryRun => REQUEST_BYTES_MAX,
    };
    if payload.len() > bytes_max {
        let message = format!(
            "Request must be smaller than {bytes_max} bytes for the InvokeFunction operation"
        );
        return Err(api_error("RequestTooLargeException", 413, message));
    }
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    serde_json::from_slice::<Value>(&payload).map_err(|error| invalid_request_content(&error))?;
    Ok(payload)
}

fn invalid_request_content(error: &serde_json::Error) -> ApiError {
    ApiError::client(
        "InvalidRequestContentException",
        format!("Could not parse request body into json: {error}"),
    )
}

fn throttled() -> ApiError {
    api_error("TooManyRequestsException", 429, "Rate Exceeded.".to_owned())
}

fn stopping() -> ApiError {
    ApiError::server("ServiceException", "the local cloud is stopping")
}

fn api_error(code: &str, status: u16, message: String) -> ApiError {
    ApiError { code: code.to_owned(), message, status }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name in the object that a function failed with.
fn error_type(payload: &Bytes) -> String {
    let payload: Value = serde_json::from_slice(payload).unwrap_or_default();
    payload["errorType"].as_str().unwrap_or("Unhandled").to_owned()
}
