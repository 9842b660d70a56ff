//! A workflow that runs, and where it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec;

use jiff::Timestamp;
use serde_json::Value;

use super::Failure;
use crate::definition::{State, StateId};
use crate::error_name;
use crate::execution::{TaskId, TimerId};
use crate::expression::Variables;
use crate::payload::Payload;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ThreadId(pub(super) u64);

/// A workflow that runs.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) id: ThreadId,
    /// The thread whose state runs this one, and which of its branches or iterations it is.
    pub(super) parent: Option<(ThreadId, usize)>,
    /// The state that it is in, or enters next.
    pub(super) state: StateId,
    /// The input of that state.
    pub(super) input: Arc<Payload>,
    pub(super) entered_at: Timestamp,
    pub(super) entered_event: u64,
    /// The event that the next one follows from.
    pub(super) last_event: u64,
    /// `last_event` as it was when the work in hand began: what a failed evaluation follows from.
    pub(super) decision_event: u64,
    /// How often each retrier of the state was used.
    pub(super) attempts: Vec<u32>,
    pub(super) retry_count: u32,
    pub(super) variables: Arc<Variables>,
    /// `Map.Item` of the context object.
    pub(super) map_item: Option<Arc<Value>>,
    /// The token of the task in hand.
    pub(super) token: Option<String>,
    pub(super) activity: Activity,
}

/// What a thread does in its state.
#[derive(Debug, Default)]
pub(super) enum Activity {
    /// Its state is not entered yet.
    Between,
    /// It has entered its state, and nothing is under way there.
    #[default]
    Ready,
    Task(RunningTask),
    Wait(TimerId),
    /// It waits before a retry.
    Backoff(TimerId),
    Children(Children),
}

/// A task whose outcome is wanted.
#[derive(Debug)]
pub(super) struct RunningTask {
    pub(super) task: TaskId,
    pub(super) timeout: Option<TimerId>,
    pub(super) heartbeat: Option<TimerId>,
    pub(super) heartbeat_seconds: Option<u32>,
    pub(super) started: bool,
    pub(super) submitted: bool,
}

/// Branches or iterations.
#[derive(Debug)]
pub(super) struct Children {
    pub(super) running: BTreeMap<usize, ThreadId>,
    /// The one that failed and those that were stopped for it, as they were then: a redrive goes on
    /// with them, and whatever else becomes of the state forgets them.
    pub(super) stopped: BTreeMap<usize, Thread>,
    pub(super) results: Vec<Option<Arc<Payload>>>,
    /// Elements whose iteration has not started.
    pub(super) waiting: vec::IntoIter<Value>,
}

impl Children {
    pub(super) fn new(count: usize) -> Self {
        let mut results = Vec::new();
        results.resize_with(count, || None);
        Self {
            running: BTreeMap::new(),
            stopped: BTreeMap::new(),
            results,
            waiting: Vec::new().into_iter(),
        }
    }
}

impl Thread {
    /// The outermost thread.
    pub(super) fn top(id: ThreadId, state: StateId, input: Arc<Payload>) -> Self {
        Self {
            id,
            parent: None,
            state,
            input,
            entered_at: Timestamp::UNIX_EPOCH,
            entered_event: 0,
            // AWS lets the first state follow from nothing, not from ExecutionStarted.
            last_event: 0,
            decision_event: 0,
            attempts: Vec::new(),
            retry_count: 0,
            variables: Arc::default(),
            map_item: None,
            token: None,
            activity: Activity::Between,
        }
    }

    /// A branch or an iteration: it sees the variables, and what it assigns stays its own.
    pub(super) fn child(
        &self,
        id: ThreadId,
        state: StateId,
        index: usize,
        input: Arc<Payload>,
        started_event: u64,
    ) -> Self {
        Self {
            parent: Some((self.id, index)),
            last_event: started_event,
            variables: Arc::clone(&self.variables),
            map_item: self.map_item.clone(),
            ..Self::top(id, state, input)
        }
    }

    /// Has entered its state: that event is the last one.
    pub(super) fn enter(&mut self, now: Timestamp, retriers: usize) {
        self.entered_at = now;
        self.entered_event = self.last_event;
        self.attempts = vec![0; retriers];
        self.retry_count = 0;
        self.activity = Activity::Ready;
    }

    /// A cause as AWS words it.
    pub(super) fn cause(&self, state: &State, message: &str) -> String {
        format!(
            "An error occurred while executing the state '{}' (entered at the event id #{}). \
             {message}",
            state.name, self.entered_event
        )
    }
}

/// The result of `name`, a state or a function, is too large.
pub(super) fn data_limit_exceeded(name: &str) -> Failure {
    let cause = format!(
        "The state/task '{name}' returned a result with a size exceeding the maximum number of \
         bytes service limit."
    );
    Failure::new(error_name::DATA_LIMIT_EXCEEDED, cause)
}
