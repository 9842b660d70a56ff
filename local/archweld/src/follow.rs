//! Follows a run that goes on elsewhere, by asking: Step Functions for the run, CodeBuild for its
//! builds, CloudWatch Logs for what they write. AWS tells a terminal nothing by itself.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    aws::{CallError, CallErrorKind, LOGS},
    estimate::estimates,
    progress::{Change, Progress},
    runs::{Build, Execution, Log, between},
    summary::{Before, before},
    target::Target,
};

/// How often AWS is asked, and the local cloud: a run of ten minutes costs AWS a thousand calls,
/// each far below the rates of an account.
const EVERY: Duration = Duration::from_secs(2);
const EVERY_LOCAL: Duration = Duration::from_millis(50);
/// How many calls in a row may be unanswered, after the SDK's own retries.
const UNANSWERED_MAX: u32 = 5;
/// How many pages of a log are read at once, with up to 10,000 lines each.
const PAGES_MAX: u32 = 10;

/// A run that is followed.
pub(crate) struct Follow<'a> {
    target: &'a Target,
    execution: String,
    planned: bool,
    builds: BTreeMap<String, Seen>,
    may_read_logs: bool,
    /// When builds that are over were in progress.
    spans: Vec<(Timestamp, Timestamp)>,
    /// Where the run's moving tags pointed when it had its plan, where that is known.
    pub(crate) before: Option<Before>,
}

/// What is shown of a build.
#[derive(Default)]
struct Seen {
    phase: String,
    over: bool,
    log: LogReader,
}

impl<'a> Follow<'a> {
    /// Follows an execution.
    pub(crate) fn new(target: &'a Target, execution: String) -> Self {
        Self {
            target,
            execution,
            planned: false,
            builds: BTreeMap::new(),
            may_read_logs: true,
            spans: Vec::new(),
            before: None,
        }
    }

    /// For how long at least one build was in progress.
    pub(crate) fn building(&self) -> Duration {
        let mut spans = self.spans.clone();
        spans.sort_unstable();
        let mut counted = Timestamp::MIN;
        let mut total = Duration::ZERO;
        for (start, end) in spans {
            let start = start.max(counted);
            total += between(start, end.max(start));
            counted = counted.max(end);
        }
        total
    }

    /// Shows what happens until the run is over.
    ///
    /// # Errors
    /// When AWS refuses to tell, or does not answer for long.
    pub(crate) async fn until_end(
        &mut self,
        progress: &mut Progress,
    ) -> Result<Execution, CallError> {
        let mut unanswered = 0;
        loop {
            match self.look(progress).await {
                Ok(execution) if !execution.is_running() => return Ok(execution),
                Ok(_) => unanswered = 0,
                Err(error)
                    if error.kind == CallErrorKind::Unavailable && unanswered < UNANSWERED_MAX =>
                {
                    unanswered += 1;
                    progress.say(&format!("{error}; trying again"));
                }
                Err(error) => return Err(error),
            }
            sleep(if self.target.is_local { EVERY_LOCAL } else { EVERY }).await;
        }
    }

    /// Shows what is new. The execution is asked for first, so that what its builds did before it
    /// ended is shown, too.
    async fn look(&mut self, progress: &mut Progress) -> Result<Execution, CallError> {
        let execution = self.target.execution(&self.execution).await?;
        let history = self.target.history(&self.execution).await?;
        if let Some(plan) = history.plan.as_ref().filter(|_| !self.planned) {
            self.planned = true;
            progress.planned(plan);
            // What cannot be told is not shown, and is no reason to end.
            let api = &self.target.api;
            if execution.is_running() && !history.may_have_published() {
                self.before = before(api, plan).await.ok();
            }
            progress.estimated(estimates(api, plan).await.unwrap_or_default());
        }
        for build in self.target.builds(&history.builds).await? {
            self.show(&build, progress).await?;
        }
        Ok(execution)
    }

    async fn show(&mut self, build: &Build, progress: &mut Progress) -> Result<(), CallError> {
        let seen = self.builds.entry(build.id.clone()).or_default();
        if seen.over {
            return Ok(());
        }
        let ago = build.took().unwrap_or_default();
        let mut update =
            |change: Change<'_>| progress.update(&build.id, build.target(), ago, change);
        if seen.phase != build.current_phase && !build.is_over() {
            seen.phase.clone_from(&build.current_phase);
            update(Change::Phase(&build.current_phase));
        }
        if let Some(log) = build.logs.as_ref().filter(|_| self.may_read_logs) {
            for _ in 0..PAGES_MAX {
                match seen.log.page(self.target, log).await {
                    Ok(Some(lines)) => lines.iter().for_each(|line| update(Change::Log(line))),
                    Ok(None) => break,
                    Err(error) if error.kind == CallErrorKind::Denied => {
                        self.may_read_logs = false;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if build.is_over() {
            seen.over = true;
            self.spans.extend(build.start_time.zip(build.end_time));
            update(Change::Ended { status: &build.build_status, took: build.took() });
        }
        if !self.may_read_logs {
            progress.say_once("logs are not shown: logs:GetLogEvents is denied");
        }
        Ok(())
    }
}

/// Reads a log as it grows.
#[derive(Debug, Default)]
pub(crate) struct LogReader {
    token: Option<String>,
    /// How many of the last lines the first page has; it is the log's first page where this is not
    /// said.
    tail: Option<u16>,
}

impl LogReader {
    /// Begins with the last lines.
    pub(crate) fn tail(tail: Option<u16>) -> Self {
        Self { token: None, tail }
    }

    /// The next lines; none at the end of what there is, or of a log that is not there yet.
    ///
    /// # Errors
    /// When the log may not be read.
    pub(crate) async fn page(
        &mut self,
        target: &Target,
        log: &Log,
    ) -> Result<Option<Vec<String>>, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default)]
            events: Vec<Event>,
            next_forward_token: Option<String>,
        }
        #[derive(Deserialize)]
        struct Event {
            #[serde(default)]
            message: String,
        }
        let (Some(group), Some(stream)) = (&log.group_name, &log.stream_name) else {
            return Ok(None);
        };
        let mut request = json!({"logGroupName": group, "logStreamName": stream});
        match (&self.token, self.tail) {
            (Some(token), _) => {
                request["nextToken"] = json!(token);
                request["startFromHead"] = json!(true);
            }
            (None, Some(tail)) => request["limit"] = json!(tail),
            (None, None) => request["startFromHead"] = json!(true),
        }
        let page: Page = match target.api.call(LOGS, "GetLogEvents", request).await {
            Ok(page) => page,
            Err(error) if error.kind == CallErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // At the end of a log, the token is the one that was sent.
        if page.next_forward_token.is_none() || page.next_forward_token == self.token {
            return Ok(None);
        }
        self.token = page.next_forward_token;
        let lines = page
            .events
            .iter()
            .flat_map(|event| event.message.trim_end_matches('\n').split('\n').map(str::to_owned));
        Ok(Some(lines.collect()))
    }
}
