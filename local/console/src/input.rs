//! The form: what an input may leave out, and whether it makes a plan.

use archweld_model::{Execution, ExecutionInput, ImageConfig, Plan, PlanError};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    app::{App, Shared, execution_arn},
    error::{Error, Problem},
};

/// What an image's runs have where their input says nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Defaults {
    name: String,
    platforms: Vec<String>,
    tags: Vec<String>,
    publisher: &'static str,
    /// Whether an unchanged source is not built again.
    reuse: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Check {
    input: Value,
}

/// What a run of that input would do.
#[derive(Debug, Serialize)]
pub(crate) struct Planned {
    image: String,
    platforms: Vec<String>,
    publisher: &'static str,
    /// `<repository>`
    repository: String,
    fixed_tags: Vec<String>,
    moving_tags: Vec<String>,
    /// Templates that this run has no values for.
    tags_left_out: Vec<String>,
}

impl Defaults {
    fn of(image: &ImageConfig) -> Self {
        Self {
            name: image.name.to_string(),
            platforms: image.platforms.iter().map(ToString::to_string).collect(),
            tags: image.tags.iter().map(ToString::to_string).collect(),
            publisher: image.publisher.as_str(),
            reuse: image.reuse,
        }
    }
}

impl From<Plan> for Planned {
    fn from(plan: Plan) -> Self {
        Self {
            image: plan.image.to_string(),
            platforms: plan.platforms.iter().map(|it| it.platform.to_string()).collect(),
            publisher: plan.publisher.as_str(),
            repository: plan.repository.to_string(),
            fixed_tags: plan.fixed_tags.iter().map(ToString::to_string).collect(),
            moving_tags: plan.moving_tags.iter().map(|it| it.tag.to_string()).collect(),
            tags_left_out: plan.tags_left_out.iter().map(ToString::to_string).collect(),
        }
    }
}

pub(crate) async fn defaults(State(app): Shared) -> Json<Vec<Defaults>> {
    Json(app.config.images().iter().map(Defaults::of).collect())
}

pub(crate) async fn check(
    State(app): Shared,
    Json(Check { input }): Json<Check>,
) -> Result<Json<Planned>, Error> {
    let plan = plan(&app, &input).map_err(Error::input)?;
    Ok(Json(plan.into()))
}

/// The plan that an execution of this input would begin with, were it started now.
///
/// # Errors
/// Everything that is wrong with the input, as `plan-build` would find it, by field.
pub(crate) fn plan(app: &App, input: &Value) -> Result<Plan, Vec<Problem>> {
    let problems: Vec<Problem> = ExecutionInput::problems(input)
        .iter()
        .map(|problem| Problem {
            path: problem.field().unwrap_or_default().to_owned(),
            message: problem.message().to_owned(),
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let input = ExecutionInput::parse(input.clone())
        .map_err(|error| vec![Problem::whole(error.message())])?;
    let machine = app.machines.first().map(|machine| machine.arn.as_str()).unwrap_or_default();
    let name = app.host.uuid().to_string();
    let execution =
        Execution { arn: execution_arn(machine, &name), name, start_time: app.host.now() };
    Plan::new(&app.config, input, execution, &app.deployment).map_err(|error| vec![problem(&error)])
}

fn problem(error: &PlanError) -> Problem {
    let path = error.field().unwrap_or_default().to_owned();
    let text = error.to_string();
    // The field stands beside the message already.
    let message = text.strip_prefix("execution input: ").unwrap_or(&text);
    let message = message.strip_prefix(&format!("{path}: ")).unwrap_or(message).to_owned();
    Problem { path, message }
}
