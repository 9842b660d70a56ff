//! Schedules, and when they are due.

use archweld_scheduler::ScheduleInfo;
use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;

use crate::app::{App, Shared, milliseconds};

/// A schedule.
#[derive(Debug, Serialize)]
pub(crate) struct ScheduleView {
    name: String,
    expression: String,
    time_zone: String,
    enabled: bool,
    /// Its next time; none where it is not in force or over.
    next: Option<i64>,
    /// How long after that it may start, in seconds.
    window_s: Option<u64>,
    /// The name of the function or state machine that it starts.
    target: String,
    /// The images that it builds.
    images: Vec<String>,
}

impl ScheduleView {
    fn of(app: &App, ScheduleInfo { settings, next, .. }: ScheduleInfo) -> Self {
        let asks_for = settings.input.as_ref().and_then(|input| input.get("schedule"));
        let asks_for = asks_for.and_then(Value::as_str);
        let is_asked_for = |image: &&archweld_model::ImageConfig| {
            image.schedule.as_ref().is_some_and(|schedule| Some(schedule.as_str()) == asks_for)
        };
        let images = app.config.images().iter().filter(is_asked_for);
        Self {
            images: images.map(|image| image.name.to_string()).collect(),
            next: next.map(milliseconds),
            window_s: settings.flexible_window.map(|window| window.as_secs()),
            target: settings.target_arn.rsplit(':').next().unwrap_or_default().to_owned(),
            name: settings.name,
            expression: settings.expression,
            time_zone: settings.time_zone,
            enabled: settings.enabled,
        }
    }
}

pub(crate) async fn list(State(app): Shared) -> Json<Vec<ScheduleView>> {
    let schedules = app.scheduler.schedules().into_iter();
    Json(schedules.map(|schedule| ScheduleView::of(&app, schedule)).collect())
}
