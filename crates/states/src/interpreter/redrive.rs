//! Going on with an execution that ended without success.
//!
//! What AWS documents at
//! <https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html> is done as it says
//! there: states that were left are not run again, a state that was entered and not left runs again
//! with the input that it had, iterations and branches that succeeded keep their results, retries and
//! time-outs start anew, and variables are as they were.
//!
//! Histories that were recorded on AWS
//! (<https://github.com/radkawar/stackd>, `testdata/aws/stepfunctions/redrive_execution.json`) show how:
//! a state is not entered once more. What it does follows from the event that it was once entered with,
//! and `State.EnteredTime` stays. Only what a Fail state leads to follows from the redrive.
//!
//! Where the documentation is silent, this holds. A Wait state for some seconds waits for all of them
//! again. A Map or Parallel state that failed by itself (in an expression of its own, or by the size of
//! its result, as documented) runs again as a whole. A handler that failed counts for nothing: the state
//! that it was to handle goes on.

use super::thread::{Activity, Thread};
use super::{Execution, Phase, history};
use crate::definition::StateKind;
use crate::execution::Outcome;

impl Execution {
    /// Whether it ended without success, with room in its history for the redrive and another end.
    /// How long ago it ended is for the caller to judge.
    pub fn is_redrivable(&self) -> bool {
        match self.outcome() {
            Some(Outcome::Succeeded { .. }) | None => false,
            Some(_) => !self.history.is_full(),
        }
    }

    pub(super) fn redrive(&mut self) {
        self.phase = Phase::Running;
        self.redrive_count += 1;
        self.redriven_at = Some(self.now);
        let details = history::execution_redriven(self.redrive_count);
        let redriven = self.record(self.history.last_id(), "ExecutionRedriven", details);
        self.set_execution_timer();
        for thread in std::mem::take(&mut self.stopped).into_values() {
            self.resume(thread, redriven);
        }
    }

    /// Lets a thread go on where it was stopped, and those below it that were stopped with it.
    fn resume(&mut self, mut thread: Thread, redriven: u64) {
        thread.attempts.fill(0);
        thread.retry_count = 0;
        match &mut thread.activity {
            Activity::Between => self.queue.push_back(thread.id),
            Activity::Children(children) => {
                for (index, child) in std::mem::take(&mut children.stopped) {
                    children.running.insert(index, child.id);
                    self.resume(child, redriven);
                }
            }
            Activity::Ready | Activity::Task(_) | Activity::Wait(_) | Activity::Backoff(_) => {
                thread.last_event = match self.definition.state(thread.state).kind {
                    StateKind::Fail { .. } => redriven,
                    _ => thread.entered_event,
                };
                thread.decision_event = thread.last_event;
                thread.activity = Activity::Ready;
                self.queue.push_back(thread.id);
            }
        }
        self.threads.insert(thread.id, thread);
    }
}
