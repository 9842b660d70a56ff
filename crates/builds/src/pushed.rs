//! What a build pushed: from here on, only digests travel.

use std::{fmt, time::Duration};

use archweld_ecr::{Reference, Repository};
use archweld_model::{
    Built, Digest, DigestError, Environment, ImageTag, Index, Platform, variable,
};

use crate::{Error, PushedError};

/// How often a just-pushed image is looked for, and how long between.
const LOOKUPS_MAX: u32 = 4;
const LOOKUP_WAIT: Duration = Duration::from_millis(500);

/// Where to look for it: the digest that the buildspec exported, or the tag that it was to push.
pub(crate) struct Pushed {
    tag: ImageTag,
    digest: Option<Digest>,
}

impl Pushed {
    pub(crate) fn new(tag: ImageTag) -> Self {
        Self { tag, digest: None }
    }

    /// Takes in what the buildspec exported; an empty value is a variable that it never set.
    ///
    /// # Errors
    /// When it exported something that is no digest.
    pub(crate) fn export(&mut self, exported: &Environment) -> Result<(), Error> {
        let value = exported.get(variable::IMAGE_DIGEST).unwrap_or_default().trim();
        if value.is_empty() {
            return Ok(());
        }
        // `docker inspect` gives digests as `<repository>@<digest>`.
        let digest = value.rsplit('@').next().unwrap_or(value);
        let problem = |error: DigestError| Error::Exported { problem: error.to_string() };
        self.digest = Some(digest.parse().map_err(problem)?);
        Ok(())
    }

    /// Whether a digest was exported.
    pub(crate) fn is_exact(&self) -> bool {
        self.digest.is_some()
    }

    fn reference(&self) -> Reference {
        self.digest.map_or_else(|| self.tag.clone().into(), Reference::Digest)
    }

    /// Finds what was pushed: the image of a platform, out of the index that BuildKit makes of an
    /// image with its attestations; the index itself of a manifest build, which has no platform.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is an index of anything else.
    pub(crate) async fn find(
        &self,
        repository: &Repository,
        platform: Option<Platform>,
    ) -> Result<Built, Error> {
        let wrong = |problem| Error::Image {
            repository: repository.name().clone(),
            image: self.reference().to_string(),
            problem,
        };
        let not_an_image =
            |error: serde_json::Error| wrong(PushedError::NotAnImage(error.to_string()));
        let mut found = None;
        for lookup in 1..=LOOKUPS_MAX {
            found = repository.image(self.reference()).await?;
            if found.is_some() || lookup == LOOKUPS_MAX {
                break;
            }
            tokio::time::sleep(LOOKUP_WAIT * lookup).await;
        }
        let image = found.ok_or_else(|| Error::NotPushed {
            repository: repository.name().clone(),
            image: self.to_string(),
        })?;
        let Some(platform) = platform.filter(|_| image.is_index()) else {
            return image.built().map_err(not_an_image);
        };
        let images = Index::parse(image.text()).and_then(|index| index.images());
        let images = images.map_err(|error| wrong(error.into()))?;
        let [only] = &images[..] else {
            return Err(wrong(PushedError::platforms(&images, platform)));
        };
        if only.platform != platform {
            return Err(wrong(PushedError::platforms(&images, platform)));
        }
        let manifest = repository.image(only.digest).await?;
        let manifest = manifest.ok_or_else(|| wrong(PushedError::Missing(only.digest)))?;
        let mut built = manifest.built().map_err(not_an_image)?;
        built.attestations.clone_from(&only.attestations);
        Ok(built)
    }
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => write!(f, ":{}", self.tag),
        }
    }
}
