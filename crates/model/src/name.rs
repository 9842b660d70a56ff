//! Names of images, repositories, runs and sources.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A text that is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid, expected {expected}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(NameError { kind: $kind, text, expected: $expected })
                }
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of an `[[image]]` in `archweld.toml`.
    ImageName,
    "image name",
    "1 to 40 of `a-z 0-9 - _`, beginning with a letter or digit",
    |text| {
        text.len() <= 40
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    }
}

name! {
    /// The name of an ECR repository
    /// (<https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html>).
    RepositoryName,
    "repository name",
    "2 to 256 of `a-z 0-9`, with single `.`, `_`, `/` or any number of `-` between them",
    |text| {
        let component = |component: &str| {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let separators = component.split(word).filter(|separator| !separator.is_empty());
            component.starts_with(word)
                && component.ends_with(word)
                && separators.into_iter().all(|separator| {
                    matches!(separator, "." | "_" | "__") || separator.bytes().all(|c| c == b'-')
                })
        };
        (2..=256).contains(&text.len()) && text.split('/').all(component)
    }
}

name! {
    /// What one run is called: part of its tags, in its builds' environment and in its logs.
    Run,
    "run",
    "1 to 80 of `A-Z a-z 0-9 _ . -`, not beginning with `.` or `-`",
    |text| {
        text.len() <= Run::CHARACTERS_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    }
}

name! {
    /// A commit of a git repository.
    Commit,
    "commit",
    "7 to 64 lower-case hexadecimal digits",
    |text| {
        (7..=64).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    }
}

name! {
    /// What an image depends on within its source: a git tree, or a hash over several.
    SourceTree,
    "tree",
    "40 to 64 lower-case hexadecimal digits",
    |text| {
        (40..=64).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    }
}

name! {
    /// A branch or tag of a git repository, in full (`refs/heads/main`) or in short (`main`, read
    /// as a branch).
    GitRef,
    "ref",
    "a git branch or tag of at most 255 bytes, such as `main` or `refs/tags/v1.2.3`",
    |text| {
        let is_branch_or_tag = text.strip_prefix("refs/").is_none_or(|rest| {
            rest.strip_prefix("heads/").or(rest.strip_prefix("tags/")).is_some()
        });
        let hostile = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
        is_branch_or_tag
            && !text.is_empty()
            && text.len() <= 255
            && !text.starts_with('-')
            && !text.ends_with(['/', '.'])
            && !text.contains("..")
            && !text.contains("@{")
            && !text.contains(hostile)
    }
}

impl Commit {
    /// Whether it names one commit for ever, and not the first digits of perhaps several.
    pub fn is_whole(&self) -> bool {
        matches!(self.0.len(), 40 | 64)
    }
}

impl GitRef {
    /// The branch's name, where it is a branch.
    pub fn branch(&self) -> Option<&str> {
        match self.0.strip_prefix("refs/") {
            None => Some(&self.0),
            Some(rest) => rest.strip_prefix("heads/"),
        }
    }

    /// The tag's name, where it is a tag.
    pub fn tag(&self) -> Option<&str> {
        self.0.strip_prefix("refs/tags/")
    }

    /// Whether both name one ref: `main` is `refs/heads/main`.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.branch(), self.tag()) == (other.branch(), other.tag())
    }
}

impl Run {
    const CHARACTERS_MAX: usize = 80;

    /// The run of an execution: its name where that may stand in a tag; otherwise a name that
    /// stays unique through a hash of it.
    pub fn of_execution(name: &str) -> Self {
        name.parse().unwrap_or_else(|_| {
            let hash = hex::encode(&Sha256::digest(name)[..8]);
            let kept = name.chars().filter(|c| c.is_ascii_alphanumeric()).take(40);
            Self(format!("r{}-{hash}", kept.collect::<String>()))
        })
    }
}

/// Where an image's source comes from: an HTTPS address of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source(String);

/// The source types of CodeBuild that a git repository can be
/// (<https://docs.aws.amazon.com/codebuild/latest/APIReference/API_ProjectSource.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `BITBUCKET`
    Bitbucket,
    /// `CODECOMMIT`
    CodeCommit,
    /// `GITHUB`
    GitHub,
    /// `GITHUB_ENTERPRISE`
    GitHubEnterprise,
    /// `GITLAB`
    GitLab,
}

impl SourceKind {
    /// CodeBuild's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bitbucket => "BITBUCKET",
            Self::CodeCommit => "CODECOMMIT",
            Self::GitHub => "GITHUB",
            Self::GitHubEnterprise => "GITHUB_ENTERPRISE",
            Self::GitLab => "GITLAB",
        }
    }
}

impl Source {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which source type of CodeBuild's it is. A host of no known provider is taken for a GitHub
    /// Enterprise server.
    pub fn kind(&self) -> SourceKind {
        let host = self.0.trim_start_matches("https://").split('/').next().unwrap_or_default();
        match host {
            "github.com" => SourceKind::GitHub,
            "bitbucket.org" => SourceKind::Bitbucket,
            "gitlab.com" => SourceKind::GitLab,
            _ if host.starts_with("git-codecommit.") => SourceKind::CodeCommit,
            _ => SourceKind::GitHubEnterprise,
        }
    }
}

impl TryFrom<String> for Source {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{|}@".contains(c);
        let rest = text.strip_prefix("https://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or_default();
        if !host.is_empty() && !path.is_empty() && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(NameError {
                kind: "source",
                text,
                expected: "`https://HOST/PATH` of a git repository, without a user or password",
            })
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_ecr() {
        for good in ["hello", "team/app", "a-b/c_d.e", "a--b", "a__b"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in ["", "a", "Hello", "a//b", "/ab", "ab/", "a..b", "-ab", "a_-b", "a b"] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ref_is_a_branch_or_a_tag() {
        let git_ref = |text: &str| text.parse::<GitRef>();
        assert_eq!(git_ref("main").unwrap().branch(), Some("main"));
        assert_eq!(git_ref("refs/heads/a/b").unwrap().branch(), Some("a/b"));
        assert_eq!(git_ref("refs/tags/v1.2.3").unwrap().tag(), Some("v1.2.3"));
        for bad in ["", "refs/pull/1/head", "refs/heads/", "refs/heads", "-x", "a..b", "a b", "a/"]
        {
            assert!(git_ref(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_may_always_stand_in_a_tag_and_differs_by_execution() {
        assert_eq!(Run::of_execution("nightly-1").as_str(), "nightly-1");
        let odd = ["a+b", "a=b", ".a", "-a", "größe", "a\u{0}b", "$(touch x)", ""];
        let runs: Vec<Run> = odd.iter().map(|name| Run::of_execution(name)).collect();
        for (index, run) in runs.iter().enumerate() {
            assert!(run.as_str().parse::<Run>().is_ok(), "{run}");
            assert!(!runs[..index].contains(run), "{run}");
        }
    }

    #[test]
    fn sources_are_https_without_credentials() {
        let source = |text: &str| Source::try_from(text.to_owned());
        assert_eq!(source("https://github.com/a/b").unwrap().kind(), SourceKind::GitHub);
        assert_eq!(
            source("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/x").unwrap().kind(),
            SourceKind::CodeCommit
        );
        for bad in [
            "git@github.com:a/b",
            "https://user:pw@github.com/a/b",
            "https://github.com",
            "ext::sh",
        ] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }
}
