//! One repository of ECR's.

use archweld_model::{Digest, ImageTag, media_type};
use archweld_runtime::CallError;
use aws_sdk_ecr::{
    Client,
    operation::put_image::PutImageError,
    types::{Image, ImageFailureCode, ImageIdentifier},
};

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
        let image = self.get(id, &digest.to_string()).await?;
        let text = image.and_then(|image| image.image_manifest);
        text.filter(|text| Digest::of(text.as_bytes()) == digest).ok_or_else(|| Error::NotFound {
            repository: self.repository.to_owned(),
            digest: digest.to_string(),
        })
    }

    /// What a tag points at.
    pub(crate) async fn digest_of(&self, tag: &ImageTag) -> Result<Option<Digest>, Error> {
        let id = ImageIdentifier::builder().image_tag(tag.as_str()).build();
        let Some(image) = self.get(id, tag.as_str()).await? else { return Ok(None) };
        let digest = image.image_id.and_then(|id| id.image_digest).unwrap_or_default();
        match digest.parse() {
            Ok(digest) => Ok(Some(digest)),
            Err(error) => Err(self.unreadable(tag.as_str(), error)),
        }
    }

    /// An image, or `None` where ECR is sure that there is none: a tag that cannot be read for
    /// another reason may well be set.
    async fn get(&self, id: ImageIdentifier, name: &str) -> Result<Option<Image>, Error> {
        let answer = self
            .ecr
            .batch_get_image()
            .repository_name(self.repository)
            .image_ids(id)
            .set_accepted_media_types(Some(media_type::ALL.map(str::to_owned).to_vec()))
            .send()
            .await
            .map_err(|error| CallError::new("ecr:BatchGetImage", &error))?;
        if let Some(image) = answer.images.and_then(|images| images.into_iter().next()) {
            return Ok(Some(image));
        }
        let failures = answer.failures.unwrap_or_default();
        match failures.first() {
            Some(failure) if failure.failure_code() == Some(&ImageFailureCode::ImageNotFound) => {
                Ok(None)
            }
            Some(failure) => {
                let code = failure.failure_code().map_or("unknown failure", |code| code.as_str());
                let reason = failure.failure_reason().unwrap_or_default();
                Err(self.unreadable(name, format!("{code}: {reason}")))
            }
            None => Err(self.unreadable(name, "ECR answered neither an image nor a failure")),
        }
    }

    fn unreadable(&self, image: &str, problem: impl ToString) -> Error {
        let (repository, image) = (self.repository.to_owned(), image.to_owned());
        Error::Unreadable { repository, image, problem: problem.to_string() }
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
