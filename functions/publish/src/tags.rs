//! The tags of a run: which of them are set, and which stay where they are.

use std::collections::BTreeSet;

use archweld_ecr::{EcrError, IfTaken, Image, Put, Reference, Repository, move_to_newest, newest};
use archweld_model::{Commit, Digest, ImageTag, Index, Plan, TagError, annotation};
use futures_util::future::try_join;

use crate::Error;

/// A tag, and what it named when the run looked.
#[derive(Debug)]
struct Tag {
    tag: ImageTag,
    named: Option<Image>,
}

/// The tags of a run, each with what it names already.
#[derive(Debug)]
pub(crate) struct Tags {
    own: Tag,
    fixed: Vec<Tag>,
    /// Each with its marker.
    moving: Vec<(ImageTag, Tag)>,
    built: Option<Tag>,
    commit: Option<Commit>,
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

    fn digest(&self) -> Option<Digest> {
        self.named.as_ref().map(Image::digest)
    }

    fn names_another_than(&self, index: &Image) -> bool {
        self.digest().is_some_and(|digest| digest != index.digest())
    }

    /// The commit of what it names, where that is told and is another than this.
    fn names_another_commit(&self, commit: Option<&Commit>) -> Option<String> {
        let index = Index::parse(self.named.as_ref()?.text()).ok()?;
        let (found, expected) = (index.annotations().get(annotation::REVISION)?, commit?.as_str());
        let is_same = found.starts_with(expected) || expected.starts_with(found.as_str());
        (!is_same).then(|| found.clone())
    }
}

impl Tags {
    pub(crate) fn of(plan: &Plan) -> Result<Self, TagError> {
        let moving = plan
            .moving_tags
            .iter()
            .map(|moving| Ok((moving.tag.clone(), Tag::new(moving.marker()?))))
            .collect::<Result<_, TagError>>()?;
        Ok(Self {
            own: Tag::new(plan.tag.clone()),
            fixed: plan.fixed_tags.iter().cloned().map(Tag::new).collect(),
            moving,
            built: plan.built_tag.clone().filter(|_| plan.record).map(Tag::new),
            commit: plan.commit.clone(),
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
    pub(crate) fn found(&mut self, named: impl IntoIterator<Item = Option<Image>>) {
        for (tag, named) in self.all().zip(named) {
            tag.named = named;
        }
    }

    /// What the run's own tag names.
    pub(crate) fn own(&self) -> Option<Digest> {
        self.own.digest()
    }

    /// The run's own tag and the fixed ones.
    fn never_moving(&self) -> impl Iterator<Item = &Tag> {
        std::iter::once(&self.own).chain(&self.fixed)
    }

    /// Sets them: first those that never move, then those that move. A run that is refused one of the
    /// first has announced none of the others.
    ///
    /// # Errors
    /// When ECR refuses one, or one that never moves is of another source.
    pub(crate) async fn set(self, index: &Image, repository: &Repository) -> Result<Set, Error> {
        self.check_taken(index, repository).await?;
        let put = |tag, if_taken| Put { image: index, tag, if_taken };
        let free = self.never_moving().filter(|tag| tag.named.is_none());
        let free = free.map(|tag| put(&tag.tag, IfTaken::Refuse));
        repository.put_all(free.collect()).await?;
        // Where an equal run is quicker and the repository lets no tag go, its marker is as good.
        let markers = self.moving.iter().filter(|(_, marker)| marker.named.is_none());
        let markers = markers.map(|(_, marker)| put(&marker.tag, IfTaken::Leave));
        repository.put_all(markers.collect()).await?;

        let mut set = Set { set: vec![], kept: vec![], ahead: vec![] };
        for tag in self.never_moving() {
            let kept = tag.names_another_than(index);
            if kept { &mut set.kept } else { &mut set.set }.push(tag.tag.clone());
        }
        self.set_moving(index, repository, &mut set).await?;
        Ok(set)
    }

    /// Confirms that what never moves is free, this index's already, or an equal run's to keep.
    async fn check_taken(&self, index: &Image, repository: &Repository) -> Result<(), Error> {
        let mut rules = None;
        for tag in self.never_moving().filter(|tag| tag.names_another_than(index)) {
            let (repository_name, name) = (repository.name().clone(), tag.tag.clone());
            if let Some(found) = tag.names_another_commit(self.commit.as_ref()) {
                return Err(Error::AnotherCommit { repository: repository_name, tag: name, found });
            }
            let is_own = tag.tag == self.own.tag;
            if rules.is_none() && !is_own {
                rules = Some(repository.tag_rules().await?);
            }
            if is_own || rules.as_ref().is_some_and(|rules| rules.is_immutable(&tag.tag)) {
                let (repository, tag) = (repository_name, name);
                return Err(EcrError::TagImmutable { repository, tag }.into());
            }
        }
        Ok(())
    }

    async fn set_moving(
        &self,
        index: &Image,
        repository: &Repository,
        set: &mut Set,
    ) -> Result<(), Error> {
        let moving: BTreeSet<ImageTag> = self.moving.iter().map(|(tag, _)| tag.clone()).collect();
        let mut listed =
            if moving.is_empty() { Default::default() } else { repository.tags().await? };
        for (_, marker) in self.moving.iter().filter(|(_, it)| !it.names_another_than(index)) {
            // It is there, whether the listing shows it yet or not.
            listed.insert(marker.tag.clone(), index.digest());
        }
        // Later runs of the same source find the images that the tags are at, and no others.
        let found = newest(&listed, &moving);
        let is_newest = moving.iter().all(|tag| found.get(tag) == Some(&index.digest()));
        let record =
            self.built.iter().filter(|built| is_newest && built.digest() != Some(index.digest()));
        let record = record
            .map(|built| Put { image: index, tag: &built.tag, if_taken: IfTaken::Leave })
            .collect();
        let (newest, ()) = try_join(
            move_to_newest(repository, listed, &moving, Some(index)),
            repository.put_all(record),
        )
        .await?;
        for (tag, marker) in &self.moving {
            let tags = if newest.get(tag) == Some(&index.digest()) {
                &mut set.set
            } else if marker.names_another_than(index) {
                &mut set.kept
            } else {
                &mut set.ahead
            };
            tags.push(tag.clone());
        }
        Ok(())
    }
}
