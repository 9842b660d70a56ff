//! The events that CodeBuild puts on the bus.
//!
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/sample-build-notifications.html#sample-build-notifications-ref>

use archweld_local_api::{Event, Host};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::build::{Build, Phase, PhaseContext};

const SOURCE: &str = "aws.codebuild";

/// `CodeBuild Build State Change`: the build began, or is over.
pub(crate) fn state_change(host: &Host, build: &Build) -> Event {
    let detail = json!({
        "build-status": build.build_status,
        "project-name": build.project_name,
        "build-id": build.arn,
        "additional-information": additional_information(build),
        "current-phase": build.current_phase,
        "current-phase-context": "[]",
        "version": "1",
    });
    host.event(SOURCE, "CodeBuild Build State Change", vec![build.arn.clone()], detail)
}

/// `CodeBuild Build Phase Change`: a phase is over.
pub(crate) fn phase_change(host: &Host, build: &Build, phase: &Phase) -> Event {
    let contexts: Vec<_> = phase.contexts.iter().map(ToString::to_string).collect();
    let detail = json!({
        "completed-phase": phase.phase_type,
        "completed-phase-status": phase.phase_status,
        "completed-phase-context": format!("[{}]", contexts.join(", ")),
        "completed-phase-duration-seconds": phase.duration_in_seconds.unwrap_or_default(),
        "completed-phase-start": date(phase.start_time),
        "completed-phase-end": date(phase.end_time.unwrap_or(phase.start_time)),
        "project-name": build.project_name,
        "build-id": build.arn,
        "additional-information": additional_information(build),
        "version": "1",
    });
    host.event(SOURCE, "CodeBuild Build Phase Change", vec![build.arn.clone()], detail)
}

fn additional_information(build: &Build) -> Value {
    let mut source = json!({
        "report-build-status": build.source.report_build_status,
        "type": build.source.source_type,
    });
    if let Some(buildspec) = &build.source.buildspec {
        source["buildspec"] = json!(buildspec);
    }
    if let Some(location) = &build.source.location {
        source["location"] = json!(location);
    }
    let environment = &build.environment;
    let mut information = json!({
        "cache": {"type": "NO_CACHE"},
        "timeout-in-minutes": build.timeout_in_minutes,
        "queued-timeout-in-minutes": build.queued_timeout_in_minutes,
        "build-complete": build.build_complete,
        "initiator": build.initiator,
        "build-start-time": date(build.start_time),
        "source": source,
        "artifact": {"location": ""},
        "environment": {
            "image": environment.image,
            "privileged-mode": environment.privileged_mode,
            "image-pull-credentials-type": environment.image_pull_credentials_type,
            "compute-type": environment.compute_type,
            "type": environment.environment_type,
            "environment-variables": environment.environment_variables,
        },
    });
    information["logs"] = match &build.logs.deep_link {
        Some(link) => json!({"deep-link": link}),
        None => json!({}),
    };
    if !build.build_complete {
        // A running build's event tells neither its number nor its phases, nor its log's name.
        return information;
    }
    information["build-number"] = json!(build.build_number);
    if let Some(version) = &build.source_version {
        information["source-version"] = json!(version);
    }
    information["logs"]["group-name"] = json!(build.logs.group_name);
    information["logs"]["stream-name"] = json!(build.logs.stream_name);
    information["phases"] = build.phases.iter().map(phase_information).collect();
    if !build.exported_environment_variables.is_empty() {
        information["exported-environment-variables"] = json!(build.exported_environment_variables);
    }
    information
}

fn phase_information(phase: &Phase) -> Value {
    let mut information = json!({
        "phase-type": phase.phase_type,
        "start-time": date(phase.start_time),
    });
    if let (Some(status), Some(end)) = (phase.phase_status, phase.end_time) {
        let contexts = phase.contexts.iter().map(PhaseContext::to_string);
        information["phase-context"] = contexts.collect();
        information["phase-status"] = json!(status);
        information["end-time"] = json!(date(end));
        information["duration-in-seconds"] = json!(phase.duration_in_seconds);
    }
    information
}

/// A time as these events have it, in UTC: `Sep 1, 2017 4:12:29 PM`.
fn date(time: Timestamp) -> String {
    time.strftime("%b %-d, %Y %-I:%M:%S %p").to_string()
}
