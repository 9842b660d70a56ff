//! Which tags may move.

use archweld_model::{ImageTag, matches_wildcard};
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
        let excluded =
            |filters: &[String]| filters.iter().any(|f| matches_wildcard(f, tag.as_str()));
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

#[cfg(test)]
mod tests {
    use super::*;

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
