//! The order of runs: whose image a moving tag belongs to.
//!
//! ECR has no compare-and-swap, so a run says what it has by a tag of its own, a [`Marker`], before
//! it moves a tag. The newest marker tells where the tag belongs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ImageTag, TagError,
    tag::{CHARACTERS_MAX, RESERVED_PREFIX},
};

/// Orders runs: the higher one has the newer source. By convention, the time when the source became
/// what it is, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Sequence(u64);

/// A sequence that JSON's numbers cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence {0} is too large, expected at most {max}", max = Sequence::MAX.0)]
pub struct SequenceError(u64);

impl Sequence {
    /// The state machine's JSONata knows whole numbers up to here.
    pub const MAX: Self = Self((1 << 53) - 1);
}

impl TryFrom<u64> for Sequence {
    type Error = SequenceError;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(SequenceError(number)) }
    }
}

impl From<Sequence> for u64 {
    fn from(sequence: Sequence) -> Self {
        sequence.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A released version (<https://semver.org/spec/v2.0.0.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// `1` of `1.2.3`
    pub major: u32,
    /// `2` of `1.2.3`
    pub minor: u32,
    /// `3` of `1.2.3`
    pub patch: u32,
}

impl Version {
    /// Reads a git tag: `v1.2.3` or `1.2.3`, with or without build metadata. A pre-release is no
    /// released version.
    pub fn of_git_tag(tag: &str) -> Option<Self> {
        let text = tag.strip_prefix('v').unwrap_or(tag);
        let release = text.split_once('+').map_or(text, |(release, _)| release);
        Self::parse(release, '.')
    }

    fn parse(text: &str, separator: char) -> Option<Self> {
        let mut numbers = text.split(separator).map(number);
        let version =
            Self { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
        numbers.next().is_none().then_some(version)
    }
}

/// A number in its one spelling: digits, with no zero in front.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

/// Where a run stands among those that a moving tag may belong to: the higher version first where
/// the tag follows versions, then the later sequence, then the later of those that built the same
/// source anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    /// The version, where the tag follows versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The run's sequence.
    pub sequence: Sequence,
    /// When the run began, in milliseconds since 1970, where it builds everything anew. Runs of one
    /// sequence are of one source; what counts among them is who saw the newest base images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Sequence>,
}

/// A tag that says: the image here was verified, and `tag` belongs to it unless a newer marker of
/// the same tag is found. Written `archweld.<tag>.<rank>`, and set before the tag is moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    /// The moving tag.
    pub tag: ImageTag,
    /// The rank of the run.
    pub rank: Rank,
}

impl Marker {
    /// The marker as a tag.
    ///
    /// # Errors
    /// When the moving tag is so long that its marker is no tag.
    pub fn to_tag(&self) -> Result<ImageTag, TagError> {
        let text = self.to_string();
        let excess = text.len().saturating_sub(CHARACTERS_MAX);
        text.parse().map_err(|_| TagError::TooLongToMove { tag: self.tag.to_string(), excess })
    }

    /// Reads a tag that may be a marker.
    pub fn of(tag: &ImageTag) -> Option<Self> {
        let (tag, rank) = tag.as_str().strip_prefix(RESERVED_PREFIX)?.rsplit_once('.')?;
        let (version, sequence) = match rank.rsplit_once('-') {
            None => (None, rank),
            Some((version, sequence)) => (Some(Version::parse(version, '-')?), sequence),
        };
        let number = |text| Sequence::try_from(number::<u64>(text)?).ok();
        let (sequence, rebuilt) = match sequence.split_once('_') {
            None => (number(sequence)?, None),
            Some((sequence, rebuilt)) => (number(sequence)?, Some(number(rebuilt)?)),
        };
        Some(Self { tag: tag.parse().ok()?, rank: Rank { version, sequence, rebuilt } })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{RESERVED_PREFIX}{}.", self.tag)?;
        if let Some(Version { major, minor, patch }) = self.rank.version {
            write!(f, "{major}-{minor}-{patch}-")?;
        }
        write!(f, "{}", self.rank.sequence)?;
        self.rank.rebuilt.map_or(Ok(()), |rebuilt| write!(f, "_{rebuilt}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker(tag: &str, version: Option<[u32; 3]>, sequence: u64) -> Marker {
        let version = version.map(|[major, minor, patch]| Version { major, minor, patch });
        let sequence = sequence.try_into().unwrap();
        Marker { tag: tag.parse().unwrap(), rank: Rank { version, sequence, rebuilt: None } }
    }

    fn rebuilt(mut marker: Marker, at: u64) -> Marker {
        marker.rank.rebuilt = Some(at.try_into().unwrap());
        marker
    }

    #[test]
    fn a_marker_reads_as_its_tag_and_rank() {
        let of_a_branch = marker("latest", None, 1_763_936_400_000);
        assert_eq!(of_a_branch.to_string(), "archweld.latest.1763936400000");
        let of_versions = marker("1.2", Some([1, 2, 30]), 7);
        assert_eq!(of_versions.to_string(), "archweld.1.2.1-2-30-7");
        let anew = rebuilt(marker("latest", None, 7), 8);
        assert_eq!(anew.to_string(), "archweld.latest.7_8");
    }

    #[test]
    fn the_higher_version_is_ahead_of_the_later_sequence() {
        let [old, new] = [marker("1", Some([1, 2, 10]), 9), marker("1", Some([1, 3, 0]), 8)];
        assert!(old.rank < new.rank);
        assert!(marker("latest", None, 9).rank < marker("latest", None, 10).rank);
    }

    #[test]
    fn a_source_that_is_built_anew_is_ahead_of_itself_and_behind_a_newer_one() {
        let source = marker("latest", None, 7);
        let [first, second] = [rebuilt(source.clone(), 100), rebuilt(source.clone(), 101)];
        assert!(source.rank < first.rank && first.rank < second.rank);
        assert!(second.rank < marker("latest", None, 8).rank);
    }

    #[test]
    fn other_tags_are_no_markers() {
        for tag in [
            "latest",
            "archweld.latest",
            "archweld.latest.",
            "archweld.latest.07",
            "archweld.latest.1-2-7",
            "archweld.latest.1-02-3-7",
            "archweld.latest.9007199254740992",
            "archweld.latest.7_",
            "archweld.latest.7_08",
            "archweld.latest.7_8_9",
            "archweld.built.0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(Marker::of(&tag.parse().unwrap()), None, "{tag}");
        }
    }

    #[test]
    fn a_tag_that_leaves_no_room_for_its_marker_is_refused() {
        let longest = marker(&"t".repeat(102), None, Sequence::MAX.0);
        assert_eq!(longest.to_tag().unwrap().as_str().len(), 128);
        let error = marker(&"t".repeat(103), None, Sequence::MAX.0).to_tag().unwrap_err();
        assert!(error.to_string().contains("is 1 characters too long"), "{error}");
    }

    proptest! {
        #[test]
        fn a_marker_is_read_as_it_was_written(
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,40}",
            version: Option<[u32; 3]>,
            sequence in 0..=Sequence::MAX.0,
            anew in proptest::option::of(0..=Sequence::MAX.0),
        ) {
            let mut marker = marker(&tag, version, sequence);
            if let Some(at) = anew {
                marker = rebuilt(marker, at);
            }
            prop_assert_eq!(Marker::of(&marker.to_tag().unwrap()), Some(marker));
        }
    }
}
