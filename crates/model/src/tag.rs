//! Image tags, and the templates that `archweld.toml` writes them as.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

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
}

const PLACEHOLDERS: &str = "{arch} {branch} {date} {run} {sha} {sha7} {tag}";

impl ImageTag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
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
            && text.len() <= 128
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

/// A tag with placeholders, such as `{branch}-{sha7}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagTemplate {
    text: String,
    parts: Vec<Part>,
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
    Sha,
    Sha7,
    Tag,
}

/// What the placeholders of a template stand for; `None` where a run does not know.
#[derive(Debug, Clone, Copy, Default)]
pub struct TagValues<'a> {
    /// `{arch}`: the architecture's image name, in `arch_tag` only.
    pub arch: Option<&'a str>,
    /// `{branch}`: the branch, each character that no tag may hold replaced by `-`.
    pub branch: Option<&'a str>,
    /// `{date}`: the UTC day on which the run began, as `20261123`.
    pub date: Option<&'a str>,
    /// `{run}`: the run.
    pub run: Option<&'a str>,
    /// `{sha}`: the commit; `{sha7}` is its first seven digits.
    pub sha: Option<&'a str>,
    /// `{tag}`: the git tag, each character that no image tag may hold replaced by `-`.
    pub tag: Option<&'a str>,
}

impl TagTemplate {
    /// Fills the placeholders in.
    ///
    /// Answers `None` where a placeholder has no value in this run: such a tag is left out.
    ///
    /// # Errors
    /// When the result is not a valid tag.
    pub fn render(&self, values: &TagValues<'_>) -> Result<Option<ImageTag>, TagError> {
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
        tag.parse().map(Some)
    }

    /// Whether the tag names one source for ever (it holds a commit, a git tag or a run), so that
    /// it never moves once it is set.
    pub fn is_fixed(&self) -> bool {
        self.parts.iter().any(|part| {
            matches!(
                part,
                Part::Placeholder(
                    Placeholder::Sha | Placeholder::Sha7 | Placeholder::Run | Placeholder::Tag
                )
            )
        })
    }

    /// Whether the tag names the image of one architecture.
    pub fn is_of_one_architecture(&self) -> bool {
        self.parts.contains(&Part::Placeholder(Placeholder::Arch))
    }
}

impl Placeholder {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "arch" => Self::Arch,
            "branch" => Self::Branch,
            "date" => Self::Date,
            "run" => Self::Run,
            "sha" => Self::Sha,
            "sha7" => Self::Sha7,
            "tag" => Self::Tag,
            _ => return None,
        })
    }

    fn value(self, values: &TagValues<'_>) -> Option<String> {
        match self {
            Self::Arch => values.arch.map(str::to_owned),
            Self::Branch => values.branch.map(harmless),
            Self::Date => values.date.map(str::to_owned),
            Self::Run => values.run.map(str::to_owned),
            Self::Sha => values.sha.map(str::to_owned),
            Self::Sha7 => values.sha.and_then(|sha| sha.get(..7)).map(str::to_owned),
            Self::Tag => values.tag.map(harmless),
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
        let mut rest = text;
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
        let template = Self { text: text.to_owned(), parts };
        // A template that gives no tag with the plainest values never gives one.
        let plain = Some("1");
        let commit = Some("0123456789abcdef0123456789abcdef01234567");
        let values = TagValues {
            arch: plain,
            branch: plain,
            date: plain,
            run: plain,
            sha: commit,
            tag: plain,
        };
        template.render(&values)?;
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

    const VALUES: TagValues<'_> = TagValues {
        arch: Some("arm64v8"),
        branch: Some("feature/größer"),
        date: Some("20261123"),
        run: Some("r1"),
        sha: Some("0123456789abcdef0123456789abcdef01234567"),
        tag: None,
    };

    fn render(template: &str) -> Option<String> {
        template.parse::<TagTemplate>().unwrap().render(&VALUES).unwrap().map(String::from)
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
        ] {
            let error = text.parse::<TagTemplate>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_tag_of_one_source_is_fixed() {
        let fixed = |text: &str| text.parse::<TagTemplate>().unwrap().is_fixed();
        assert!(fixed("{sha7}") && fixed("{branch}-{run}") && fixed("{tag}"));
        assert!(!fixed("latest") && !fixed("{branch}") && !fixed("nightly-{date}"));
    }

    proptest! {
        #[test]
        fn whatever_the_branch_the_tag_is_valid_or_refused(branch in ".*") {
            let template: TagTemplate = "b{branch}".parse().unwrap();
            let values = TagValues { branch: Some(&branch), ..TagValues::default() };
            if let Ok(Some(tag)) = template.render(&values) {
                prop_assert!(tag.as_str().parse::<ImageTag>().is_ok());
            }
        }
    }
}
