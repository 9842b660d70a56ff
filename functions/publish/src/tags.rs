//! The tags of a run: which of them are set, and which stay where they are.

use std::collections::BTreeSet;

use archweld_ecr::{EcrError, Image, Reference, Repository, move_to_newest};
use archweld_model::{Digest, ImageTag, Plan, TagError};
use futures_util::future::{try_join, try_join_all};

use crate::Error;

/// A tag, and what it named when the run looked.
#[derive(Debug)]
struct Tag {
    tag: ImageTag,
    named: Option<Digest>,
}

/// The tags of a run, each with what it names already.
#[derive(Debug)]
pub(crate) struct Tags {
    own: Tag,
    fixed: Vec<Tag>,
    /// Each with its marker.
    moving: Vec<(ImageTag, Tag)>,
    built: Option<Tag>,
}

/// What became of the tags.
#[derive(Debug)]
pub(crate) struct Set {
    /// Those that name the run's index, the run's own first.
    pub(crate) set: Vec<ImageTag>,
    /// Those that stay where an earlier run of the same source set them.
    pub(crate) kept: Vec<ImageTag>,
    /// Those that belong to a newer run.
    pub(crate) ahead: Vec<ImageTag>,
}

impl Tag {
    fn new(tag: ImageTag) -> Self {
        Self { tag, named: None }
    }

    fn names_another_than(&self, index: &Image) -> bool {
        self.named.is_some_and(|digest| digest != index.digest())
    }
}

impl Tags {
    pub(crate) fn of(plan: &Plan) -> Result<Self, TagError> {
        let moving = plan
            .moving_tags
            .iter()
            .map(|moving| Ok((moving.tag.clone(), Tag::new(moving.marker(plan.sequence)?))));
        Ok(Self {
            own: Tag::new(plan.tag.clone()),
            fixed: plan.fixed_tags.iter().cloned().map(Tag::new).collect(),
            moving: moving.collect::<Result<_, _>>()?,
            built: plan.built_tag.clone().map(Tag::new),
        })
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Tag> {
        let markers = self.moving.iter_mut().map(|(_, marker)| marker);
        std::iter::once(&mut self.own).chain(&mut self.fixed).chain(markers).chain(&mut self.built)
    }

    /// What to look up.
    pub(crate) fn references(&mut self) -> Vec<Reference> {
        self.all().map(|tag| tag.tag.clone().into()).collect()
    }

    /// Takes in what each of [`Tags::references`] names.
    pub(crate) fn found(&mut self, named: impl IntoIterator<Item = Option<Digest>>) {
        for (tag, named) in self.all().zip(named) {
            tag.named = named;
        }
    }

    /// What the run's own tag names.
    pub(crate) fn own(&self) -> Option<Digest> {
        self.own.named
    }

    /// Sets them: first those that never move, then those that move.
    ///
    /// # Errors
    /// When ECR refuses one.
    pub(crate) async fn set(self, index: &Image, repository: &Repository) -> Result<Set, Error> {
        for tag in std::iter::once(&self.own).chain(&self.fixed) {
            let is_own = tag.tag == self.own.tag;
            if tag.names_another_than(index)
                && (is_own || repository.is_immutable(&tag.tag).await?)
            {
                let (repository, tag) = (repository.name().clone(), tag.tag.clone());
                return Err(EcrError::TagImmutable { repository, tag }.into());
            }
        }
        let free: Vec<_> = std::iter::once(&self.own)
            .chain(&self.fixed)
            .filter(|tag| tag.named.is_none())
            .map(|tag| (index, &tag.tag))
            .collect();
        let markers = self.moving.iter().map(|(_, marker)| marker);
        let markers = markers.filter(|marker| marker.named.is_none());
        let built = self.built.iter().filter(|built| built.named != Some(index.digest()));
        let records: Vec<&ImageTag> = markers.chain(built).map(|tag| &tag.tag).collect();
        try_join(
            repository.put_all(free),
            try_join_all(records.into_iter().map(|tag| record(repository, index, tag))),
        )
        .await?;

        let mut set = Set { set: vec![], kept: vec![], ahead: vec![] };
        let names = |tag: &Tag| !tag.names_another_than(index);
        for tag in std::iter::once(&self.own).chain(&self.fixed) {
            if names(tag) { &mut set.set } else { &mut set.kept }.push(tag.tag.clone());
        }
        let moving: BTreeSet<ImageTag> = self.moving.iter().map(|(tag, _)| tag.clone()).collect();
        if moving.is_empty() {
            return Ok(set);
        }
        let listed = repository.tags().await?;
        let newest = move_to_newest(repository, listed, &moving, Some(index)).await?;
        for (tag, marker) in self.moving {
            let tags = if newest.get(&tag) == Some(&index.digest()) {
                &mut set.set
            } else if names(&marker) {
                &mut set.ahead
            } else {
                &mut set.kept
            };
            tags.push(tag);
        }
        Ok(set)
    }
}

/// Sets a tag that is a record for other runs. Where the repository lets no tag go, the record that
/// is there is as good: it is of an equal run.
async fn record(repository: &Repository, index: &Image, tag: &ImageTag) -> Result<(), EcrError> {
    match repository.put(index, tag).await {
        Err(EcrError::TagImmutable { .. }) => Ok(()),
        other => other,
    }
}
