//! The one task that owns an execution while it runs, and while it may be redriven.
//!
//! It alone feeds the interpreter. Whatever happens outside (an answer of a service, a task token
//! sent back, a stop, a redrive) is a [`Message`] to it, so all of that is in one order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use archweld_states::{Effect, Execution, Input, Task, TaskId, TimerId};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Notice;
use crate::integrations::{self, Origin};
use crate::journal::{InFlight, Journal, Outstanding};
use crate::record::{Redrive, StateMachine};
use crate::service::Service;

/// Messages that may wait for a dispatcher; whoever sends more waits.
pub(crate) const MESSAGES_WAITING_MAX: usize = 64;

/// Tokio's timers end at about two years, a task's default time-out is three: a long wait is made
/// of several.
const WAIT_MAX: Duration = Duration::from_hours(24);

/// How long until a journal that the disk did not take is tried again, in case nothing happens
/// meanwhile.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);

/// What a dispatcher is told.
pub(crate) enum Message {
    /// What came of a task that was run.
    Outcome(Input),
    /// What was sent with a task's token; the answer is whether the task was still open.
    Token { task: TaskId, input: Input, was_open: oneshot::Sender<bool> },
    /// `StopExecution`; answered when it has stopped.
    Stop { input: Input, stopped: oneshot::Sender<()> },
    /// `RedriveExecution`; the answer is when that was, or none where there is nothing to redrive.
    Redrive { client_token: Option<String>, redriven: oneshot::Sender<Option<Timestamp>> },
}

pub(crate) struct Dispatcher {
    service: Arc<Service>,
    /// Of the execution's record.
    number: u64,
    execution_arn: Arc<str>,
    state_machine: Arc<StateMachine>,
    execution: Execution,
    /// None in memory, and once too much of it could not be written.
    journal: Option<Journal>,
    /// The record has the sender: without a record, there is nobody to wait for.
    sender: mpsc::WeakSender<Message>,
    messages: mpsc::Receiver<Message>,
    timers: BTreeMap<TimerId, Timestamp>,
    /// Tasks that were handed out, which the execution is to be told.
    handed_out: VecDeque<TaskId>,
}

impl Dispatcher {
    /// A dispatcher, and where messages to it go.
    pub(crate) fn new(
        service: Arc<Service>,
        number: u64,
        execution_arn: &str,
        state_machine: Arc<StateMachine>,
        execution: Execution,
        journal: Option<Journal>,
    ) -> (Self, mpsc::Sender<Message>) {
        let (sender, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        let dispatcher = Self {
            service,
            number,
            execution_arn: execution_arn.into(),
            state_machine,
            execution,
            journal,
            sender: sender.downgrade(),
            messages,
            timers: BTreeMap::new(),
            handed_out: VecDeque::new(),
        };
        (dispatcher, sender)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.execution.is_running()
    }

    /// Runs a new execution to its end, or until the service stops. Where the end is no success, it
    /// stays for a redrive until the execution is forgotten.
    pub(crate) async fn run(mut self, started: Timestamp) {
        self.step(Input::Start, started);
        self.go_on().await;
    }

    /// Goes on with an execution that an earlier service left. What ran out meanwhile runs out now.
    /// A task whose service had not answered is handed out once more, with the same token: whether
    /// it was done, nobody knows, and Step Functions hands out tasks at least once.
    pub(crate) async fn resume(mut self, outstanding: Outstanding) {
        self.timers = outstanding.timers;
        while let Some((at, timer)) = self.next_timer()
            && at <= self.service.host.now()
            && self.execution.is_running()
        {
            self.timers.remove(&timer);
            self.receive(Input::TimerFired { timer });
        }
        for (id, InFlight { task, started }) in outstanding.tasks {
            if self.execution.is_open(id) {
                if !started {
                    self.handed_out.push_back(id);
                }
                self.hand_out(task);
            }
        }
        self.go_on().await;
    }

    async fn go_on(mut self) {
        while self.execution.is_running() || self.execution.is_redrivable() {
            if let Some(task) = self.handed_out.pop_front() {
                if self.execution.is_open(task) {
                    self.receive(Input::TaskStarted { task });
                }
                continue;
            }
            if !self.execution.is_running() && !self.is_behind() {
                // Many executions may rest, and open files are few.
                self.journal.iter_mut().for_each(Journal::close);
            }
            let timer = self.next_timer();
            tokio::select! {
                biased;
                () = self.service.stop.cancelled() => return,
                message = self.messages.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
                Some(timer) = due(&self.service, timer) => {
                    self.timers.remove(&timer);
                    self.receive(Input::TimerFired { timer });
                }
                () = sleep(JOURNAL_RETRY), if self.is_behind() => {
                    self.write_journal(Journal::catch_up);
                }
            }
        }
        // Whoever sent something meanwhile hears that it came too late.
        self.messages.close();
        while self.messages.try_recv().is_ok() {}
        while self.is_behind() {
            tokio::select! {
                biased;
                () = self.service.stop.cancelled() => return,
                () = sleep(JOURNAL_RETRY) => self.write_journal(Journal::catch_up),
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_behind)
    }

    fn next_timer(&self) -> Option<(Timestamp, TimerId)> {
        self.timers.iter().map(|(timer, at)| (*at, *timer)).min()
    }

    fn on_message(&mut self, message: Message) {
        // Whoever waits for an answer may have hung up; what it sent stands.
        match message {
            // Of a closed task nobody wants to know any more, and the journal is spared it.
            Message::Outcome(input) => {
                if task_of(&input).is_some_and(|task| self.execution.is_open(task)) {
                    self.receive(input);
                }
            }
            Message::Token { task, input, was_open } => {
                let is_open = self.execution.is_open(task);
                if is_open {
                    self.receive(input);
                }
                let _ = was_open.send(is_open);
            }
            Message::Stop { input, stopped } => {
                if self.execution.is_running() {
                    self.receive(input);
                }
                let _ = stopped.send(());
            }
            Message::Redrive { client_token, redriven } => {
                let _ = redriven.send(self.redrive(client_token));
            }
        }
    }

    /// Goes on with an execution that ended without success.
    fn redrive(&mut self, client_token: Option<String>) -> Option<Timestamp> {
        if !self.execution.is_redrivable() {
            return None;
        }
        let redrive = Redrive { at: self.service.host.now(), client_token };
        let event = self.service.redrive(self.number, redrive.clone())?;
        self.write_journal(|journal| journal.append_redrive(&redrive));
        (self.service.events)(event);
        let execution_arn = self.execution_arn.clone();
        self.service.notify(|| Notice::Started { execution_arn });
        self.step(Input::Redrive, redrive.at);
        Some(redrive.at)
    }

    /// Takes an input that happens now.
    fn receive(&mut self, input: Input) {
        let now = self.service.host.now();
        self.write_journal(|journal| journal.append(&input, now));
        self.step(input, now);
    }

    /// The execution goes on where the disk is full: what is not written yet is written later.
    fn write_journal(&mut self, write: impl FnOnce(&mut Journal) -> std::io::Result<()>) {
        let Some(journal) = &mut self.journal else { return };
        let was_behind = journal.is_behind();
        match write(journal) {
            Ok(()) if was_behind => tracing::info!(
                execution.name = &*self.execution_arn,
                "an execution's journal is whole again"
            ),
            Ok(()) => {}
            Err(error) if journal.is_lost() => {
                tracing::error!(
                    execution.name = &*self.execution_arn,
                    error = &error as &dyn std::error::Error,
                    "an execution's journal could not be written for too long and ends here"
                );
                self.journal = None;
            }
            Err(_) if was_behind => {}
            Err(error) => tracing::error!(
                execution.name = &*self.execution_arn,
                error = &error as &dyn std::error::Error,
                "an execution's journal cannot be written: a restart would go on from before that"
            ),
        }
    }

    fn step(&mut self, input: Input, now: Timestamp) {
        let effects = self.execution.step(input, now);
        let ended = self.service.note(self.number, &effects, now);
        for effect in effects {
            match effect {
                Effect::Record(event) => {
                    let execution_arn = self.execution_arn.clone();
                    self.service.notify(|| Notice::History { execution_arn, event });
                }
                Effect::Schedule(task) => self.schedule(task),
                Effect::SetTimer { timer, at } => {
                    self.timers.insert(timer, at);
                }
                Effect::ClearTimer { timer } => {
                    self.timers.remove(&timer);
                }
                // What runs for the task goes on, as on AWS; its token has been closed.
                Effect::Cancel { .. } => {}
                Effect::Finish(_) => {}
            }
        }
        if let Some(event) = ended {
            let execution_arn = self.execution_arn.clone();
            let status = event.status;
            (self.service.events)(event.event);
            self.service.notify(|| Notice::Ended { execution_arn, status });
        }
    }

    fn schedule(&mut self, task: Task) {
        self.handed_out.push_back(task.task);
        self.hand_out(task);
    }

    fn hand_out(&self, task: Task) {
        let Some(sender) = self.sender.upgrade() else { return };
        let service = self.service.clone();
        let execution_arn = self.execution_arn.clone();
        let state_machine = self.state_machine.clone();
        self.service.tasks.spawn(async move {
            let origin =
                Origin { execution_arn: &execution_arn, state_machine_arn: &state_machine.arn };
            let run = integrations::run(task, &*service.integrations, &service.host, origin);
            tokio::select! {
                biased;
                () = service.stop.cancelled() => {}
                // The execution may have ended meanwhile.
                input = run => { let _ = sender.send(Message::Outcome(input)).await; }
            }
        });
    }
}

fn task_of(input: &Input) -> Option<TaskId> {
    match input {
        Input::TaskSubmitted { task, .. }
        | Input::TaskSucceeded { task, .. }
        | Input::TaskFailed { task, .. } => Some(*task),
        _ => None,
    }
}

/// Waits for a timer; none where there is none to wait for.
async fn due(service: &Service, timer: Option<(Timestamp, TimerId)>) -> Option<TimerId> {
    let (at, timer) = timer?;
    while service.host.now() < at {
        sleep_until(service.host.instant(at).min(Instant::now() + WAIT_MAX)).await;
    }
    Some(timer)
}
