//! Confirms a run's index and points the image's tags at it.
//!
//! No tag but the run's own is touched before the index is known to hold exactly the images that
//! the run built. Every step may be repeated: it then finds its work done.

mod registry;

use archweld_model::{
    BuildOutcome, Built, ErrorName, ImageTag, Index, IndexError, Named, Plan, Platform, Published,
    PublishedPlatform, media_type,
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
    /// ECR does not say what is there.
    #[error("image {image} of repository {repository}: {problem}")]
    Unreadable {
        /// The repository.
        repository: String,
        /// A tag or a digest.
        image: String,
        /// What ECR says.
        problem: String,
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
            Self::Unreadable { .. } => ErrorName::ServiceRejected,
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
    // An OCI index need not state its type; the registry then knows it from the push.
    let media_type = parsed.media_type().or(index.as_ref().map(|index| &*index.built.media_type));
    let media_type = media_type.unwrap_or(media_type::OCI_INDEX).to_owned();
    let put = Put::new(text, media_type);
    if index.is_none() {
        registry.put(&put, &plan.tag).await?;
    }

    let (mut tags, mut tags_kept) = (vec![plan.tag.clone()], vec![]);
    for tag in &plan.fixed_tags {
        let set = match registry.digest_of(tag).await? {
            Some(digest) => digest == put.digest,
            None => match registry.put(&put, tag).await {
                Ok(()) => true,
                // Another run was quicker, and the repository does not let the tag go.
                Err(Error::TagImmutable { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        // Where another run of the same source came first, the tag stays: fixed tags never move.
        if set { &mut tags } else { &mut tags_kept }.push(tag.clone());
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

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use archweld_model::{Config, Digest, Execution, ExecutionInput, Projects, TimingSeconds};
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

    /// Publishes the run `r1` of one platform; gives what is left of the script, too.
    async fn publish(
        script: impl IntoIterator<Item = Answer>,
    ) -> (Result<Published, Error>, usize) {
        let script = Script(Arc::new(Mutex::new(script.into_iter().collect())));
        let connector = script.clone();
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(connector.clone())));
        let published = handle(request(), &Client::from_conf(config.build())).await;
        let left = script.0.lock().unwrap().len();
        (published, left)
    }

    fn request() -> Request {
        let config = "[[image]]\nname = \"hello\"\nplatforms = [\"linux/arm64\"]\n\
                      tags = [\"{sha7}\", \"latest\"]\npublisher = \"lambda\"\n";
        let input = ExecutionInput::parse(json!({"commit": "0123456789"})).unwrap();
        let execution = Execution {
            arn: "arn:aws:states:us-east-1:123456789012:execution:archweld:r1".to_owned(),
            name: "r1".to_owned(),
            start_time: "2026-11-23T10:00:00.000Z".to_owned(),
        };
        let projects = Projects {
            amd64: "amd64".to_owned(),
            arm64: "arm64".to_owned(),
            manifest: "manifest".to_owned(),
        };
        let config = Config::parse(config).unwrap();
        let plan = Plan::new(&config, input, execution, "registry.example", &projects).unwrap();
        let built = Built {
            digest: Digest::of(b"image"),
            media_type: media_type::OCI_MANIFEST.to_owned(),
            manifest_bytes: 5,
            size_bytes: 1,
        };
        let image = BuildOutcome {
            target: "linux/arm64".to_owned(),
            built,
            build_id: "arm64:1".to_owned(),
            log: None,
            timing: TimingSeconds::new(),
        };
        Request { plan, images: vec![image], index: None }
    }

    fn failure(code: &str) -> Value {
        json!({"images": [], "failures": [{"failureCode": code, "failureReason": "so it is"}]})
    }

    fn names_another_image() -> Value {
        json!({"images": [{"imageId": {"imageDigest": Digest::of(b"another")}}]})
    }

    fn tag_exists() -> Value {
        json!({"__type": "ImageTagAlreadyExistsException", "message": "it is immutable"})
    }

    #[tokio::test]
    async fn a_fixed_tag_that_cannot_be_read_is_not_taken_for_a_free_one() {
        let (published, left) =
            publish([("PutImage", 200, json!({})), ("BatchGetImage", 200, failure("KmsError"))])
                .await;
        let error = published.unwrap_err();
        assert_eq!(error.name(), ErrorName::ServiceRejected);
        let message = "image 0123456 of repository hello: KmsError: so it is";
        assert_eq!((error.to_string().as_str(), left), (message, 0));
    }

    #[tokio::test]
    async fn a_fixed_tag_that_another_run_set_meanwhile_is_left_to_it() {
        let (published, left) = publish([
            ("PutImage", 200, json!({})),
            ("BatchGetImage", 200, failure("ImageNotFound")),
            ("PutImage", 400, tag_exists()),
            ("BatchGetImage", 200, names_another_image()),
            ("PutImage", 200, json!({})),
        ])
        .await;
        let published = published.unwrap();
        let text = |tags: &[ImageTag]| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&published.tags_kept), ["0123456"]);
        assert_eq!((text(&published.tags), left), (vec!["r1".to_owned(), "latest".to_owned()], 0));
    }

    #[tokio::test]
    async fn a_refusal_names_the_tag_and_what_ecr_says() {
        let answer = json!({"__type": "ReferencedImagesNotFoundException", "message": "no child"});
        let (published, _) = publish([("PutImage", 400, answer)]).await;
        let error = published.unwrap_err();
        assert_eq!(error.name(), ErrorName::PublishRejected);
        let message = "tag r1 of repository hello: ecr:PutImage failed: \
                       ReferencedImagesNotFoundException: no child";
        assert_eq!(error.to_string(), message);
    }
}
