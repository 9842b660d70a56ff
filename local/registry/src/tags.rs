//! The tags of a repository, found by their name and by their image.

use std::collections::{BTreeMap, BTreeSet};

use archweld_model::{Digest, ImageTag};

/// Both ways of finding a tag, kept in step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tags {
    by_name: BTreeMap<ImageTag, Digest>,
    /// Images without a tag are left out.
    by_image: BTreeMap<Digest, BTreeSet<ImageTag>>,
}

impl Tags {
    /// What a tag points at.
    pub(crate) fn get(&self, tag: &ImageTag) -> Option<&Digest> {
        self.by_name.get(tag)
    }

    /// All tags, by their name.
    pub(crate) fn all(&self) -> &BTreeMap<ImageTag, Digest> {
        &self.by_name
    }

    /// The tags of one image, by their name.
    pub(crate) fn of(&self, image: &Digest) -> impl ExactSizeIterator<Item = &ImageTag> {
        const NONE: &BTreeSet<ImageTag> = &BTreeSet::new();
        self.by_image.get(image).unwrap_or(NONE).iter()
    }

    /// Points a tag at an image.
    pub(crate) fn set(&mut self, tag: ImageTag, image: Digest) {
        self.remove(&tag);
        self.by_image.entry(image).or_default().insert(tag.clone());
        self.by_name.insert(tag, image);
    }

    /// Takes a tag off its image.
    pub(crate) fn remove(&mut self, tag: &ImageTag) {
        let Some(image) = self.by_name.remove(tag) else { return };
        if let Some(tags) = self.by_image.get_mut(&image) {
            tags.remove(tag);
            if tags.is_empty() {
                self.by_image.remove(&image);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_moved_is_gone_from_where_it_was() {
        let tag = |name: &str| name.parse::<ImageTag>().unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let mut tags = Tags::default();
        for name in ["latest", "v1"] {
            tags.set(tag(name), one);
        }
        tags.set(tag("latest"), two);
        assert!(tags.of(&one).eq([&tag("v1")]));
        assert!(tags.of(&two).eq([&tag("latest")]));
        assert_eq!(tags.get(&tag("latest")), Some(&two));

        tags.remove(&tag("v1"));
        tags.remove(&tag("latest"));
        tags.remove(&tag("none"));
        assert_eq!(tags, Tags::default());
    }
}
