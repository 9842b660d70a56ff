//! The handle, and what its dispatchers share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archweld_local_api::{ApiError, Event, EventSink, Host};
use archweld_states::{Definition, Effect, HistoryEvent, TaskId};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::dispatcher::Dispatcher;
use crate::journal::{Folder, Head, Outstanding, ReadError, Replayed};
use crate::operations::is_valid_name;
use crate::record::{Record, Redrive, StateMachine, Status};
use crate::{CreateStateMachineError, Integrations, OpenError};

/// Executions that are kept. A new one makes room by dropping the oldest that is over.
pub(crate) const EXECUTIONS_KEPT_MAX: usize = 10_000;

/// A subscriber that falls behind by more notices than this loses the oldest.
const NOTICES_KEPT_MAX: usize = 4096;

/// A state machine to create.
#[derive(Debug, Clone)]
pub struct StateMachineSettings {
    /// The name.
    pub name: String,
    /// The definition: the text of a states-language file, its substitutions made.
    pub definition: String,
    /// The role that executions run under; only shown.
    pub role_arn: String,
}

/// What happens to executions.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An execution started, or was redriven.
    Started {
        /// Its ARN.
        execution_arn: Arc<str>,
    },
    /// An event was added to an execution's history.
    History {
        /// Its ARN.
        execution_arn: Arc<str>,
        /// The event.
        event: HistoryEvent,
    },
    /// An execution ended.
    Ended {
        /// Its ARN.
        execution_arn: Arc<str>,
        /// How.
        status: Status,
    },
}

/// Step Functions on one machine; cheap to clone. Executions stop to be driven when the last
/// clone is gone.
#[derive(Clone)]
pub struct StepFunctions {
    pub(crate) service: Arc<Service>,
    _stop: Arc<DropGuard>,
}

pub(crate) struct Service {
    pub(crate) host: Host,
    pub(crate) integrations: Arc<dyn Integrations>,
    pub(crate) events: EventSink,
    folder: Option<Folder>,
    registry: Mutex<Registry>,
    notices: broadcast::Sender<Notice>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Everything that operations look up.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) state_machines: BTreeMap<String, Arc<StateMachine>>,
    /// In the order of their starts.
    pub(crate) executions: BTreeMap<u64, Record>,
    pub(crate) numbers: BTreeMap<String, u64>,
    pub(crate) tokens: BTreeMap<String, (u64, TaskId)>,
    next_number: u64,
    suspended: Vec<Suspended>,
}

/// An execution of an earlier service that goes on, or may be redriven.
struct Suspended {
    execution_arn: String,
    dispatcher: Dispatcher,
    outstanding: Outstanding,
}

/// The status event of an execution that ended.
pub(crate) struct Ended {
    pub(crate) status: Status,
    pub(crate) event: Event,
}

impl StepFunctions {
    /// A service that keeps executions in memory only.
    pub fn in_memory(host: Host, integrations: Arc<dyn Integrations>, events: EventSink) -> Self {
        Self::new(host, integrations, events, None)
    }

    /// A service that keeps executions under `<state>/executions`, and has those that it finds
    /// there. One that is not over waits for [`StepFunctions::resume`]. A file that cannot be read is
    /// left alone and logged.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub fn open(
        host: Host,
        integrations: Arc<dyn Integrations>,
        events: EventSink,
        state: &Path,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError { folder: state.to_owned(), source };
        let folder = Folder::open(state).map_err(failed)?;
        let numbers = folder.numbers().map_err(failed)?;
        let service = Self::new(host, integrations, events, Some(folder.clone()));
        let now = service.service.host.now();
        let mut suspended = Vec::new();
        let mut known = Vec::new();
        let mut registry = service.service.registry();
        for number in numbers {
            registry.next_number = number + 1;
            match folder.read(number, &mut known) {
                Ok(Replayed { mut record, execution, journal, outstanding }) => {
                    if record.end.is_none() || record.not_redrivable(now).is_none() {
                        let (dispatcher, sender) = Dispatcher::new(
                            service.service.clone(),
                            number,
                            &record.arn,
                            record.state_machine.clone(),
                            execution,
                            Some(journal),
                        );
                        record.dispatcher = Some(sender);
                        suspended.push(Suspended {
                            execution_arn: record.arn.clone(),
                            dispatcher,
                            outstanding,
                        });
                    }
                    registry.insert(number, record);
                }
                // Its start was never confirmed.
                Err(ReadError::Empty) => folder.remove(number).map_err(failed)?,
                Err(error) => tracing::warn!(
                    journal.folder = %folder.path().display(),
                    journal.number = number,
                    error = &error as &dyn std::error::Error,
                    "an execution's journal could not be read and is left out"
                ),
            }
        }
        registry.suspended = suspended;
        drop(registry);
        Ok(service)
    }

    /// Goes on with the executions that an earlier service left unfinished; gives their ARNs. The
    /// services that tasks call must be there by now.
    pub fn resume(&self) -> Vec<String> {
        let suspended = std::mem::take(&mut self.service.registry().suspended);
        let resume = |Suspended { execution_arn, dispatcher, outstanding }| {
            let is_running = dispatcher.is_running();
            self.service.tasks.spawn(dispatcher.resume(outstanding));
            is_running.then_some(execution_arn)
        };
        suspended.into_iter().filter_map(resume).collect()
    }

    fn new(
        host: Host,
        integrations: Arc<dyn Integrations>,
        events: EventSink,
        folder: Option<Folder>,
    ) -> Self {
        let stop = CancellationToken::new();
        let service = Service {
            host,
            integrations,
            events,
            folder,
            registry: Mutex::default(),
            notices: broadcast::Sender::new(NOTICES_KEPT_MAX),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        };
        Self { service: Arc::new(service), _stop: Arc::new(stop.drop_guard()) }
    }

    /// Adds a standard state machine; gives its ARN.
    ///
    /// # Errors
    /// See [`CreateStateMachineError`].
    pub fn create_state_machine(
        &self,
        settings: StateMachineSettings,
    ) -> Result<String, CreateStateMachineError> {
        let StateMachineSettings { name, definition: text, role_arn } = settings;
        if !is_valid_name(&name) {
            return Err(CreateStateMachineError::Name(name));
        }
        let definition = match Definition::parse(&text) {
            Ok(definition) => Arc::new(definition),
            Err(errors) => return Err(CreateStateMachineError::Definition { name, errors }),
        };
        let arn = self.service.host.arn("states", &format!("stateMachine:{name}"));
        let created = self.service.host.now();
        let mut registry = self.service.registry();
        if registry.state_machines.contains_key(&arn) {
            return Err(CreateStateMachineError::Exists(name));
        }
        let state_machine =
            StateMachine { arn: arn.clone(), name, role_arn, text, definition, created };
        registry.state_machines.insert(arn.clone(), Arc::new(state_machine));
        Ok(arn)
    }

    /// Answers an operation of the Step Functions API.
    ///
    /// # Errors
    /// The errors of the operation; `UnknownOperationException` for one that is not served.
    pub async fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        self.service.call(operation, input).await
    }

    /// What happens to executions from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.service.notices.subscribe()
    }

    /// Stops driving executions. Those that run are left as they are, not stopped: with a state
    /// folder, their journals say how far they came.
    pub async fn shutdown(&self) {
        self.service.stop.cancel();
        self.service.tasks.close();
        self.service.tasks.wait().await;
    }
}

impl Service {
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify(&self, notice: impl FnOnce() -> Notice) {
        if self.notices.receiver_count() > 0 {
            // The last subscriber may leave right now.
            let _ = self.notices.send(notice());
        }
    }

    /// Starts an execution that the registry has no record of.
    pub(crate) fn start(
        self: &Arc<Self>,
        registry: &mut Registry,
        state_machine: &Arc<StateMachine>,
        name: String,
        arn: String,
        input: String,
    ) -> Result<Started, ApiError> {
        self.make_room(registry)?;
        let number = registry.next_number;
        let started = self.host.now();
        let seed = self.host.random();
        let head = Head::new(state_machine, arn, name, started, seed, input);
        let (mut record, execution) = head.begin(state_machine).map_err(|error| {
            let message = format!("Invalid State Machine Execution Input: '{error}'");
            ApiError::client("InvalidExecutionInput", message)
        })?;
        let journal = match &self.folder {
            Some(folder) => Some(folder.create(number, &head).map_err(|error| {
                tracing::error!(
                    execution.name = record.name,
                    error = &error as &dyn std::error::Error,
                    "an execution did not start: its journal could not be written"
                );
                let message = format!("the execution's journal could not be written: {error}");
                ApiError::server("InternalFailure", message)
            })?),
            None => None,
        };
        let (dispatcher, sender) = Dispatcher::new(
            self.clone(),
            number,
            &record.arn,
            state_machine.clone(),
            execution,
            journal,
        );
        record.dispatcher = Some(sender);
        let started = Started { event: record.status_event(&self.host), at: started, dispatcher };
        registry.insert(number, record);
        Ok(started)
    }

    fn make_room(&self, registry: &mut Registry) -> Result<(), ApiError> {
        while registry.executions.len() >= EXECUTIONS_KEPT_MAX {
            let oldest = registry.executions.iter().find(|(_, record)| record.end.is_some());
            let Some((&oldest, _)) = oldest else {
                let message = format!("{EXECUTIONS_KEPT_MAX} executions are running");
                return Err(ApiError::client("ExecutionLimitExceeded", message));
            };
            registry.remove(oldest);
            if let Some(folder) = &self.folder
                && let Err(error) = folder.remove(oldest)
            {
                tracing::warn!(
                    journal.number = oldest,
                    error = &error as &dyn std::error::Error,
                    "an old execution's journal could not be removed"
                );
            }
        }
        Ok(())
    }

    /// Keeps that an execution is redriven; gives the event of that. None where it was forgotten.
    pub(crate) fn redrive(&self, number: u64, redrive: Redrive) -> Option<Event> {
        let mut registry = self.registry();
        let record = registry.executions.get_mut(&number)?;
        record.redrive(redrive);
        Some(record.status_event(&self.host))
    }

    /// Keeps what effects say of an execution. If it is over now, gives the event of that.
    pub(crate) fn note(&self, number: u64, effects: &[Effect], now: Timestamp) -> Option<Ended> {
        let mut registry = self.registry();
        let registry = &mut *registry;
        let record = registry.executions.get_mut(&number)?;
        for effect in effects {
            if let Some((token, task)) = record.note(effect, now) {
                registry.tokens.insert(token.clone(), (number, *task));
            }
        }
        let status = record.end.as_ref()?.status;
        Some(Ended { status, event: record.status_event(&self.host) })
    }
}

/// An execution that is about to run.
pub(crate) struct Started {
    pub(crate) at: Timestamp,
    pub(crate) event: Event,
    pub(crate) dispatcher: Dispatcher,
}

impl Registry {
    /// Adds an execution, whose number is higher than any before.
    fn insert(&mut self, number: u64, record: Record) {
        self.next_number = number + 1;
        self.numbers.insert(record.arn.clone(), number);
        for (token, task) in &record.tokens {
            self.tokens.insert(token.clone(), (number, *task));
        }
        self.executions.insert(number, record);
    }

    fn remove(&mut self, number: u64) {
        if let Some(record) = self.executions.remove(&number) {
            self.numbers.remove(&record.arn);
            for (token, _) in record.tokens {
                self.tokens.remove(&token);
            }
        }
    }
}
