//! EventBridge as it is: events are lost, doubled, late and out of order.

use std::{sync::Arc, time::Duration};

use archweld_local_api::{Event, EventSink};
use archweld_model::variable;

use crate::{
    faults::Fault,
    state::{Shared, between_ms, short},
};

/// A sink that shows every event to the checks, and delivers it as the faults will have it.
pub(crate) fn wrap(shared: Shared, sink: EventSink) -> EventSink {
    Arc::new(move |event: Event| {
        let about = match event.detail_type.as_str() {
            "Step Functions Execution Status Change" => {
                shared.check(|model, now| model.execution_changed(&event.detail, now));
                event.detail["executionArn"].as_str().map(str::to_owned)
            }
            "CodeBuild Build State Change" => {
                shared.check(|model, now| model.build_changed(&event.detail, now));
                execution_of_build(&event)
            }
            // No rule listens to the others.
            _ => return,
        };
        shared.trace(|| (actor(&event), status(&event)));
        let about = about.as_deref();
        let resend = |after: Duration| {
            let (sink, event) = (Arc::clone(&sink), event.clone());
            shared.later(after, async move { sink(event) });
        };
        if shared.inject(Fault::EventLost, about).is_some() {
            return;
        }
        if let Some(size) = shared.inject(Fault::EventDoubled, about) {
            resend(between_ms(size, 0, 120_000));
        }
        if let Some(size) = shared.inject(Fault::EventDelayed, about) {
            // Most by a minute or two, a few by more than a run takes.
            return resend(between_ms(size.powi(3), 10_000, 900_000));
        }
        if let Some(size) = shared.inject(Fault::EventReordered, about) {
            return resend(between_ms(size, 500, 5_000));
        }
        sink(event);
    })
}

fn execution_of_build(event: &Event) -> Option<String> {
    let information = &event.detail["additional-information"];
    let variables = information["environment"]["environment-variables"].as_array()?;
    let execution = variables.iter().find(|it| it["name"] == variable::EXECUTION)?;
    execution["value"].as_str().map(str::to_owned)
}

fn actor(event: &Event) -> String {
    event.source.trim_start_matches("aws.").to_owned()
}

fn status(event: &Event) -> String {
    let detail = &event.detail;
    let text = |field: &str| detail[field].as_str().unwrap_or_default();
    match detail["build-id"].as_str() {
        Some(id) => {
            let id = id.rsplit_once("build/").map_or(id, |(_, id)| id);
            let execution = execution_of_build(event).unwrap_or_default();
            format!("build {id} of {:?} is {}", short(&execution), text("build-status"))
        }
        None => {
            let cause = detail["error"].as_str().unwrap_or_default();
            format!("execution {} is {} {cause}", text("name"), text("status"))
        }
    }
}
