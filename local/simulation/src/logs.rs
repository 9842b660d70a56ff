//! What the functions log, looked at for secrets as it is logged.

use std::fmt::{self, Write as _};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

use crate::state::Shared;

/// The crates that run in functions, as their log lines name them.
const FUNCTIONS: [&str; 11] = [
    "archweld_aws",
    "archweld_builds",
    "archweld_ecr",
    "archweld_runtime",
    "build_events",
    "plan_build",
    "publish",
    "reconcile",
    "report",
    "start_build",
    "trigger_run",
];

/// The subscriber of a world's thread.
pub(crate) struct Logs {
    pub(crate) shared: Shared,
}

impl Subscriber for Logs {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let name = target.split_once("::").map_or(target, |(name, _)| name);
        metadata.is_event() && *metadata.level() <= Level::INFO && FUNCTIONS.contains(&name)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let place = || format!("a log line of {}", event.metadata().target());
        self.shared.check(|model, _| model.look_for_secrets(place, &line.0));
    }

    // No span is enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// All fields of a line.
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        _ = write!(self.0, "{field}={value} ");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        _ = write!(self.0, "{field}={value:?} ");
    }
}
