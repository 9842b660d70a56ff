//! Builds: their phases, and any part of their logs.

use std::sync::Arc;

use archweld_codebuild::{Build, Phase, Status};
use archweld_model::variable;
use axum::{
    Json,
    extract::{Path, State},
};
use http::{StatusCode, Uri};
use serde::Serialize;

use crate::{
    app::{App, Shared, execution_id, milliseconds},
    error::Error,
    executions::number,
};

/// How many lines of a log one answer holds.
const LINES_MAX: u64 = 1_000;

/// A build without its environment.
#[derive(Debug, Serialize)]
pub(crate) struct BuildView {
    id: String,
    number: u64,
    project: String,
    /// The platform, or `manifest`.
    target: String,
    /// The execution that it is of.
    execution: Option<String>,
    status: Status,
    started: i64,
    ended: Option<i64>,
    phases: Vec<PhaseView>,
}

#[derive(Debug, Serialize)]
struct PhaseView {
    name: String,
    status: Option<Status>,
    started: i64,
    ended: Option<i64>,
    /// Why it ended as it did, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A part of a log.
#[derive(Debug, Serialize)]
pub(crate) struct LogView {
    /// Which line is the first, counted from 0.
    first: u64,
    /// Each with its time, in milliseconds since 1970.
    lines: Vec<(Option<i64>, String)>,
    /// How many lines there are.
    total: u64,
    bytes: u64,
    /// Whether the build goes on.
    open: bool,
}

impl BuildView {
    pub(crate) fn of(app: &App, build: &Build) -> Self {
        let execution = build.variable(variable::EXECUTION).and_then(execution_id);
        let target = match build.variable(variable::IMAGE_PLATFORM) {
            Some(platform) => platform.to_owned(),
            None if execution.is_some() => "manifest".to_owned(),
            None => build.project_name.clone(),
        };
        Self {
            id: build.id.clone(),
            number: build.build_number,
            project: build.project_name.clone(),
            target,
            execution,
            status: build.build_status,
            started: milliseconds(build.start_time),
            ended: build.end_time.map(milliseconds),
            phases: build.phases.iter().map(|phase| PhaseView::of(app, phase)).collect(),
        }
    }
}

impl PhaseView {
    fn of(app: &App, phase: &Phase) -> Self {
        let told = phase.contexts.iter().filter(|context| !context.message.is_empty());
        let told: Vec<String> =
            told.map(|context| app.masks.apply(&context.to_string(), &[])).collect();
        Self {
            name: phase.phase_type.to_string(),
            status: phase.phase_status,
            started: milliseconds(phase.start_time),
            ended: phase.end_time.map(milliseconds),
            message: Some(told.join("; ")).filter(|message| !message.is_empty()),
        }
    }
}

pub(crate) async fn one(
    State(app): Shared,
    Path(id): Path<String>,
) -> Result<Json<BuildView>, Error> {
    let build = app.codebuild.build(&id).ok_or_else(|| Error::not_found("build"))?;
    Ok(Json(BuildView::of(&app, &build)))
}

pub(crate) async fn log(
    State(app): Shared,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<LogView>, Error> {
    let (first, count) = (number(&uri, "first", 0)?, number(&uri, "count", 200)?.min(LINES_MAX));
    // A log of an earlier process is read whole to count its lines.
    let read = tokio::task::spawn_blocking(move || read(&app, &id, first, count)).await;
    read.map_err(|_| Error::new(StatusCode::INTERNAL_SERVER_ERROR, "the log was not read"))?
        .map(Json)
}

fn read(app: &Arc<App>, id: &str, first: u64, count: u64) -> Result<LogView, Error> {
    let open = app.codebuild.build(id).is_some_and(|build| !build.build_complete);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let window = app.codebuild.log_window(id, first, count).map_err(|error| {
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the log: {error}"))
    })?;
    let window = window.ok_or_else(|| Error::not_found("log"))?;
    let lines = window.lines.iter();
    let lines = lines.map(|line| (line.time.map(milliseconds), app.masks.apply(&line.text, &[])));
    Ok(LogView {
        first: window.first,
        lines: lines.collect(),
        total: window.length.lines,
        bytes: window.length.bytes,
        open,
    })
}
