//! What progress displays hear of builds while they happen.

use std::fmt;
use std::sync::Arc;

use crate::build::{PhaseType, Status};
use crate::project::EnvironmentVariable;
use crate::worker::variable;

/// A build, as a progress display needs to know it.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildInfo {
    /// `<project>:<uuid>`.
    pub id: String,
    /// The project.
    pub project: String,
    /// The number within the project.
    pub number: u64,
    variables: Vec<EnvironmentVariable>,
}

impl BuildInfo {
    pub(crate) fn new(build: &crate::build::Build) -> Arc<Self> {
        Arc::new(Self {
            id: build.id.clone(),
            project: build.project_name.clone(),
            number: build.build_number,
            variables: build.environment.environment_variables.clone(),
        })
    }

    /// The value of a variable of the project or the overrides, such as `IMAGE_PLATFORM`.
    pub fn variable(&self, name: &str) -> Option<&str> {
        variable(&self.variables, name)
    }
}

/// The variables may be secret, so they are not shown.
impl fmt::Debug for BuildInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BuildInfo").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Something happened to a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It was submitted and waits for its turn.
    Queued {
        /// The build.
        build: Arc<BuildInfo>,
    },
    /// A phase began.
    PhaseBegan {
        /// The build.
        build: Arc<BuildInfo>,
        /// The phase.
        phase: PhaseType,
    },
    /// A phase ended.
    PhaseEnded {
        /// The build.
        build: Arc<BuildInfo>,
        /// The phase.
        phase: PhaseType,
        /// How it ended.
        status: Status,
    },
    /// A line was added to its log.
    Log {
        /// The build.
        build: Arc<BuildInfo>,
        /// The line, with secrets masked.
        line: Arc<str>,
    },
    /// It is over.
    Finished {
        /// The build.
        build: Arc<BuildInfo>,
        /// How it ended.
        status: Status,
    },
}
