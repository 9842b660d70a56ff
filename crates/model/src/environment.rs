//! The environment of a build: archweld's contract with buildspecs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The names of the variables.
pub mod variable {
    /// The execution's ARN: how a stray build is matched with its execution.
    pub const EXECUTION: &str = "ARCHWELD_EXECUTION";
    /// Set to `1` where the run is to build everything anew, caches included.
    pub const FORCE: &str = "ARCHWELD_FORCE";
    /// How many more times the state machine would try this build.
    pub const RETRIES_LEFT: &str = "ARCHWELD_RETRIES_LEFT";
    /// The run.
    pub const RUN: &str = "ARCHWELD_RUN";
    /// Set to `1` where other runs push to the same tag.
    pub const SHARED_TAG: &str = "ARCHWELD_SHARED_TAG";
    /// The task token that the state machine waits for.
    pub const TASK_TOKEN: &str = "ARCHWELD_TASK_TOKEN";
    /// The architecture as Docker's official images call it: `amd64`, `arm64v8`, `arm32v7`, …
    pub const IMAGE_ARCH: &str = "IMAGE_ARCH";
    /// The folder of the image within the source.
    pub const IMAGE_CONTEXT: &str = "IMAGE_CONTEXT";
    /// What a buildspec may export: the digest of what it pushed, alone or behind `<repository>@`.
    pub const IMAGE_DIGEST: &str = "IMAGE_DIGEST";
    /// The Dockerfile's path within the source.
    pub const IMAGE_DOCKERFILE: &str = "IMAGE_DOCKERFILE";
    /// The platform that this build is for, such as `linux/arm64`.
    pub const IMAGE_PLATFORM: &str = "IMAGE_PLATFORM";
    /// The repository.
    pub const IMAGE_REPO_NAME: &str = "IMAGE_REPO_NAME";
    /// The manifest build's input: `<platform>=<digest>` of every image, separated by spaces.
    pub const IMAGE_SOURCES: &str = "IMAGE_SOURCES";
    /// The tag to push, unique to the run and the architecture by default.
    pub const IMAGE_TAG: &str = "IMAGE_TAG";
}

/// Environment variables, in the order that they were set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment(Vec<Variable>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

impl Environment {
    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.0.iter_mut().find(|variable| variable.name == name) {
            Some(variable) => variable.value = value,
            None => self.0.push(Variable { name: name.to_owned(), value }),
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|variable| (variable.name.as_str(), variable.value.as_str()))
    }

    /// The length of all names and values together, in characters.
    pub fn characters(&self) -> usize {
        self.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            environment.set(&name.into(), value);
        }
        environment
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who has the token can end the task.
        let value = if self.name == variable::TASK_TOKEN { "…" } else { &self.value };
        write!(f, "{}={value:?}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_set_once_and_counted_with_its_name() {
        let mut environment: Environment = [("A", "1"), ("B", "größe")].into_iter().collect();
        environment.set("A", "22");
        assert_eq!(environment.iter().collect::<Vec<_>>(), [("A", "22"), ("B", "größe")]);
        assert_eq!(environment.characters(), 1 + 2 + 1 + 5);
    }

    #[test]
    fn debug_never_shows_the_token() {
        let environment: Environment =
            [(variable::RUN, "r1"), (variable::TASK_TOKEN, "AQCEAAAAKg")].into_iter().collect();
        let shown = format!("{environment:?}");
        assert!(shown.contains("r1") && !shown.contains("AQCE"), "{shown}");
    }
}
