//! From the services' notices to what pages are sent.

use std::{collections::BTreeSet, sync::Weak, time::Duration};

use archweld_cloud::Cloud;
use archweld_codebuild::Notice as BuildNotice;
use archweld_events::{DeliveryRef, Notice as BusNotice};
use archweld_lambda::Notice as FunctionNotice;
use archweld_local_api::Event;
use archweld_states::HistoryEvent;
use archweld_step_functions::Notice as ExecutionNotice;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    app::{App, execution_id, milliseconds},
    builds::BuildView,
    facts::{Summary, plan_of},
};

/// How often pages are told that logs have grown, at most.
const LOGS_EVERY: Duration = Duration::from_millis(150);

/// The fields of an event's detail that are told, by what they are told as. Others, such as a
/// build's environment, are not.
const STATUS_FIELDS: [&str; 4] = ["build-status", "completed-phase-status", "status", "result"];
const SUBJECT_FIELDS: [&str; 6] =
    ["completed-phase", "project-name", "run", "name", "repository-name", "image-tag"];

/// Everything that the services tell, until the console is gone.
pub(crate) struct Listening {
    executions: Receiver<ExecutionNotice>,
    builds: Receiver<BuildNotice>,
    bus: Receiver<BusNotice>,
    functions: Receiver<FunctionNotice>,
    stopped: CancellationToken,
    /// The builds whose logs have grown.
    logs: BTreeSet<String>,
    logs_due: Option<Instant>,
}

/// An event of an execution's history, without the data that it carries.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HistoryView {
    id: u64,
    previous: u64,
    at: i64,
    #[serde(rename = "type")]
    event_type: &'static str,
    /// The state, where the event names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// Which iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    /// How many iterations there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Serialize)]
struct ExecutionEvent<'a> {
    execution: &'a str,
    event: HistoryView,
}

#[derive(Serialize)]
struct LogGrew<'a> {
    build: &'a str,
    lines: u64,
    bytes: u64,
}

/// An event on the bus, without most of its detail.
#[derive(Debug, Serialize)]
struct BusView {
    at: i64,
    id: String,
    source: String,
    detail_type: String,
    subject: Option<String>,
    status: Option<String>,
    execution: Option<String>,
}

/// An event on its way to a target.
#[derive(Debug, Serialize)]
struct DeliveryView {
    at: i64,
    event: String,
    rule: String,
    target: String,
    attempts: u32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
}

/// A run of a function.
#[derive(Debug, Serialize)]
struct FunctionView<'a> {
    at: i64,
    function: &'a str,
    request: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Hears of everything from now on; ends with the guard.
pub(crate) fn channel(cloud: &Cloud) -> (Listening, DropGuard) {
    let stopped = CancellationToken::new();
    let listening = Listening {
        executions: cloud.step_functions().subscribe(),
        builds: cloud.codebuild().subscribe(),
        bus: cloud.bus().subscribe(),
        functions: cloud.lambda().subscribe(),
        stopped: stopped.clone(),
        logs: BTreeSet::new(),
        logs_due: None,
    };
    (listening, stopped.drop_guard())
}

impl Listening {
    /// Hands on what is heard. Holds nothing of the cloud between two notices.
    pub(crate) async fn run(mut self, app: Weak<App>) {
        loop {
            let due = self.logs_due;
            let heard = tokio::select! {
                () = self.stopped.cancelled() => return,
                () = until(due) => Ok(Heard::LogsDue),
                notice = self.executions.recv() => notice.map(Heard::Execution),
                notice = self.builds.recv() => notice.map(Heard::Build),
                notice = self.bus.recv() => notice.map(Heard::Bus),
                notice = self.functions.recv() => notice.map(Heard::Function),
            };
            let Some(app) = app.upgrade() else { return };
            match heard {
                Ok(Heard::LogsDue) => {
                    self.logs_due = None;
                    for build in std::mem::take(&mut self.logs) {
                        tell_log(&app, &build);
                    }
                }
                Ok(Heard::Execution(notice)) => tell_execution(&app, notice).await,
                Ok(Heard::Build(BuildNotice::Log { build, .. })) => {
                    self.logs_due.get_or_insert(Instant::now() + LOGS_EVERY);
                    if !self.logs.contains(&build.id) {
                        self.logs.insert(build.id.clone());
                    }
                }
                Ok(Heard::Build(notice)) => tell_build(&app, &notice),
                Ok(Heard::Bus(notice)) => tell_bus(&app, notice),
                Ok(Heard::Function(notice)) => tell_function(&app, &notice),
                // What was missed is not known: whoever looks reads everything anew.
                Err(RecvError::Lagged(_)) => app.hub.publish("resync", &json!({})),
                Err(RecvError::Closed) => return,
            }
        }
    }
}

enum Heard {
    LogsDue,
    Execution(ExecutionNotice),
    Build(BuildNotice),
    Bus(BusNotice),
    Function(FunctionNotice),
}

/// Waits until a time, for ever where there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn tell_execution(app: &App, notice: ExecutionNotice) {
    match notice {
        ExecutionNotice::Started { execution_arn } => {
            app.masks.refresh().await;
            tell_summary(app, &execution_arn);
        }
        ExecutionNotice::Ended { execution_arn, .. } => tell_summary(app, &execution_arn),
        ExecutionNotice::History { execution_arn, event } => {
            let tokens = app.states.look_at(&execution_arn, |view| {
                view.tokens().map(str::to_owned).collect::<Vec<_>>()
            });
            let tokens = tokens.unwrap_or_default();
            let id = execution_id(&execution_arn).unwrap_or_default();
            let is_plan = plan_of(&event).is_some();
            let event = HistoryView::of(&event, |text| app.masks.apply(text, &tokens));
            app.hub.publish("history", &ExecutionEvent { execution: &id, event });
            if is_plan {
                tell_summary(app, &execution_arn);
            }
        }
    }
}

fn tell_summary(app: &App, arn: &str) {
    if let Some(summary) = app.states.look_at(arn, |view| Summary::of(app, view)) {
        app.hub.publish("execution", &summary);
    }
}

fn tell_build(app: &App, notice: &BuildNotice) {
    let (BuildNotice::Queued { build }
    | BuildNotice::PhaseBegan { build, .. }
    | BuildNotice::PhaseEnded { build, .. }
    | BuildNotice::Log { build, .. }
    | BuildNotice::Finished { build, .. }) = notice;
    let is_end = matches!(notice, BuildNotice::Finished { .. });
    // The end of its last phase and its own end are one.
    let found = app.codebuild.build(&build.id).filter(|it| is_end || !it.build_complete);
    if let Some(build) = found {
        app.hub.publish("build", &BuildView::of(app, &build));
    }
    if is_end {
        tell_log(app, &build.id);
    }
}

fn tell_log(app: &App, build: &str) {
    // Of a log that cannot be read, whoever wants to read it is told why.
    if let Ok(Some(length)) = app.codebuild.log_length(build) {
        let (lines, bytes) = (length.lines, length.bytes);
        app.hub.publish("log", &LogGrew { build, lines, bytes });
    }
}

fn tell_bus(app: &App, notice: BusNotice) {
    let at = app.now_ms();
    match notice {
        BusNotice::Event(event) => {
            app.hub.publish("bus", &BusView::of(at, &event, |text| app.masks.apply(text, &[])));
        }
        BusNotice::Delivered(delivery) => {
            app.hub.publish("delivery", &DeliveryView::of(at, delivery, "delivered"));
        }
        BusNotice::Retrying { delivery, error, wait } => {
            let view = DeliveryView::of(at, delivery, "retrying");
            let wait_ms = u64::try_from(wait.as_millis()).ok();
            app.hub.publish("delivery", &DeliveryView { error: Some(error.code), wait_ms, ..view });
        }
        BusNotice::DeadLetter { delivery, error, .. } => {
            let view = DeliveryView::of(at, delivery, "given up");
            app.hub.publish("delivery", &DeliveryView { error: Some(error.code), ..view });
        }
    }
}

fn tell_function(app: &App, notice: &FunctionNotice) {
    let at = app.now_ms();
    let view = match notice {
        FunctionNotice::Began { function, request_id } => {
            let status = "began";
            FunctionView { at, function, request: request_id, status, ms: None, error: None }
        }
        FunctionNotice::Ended { function, request_id, duration, error } => FunctionView {
            at,
            function,
            request: request_id,
            status: if error.is_none() { "succeeded" } else { "failed" },
            ms: u64::try_from(duration.as_millis()).ok(),
            error: error.as_ref().map(|error| app.masks.apply(error, &[])),
        },
    };
    app.hub.publish("function", &view);
}

impl HistoryView {
    /// `mask` gets what functions and builds wrote.
    pub(crate) fn of(event: &HistoryEvent, mask: impl Fn(&str) -> String) -> Self {
        let details = event.details.as_ref().map(|(_, details)| details);
        let text = |field: &str| details?.get(field)?.as_str().map(str::to_owned);
        let number = |field: &str| details?.get(field)?.as_u64();
        Self {
            id: event.id,
            previous: event.previous_event_id,
            at: milliseconds(event.timestamp),
            event_type: event.event_type,
            state: text("name").or_else(|| text("state")),
            index: number("index"),
            length: number("length"),
            error: text("error").map(|text| mask(&text)),
            cause: text("cause").map(|text| mask(&text)),
        }
    }
}

impl BusView {
    fn of(at: i64, event: &Event, mask: impl Fn(&str) -> String) -> Self {
        let first = |fields: &[&str]| {
            fields.iter().find_map(|field| event.detail.get(field).and_then(Value::as_str))
        };
        let arns = event.resources.iter().map(String::as_str);
        let named = ["execution", "executionArn"]
            .into_iter()
            .filter_map(|field| event.detail.get(field).and_then(Value::as_str));
        Self {
            at,
            id: event.id.clone(),
            source: mask(&event.source),
            detail_type: mask(&event.detail_type),
            subject: first(&SUBJECT_FIELDS).map(&mask),
            status: first(&STATUS_FIELDS).map(&mask),
            execution: named.chain(arns).find_map(execution_id),
        }
    }
}

impl DeliveryView {
    fn of(at: i64, delivery: DeliveryRef, status: &'static str) -> Self {
        let target = delivery.target_arn.rsplit(':').next().unwrap_or_default().to_owned();
        let DeliveryRef { event_id: event, rule, attempts, .. } = delivery;
        Self { at, event, rule, target, attempts, status, error: None, wait_ms: None }
    }
}
