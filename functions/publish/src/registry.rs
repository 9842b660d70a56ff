//! One repository of ECR's.

use archweld_model::{Digest, ImageTag, media_type};
use archweld_runtime::CallError;
use aws_sdk_ecr::{Client, operation::put_image::PutImageError, types::ImageIdentifier};

use crate::Error;

pub(crate) struct Registry<'a> {
    ecr: &'a Client,
    repository: &'a str,
}

/// An index to put under tags.
pub(crate) struct Put {
    text: String,
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

impl Put {
    pub(crate) fn new(text: String, media_type: String) -> Self {
        Self { digest: Digest::of(text.as_bytes()), text, media_type }
    }
}

impl<'a> Registry<'a> {
    pub(crate) fn new(ecr: &'a Client, repository: &'a str) -> Self {
        Self { ecr, repository }
    }

    /// The bytes of an index, which ECR never converts when it is asked for by digest.
    pub(crate) async fn by_digest(&self, digest: Digest) -> Result<String, Error> {
        let id = ImageIdentifier::builder().image_digest(digest.to_string()).build();
        let image = self.get(id).await?.and_then(|image| image.image_manifest);
        image.filter(|text| Digest::of(text.as_bytes()) == digest).ok_or_else(|| Error::NotFound {
            repository: self.repository.to_owned(),
            digest: digest.to_string(),
        })
    }

    /// What a tag points at.
    pub(crate) async fn digest_of(&self, tag: &ImageTag) -> Result<Option<Digest>, Error> {
        let id = ImageIdentifier::builder().image_tag(tag.as_str()).build();
        let image = self.get(id).await?;
        Ok(image
            .and_then(|image| image.image_id)
            .and_then(|id| id.image_digest)
            .and_then(|digest| digest.parse().ok()))
    }

    async fn get(
        &self,
        id: ImageIdentifier,
    ) -> Result<Option<aws_sdk_ecr::types::Image>, CallError> {
        let answer = self
            .ecr
            .batch_get_image()
            .repository_name(self.repository)
            .image_ids(id)
            .set_accepted_media_types(Some(media_type::ALL.map(str::to_owned).to_vec()))
            .send()
            .await
            .map_err(|error| CallError::new("ecr:BatchGetImage", &error))?;
        Ok(answer.images.and_then(|images| images.into_iter().next()))
    }

    /// Points a tag at an index. Done already counts as done.
    pub(crate) async fn put(&self, put: &Put, tag: &ImageTag) -> Result<(), Error> {
        let sent = self
            .ecr
            .put_image()
            .repository_name(self.repository)
            .image_manifest(&put.text)
            .image_manifest_media_type(&put.media_type)
            .image_digest(put.digest.to_string())
            .image_tag(tag.as_str())
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        match error.as_service_error() {
            Some(PutImageError::ImageAlreadyExistsException(_)) => Ok(()),
            // ECR says so even of an equal digest.
            Some(PutImageError::ImageTagAlreadyExistsException(_)) => {
                if self.digest_of(tag).await? == Some(put.digest) {
                    return Ok(());
                }
                let repository = self.repository.to_owned();
                Err(Error::TagImmutable { repository, tag: tag.clone() })
            }
            _ => {
                let reason = CallError::new("ecr:PutImage", &error);
                if reason.is_unavailable() {
                    return Err(reason.into());
                }
                let repository = self.repository.to_owned();
                Err(Error::Refused { repository, tag: tag.clone(), reason })
            }
        }
    }
}
