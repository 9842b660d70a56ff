//! `GET /badge/<image>.svg?ref=<ref>`: how the newest run of an image ended.

use std::ops::ControlFlow;

use archweld_badge::{Badge, MEDIA_TYPE, State};
use archweld_model::{GitRef, ImageName};
use archweld_step_functions::Status;
use axum::{
    extract::{Path, State as Given},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, Uri, header};

use crate::{
    app::{App, Shared},
    executions::query,
    security::RESOURCE_POLICY,
};

pub(crate) async fn badge(Given(app): Shared, Path(file): Path<String>, uri: Uri) -> Response {
    let image = file.strip_suffix(".svg").unwrap_or(&file);
    let git_ref = query(&uri, "ref").filter(|git_ref| !git_ref.is_empty());
    let known = image.parse().ok().filter(|name: &ImageName| app.config.image(name).is_some());
    let (status, state) = match known {
        Some(_) => (StatusCode::OK, state(&app, image, git_ref.as_deref())),
        None => (StatusCode::NOT_FOUND, State::Unknown),
    };
    let badge = Badge::new(image, git_ref.as_deref(), state).to_string();
    // Shown in pages that are loaded again and again: each time as it is then.
    let headers = [
        (header::CONTENT_TYPE, MEDIA_TYPE),
        (header::CACHE_CONTROL, "no-cache"),
        (RESOURCE_POLICY, "cross-origin"),
    ];
    (status, headers, badge).into_response()
}

/// How the newest run that is over ended; where none is, whether one is on its way.
fn state(app: &App, image: &str, git_ref: Option<&str>) -> State {
    let wanted: Option<Option<GitRef>> = git_ref.map(|git_ref| git_ref.parse().ok());
    let mut found = State::NoRuns;
    let ended = app.states.visit_executions(|view| {
        let facts = app.facts.of(&app.config, view);
        let is_of_ref = match &wanted {
            None => true,
            Some(git_ref) => git_ref.as_ref().is_some_and(|git_ref| facts.is_of(git_ref)),
        };
        if facts.image.as_deref() != Some(image) || !is_of_ref {
            return ControlFlow::Continue(());
        }
        match view.status() {
            Status::Running | Status::PendingRedrive => {
                found = State::Running;
                ControlFlow::Continue(())
            }
            Status::Succeeded => ControlFlow::Break(State::Published),
            Status::Failed | Status::TimedOut => ControlFlow::Break(State::Failed),
            Status::Aborted => ControlFlow::Break(State::Stopped),
        }
    });
    ended.unwrap_or(found)
}
