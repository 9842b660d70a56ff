//! What `archweld.toml` says of triggers: which refs, base images and schedules start a run.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{GitRef, ImageTag, NameError, RepositoryName, TagError, matches_wildcard};

/// What started a run, where a deployment's own trigger did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// A push to a git repository.
    Push,
    /// A schedule.
    Schedule,
    /// A push of an image that this one is built on.
    BaseImage,
}

impl TriggerKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Push, Self::Schedule, Self::BaseImage];

    /// The name in an execution's input.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Schedule => "schedule",
            Self::BaseImage => "base-image",
        }
    }
}

/// A text of `archweld.toml` that names no trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// Not a pattern of refs.
    #[error(
        "ref pattern {0:?} is not valid, expected branches or tags, such as `main`, `release/*` or \
         `refs/tags/v*`"
    )]
    RefPattern(String),
    /// Not a repository, or a repository and a tag.
    #[error("base image {0:?}: {1}")]
    BaseImage(String, String),
    /// Not a schedule.
    #[error("schedule {0:?} is not valid, expected 1 to 64 of `A-Z a-z 0-9 - _ .`")]
    Schedule(String),
}

/// Branches or tags, of which `*` stands for any characters. A short pattern is of branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefPattern(String);

impl RefPattern {
    /// Whether a ref is among them.
    pub fn matches(&self, git_ref: &GitRef) -> bool {
        let full = match (git_ref.branch(), git_ref.tag()) {
            (Some(branch), _) => format!("refs/heads/{branch}"),
            (None, Some(tag)) => format!("refs/tags/{tag}"),
            (None, None) => return false,
        };
        matches_wildcard(&self.full(), &full)
    }

    /// The one branch that it stands for, if it does.
    pub fn plain_branch(&self) -> Option<GitRef> {
        let git_ref: GitRef = self.0.parse().ok()?;
        git_ref.branch().is_some().then_some(git_ref)
    }

    fn full(&self) -> String {
        if self.0.starts_with("refs/") { self.0.clone() } else { format!("refs/heads/{}", self.0) }
    }
}

impl TryFrom<String> for RefPattern {
    type Error = TriggerError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let pattern = Self(text);
        let full = pattern.full();
        let literal = full.split('*').next().unwrap_or_default();
        let may_match = ["refs/heads/", "refs/tags/"]
            .iter()
            .any(|folder| folder.starts_with(literal) || literal.starts_with(folder));
        // What a ref may be, with anything in the place of the wildcards.
        let is_ref_like = pattern.0.replace('*', "x").replacen("refs/x", "refs/heads/x", 1);
        if !pattern.0.is_empty() && may_match && is_ref_like.parse::<GitRef>().is_ok() {
            Ok(pattern)
        } else {
            Err(TriggerError::RefPattern(pattern.0))
        }
    }
}

impl FromStr for RefPattern {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<RefPattern> for String {
    fn from(pattern: RefPattern) -> Self {
        pattern.0
    }
}

/// An image of the same registry that another is built on: a repository, or one tag of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseImage {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag; any where there is none.
    pub tag: Option<ImageTag>,
}

impl TryFrom<String> for BaseImage {
    type Error = TriggerError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong =
            |error: &dyn fmt::Display| TriggerError::BaseImage(text.clone(), error.to_string());
        let (repository, tag) = match text.split_once(':') {
            None => (text.as_str(), None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        let repository = repository.parse().map_err(|error: NameError| wrong(&error))?;
        let tag: Option<ImageTag> =
            tag.map(str::parse).transpose().map_err(|error: TagError| wrong(&error))?;
        match tag {
            Some(tag) if tag.is_reserved() => Err(wrong(&TagError::Reserved(tag.into()))),
            tag => Ok(Self { repository, tag }),
        }
    }
}

impl From<BaseImage> for String {
    fn from(image: BaseImage) -> Self {
        image.to_string()
    }
}

impl fmt::Display for BaseImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// The name of a schedule of the deployment
/// (<https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScheduleName(String);

impl ScheduleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ScheduleName {
    type Error = TriggerError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(TriggerError::Schedule(text))
        }
    }
}

impl From<ScheduleName> for String {
    fn from(name: ScheduleName) -> Self {
        name.0
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_pattern_is_of_branches() {
        let matches = |pattern: &str, git_ref: &str| {
            pattern.parse::<RefPattern>().unwrap().matches(&git_ref.parse().unwrap())
        };
        for (pattern, git_ref) in [
            ("main", "main"),
            ("main", "refs/heads/main"),
            ("refs/heads/main", "main"),
            ("release/*", "refs/heads/release/1/2"),
            ("*", "refs/heads/any/thing"),
            ("refs/tags/v*", "refs/tags/v1.2.3"),
            ("refs/*", "refs/tags/v1"),
            ("*-stable", "x-stable"),
        ] {
            assert!(matches(pattern, git_ref), "{pattern} {git_ref}");
        }
        for (pattern, git_ref) in [
            ("main", "refs/tags/main"),
            ("main", "maintenance"),
            ("*", "refs/tags/v1"),
            ("release/*", "release"),
            ("refs/tags/v*", "v1"),
        ] {
            assert!(!matches(pattern, git_ref), "{pattern} {git_ref}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        for bad in ["", "refs/pull/*", "refs/headsx", "a b", "a..b", "-x", "x\n", "refs/notes*"] {
            assert!(bad.parse::<RefPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_plain_branch_is_one_branch() {
        let branch = |text: &str| text.parse::<RefPattern>().unwrap().plain_branch();
        assert_eq!(branch("main").unwrap().branch(), Some("main"));
        assert_eq!(branch("refs/heads/a").unwrap().branch(), Some("a"));
        assert_eq!(branch("a*"), None);
        assert_eq!(branch("refs/tags/v1"), None);
    }
}
