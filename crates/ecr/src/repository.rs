//! The calls.

use std::{collections::BTreeMap, slice, time::Duration};

use archweld_model::{
    Digest, DigestError, ErrorName, ImageTag, Named, RepositoryName, matches_wildcard, media_type,
};
use archweld_runtime::CallError;
use aws_sdk_ecr::{
    Client,
    config::{Builder, retry::RetryConfig, timeout::TimeoutConfig},
    error::SdkError,
    operation::{
        batch_get_image::BatchGetImageOutput, list_images::ListImagesError,
        put_image::PutImageError,
    },
    types::{
        Image as Answered, ImageFailureCode, ImageIdentifier, ImageTagMutability, ListImagesFilter,
        Repository as Described, TagStatus,
    },
};
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_types::SdkConfig;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use crate::{Image, Reference};

/// How many images one `BatchGetImage` may ask for.
const BATCH_MAX: usize = 100;
/// How many tags one `ListImages` may answer.
const PAGE_MAX: i32 = 1_000;
/// How many images are put at once: an account may put ten a second.
const PUTS_MAX: usize = 8;

/// How often and how long a call is repeated: an account may put ten images a second, and many runs
/// may end at once.
const ATTEMPTS_MAX: u32 = 8;
const BACKOFF_MAX: Duration = Duration::from_secs(4);
const CALL_MAX: Duration = Duration::from_secs(30);

/// A client for those who put images: it has the patience that ECR's rate limit asks for.
pub fn patient_client(config: &SdkConfig) -> Client {
    let retry =
        RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_max_backoff(BACKOFF_MAX);
    let timeouts = config.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled);
    let timeouts = timeouts.to_builder().operation_timeout(CALL_MAX).build();
    // The backoff is what protects ECR: a budget of retries would give up too early.
    let budget = RetryPartition::custom("ecr").token_bucket(TokenBucket::unlimited()).build();
    let config =
        Builder::from(config).retry_config(retry).retry_partition(budget).timeout_config(timeouts);
    Client::from_conf(config.build())
}

/// One repository.
#[derive(Debug, Clone)]
pub struct Repository {
    ecr: Client,
    name: RepositoryName,
}

/// What a repository does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EcrError {
    /// ECR does not say what is there.
    #[error("image {image} of repository {repository}: {problem}")]
    Unreadable {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        image: String,
        /// What ECR says.
        problem: String,
    },
    /// A tag that may not move names another image.
    #[error("tag {tag} of repository {repository} is immutable and names another image")]
    TagImmutable {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: ImageTag,
    },
    /// An image has as many tags as ECR allows.
    #[error(
        "tag {tag} of repository {repository}: its image has as many tags as ECR allows; build it \
         anew with `force`, or delete some of its `archweld.` tags: {reason}"
    )]
    TooManyTags {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: ImageTag,
        /// What ECR says.
        reason: CallError,
    },
    /// ECR refuses an image for a reason that no retry mends.
    #[error("tag {tag} of repository {repository}: {reason}")]
    Refused {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: ImageTag,
        /// What ECR says.
        reason: CallError,
    },
    /// More and more runs moved the tags meanwhile.
    #[error("tags {tags} of repository {repository} are moved by others all the time")]
    Unsettled {
        /// The repository.
        repository: RepositoryName,
        /// The tags.
        tags: String,
    },
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Named for EcrError {
    fn name(&self) -> ErrorName {
        match self {
            Self::Unreadable { .. } => ErrorName::ServiceRejected,
            Self::TagImmutable { .. } => ErrorName::PublishTagImmutable,
            Self::TooManyTags { .. } | Self::Refused { .. } => ErrorName::PublishRejected,
            Self::Unsettled { .. } => ErrorName::ServiceUnavailable,
            Self::Call(error) => error.name(),
        }
    }
}

impl Repository {
    /// A repository of the registry that the client reaches.
    pub fn new(ecr: Client, name: RepositoryName) -> Self {
        Self { ecr, name }
    }

    /// Its name.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Images, each in the place of its reference; `None` where ECR is sure that there is none. One
    /// call for a hundred of them.
    ///
    /// # Errors
    /// When an image cannot be read for another reason: a tag that cannot be read may well be set.
    pub async fn images(&self, references: &[Reference]) -> Result<Vec<Option<Image>>, EcrError> {
        let mut images = Vec::with_capacity(references.len());
        for batch in references.chunks(BATCH_MAX) {
            let answer = self.batch_get_image(batch).await?;
            for reference in batch {
                let found = match self.answered(reference, &answer)? {
                    Some(found) => found,
                    // Two names of one image may have been given one answer between them.
                    None => {
                        let alone = self.batch_get_image(slice::from_ref(reference)).await?;
                        self.answered(reference, &alone)?.ok_or_else(|| {
                            let problem = "ECR answered neither an image nor a failure".to_owned();
                            self.unreadable(reference, problem)
                        })?
                    }
                };
                images.push(found);
            }
        }
        Ok(images)
    }

    async fn batch_get_image(
        &self,
        references: &[Reference],
    ) -> Result<BatchGetImageOutput, CallError> {
        self.ecr
            .batch_get_image()
            .repository_name(self.name.as_str())
            .set_image_ids(Some(references.iter().map(identifier).collect()))
            .set_accepted_media_types(Some(media_type::ALL.map(str::to_owned).to_vec()))
            .send()
            .await
            .map_err(|error| CallError::new("ecr:BatchGetImage", &error))
    }

    /// One image.
    ///
    /// # Errors
    /// As [`Repository::images`].
    pub async fn image(&self, reference: impl Into<Reference>) -> Result<Option<Image>, EcrError> {
        Ok(self.images(&[reference.into()]).await?.pop().flatten())
    }

    /// What an answer says of an image, or that there is none; nothing where it does not mention it.
    fn answered(
        &self,
        reference: &Reference,
        answer: &BatchGetImageOutput,
    ) -> Result<Option<Option<Image>>, EcrError> {
        let is_meant = |id: Option<&ImageIdentifier>| {
            id.is_some_and(|id| match reference {
                Reference::Digest(digest) => id.image_digest() == Some(&digest.to_string()),
                Reference::Tag(tag) => id.image_tag() == Some(tag.as_str()),
            })
        };
        if let Some(image) = answer.images().iter().find(|image| is_meant(image.image_id())) {
            let image = read(image).map_err(|problem| self.unreadable(reference, problem))?;
            return Ok(Some(Some(image)));
        }
        match answer.failures().iter().find(|failure| is_meant(failure.image_id())) {
            None => Ok(None),
            Some(failure) if failure.failure_code() == Some(&ImageFailureCode::ImageNotFound) => {
                Ok(Some(None))
            }
            Some(failure) => {
                let code = failure.failure_code().map_or("unknown failure", |code| code.as_str());
                let reason = failure.failure_reason().unwrap_or_default();
                Err(self.unreadable(reference, format!("{code}: {reason}")))
            }
        }
    }

    fn unreadable(&self, reference: &Reference, problem: String) -> EcrError {
        let (repository, image) = (self.name.clone(), reference.to_string());
        EcrError::Unreadable { repository, image, problem }
    }

    /// Points a tag at an image, which is stored where it is not yet. Done already counts as done.
    ///
    /// # Errors
    /// When the tag may not move, or ECR refuses.
    pub async fn put(&self, image: &Image, tag: &ImageTag) -> Result<(), EcrError> {
        let sent = self
            .ecr
            .put_image()
            .repository_name(self.name.as_str())
            .image_manifest(image.text())
            .image_manifest_media_type(image.media_type())
            .image_digest(image.digest().to_string())
            .image_tag(tag.as_str())
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let (repository, tag) = (self.name.clone(), tag.clone());
        match error.as_service_error() {
            Some(PutImageError::ImageAlreadyExistsException(_)) => Ok(()),
            // ECR says so even of an equal digest.
            Some(PutImageError::ImageTagAlreadyExistsException(_)) => {
                let named = self.image(tag.clone()).await?;
                if named.is_some_and(|named| named.digest() == image.digest()) {
                    return Ok(());
                }
                Err(EcrError::TagImmutable { repository, tag })
            }
            Some(PutImageError::LimitExceededException(_)) => {
                let reason = CallError::new("ecr:PutImage", &error);
                Err(EcrError::TooManyTags { repository, tag, reason })
            }
            _ => {
                let reason = CallError::new("ecr:PutImage", &error);
                if reason.is_unavailable() {
                    return Err(reason.into());
                }
                Err(EcrError::Refused { repository, tag, reason })
            }
        }
    }

    /// Points tags at images, side by side.
    ///
    /// # Errors
    /// At the first that fails; others may have been set.
    pub async fn put_all(&self, puts: Vec<Put<'_>>) -> Result<(), EcrError> {
        stream::iter(puts)
            .map(Ok)
            .try_for_each_concurrent(PUTS_MAX, |put| async move {
                match (self.put(put.image, put.tag).await, put.if_taken) {
                    (Err(EcrError::TagImmutable { .. }), IfTaken::Leave) => {
                        tracing::warn!(
                            image.repository = %self.name,
                            image.tag = %put.tag,
                            "an immutable tag stays at another image"
                        );
                        Ok(())
                    }
                    (put, _) => put,
                }
            })
            .await
    }

    /// Where a blob can be downloaded from, for an hour.
    ///
    /// # Errors
    /// When the repository has no such blob, or the call fails.
    pub async fn download_url(&self, blob: Digest) -> Result<String, EcrError> {
        let answer = self
            .ecr
            .get_download_url_for_layer()
            .repository_name(self.name.as_str())
            .layer_digest(blob.to_string())
            .send()
            .await
            .map_err(|error| CallError::new("ecr:GetDownloadUrlForLayer", &error))?;
        answer.download_url.ok_or_else(|| EcrError::Unreadable {
            repository: self.name.clone(),
            image: blob.to_string(),
            problem: "ECR answered no address of the blob".to_owned(),
        })
    }

    /// Which of the tags may not move.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn tag_rules(&self) -> Result<TagRules, EcrError> {
        let answer = self
            .ecr
            .describe_repositories()
            .repository_names(self.name.as_str())
            .send()
            .await
            .map_err(|error| CallError::new("ecr:DescribeRepositories", &error))?;
        let repository =
            answer.repositories.and_then(|repositories| repositories.into_iter().next());
        Ok(TagRules(repository))
    }

    /// Every tag, and what it points at: none where there is no such repository. One call for a
    /// thousand of them.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn tags(&self) -> Result<BTreeMap<ImageTag, Digest>, EcrError> {
        let mut tags = BTreeMap::new();
        let filter = ListImagesFilter::builder().tag_status(TagStatus::Tagged).build();
        let mut pages = self
            .ecr
            .list_images()
            .repository_name(self.name.as_str())
            .filter(filter)
            .max_results(PAGE_MAX)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(SdkError::ServiceError(context))
                    if matches!(context.err(), ListImagesError::RepositoryNotFoundException(_)) =>
                {
                    break;
                }
                Err(error) => return Err(CallError::new("ecr:ListImages", &error).into()),
            };
            for id in page.image_ids.unwrap_or_default() {
                let (Some(tag), Some(digest)) = (id.image_tag, id.image_digest) else { continue };
                // Who pushes past archweld may use tags that no image of its can have.
                if let (Ok(tag), Ok(digest)) = (tag.parse(), digest.parse()) {
                    tags.insert(tag, digest);
                }
            }
        }
        Ok(tags)
    }
}

/// An image to point a tag at.
#[derive(Debug, Clone, Copy)]
pub struct Put<'a> {
    /// The image.
    pub image: &'a Image,
    /// The tag.
    pub tag: &'a ImageTag,
    /// What to do where the tag may not move and names another image.
    pub if_taken: IfTaken,
}

/// What to do with a tag that may not move and names another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfTaken {
    /// Fail.
    Refuse,
    /// Leave it where it is.
    Leave,
}

/// A repository's rule for moving tags
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html>).
#[derive(Debug, Clone)]
pub struct TagRules(Option<Described>);

impl TagRules {
    /// Whether an existing tag of that name may not move.
    pub fn is_immutable(&self, tag: &ImageTag) -> bool {
        let Some(repository) = &self.0 else { return false };
        let excluded = repository
            .image_tag_mutability_exclusion_filters()
            .iter()
            .any(|filter| matches_wildcard(filter.filter(), tag.as_str()));
        match repository.image_tag_mutability() {
            Some(ImageTagMutability::Immutable) => true,
            Some(ImageTagMutability::ImmutableWithExclusion) => !excluded,
            Some(ImageTagMutability::MutableWithExclusion) => excluded,
            _ => false,
        }
    }
}

fn identifier(reference: &Reference) -> ImageIdentifier {
    let id = ImageIdentifier::builder();
    match reference {
        Reference::Digest(digest) => id.image_digest(digest.to_string()).build(),
        Reference::Tag(tag) => id.image_tag(tag.as_str()).build(),
    }
}

/// The media type that a manifest states; ECR tells it where it was pushed with one.
fn stated_media_type(text: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stated {
        media_type: Option<String>,
    }
    let stated: Stated = serde_json::from_str(text).map_err(|error| error.to_string())?;
    stated.media_type.ok_or_else(|| "the manifest has no media type".to_owned())
}

fn read(image: &Answered) -> Result<Image, String> {
    let text = image.image_manifest().ok_or("ECR answered no manifest")?.to_owned();
    let media_type = match image.image_manifest_media_type() {
        Some(media_type) => media_type.to_owned(),
        None => stated_media_type(&text)?,
    };
    let image_digest = image.image_id().and_then(ImageIdentifier::image_digest).unwrap_or_default();
    let digest: Digest = image_digest.parse().map_err(|error: DigestError| error.to_string())?;
    let image = Image::new(text, media_type);
    if image.digest() == digest {
        Ok(image)
    } else {
        Err(format!("the manifest has the digest {}, not {digest}", image.digest()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region};
    use aws_smithy_runtime_api::{
        client::{
            http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
            orchestrator::{HttpRequest, HttpResponse},
        },
        http::StatusCode,
    };
    use aws_smithy_types::body::SdkBody;
    use serde_json::{Value, json};

    use super::*;

    /// An operation, and the status and body of its answer.
    type Answer = (&'static str, u16, Value);

    /// What ECR is asked, in order, and what it answers: what the local one never would.
    #[derive(Debug, Clone)]
    struct Script(Arc<Mutex<VecDeque<Answer>>>);

    impl HttpConnector for Script {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let (operation, status, body) = self.0.lock().unwrap().pop_front().unwrap();
            let target = request.headers().get("x-amz-target").unwrap();
            assert!(target.ends_with(operation), "{target}");
            let status = StatusCode::try_from(status).unwrap();
            let body = SdkBody::from(body.to_string());
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, body)))
        }
    }

    fn repository(script: impl IntoIterator<Item = Answer>) -> Repository {
        let script = Script(Arc::new(Mutex::new(script.into_iter().collect())));
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("us-east-1"))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(script.clone())));
        Repository::new(Client::from_conf(config.build()), "hello".parse().unwrap())
    }

    fn index() -> Image {
        Image::new("{}".to_owned(), media_type::OCI_INDEX.to_owned())
    }

    fn latest() -> ImageTag {
        "latest".parse().unwrap()
    }

    fn refused(exception: &str) -> Answer {
        ("PutImage", 400, json!({"__type": exception, "message": "so it is"}))
    }

    fn named(image: &Image) -> Answer {
        let id = json!({"imageDigest": image.digest(), "imageTag": "latest"});
        let kind = image.media_type();
        let image =
            json!({"imageId": id, "imageManifest": image.text(), "imageManifestMediaType": kind});
        ("BatchGetImage", 200, json!({"images": [image]}))
    }

    #[tokio::test]
    async fn an_image_that_cannot_be_read_is_not_taken_for_one_that_is_not_there() {
        let failed = |code: &str| {
            let failure = json!({
                "imageId": {"imageTag": "latest"}, "failureCode": code, "failureReason": "so it is",
            });
            ("BatchGetImage", 200, json!({"images": [], "failures": [failure]}))
        };
        let found = repository([failed("ImageNotFound")]).image(latest()).await;
        assert_eq!(found, Ok(None));
        let error = repository([failed("KmsError")]).image(latest()).await.unwrap_err();
        assert_eq!(error.name(), ErrorName::ServiceRejected);
        assert_eq!(error.to_string(), "image latest of repository hello: KmsError: so it is");
        let silent = ("BatchGetImage", 200, json!({"images": [], "failures": []}));
        let error = repository([silent.clone(), silent]).image(latest()).await.unwrap_err();
        assert!(error.to_string().ends_with("neither an image nor a failure"), "{error}");
    }

    #[tokio::test]
    async fn bytes_that_are_not_those_of_the_digest_are_refused() {
        let (operation, status, mut body) = named(&index());
        body["images"][0]["imageManifest"] = json!("{ }");
        let error =
            repository([(operation, status, body)]).image(index().digest()).await.unwrap_err();
        assert!(error.to_string().contains("the manifest has the digest sha256:"), "{error}");
    }

    #[tokio::test]
    async fn two_names_of_one_image_may_have_one_answer_between_them() {
        let (operation, status, body) = named(&index());
        let mut merged = body.clone();
        merged["images"][0]["imageId"].as_object_mut().unwrap().remove("imageTag");
        let script = [(operation, status, merged), (operation, status, body)];
        let references = [index().digest().into(), latest().into()];
        let found = repository(script).images(&references).await.unwrap();
        assert_eq!(found, [Some(index()), Some(index())]);
    }

    #[tokio::test]
    async fn what_is_there_already_counts_as_put() {
        for script in [
            vec![refused("ImageAlreadyExistsException")],
            vec![refused("ImageTagAlreadyExistsException"), named(&index())],
        ] {
            assert_eq!(repository(script).put(&index(), &latest()).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_put_names_the_tag_and_what_ecr_says() {
        let other = Image::new("{ }".to_owned(), media_type::OCI_INDEX.to_owned());
        for (script, name, message) in [
            (
                vec![refused("ImageTagAlreadyExistsException"), named(&other)],
                ErrorName::PublishTagImmutable,
                "tag latest of repository hello is immutable and names another image",
            ),
            (
                vec![refused("LimitExceededException")],
                ErrorName::PublishRejected,
                "tag latest of repository hello: its image has as many tags as ECR allows; build it \
                 anew with `force`, or delete some of its `archweld.` tags: ecr:PutImage failed: \
                 LimitExceededException: so it is",
            ),
            (
                vec![refused("ReferencedImagesNotFoundException")],
                ErrorName::PublishRejected,
                "tag latest of repository hello: ecr:PutImage failed: \
                 ReferencedImagesNotFoundException: so it is",
            ),
        ] {
            let error = repository(script).put(&index(), &latest()).await.unwrap_err();
            assert_eq!((error.name(), error.to_string().as_str()), (name, message));
        }
    }

    #[tokio::test]
    async fn tags_that_no_image_of_archwelds_can_have_are_passed_over() {
        let digest = index().digest();
        let page = |ids: Value, next: Option<&str>| {
            ("ListImages", 200, json!({"imageIds": ids, "nextToken": next}))
        };
        let ids = json!([
            {"imageTag": "latest", "imageDigest": digest},
            {"imageTag": "größe", "imageDigest": digest},
            {"imageDigest": digest},
        ]);
        let pages = [
            page(ids, Some("more")),
            page(json!([{"imageTag": "0123456", "imageDigest": digest}]), None),
        ];
        let tags = repository(pages).tags().await.unwrap();
        let tags: Vec<&str> = tags.keys().map(ImageTag::as_str).collect();
        assert_eq!(tags, ["0123456", "latest"]);
    }
}
