//! The console: what the local cloud does, for people with a browser.
//!
//! [`router`] gives the pages of a [`Cloud`], to be [mounted](Cloud::mount) behind its door, which
//! keeps pages of other origins out. What the page shows comes as JSON from the services' own
//! handles; what happens comes as server-sent events (`hub`), so that nothing is polled. The page
//! itself is HTML, CSS and ES modules in `assets/`, compiled into the program.
//!
//! **What is shown is chosen, never filtered**: each answer is a type of its own with the fields
//! that people need. Builds' environments, payloads of functions and inputs of states, where task
//! tokens and secrets travel, are in none of them; texts that others wrote (causes, log lines) are
//! masked (`masks`).
//!
//! Nothing here decides anything: to start and to stop are Step Functions' own operations.

mod app;
mod assets;
mod badge;
mod builds;
mod error;
mod executions;
mod facts;
mod graph;
mod hub;
mod images;
mod input;
mod masks;
mod notices;
mod schedules;
mod security;
mod stream;

use archweld_cloud::Cloud;
use archweld_model::Config;
use axum::{
    Router, middleware,
    routing::{get, post},
};

use app::App;

/// The pages of a cloud whose images are configured so. From now on, builds link to their log here.
pub async fn router(cloud: &Cloud, config: Config) -> Router {
    let app = App::new(cloud, config).await;
    cloud.codebuild().show_builds_at(format!("{}/#/builds/", cloud.endpoint()));
    Router::new()
        .route("/", get(assets::page))
        .route("/assets/{name}", get(assets::asset))
        .route("/badge/{file}", get(badge::badge))
        .route("/api/about", get(app::about))
        .route("/api/stream", get(stream::stream))
        .route("/api/events", get(stream::recent))
        .route("/api/executions", get(executions::list).post(executions::start))
        .route("/api/executions/{machine}/{name}", get(executions::one))
        .route("/api/executions/{machine}/{name}/stop", post(executions::stop))
        .route("/api/machines/{machine}", get(graph::graph))
        .route("/api/builds/{id}", get(builds::one))
        .route("/api/builds/{id}/log", get(builds::log))
        .route("/api/images", get(images::list))
        .route("/api/schedules", get(schedules::list))
        .route("/api/start", get(input::defaults))
        .route("/api/check", post(input::check))
        .fallback(error::no_such_page)
        .method_not_allowed_fallback(error::no_such_method)
        .with_state(app)
        .layer(middleware::from_fn(security::guard))
}
