//! Whose fault a failed build is.

use std::fmt;

use archweld_model::ErrorName;

use crate::build::{EndedBuild, Phase};

/// How much of CodeBuild's words a failure repeats, in characters. The state machine takes 32,768.
const REASON_CHARACTERS_MAX: usize = 1_000;

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the state machine knows it by.
    pub(crate) name: ErrorName,
    target: String,
    phase: String,
    reason: String,
    log: Option<String>,
}

impl Failure {
    /// Judges a build that ended without success. Statuses and contexts are those of CodeBuild's
    /// API and of its troubleshooting page
    /// (<https://docs.aws.amazon.com/codebuild/latest/userguide/troubleshooting.html>).
    pub(crate) fn new(build: &EndedBuild, target: &str, retries_left: u32) -> Self {
        let failed = build.phases.iter().find(|phase| phase.failed());
        let phase = failed.map_or("", |phase| &phase.name);
        let reason = failed.and_then(Phase::reason).unwrap_or_default();
        let name = match (build.status.as_str(), phase) {
            ("STOPPED", _) => ErrorName::BuildStopped,
            ("FAULT", _) | (_, "QUEUED") => ErrorName::BuildInfrastructure,
            ("TIMED_OUT", _) => ErrorName::BuildTimedOut,
            (_, "PROVISIONING") if reason.contains("BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE") => {
                // Only the registry's rate limit goes away by itself.
                if reason.to_lowercase().contains("toomanyrequests") {
                    ErrorName::BuildInfrastructure
                } else {
                    ErrorName::BuildFailed
                }
            }
            (_, "SUBMITTED" | "PROVISIONING") => ErrorName::BuildInfrastructure,
            _ if failed.is_some_and(|phase| phase.has_status("FAULT")) => {
                ErrorName::BuildInfrastructure
            }
            _ if failed.is_some_and(|phase| phase.has_status("TIMED_OUT")) => {
                ErrorName::BuildTimedOut
            }
            _ if reason.contains("Build container found dead") => ErrorName::BuildInfrastructure,
            _ => ErrorName::BuildFailed,
        };
        let name = match name {
            ErrorName::BuildInfrastructure if retries_left == 0 => ErrorName::BuildRetriesExhausted,
            name => name,
        };
        let phase = if phase.is_empty() { build.status.clone() } else { phase.to_owned() };
        let reason = reason.chars().take(REASON_CHARACTERS_MAX).collect();
        let log = build.log.clone();
        Self { name, target: target.to_owned(), phase, reason, log }
    }
}

impl Phase {
    fn failed(&self) -> bool {
        self.status.as_deref().is_some_and(|status| status != "SUCCEEDED")
            && !self.has_status("IN_PROGRESS")
    }

    fn has_status(&self, status: &str) -> bool {
        self.status.as_deref() == Some(status)
    }

    /// The first context that says something.
    fn reason(&self) -> Option<String> {
        let told = self.contexts.iter().map(|context| context.trim_matches([':', ' ']));
        told.filter(|context| !context.is_empty()).map(str::to_owned).next()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, phase, reason, log, .. } = self;
        write!(f, "{target}: {phase} failed")?;
        if !reason.is_empty() {
            write!(f, ": {reason}")?;
        }
        log.as_ref().map_or(Ok(()), |log| write!(f, "; log: {log}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, status: Option<&str>, contexts: &[&str]) -> Phase {
        Phase {
            name: name.to_owned(),
            status: status.map(str::to_owned),
            contexts: contexts.iter().map(|&context| context.to_owned()).collect(),
            seconds: None,
        }
    }

    fn failure(status: &str, name: &str, phase_status: &str, context: &str) -> Failure {
        let build = EndedBuild {
            status: status.to_owned(),
            log: Some("https://logs.example/1".to_owned()),
            phases: vec![
                phase("SUBMITTED", Some("SUCCEEDED"), &[": "]),
                phase(name, Some(phase_status), &[": ", context]),
                phase("COMPLETED", None, &[]),
            ],
            ..EndedBuild::default()
        };
        Failure::new(&build, "linux/arm64", 1)
    }

    #[test]
    fn says_target_phase_first_error_line_and_log() {
        let failure = failure(
            "FAILED",
            "BUILD",
            "FAILED",
            "COMMAND_EXECUTION_ERROR: Error while executing command: make. Reason: exit status 2",
        );
        insta::assert_snapshot!(failure, @"linux/arm64: BUILD failed: COMMAND_EXECUTION_ERROR: Error while executing command: make. Reason: exit status 2; log: https://logs.example/1");
    }

    #[test]
    fn tells_the_users_faults_from_codebuilds() {
        for (status, phase, phase_status, context, name) in [
            ("FAILED", "BUILD", "FAILED", "COMMAND_EXECUTION_ERROR: x", ErrorName::BuildFailed),
            ("FAILED", "DOWNLOAD_SOURCE", "FAILED", "YAML_FILE_ERROR: x", ErrorName::BuildFailed),
            ("FAILED", "DOWNLOAD_SOURCE", "CLIENT_ERROR", "x", ErrorName::BuildFailed),
            ("FAILED", "POST_BUILD", "FAULT", "x", ErrorName::BuildInfrastructure),
            (
                "FAILED",
                "BUILD",
                "FAILED",
                "Build container found dead before completing the build",
                ErrorName::BuildInfrastructure,
            ),
            ("FAULT", "PROVISIONING", "FAULT", "x", ErrorName::BuildInfrastructure),
            ("TIMED_OUT", "QUEUED", "TIMED_OUT", "x", ErrorName::BuildInfrastructure),
            (
                "FAILED",
                "QUEUED",
                "FAILED",
                "INSUFFICIENT_SUBNET: x",
                ErrorName::BuildInfrastructure,
            ),
            ("TIMED_OUT", "BUILD", "TIMED_OUT", "BUILD_TIMED_OUT: x", ErrorName::BuildTimedOut),
            ("FAILED", "BUILD", "TIMED_OUT", "BUILD_TIMED_OUT: x", ErrorName::BuildTimedOut),
            ("STOPPED", "BUILD", "STOPPED", "", ErrorName::BuildStopped),
            (
                "FAILED",
                "PROVISIONING",
                "CLIENT_ERROR",
                "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE: no such image",
                ErrorName::BuildFailed,
            ),
            (
                "FAILED",
                "PROVISIONING",
                "CLIENT_ERROR",
                "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE: toomanyrequests",
                ErrorName::BuildInfrastructure,
            ),
            ("SOMETHING_NEW", "BUILD", "FAILED", "x", ErrorName::BuildFailed),
        ] {
            assert_eq!(
                failure(status, phase, phase_status, context).name,
                name,
                "{status} {phase}"
            );
        }
    }

    #[test]
    fn without_retries_left_an_infrastructure_error_is_final() {
        let build = EndedBuild { status: "FAULT".to_owned(), ..EndedBuild::default() };
        let failure = Failure::new(&build, "manifest", 0);
        assert_eq!(failure.name, ErrorName::BuildRetriesExhausted);
        assert_eq!(failure.to_string(), "manifest: FAULT failed");
    }
}
