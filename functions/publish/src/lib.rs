//! Confirms a run's index and points the image's tags at it.
//!
//! No tag but the run's own is touched before the index is known to hold exactly the images that
//! the run built. Every step may be repeated: it then finds its work done.

mod registry;

use archweld_model::{
    BuildOutcome, Built, ErrorName, ImageTag, Index, IndexError, Named, Plan, Platform, Published,
    PublishedPlatform,
};
use archweld_runtime::CallError;
use aws_sdk_ecr::Client;
use serde::Deserialize;

use registry::{Put, Registry};

/// What the state machine sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The plan of the run.
    pub plan: Plan,
    /// How the platforms' builds ended.
    pub images: Vec<BuildOutcome>,
    /// How the manifest build ended, where there was one.
    pub index: Option<BuildOutcome>,
}

/// Why nothing was published, or not under every tag.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A planned platform without an image.
    #[error("no image of {0} was built")]
    Missing(Platform),
    /// The index is not the run's.
    #[error("{repository}:{tag}: {error}")]
    Index {
        /// The repository.
        repository: String,
        /// The run's own tag.
        tag: ImageTag,
        /// What is wrong with it.
        error: IndexError,
    },
    /// The manifest build reported an index that is not in the repository.
    #[error("index {digest} is not in repository {repository}")]
    NotFound {
        /// The repository.
        repository: String,
        /// The index.
        digest: String,
    },
    /// A tag that may not move names another image.
    #[error("tag {tag} of repository {repository} is immutable and names another image")]
    TagImmutable {
        /// The repository.
        repository: String,
        /// The tag.
        tag: ImageTag,
    },
    /// ECR refuses for a reason that no retry mends.
    #[error("tag {tag} of repository {repository}: {reason}")]
    Refused {
        /// The repository.
        repository: String,
        /// The tag.
        tag: ImageTag,
        /// What ECR says.
        reason: CallError,
    },
    /// A call to ECR failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Missing(_) | Self::NotFound { .. } => ErrorName::ImageNotFound,
            Self::Index { .. } => ErrorName::IndexMismatch,
            Self::TagImmutable { .. } => ErrorName::PublishTagImmutable,
            Self::Refused { .. } => ErrorName::PublishRejected,
            Self::Call(error) => error.name(),
        }
    }
}

/// Publishes the index of a run.
///
/// # Errors
/// `Index.Mismatch` and `Image.NotFound` before any tag but the run's own was touched;
/// `Publish.TagImmutable` and `Publish.Rejected` where ECR refuses a tag;
/// `Service.Unavailable`, which the state machine retries.
pub async fn handle(request: Request, ecr: &Client) -> Result<Published, Error> {
    let Request { plan, images, index } = request;
    let images = planned_images(&plan, &images)?;
    let registry = Registry::new(ecr, plan.repository.as_str());
    let mismatch = |error| Error::Index {
        repository: plan.repository.to_string(),
        tag: plan.tag.clone(),
        error,
    };

    let text = match &index {
        Some(outcome) => registry.by_digest(outcome.built.digest).await?,
        None => {
            let assembled = Index::assemble(&images).map_err(mismatch)?;
            serde_json::to_string(&assembled)
                .map_err(|error| mismatch(IndexError::NotAnIndex(error.to_string())))?
        }
    };
    let parsed = Index::parse(&text).map_err(mismatch)?;
    parsed.confirm(&images).map_err(mismatch)?;
    let media_type = parsed.media_type().unwrap_or_default().to_owned();
    let put = Put::new(text, media_type);
    if index.is_none() {
        registry.put(&put, &plan.tag).await?;
    }

    let (mut tags, mut tags_kept) = (vec![plan.tag.clone()], vec![]);
    for tag in &plan.fixed_tags {
        match registry.digest_of(tag).await? {
            Some(digest) if digest != put.digest => {
                // Another run of the same source came first; a fixed tag never moves.
                tags_kept.push(tag.clone());
                continue;
            }
            Some(_) => {}
            None => registry.put(&put, tag).await?,
        }
        tags.push(tag.clone());
    }
    for tag in &plan.moving_tags {
        registry.put(&put, tag).await?;
        tags.push(tag.clone());
    }
    tracing::info!(
        run = %plan.run,
        image.name = %plan.image,
        image.digest = %put.digest,
        tags = tags.len(),
        "index published"
    );
    Ok(Published {
        repository_uri: format!("{}/{}", plan.registry, plan.repository),
        image: plan.image,
        run: plan.run,
        digest: put.digest,
        media_type: put.media_type,
        tags,
        tags_kept,
        platforms: images
            .into_iter()
            .map(|(platform, built)| PublishedPlatform {
                platform,
                digest: built.digest,
                size_bytes: built.size_bytes,
            })
            .collect(),
    })
}

/// The images of the planned platforms, in the plan's order.
fn planned_images(plan: &Plan, images: &[BuildOutcome]) -> Result<Vec<(Platform, Built)>, Error> {
    plan.platforms
        .iter()
        .map(|planned| {
            images
                .iter()
                .find(|outcome| outcome.target == planned.build.target)
                .map(|outcome| (planned.platform, outcome.built.clone()))
                .ok_or(Error::Missing(planned.platform))
        })
        .collect()
}
