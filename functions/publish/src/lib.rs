//! Confirms a run's index and points the image's tags at it.
//!
//! No tag but the run's own is touched before the index is known to hold exactly the images that
//! the run built, each of them for the platform that its entry states. Every step may be repeated:
//! it then finds its work done.

mod images;
mod tags;

use archweld_ecr::{EcrError, Image, Reference, Repository};
use archweld_model::{
    BuildOutcome, Built, Child, Digest, ErrorName, ImageTag, Index, IndexError, Named, Plan,
    Platform, Published, PublishedPlatform, RepositoryName, TagError, annotation, media_type,
};
use archweld_runtime::{CallError, about_run};
use aws_types::SdkConfig;
use serde::Deserialize;

use images::Verified;
use tags::Tags;

/// What the state machine sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The plan of the run.
    pub plan: Plan,
    /// How the builds of the platforms ended, as far as they were built.
    pub images: Vec<BuildOutcome>,
    /// How the manifest build ended, where there was one.
    pub index: Option<BuildOutcome>,
}

/// The services that the function calls.
#[derive(Debug, Clone)]
pub struct Clients {
    config: SdkConfig,
    ecr: aws_sdk_ecr::Client,
}

/// Why nothing was published, or not under every tag.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A planned platform without an image.
    #[error("no image of {0} was built")]
    Missing(Platform),
    /// An image or an index that was reported is not in the repository.
    #[error("{what} {digest} is not in repository {repository}")]
    NotFound {
        /// What is missing.
        what: String,
        /// The repository.
        repository: RepositoryName,
        /// Its digest.
        digest: Digest,
    },
    /// What should be the image of a platform is none.
    #[error("{digest}, built for {platform}, is not an image: {problem}")]
    NotAnImage {
        /// What was pushed.
        digest: Digest,
        /// What it was built for.
        platform: Platform,
        /// What is wrong with it.
        problem: String,
    },
    /// An image is not for the platform that it was built for.
    #[error("image {digest} was built for {platform}, but {found}")]
    WrongPlatform {
        /// The image.
        digest: Digest,
        /// What it was built for.
        platform: Platform,
        /// What it is instead, and where that is said.
        found: String,
    },
    /// The index is not the run's.
    #[error("{repository}:{tag}: {error}")]
    Index {
        /// The repository.
        repository: RepositoryName,
        /// The run's own tag.
        tag: ImageTag,
        /// What is wrong with it.
        error: IndexError,
    },
    /// The run's own tag does not point at the index that the manifest build pushed.
    #[error("{repository}:{tag} names {found}, expected the index that was pushed, {expected}")]
    Changed {
        /// The repository.
        repository: RepositoryName,
        /// The run's own tag.
        tag: ImageTag,
        /// A digest, or `nothing`.
        found: String,
        /// What the manifest build reported.
        expected: Digest,
    },
    /// A tag that never moves is of another commit.
    #[error("tag {tag} of repository {repository} is of commit {found} already, and never moves")]
    AnotherCommit {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: ImageTag,
        /// The commit.
        found: String,
    },
    /// A tag that no image can have.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// ECR refuses.
    #[error(transparent)]
    Ecr(#[from] EcrError),
    /// The config of an image cannot be had.
    #[error("image {digest} of {platform}: config {config}: {reason}")]
    Config {
        /// The image.
        digest: Digest,
        /// What it was built for.
        platform: Platform,
        /// The config.
        config: Digest,
        /// What went wrong.
        reason: Box<BlobError>,
    },
}

/// Why a blob cannot be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BlobError {
    /// It is not what its digest says.
    #[error("{0}")]
    Wrong(String),
    /// ECR does not say where it is.
    #[error(transparent)]
    Ecr(#[from] EcrError),
    /// The download failed.
    #[error(transparent)]
    Download(#[from] CallError),
}

impl Named for BlobError {
    fn name(&self) -> ErrorName {
        match self {
            Self::Wrong(_) => ErrorName::IndexMismatch,
            Self::Ecr(error) => error.name(),
            Self::Download(error) => error.name(),
        }
    }
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Missing(_) | Self::NotFound { .. } => ErrorName::ImageNotFound,
            Self::WrongPlatform { .. } => ErrorName::ImageWrongPlatform,
            Self::NotAnImage { .. } | Self::Index { .. } | Self::Changed { .. } => {
                ErrorName::IndexMismatch
            }
            Self::AnotherCommit { .. } => ErrorName::PublishTagImmutable,
            Self::Tag(_) => ErrorName::PlanInvalid,
            Self::Ecr(error) => error.name(),
            Self::Config { reason, .. } => reason.name(),
        }
    }
}

impl Clients {
    /// Clients of one configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self { config: config.clone(), ecr: archweld_ecr::patient_client(config) }
    }
}

/// Publishes the index of a run.
///
/// # Errors
/// `Index.Mismatch`, `Image.WrongPlatform` and `Image.NotFound` before any tag but the run's own
/// was touched; `Publish.TagImmutable` and `Publish.Rejected` where ECR refuses a tag;
/// `Service.Unavailable`, which the state machine retries.
pub async fn handle(request: Request, clients: &Clients) -> Result<Published, Error> {
    let Request { plan, images, index: pushed } = request;
    about_run(&plan.run);
    let builds = planned_images(&plan, images)?;
    let repository = Repository::new(clients.ecr.clone(), plan.repository.clone());
    // A manifest build has made the index, or an earlier run of these very images.
    let made = pushed.as_ref().map(|outcome| outcome.built.digest);
    let reused = plan.index.as_ref().map(|index| index.digest);

    let mut tags = Tags::of(&plan)?;
    let mut references: Vec<Reference> = vec![];
    references.extend(builds.iter().map(|built| Reference::from(built.digest)));
    references.extend(made.or(reused).map(Reference::from));
    references.extend(tags.references());
    let mut found = repository.images(&references).await?.into_iter();
    let manifests: Vec<Option<Image>> = found.by_ref().take(builds.len()).collect();
    let index = match made.or(reused) {
        None => None,
        Some(digest) => Some(found.next().flatten().ok_or_else(|| Error::NotFound {
            what: "index".to_owned(),
            repository: plan.repository.clone(),
            digest,
        })?),
    };
    tags.found(found);

    let verified = images::verify(&plan, builds, manifests, &repository, clients).await?;
    let index = confirmed(&plan, index, &verified)?;
    if let Some(expected) = made
        && tags.own() != Some(expected)
    {
        return Err(Error::Changed {
            repository: plan.repository,
            tag: plan.tag,
            found: tags.own().map_or_else(|| "nothing".to_owned(), |digest| digest.to_string()),
            expected,
        });
    }
    let set = tags.set(&index, &repository).await?;
    tracing::info!(
        image.name = %plan.image,
        image.digest = %index.digest(),
        tags.set = set.set.len(),
        tags.kept = set.kept.len(),
        tags.ahead = set.ahead.len(),
        "index published"
    );
    Ok(Published {
        repository_uri: format!("{}/{}", plan.registry, plan.repository),
        image: plan.image,
        run: plan.run,
        digest: index.digest(),
        media_type: index.media_type().to_owned(),
        tags: set.set,
        tags_kept: set.kept,
        tags_ahead: set.ahead,
        tags_left_out: plan.tags_left_out,
        platforms: verified
            .into_iter()
            .zip(plan.platforms)
            .map(|(verified, planned)| PublishedPlatform {
                platform: planned.platform,
                digest: verified.child.built.digest,
                size_bytes: verified.child.built.size_bytes,
                reused: planned.reused.is_some(),
                executable: verified.executable,
            })
            .collect(),
    })
}

/// The images of the planned platforms, built now or by an earlier run, in the plan's order.
fn planned_images(plan: &Plan, images: Vec<BuildOutcome>) -> Result<Vec<Built>, Error> {
    plan.platforms
        .iter()
        .map(|planned| {
            let outcome = images.iter().find(|outcome| outcome.target == planned.build.target);
            let built = outcome.map(|outcome| &outcome.built).or(planned.reused.as_ref());
            built.cloned().ok_or(Error::Missing(planned.platform))
        })
        .collect()
}

/// The index of exactly these images: the one that was made, or one assembled now.
fn confirmed(plan: &Plan, made: Option<Image>, verified: &[Verified]) -> Result<Image, Error> {
    let mismatch =
        |error| Error::Index { repository: plan.repository.clone(), tag: plan.tag.clone(), error };
    let children: Vec<Child> = verified.iter().map(|verified| verified.child.clone()).collect();
    let Some(made) = made else {
        let mut annotations = plan.annotations.clone();
        let created = verified.iter().filter_map(|verified| verified.created).max();
        annotations
            .extend(created.map(|created| (annotation::CREATED.to_owned(), created.to_string())));
        let index = Index::assemble(&children, annotations);
        let text = serde_json::to_string(&index)
            .map_err(|error| mismatch(IndexError::NotAnIndex(error.to_string())))?;
        let media_type = index.media_type().unwrap_or(media_type::OCI_INDEX).to_owned();
        return Ok(Image::new(text, media_type));
    };
    let index = Index::parse(made.text()).map_err(mismatch)?;
    index.confirm(&children).map_err(mismatch)?;
    Ok(made)
}
