//! Executions: the list, one of them, to start one and to stop it.

use std::ops::ControlFlow;

use archweld_model::{ExecutionInput, Published, variable};
use archweld_step_functions::Status;
use axum::{
    Json,
    extract::{Path, State},
};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    app::{App, Shared, execution_arn},
    builds::BuildView,
    error::{Error, Problem},
    facts::Summary,
    input,
    notices::HistoryView,
};

/// How many executions one answer holds.
const PAGE_MAX: usize = 200;
/// What is said of executions that are stopped here.
const STOP_CAUSE: &str = "stopped in the local console";

/// A part of the list, the newest execution first.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    /// How many there are that were asked for.
    total: usize,
    /// How many run, of all.
    running: usize,
    /// The place of the first item.
    from: usize,
    items: Vec<Summary>,
}

/// One execution with everything that the page draws.
#[derive(Debug, Serialize)]
pub(crate) struct Whole {
    #[serde(flatten)]
    summary: Summary,
    /// The input, where it is one that a run can have; else only its known fields.
    input: Value,
    /// What was published.
    output: Option<Published>,
    cause: Option<String>,
    history: Vec<HistoryView>,
    builds: Vec<BuildView>,
    now: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Start {
    input: Value,
}

#[derive(Debug, Serialize)]
pub(crate) struct Started {
    id: String,
    arn: String,
}

/// The values of a query, by their names.
pub(crate) fn query<'a>(uri: &'a Uri, name: &str) -> Option<String> {
    let query: &'a str = uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// A number of a query.
pub(crate) fn number(uri: &Uri, name: &str, default: u64) -> Result<u64, Error> {
    query(uri, name).map_or(Ok(default), |text| {
        let expected = format!("{name}: expected a number, found {text:?}");
        text.parse().map_err(|_| Error::new(StatusCode::BAD_REQUEST, expected))
    })
}

pub(crate) async fn list(State(app): Shared, uri: Uri) -> Result<Json<Page>, Error> {
    let from = usize::try_from(number(&uri, "from", 0)?).unwrap_or(usize::MAX);
    let count = usize::try_from(number(&uri, "count", 50)?).unwrap_or(usize::MAX).min(PAGE_MAX);
    let status = query(&uri, "status").filter(|status| !status.is_empty());
    let status: Option<Status> = status
        .map(|status| serde_json::from_value(json!(status)))
        .transpose()
        .map_err(|error| Error::new(StatusCode::BAD_REQUEST, format!("status: {error}")))?;
    let image = query(&uri, "image").filter(|image| !image.is_empty());
    let mut page = Page { total: 0, running: 0, from, items: Vec::new() };
    app.states.visit_executions(|view| {
        page.running += usize::from(view.status() == Status::Running);
        let is_wanted = status.is_none_or(|status| view.status() == status)
            && image
                .as_ref()
                .is_none_or(|image| app.facts.of(&app.config, view).image.as_ref() == Some(image));
        if is_wanted {
            if page.total >= from && page.items.len() < count {
                page.items.push(Summary::of(&app, view));
            }
            page.total += 1;
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(Json(page))
}

pub(crate) async fn one(
    State(app): Shared,
    Path((machine, name)): Path<(String, String)>,
) -> Result<Json<Whole>, Error> {
    let arn = arn(&app, &machine, &name)?;
    let found = app.states.look_at(&arn, |view| {
        let tokens: Vec<String> = view.tokens().map(str::to_owned).collect();
        let masked = |text: &str| app.masks.apply(text, &tokens);
        let mut input = shown(view.input());
        app.masks.apply_to(&mut input, &tokens);
        let history =
            view.history().iter().map(|event| HistoryView::of(event, |text| masked(text)));
        Whole {
            summary: Summary::of(&app, view),
            input,
            output: view.output().and_then(|output| serde_json::from_str(output).ok()),
            cause: view.cause().map(masked),
            history: history.collect(),
            builds: Vec::new(),
            now: app.now_ms(),
        }
    });
    let mut whole = found.ok_or_else(|| Error::not_found("execution"))?;
    let builds = app.codebuild.builds(|build| build.variable(variable::EXECUTION) == Some(&arn));
    whole.builds = builds.iter().map(|build| BuildView::of(&app, build)).collect();
    Ok(Json(whole))
}

/// An input without what no run can have: somebody may have put there what is not to be shown.
fn shown(input: &str) -> Value {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(input) else { return Value::Null };
    fields.retain(|name, value| ExecutionInput::problems(&json!({ name: value })).is_empty());
    fields.into()
}

pub(crate) async fn start(
    State(app): Shared,
    Json(Start { input }): Json<Start>,
) -> Result<(StatusCode, Json<Started>), Error> {
    input::plan(&app, &input).map_err(Error::input)?;
    let machine = app.machines.first().ok_or_else(|| Error::not_found("state machine"))?;
    let call = json!({ "stateMachineArn": machine.arn, "input": input.to_string() });
    let started = app.states.call("StartExecution", call).await?;
    let arn = started["executionArn"].as_str().unwrap_or_default().to_owned();
    let id = crate::app::execution_id(&arn).unwrap_or_default();
    Ok((StatusCode::CREATED, Json(Started { id, arn })))
}

pub(crate) async fn stop(
    State(app): Shared,
    Path((machine, name)): Path<(String, String)>,
) -> Result<StatusCode, Error> {
    let arn = arn(&app, &machine, &name)?;
    app.states.call("StopExecution", json!({ "executionArn": arn, "cause": STOP_CAUSE })).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn arn(app: &App, machine: &str, name: &str) -> Result<String, Error> {
    let machine = app.machine(machine).ok_or_else(|| Error::not_found("state machine"))?;
    Ok(execution_arn(&machine.arn, name))
}

impl Problem {
    /// Of the input as a whole.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }
}
