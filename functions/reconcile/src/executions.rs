//! What Step Functions knows of executions.

use std::collections::BTreeMap;

use archweld_runtime::CallError;
use aws_sdk_sfn::{
    Client,
    primitives::DateTime,
    types::{ExecutionListItem, ExecutionStatus},
};
use jiff::{SignedDuration, Timestamp};

use crate::EndedExecution;

/// How long an execution can last: the state machine's own time-out.
const LIFETIME: SignedDuration = SignedDuration::from_hours(72);
/// How long after its end an execution is looked after: for several passes, as one may fail.
const AFTERCARE: SignedDuration = SignedDuration::from_mins(30);
/// How many executions it looks at: pages of a thousand.
const PAGES_MAX: u32 = 3;
const PAGE_MAX: i32 = 1_000;
/// How many ended executions it looks after in one pass.
const ENDED_MAX: usize = 100;

/// The executions of the state machine's newest history.
pub(crate) struct Executions {
    /// Those that run, and when they began.
    running: BTreeMap<String, Timestamp>,
    /// Those that are over.
    ended: BTreeMap<String, Ended>,
    /// From when on an end is recent.
    recent: Timestamp,
}

struct Ended {
    began: Timestamp,
    ended: Timestamp,
}

impl Executions {
    /// Lists them, for a pass that is due `now`. One call, or three where thousands ran within days.
    ///
    /// The list may lag behind. Whatever it does not tell yet, it tells the next pass.
    pub(crate) async fn list(
        state_machine: &str,
        now: Timestamp,
        sfn: &Client,
    ) -> Result<Self, CallError> {
        let recent = now.saturating_sub(AFTERCARE).unwrap_or(Timestamp::MIN);
        let oldest = now.saturating_sub(LIFETIME).unwrap_or(Timestamp::MIN);
        let mut executions = Self { running: BTreeMap::new(), ended: BTreeMap::new(), recent };
        let mut next_token = None;
        for _ in 0..PAGES_MAX {
            let page = sfn
                .list_executions()
                .state_machine_arn(state_machine)
                .max_results(PAGE_MAX)
                .set_next_token(next_token)
                .send()
                .await
                .map_err(|error| CallError::new("states:ListExecutions", &error))?;
            // The newest come first.
            let reaches_back =
                page.executions.last().is_some_and(|last| timestamp(&last.start_date) < oldest);
            for execution in page.executions {
                executions.insert(execution);
            }
            next_token = page.next_token;
            if next_token.is_none() || reaches_back {
                break;
            }
        }
        Ok(executions)
    }

    fn insert(&mut self, execution: ExecutionListItem) {
        let began = timestamp(&execution.start_date);
        match (execution.status, execution.stop_date) {
            (ExecutionStatus::Running | ExecutionStatus::PendingRedrive, _) | (_, None) => {
                self.running.insert(execution.execution_arn, began);
            }
            (_, Some(ended)) => {
                let ended = Ended { began, ended: timestamp(&ended) };
                self.ended.insert(execution.execution_arn, ended);
            }
        }
    }

    pub(crate) fn is_running(&self, arn: &str) -> bool {
        self.running.contains_key(arn)
    }

    pub(crate) fn is_over(&self, arn: &str) -> bool {
        self.ended.contains_key(arn)
    }

    /// When the oldest began of those that run or ended of late; none where there are none, and
    /// there is nothing to do.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let recent = self.recently_ended().map(|(_, ended)| ended.began);
        self.running.values().copied().chain(recent).min()
    }

    fn recently_ended(&self) -> impl Iterator<Item = (&str, &Ended)> {
        let ended = self.ended.iter().map(|(arn, ended)| (arn.as_str(), ended));
        ended.filter(|(_, ended)| ended.ended >= self.recent)
    }

    /// Those that ended of late, with their inputs. Of too many, those that ended first: the others
    /// have further passes.
    pub(crate) async fn describe_ended(
        &self,
        sfn: &Client,
    ) -> Result<Vec<EndedExecution>, CallError> {
        let mut recent: Vec<_> = self.recently_ended().collect();
        recent.sort_by_key(|(_, ended)| ended.ended);
        let mut described = Vec::new();
        for (arn, ended) in recent.into_iter().take(ENDED_MAX) {
            let execution = sfn
                .describe_execution()
                .execution_arn(arn)
                .send()
                .await
                .map_err(|error| CallError::new("states:DescribeExecution", &error))?;
            described.push(EndedExecution {
                arn: arn.to_owned(),
                name: execution.name.unwrap_or_default(),
                began: ended.began,
                input: execution.input,
            });
        }
        Ok(described)
    }
}

/// To the millisecond, as the input of `plan-build` and the event of the end have it.
fn timestamp(time: &DateTime) -> Timestamp {
    let milliseconds = time.to_millis().ok();
    milliseconds.and_then(|it| Timestamp::from_millisecond(it).ok()).unwrap_or(Timestamp::MIN)
}
