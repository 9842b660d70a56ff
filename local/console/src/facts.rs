//! What an execution is about: which image, from where, for which platforms.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use archweld_model::{Config, ExecutionInput, GitRef, Plan, PlannedPlatform};
use archweld_states::HistoryEvent;
use archweld_step_functions::{ExecutionView, Status};
use serde::Serialize;

use crate::app::{App, execution_id, milliseconds};

/// The state machine's variable that has the plan.
const PLAN: &str = "plan";
/// The plan is made at once: further events are not looked at, however many there are.
const EVENTS_LOOKED_AT_MAX: usize = 100;
/// Facts that are remembered: as many as executions are.
const FACTS_KEPT_MAX: usize = 10_000;

/// What an execution is about, as far as it is known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Facts {
    pub(crate) image: Option<String>,
    #[serde(rename = "ref")]
    pub(crate) git_ref: Option<String>,
    pub(crate) commit: Option<String>,
    /// What started it, such as `push`.
    pub(crate) trigger: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) platforms: Vec<PlatformFacts>,
    /// Whether a plan was made.
    pub(crate) planned: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PlatformFacts {
    pub(crate) platform: String,
    /// Whether the image of an earlier run stands for it.
    pub(crate) reused: bool,
}

/// An execution as a list shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// `<state machine>/<name>`
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) name: String,
    pub(crate) machine: String,
    pub(crate) status: Status,
    pub(crate) started: i64,
    pub(crate) ended: Option<i64>,
    pub(crate) error: Option<String>,
    #[serde(flatten)]
    pub(crate) facts: Facts,
}

impl Summary {
    /// Of an execution that is looked at; does not call Step Functions.
    pub(crate) fn of(app: &App, view: ExecutionView<'_>) -> Self {
        Self {
            id: execution_id(view.arn()).unwrap_or_default(),
            arn: view.arn().to_owned(),
            name: view.name().to_owned(),
            machine: view.state_machine().to_owned(),
            status: view.status(),
            started: milliseconds(view.started()),
            ended: view.ended().map(milliseconds),
            error: view.error().map(|error| app.masks.apply(error, &[])),
            facts: app.facts.of(&app.config, view).as_ref().clone(),
        }
    }
}

/// The facts of executions that have changed for the last time.
#[derive(Default)]
pub(crate) struct FactsCache(Mutex<HashMap<String, Arc<Facts>>>);

impl FactsCache {
    pub(crate) fn of(&self, config: &Config, view: ExecutionView<'_>) -> Arc<Facts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = known.get(view.arn()) {
            return facts.clone();
        }
        let facts = Arc::new(Facts::of(config, view));
        if facts.planned || view.ended().is_some() {
            if known.len() >= FACTS_KEPT_MAX {
                known.clear();
            }
            known.insert(view.arn().to_owned(), facts.clone());
        }
        facts
    }
}

impl Facts {
    fn of(config: &Config, view: ExecutionView<'_>) -> Self {
        let plan = view.history().iter().take(EVENTS_LOOKED_AT_MAX).find_map(plan_of);
        match plan {
            Some(plan) => Self::planned(plan),
            None => Self::asked_for(config, view.input()),
        }
    }

    fn planned(plan: Plan) -> Self {
        let trigger = plan.trigger.unwrap_or_default();
        let platform = |planned: &PlannedPlatform| PlatformFacts {
            platform: planned.platform.to_string(),
            reused: planned.reused.is_some(),
        };
        Self {
            image: Some(plan.image.to_string()),
            git_ref: plan.git_ref.as_ref().map(short),
            commit: plan.commit.map(|commit| commit.to_string()),
            trigger: trigger.kind,
            actor: trigger.actor,
            platforms: plan.platforms.iter().map(platform).collect(),
            planned: true,
        }
    }

    /// What the input says, with the configuration's defaults.
    fn asked_for(config: &Config, input: &str) -> Self {
        let input = serde_json::from_str(input).ok();
        let input = input.and_then(|input| ExecutionInput::parse(input).ok()).unwrap_or_default();
        let image = match (&input.image, config.images()) {
            (Some(name), _) => config.image(name),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let named = input.image.as_ref().or(image.map(|image| &image.name));
        let platforms = input.platforms.clone().or_else(|| Some(image?.platforms.clone()));
        let platforms = platforms.unwrap_or_default().into_iter();
        let platform = |platform: archweld_model::Platform| PlatformFacts {
            platform: platform.to_string(),
            reused: false,
        };
        let trigger = input.trigger.unwrap_or_default();
        Self {
            image: named.map(ToString::to_string),
            git_ref: input.git_ref.as_ref().map(short),
            commit: input.commit.map(|commit| commit.to_string()),
            trigger: trigger.kind,
            actor: trigger.actor,
            platforms: platforms.map(platform).collect(),
            planned: false,
        }
    }

    /// Whether it is a run of that ref.
    pub(crate) fn is_of(&self, git_ref: &GitRef) -> bool {
        self.git_ref.as_deref() == Some(short(git_ref).as_str())
    }
}

/// The plan, where an event says that it is made.
pub(crate) fn plan_of(event: &HistoryEvent) -> Option<Plan> {
    let (_, details) = event.details.as_ref()?;
    let plan = details.get("assignedVariables")?.get(PLAN)?;
    serde_json::from_str(plan.as_str()?).ok()
}

/// A ref as people call it: a branch by its name alone.
fn short(git_ref: &GitRef) -> String {
    git_ref.branch().map_or_else(|| git_ref.to_string(), str::to_owned)
}
