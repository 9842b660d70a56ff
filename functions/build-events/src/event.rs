//! CodeBuild's `CodeBuild Build State Change` event, as far as it matters here.
//!
//! Every field that a captured event was seen without is optional.

use std::fmt;

use archweld_builds::EndedBuild;
use archweld_model::Environment;
use serde::Deserialize;

/// The event.
#[derive(Debug, Clone, Deserialize)]
pub struct BuildEvent {
    /// What happened.
    pub detail: Detail,
}

/// What happened.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Detail {
    /// The status of the build, such as `SUCCEEDED`.
    pub build_status: String,
    /// The ARN of the build.
    pub build_id: String,
    /// More about the build.
    #[serde(default)]
    pub additional_information: Option<AdditionalInformation>,
}

/// More about the build.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdditionalInformation {
    environment: Option<BuildEnvironment>,
    exported_environment_variables: Option<Vec<Variable>>,
    logs: Option<Logs>,
    phases: Option<Vec<Phase>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BuildEnvironment {
    environment_variables: Option<Vec<Variable>>,
}

#[derive(Clone, Deserialize)]
struct Variable {
    name: String,
    value: Option<String>,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A build that is not archweld's may carry any secret.
        f.write_str(&self.name)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Logs {
    deep_link: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Phase {
    phase_type: String,
    phase_status: Option<String>,
    phase_context: Option<Vec<String>>,
    duration_in_seconds: Option<f64>,
}

impl Detail {
    /// The build's identity as the API has it: `<project>:<uuid>`.
    pub fn build_id(&self) -> &str {
        self.build_id.rsplit_once(":build/").map_or(&self.build_id, |(_, id)| id)
    }

    /// The environment variables that the build was started with.
    pub fn environment(&self) -> Environment {
        let variables = self
            .additional_information
            .as_ref()
            .and_then(|information| information.environment.as_ref())
            .and_then(|environment| environment.environment_variables.as_deref())
            .unwrap_or_default();
        collect(variables)
    }

    /// What the event tells of the build.
    pub fn into_build(self) -> EndedBuild {
        let (id, environment) = (self.build_id().to_owned(), self.environment());
        let information = self.additional_information.unwrap_or_default();
        EndedBuild {
            id,
            status: self.build_status,
            environment,
            exported: information.exported_environment_variables.as_deref().map(collect),
            log: information.logs.and_then(|logs| logs.deep_link),
            phases: information
                .phases
                .unwrap_or_default()
                .into_iter()
                .map(|phase| archweld_builds::Phase {
                    name: phase.phase_type,
                    status: phase.phase_status,
                    contexts: phase.phase_context.unwrap_or_default(),
                    seconds: phase.duration_in_seconds,
                })
                .collect(),
        }
    }
}

fn collect(variables: &[Variable]) -> Environment {
    variables
        .iter()
        .filter_map(|variable| Some((&*variable.name, variable.value.as_deref()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn detail(additional_information: serde_json::Value) -> Detail {
        let event = json!({
            "version": "0",
            "detail-type": "CodeBuild Build State Change",
            "detail": {
                "build-status": "SUCCEEDED",
                "build-id": "arn:aws:codebuild:us-east-1:123456789012:build/img-arm64:1234",
                "additional-information": additional_information,
                "current-phase": "COMPLETED",
            },
        });
        serde_json::from_value::<BuildEvent>(event).unwrap().detail
    }

    #[test]
    fn reads_an_event_with_everything_that_was_seen_missing() {
        for information in [json!(null), json!({}), json!({"environment": {}, "logs": {}})] {
            let detail = detail(information);
            assert_eq!(detail.build_id(), "img-arm64:1234");
            assert_eq!(detail.environment(), Environment::default());
            let build = detail.into_build();
            assert!(build.log.is_none() && build.phases.is_empty());
            assert_eq!(build.exported, None);
        }
    }

    #[test]
    fn durations_come_as_integers_and_as_floats() {
        let detail = detail(json!({"phases": [
            {"phase-type": "SUBMITTED", "phase-status": "SUCCEEDED", "duration-in-seconds": 0},
            {"phase-type": "BUILD", "phase-status": "SUCCEEDED", "duration-in-seconds": 2.5},
            {"phase-type": "COMPLETED"},
        ]}));
        let timing = detail.into_build().timing().into_iter().collect::<Vec<_>>();
        assert_eq!(timing, [("BUILD".to_owned(), 2.5), ("SUBMITTED".to_owned(), 0.0)]);
    }

    #[test]
    fn debug_shows_no_variables_value() {
        let detail = detail(json!({"environment": {"environment-variables": [
            {"name": "ARCHWELD_TASK_TOKEN", "value": "AQCEAAAAKg", "type": "PLAINTEXT"},
            {"name": "UNSET", "type": "PLAINTEXT"},
        ]}}));
        assert_eq!(detail.environment().get("ARCHWELD_TASK_TOKEN"), Some("AQCEAAAAKg"));
        let shown = format!("{detail:?}");
        assert!(shown.contains("ARCHWELD_TASK_TOKEN") && !shown.contains("AQCE"), "{shown}");
    }
}
