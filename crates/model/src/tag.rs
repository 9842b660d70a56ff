//! Image tags, and the templates that `archweld.toml` writes them as.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{GitRef, NameError, Version};

/// What archweld's own tags begin with; no other tag may.
pub(crate) const RESERVED_PREFIX: &str = "archweld.";
/// How long a tag may be.
pub(crate) const CHARACTERS_MAX: usize = 128;

/// A tag of an image
/// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests>).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageTag(String);

/// A text that is not a tag, or not a template of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Not a tag.
    #[error(
        "tag {0:?} is not valid, expected 1 to 128 of `A-Z a-z 0-9 _ . -`, not beginning with `.` \
         or `-`"
    )]
    Invalid(String),
    /// A template with a placeholder that does not exist.
    #[error("unknown placeholder {{{0}}} in tag template {1:?}, expected one of {placeholders}",
        placeholders = PLACEHOLDERS)]
    UnknownPlaceholder(String, String),
    /// A template with a brace that has no partner.
    #[error("unbalanced brace in tag template {0:?}")]
    Unbalanced(String),
    /// A condition that is not a ref.
    #[error("tag template {0:?}: after `@`: {1}")]
    Condition(String, NameError),
    /// A tag of archweld's own.
    #[error("tag {0:?} is reserved: tags that begin with `archweld.` are archweld's own")]
    Reserved(String),
    /// A tag that leaves no room for its marker.
    #[error(
        "moving tag {tag:?} is {excess} characters too long: it is repeated in the tag that keeps \
         its order"
    )]
    TooLongToMove {
        /// The tag.
        tag: String,
        /// By how many characters.
        excess: usize,
    },
}

const PLACEHOLDERS: &str = "{arch} {branch} {date} {run} {sha} {sha7} {tag} {semver.major} \
                            {semver.minor} {semver.patch}";

impl ImageTag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of archweld's own.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

impl FromStr for ImageTag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for ImageTag {
    type Error = TagError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if text.starts_with(word)
            && text.len() <= CHARACTERS_MAX
            && text.chars().all(|c| word(c) || c == '.' || c == '-')
        {
            Ok(Self(text))
        } else {
            Err(TagError::Invalid(text))
        }
    }
}

impl From<ImageTag> for String {
    fn from(tag: ImageTag) -> Self {
        tag.0
    }
}

impl fmt::Display for ImageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag with placeholders, such as `{branch}-{sha7}`, and perhaps a condition: `latest@main` is
/// for runs of the branch `main` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagTemplate {
    text: String,
    parts: Vec<Part>,
    condition: Option<GitRef>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Arch,
    Branch,
    Date,
    Run,
    SemverMajor,
    SemverMinor,
    SemverPatch,
    Sha,
    Sha7,
    Tag,
}

/// What the placeholders of a template stand for; `None` where a run does not know.
#[derive(Debug, Clone, Copy, Default)]
pub struct TagValues<'a> {
    /// `{arch}`: the architecture's image name, in `arch_tag` only.
    pub arch: Option<&'a str>,
    /// `{date}`: the UTC day on which the run began, as `20261123`.
    pub date: Option<&'a str>,
    /// `{branch}` or `{tag}`: the git branch or tag, each character that no image tag may hold
    /// replaced by `-`. `{semver.…}`: the parts of a git tag that is a version, `v1.2.3` or
    /// `1.2.3`; a pre-release has none, so that it never moves what releases move.
    pub git_ref: Option<&'a GitRef>,
    /// `{run}`: the run.
    pub run: Option<&'a str>,
    /// `{sha}`: the commit; `{sha7}` is its first seven digits.
    pub sha: Option<&'a str>,
}

impl TagTemplate {
    /// Fills the placeholders in.
    ///
    /// Answers `None` where a placeholder has no value in this run, or where the tag is for another
    /// ref: such a tag is left out.
    ///
    /// # Errors
    /// When the result is not a valid tag, or is one of archweld's own.
    pub fn render(&self, values: &TagValues<'_>) -> Result<Option<ImageTag>, TagError> {
        if let Some(condition) = &self.condition
            && !values.git_ref.is_some_and(|git_ref| git_ref.is_same(condition))
        {
            return Ok(None);
        }
        self.fill_in(values)
    }

    fn fill_in(&self, values: &TagValues<'_>) -> Result<Option<ImageTag>, TagError> {
        let mut tag = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => tag.push_str(text),
                Part::Placeholder(placeholder) => match placeholder.value(values) {
                    Some(value) => tag.push_str(&value),
                    None => return Ok(None),
                },
            }
        }
        let tag: ImageTag = tag.parse()?;
        if tag.is_reserved() { Err(TagError::Reserved(tag.into())) } else { Ok(Some(tag)) }
    }

    /// Whether the tag names one source for ever (it holds a commit, a git tag, a whole version or
    /// a run), so that it never moves once it is set.
    pub fn is_fixed(&self) -> bool {
        let version =
            [Placeholder::SemverMajor, Placeholder::SemverMinor, Placeholder::SemverPatch];
        let one_source = [Placeholder::Sha, Placeholder::Sha7, Placeholder::Run, Placeholder::Tag];
        one_source.into_iter().any(|placeholder| self.holds(placeholder))
            || version.into_iter().all(|placeholder| self.holds(placeholder))
    }

    /// Whether the tag holds part of a version, so that it follows the highest version and not the
    /// newest push.
    pub fn is_of_versions(&self) -> bool {
        [Placeholder::SemverMajor, Placeholder::SemverMinor, Placeholder::SemverPatch]
            .into_iter()
            .any(|placeholder| self.holds(placeholder))
    }

    /// Whether both give the same tag, conditions apart.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.parts == other.parts
    }

    /// Whether no two runs have the same tag.
    pub(crate) fn is_of_run(&self) -> bool {
        self.holds(Placeholder::Run)
    }

    /// Whether the tag names the image of one architecture.
    pub fn is_of_one_architecture(&self) -> bool {
        self.holds(Placeholder::Arch)
    }

    fn holds(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Placeholder(placeholder))
    }
}

impl Placeholder {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "arch" => Self::Arch,
            "branch" => Self::Branch,
            "date" => Self::Date,
            "run" => Self::Run,
            "semver.major" => Self::SemverMajor,
            "semver.minor" => Self::SemverMinor,
            "semver.patch" => Self::SemverPatch,
            "sha" => Self::Sha,
            "sha7" => Self::Sha7,
            "tag" => Self::Tag,
            _ => return None,
        })
    }

    fn value(self, values: &TagValues<'_>) -> Option<String> {
        let version = || values.git_ref.and_then(GitRef::tag).and_then(Version::of_git_tag);
        match self {
            Self::Arch => values.arch.map(str::to_owned),
            Self::Branch => values.git_ref.and_then(GitRef::branch).map(harmless),
            Self::Date => values.date.map(str::to_owned),
            Self::Run => values.run.map(str::to_owned),
            Self::SemverMajor => version().map(|version| version.major.to_string()),
            Self::SemverMinor => version().map(|version| version.minor.to_string()),
            Self::SemverPatch => version().map(|version| version.patch.to_string()),
            Self::Sha => values.sha.map(str::to_owned),
            Self::Sha7 => values.sha.and_then(|sha| sha.get(..7)).map(str::to_owned),
            Self::Tag => values.git_ref.and_then(GitRef::tag).map(harmless),
        }
    }
}

fn harmless(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' })
        .collect()
}

impl FromStr for TagTemplate {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unbalanced = || TagError::Unbalanced(text.to_owned());
        let mut parts = Vec::new();
        // No tag holds an `@`.
        let (mut rest, condition) = match text.split_once('@') {
            None => (text, None),
            Some((tag, condition)) => {
                let condition = condition
                    .parse()
                    .map_err(|error| TagError::Condition(text.to_owned(), error))?;
                (tag, Some(condition))
            }
        };
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            let (name, tail) = tail
                .strip_prefix('{')
                .and_then(|tail| tail.split_once('}'))
                .ok_or_else(unbalanced)?;
            let placeholder = Placeholder::parse(name)
                .ok_or_else(|| TagError::UnknownPlaceholder(name.to_owned(), text.to_owned()))?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::Placeholder(placeholder));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        let template = Self { text: text.to_owned(), parts, condition };
        // A template that gives no tag with the plainest values never gives one.
        let plain = Some("1");
        let commit = Some("0123456789abcdef0123456789abcdef01234567");
        for git_ref in ["refs/heads/1", "refs/tags/1.1.1"] {
            let git_ref = git_ref.parse().ok();
            let values = TagValues {
                arch: plain,
                date: plain,
                git_ref: git_ref.as_ref(),
                run: plain,
                sha: commit,
            };
            template.fill_in(&values)?;
        }
        Ok(template)
    }
}

impl TryFrom<String> for TagTemplate {
    type Error = TagError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TagTemplate> for String {
    fn from(template: TagTemplate) -> Self {
        template.text
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn render_for(template: &str, git_ref: &str) -> Option<String> {
        let git_ref = git_ref.parse().ok();
        let values = TagValues {
            arch: Some("arm64v8"),
            date: Some("20261123"),
            git_ref: git_ref.as_ref(),
            run: Some("r1"),
            sha: Some(COMMIT),
        };
        template.parse::<TagTemplate>().unwrap().render(&values).unwrap().map(String::from)
    }

    fn render(template: &str) -> Option<String> {
        render_for(template, "feature/größer")
    }

    #[test]
    fn fills_placeholders_in() {
        assert_eq!(render("{sha7}").as_deref(), Some("0123456"));
        assert_eq!(render("{run}-{arch}").as_deref(), Some("r1-arm64v8"));
        assert_eq!(render("b-{branch}_{date}").as_deref(), Some("b-feature-gr--er_20261123"));
        assert_eq!(render("latest").as_deref(), Some("latest"));
    }

    #[test]
    fn leaves_out_a_tag_whose_value_the_run_does_not_know() {
        assert_eq!(render("{tag}"), None);
        assert_eq!(render("{semver.major}"), None);
    }

    #[test]
    fn a_condition_is_for_one_ref_however_it_is_spelt() {
        for git_ref in ["main", "refs/heads/main"] {
            assert_eq!(render_for("latest@main", git_ref).as_deref(), Some("latest"), "{git_ref}");
        }
        for git_ref in ["maintenance", "refs/tags/main"] {
            assert_eq!(render_for("latest@main", git_ref), None, "{git_ref}");
        }
        assert_eq!(render_for("stable@refs/tags/v1", "refs/tags/v1").as_deref(), Some("stable"));
        let template: TagTemplate = "latest@main".parse().unwrap();
        assert_eq!(template.render(&TagValues::default()), Ok(None), "a run of no known ref");
        assert_eq!(template.to_string(), "latest@main");
    }

    #[test]
    fn a_release_gives_the_parts_of_its_version_and_a_pre_release_none() {
        let parts = "{semver.major}-{semver.minor}-{semver.patch}";
        for git_ref in ["refs/tags/v1.22.3", "refs/tags/1.22.3", "refs/tags/v1.22.3+build.5"] {
            assert_eq!(render_for(parts, git_ref).as_deref(), Some("1-22-3"), "{git_ref}");
        }
        for git_ref in ["refs/tags/v1.22.3-rc.1", "refs/tags/v1.22", "refs/tags/v01.2.3", "v1.2.3"]
        {
            assert_eq!(render_for(parts, git_ref), None, "{git_ref}");
        }
    }

    #[test]
    fn refuses_bad_templates_when_they_are_read() {
        for (text, expected) in [
            ("{commit}", "unknown placeholder {commit}"),
            ("{sha", "unbalanced brace"),
            ("sha}", "unbalanced brace"),
            ("", "is not valid"),
            ("-{sha}", "is not valid"),
            ("a b", "is not valid"),
            ("latest@", "after `@`: ref \"\" is not valid"),
            ("latest@a..b", "after `@`: ref \"a..b\" is not valid"),
            ("archweld.latest", "is reserved"),
        ] {
            let error = text.parse::<TagTemplate>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_tag_of_one_source_is_fixed() {
        let fixed = |text: &str| text.parse::<TagTemplate>().unwrap().is_fixed();
        assert!(fixed("{sha7}") && fixed("{branch}-{run}") && fixed("{tag}"));
        assert!(fixed("{semver.major}.{semver.minor}.{semver.patch}"));
        assert!(!fixed("latest") && !fixed("{branch}") && !fixed("nightly-{date}"));
        assert!(!fixed("{semver.major}.{semver.minor}"));
    }

    proptest! {
        #[test]
        fn whatever_the_branch_the_tag_is_valid_or_refused(branch in ".*") {
            let template: TagTemplate = "b{branch}".parse().unwrap();
            if let Ok(git_ref) = branch.parse() {
                let values = TagValues { git_ref: Some(&git_ref), ..TagValues::default() };
                if let Ok(Some(tag)) = template.render(&values) {
                    prop_assert!(tag.as_str().parse::<ImageTag>().is_ok());
                }
            }
        }
    }
}
