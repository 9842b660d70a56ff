//! A build that ended, whichever way one heard of it.

use archweld_model::{Environment, TimingSeconds};
use aws_sdk_codebuild::types::{Build, BuildPhase};

/// What is known of a build that ended.
#[derive(Debug, Clone, Default)]
pub struct EndedBuild {
    /// The identity that the API has for it: `<project>:<uuid>`.
    pub id: String,
    /// The status, such as `SUCCEEDED`.
    pub status: String,
    /// The environment variables that it was started with.
    pub environment: Environment,
    /// The variables that its buildspec exported; none where that is not known.
    pub exported: Option<Environment>,
    /// Where its log can be read.
    pub log: Option<String>,
    /// Its phases.
    pub phases: Vec<Phase>,
}

/// A phase of a build.
#[derive(Debug, Clone, Default)]
pub struct Phase {
    /// Such as `BUILD`.
    pub name: String,
    /// Such as `FAILED`; missing for the last phase.
    pub status: Option<String>,
    /// `CODE: message` texts; a clean phase often has `: `.
    pub contexts: Vec<String>,
    /// How long it took.
    pub seconds: Option<f64>,
}

impl EndedBuild {
    /// What `BatchGetBuilds` says of a build.
    pub fn of(build: &Build) -> Self {
        Self {
            id: build.id().unwrap_or_default().to_owned(),
            status: build.build_status().map_or("", |status| status.as_str()).to_owned(),
            environment: environment(build),
            exported: Some(exported(build)),
            log: build.logs().and_then(|logs| logs.deep_link()).map(str::to_owned),
            phases: build.phases().iter().map(Phase::of).collect(),
        }
    }

    /// How long each phase took.
    pub fn timing(&self) -> TimingSeconds {
        self.phases.iter().filter_map(|phase| Some((phase.name.clone(), phase.seconds?))).collect()
    }
}

impl Phase {
    fn of(phase: &BuildPhase) -> Self {
        let contexts = phase.contexts().iter().map(|context| {
            let (code, message) = (context.status_code(), context.message());
            format!("{}: {}", code.unwrap_or_default(), message.unwrap_or_default())
        });
        Self {
            name: phase.phase_type().map_or("", |name| name.as_str()).to_owned(),
            status: phase.phase_status().map(|status| status.as_str().to_owned()),
            contexts: contexts.collect(),
            // No phase lasts longer than a build: 36 hours.
            seconds: phase
                .duration_in_seconds()
                .and_then(|seconds| u32::try_from(seconds).ok())
                .map(f64::from),
        }
    }
}

/// The environment variables that a build was started with.
pub fn environment(build: &Build) -> Environment {
    let environment = build.environment().into_iter();
    environment
        .flat_map(|environment| environment.environment_variables())
        .map(|variable| (variable.name(), variable.value()))
        .collect()
}

/// The variables that the buildspec of a build exported.
pub fn exported(build: &Build) -> Environment {
    let variables = build.exported_environment_variables().iter();
    variables.filter_map(|variable| Some((variable.name()?, variable.value()?))).collect()
}
