//! Which tags may move.

use archweld_model::ImageTag;
use serde::{Deserialize, Serialize};

/// A repository's rule for moving tags
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html>).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "mode", content = "except", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagMutability {
    /// Every tag may move.
    #[default]
    Mutable,
    /// No tag may move.
    Immutable,
    /// No tag may move but those that one of the filters matches.
    ImmutableWithExclusion(Vec<String>),
    /// Every tag may move but those that one of the filters matches.
    MutableWithExclusion(Vec<String>),
}

impl TagMutability {
    /// Whether an existing tag of that name must stay where it is.
    pub fn is_immutable(&self, tag: &ImageTag) -> bool {
        let excluded = |filters: &[String]| filters.iter().any(|f| matches(f, tag.as_str()));
        match self {
            Self::Mutable => false,
            Self::Immutable => true,
            Self::ImmutableWithExclusion(filters) => !excluded(filters),
            Self::MutableWithExclusion(filters) => excluded(filters),
        }
    }

    pub(crate) fn filters(&self) -> &[String] {
        match self {
            Self::Mutable | Self::Immutable => &[],
            Self::ImmutableWithExclusion(filters) | Self::MutableWithExclusion(filters) => filters,
        }
    }

    /// ECR's name for it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Mutable => "MUTABLE",
            Self::Immutable => "IMMUTABLE",
            Self::ImmutableWithExclusion(_) => "IMMUTABLE_WITH_EXCLUSION",
            Self::MutableWithExclusion(_) => "MUTABLE_WITH_EXCLUSION",
        }
    }
}

/// Whether `text` matches a filter in which `*` stands for any characters.
fn matches(filter: &str, text: &str) -> bool {
    let Some((first, rest)) = filter.split_once('*') else { return filter == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The leftmost place for each part leaves the most room for those after it.
    for part in middle.split('*') {
        let Some(found) = text.find(part) else { return false };
        text = &text[found + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without any regard for speed.
    fn matches_by_definition(filter: &[u8], text: &[u8]) -> bool {
        match filter.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => {
                (0..=text.len()).any(|skipped| matches_by_definition(rest, &text[skipped..]))
            }
            Some((first, rest)) => {
                text.first() == Some(first) && matches_by_definition(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn a_filter_matches_what_its_definition_says(filter in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(
                matches(&filter, &text),
                matches_by_definition(filter.as_bytes(), text.as_bytes())
            );
        }
    }

    #[test]
    fn exclusions_turn_the_rule_around() {
        let tag = |text: &str| text.parse::<ImageTag>().unwrap();
        let filters = vec!["latest".to_owned(), "dev-*".to_owned()];
        let immutable = TagMutability::ImmutableWithExclusion(filters.clone());
        assert!(!immutable.is_immutable(&tag("latest")));
        assert!(!immutable.is_immutable(&tag("dev-1")));
        assert!(immutable.is_immutable(&tag("v1")));
        let mutable = TagMutability::MutableWithExclusion(filters);
        assert!(mutable.is_immutable(&tag("dev-1")));
        assert!(!mutable.is_immutable(&tag("v1")));
    }
}
