//! The ECR API: the operations of `AmazonEC2ContainerRegistry_V20150921` that archweld's workflow
//! and a person who looks at its images need.
//!
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_Operations.html>

mod images;
mod page;
mod repositories;

use archweld_local_api::ApiError;
use archweld_model::RepositoryName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Registry, RegistryError, state::Repository};

type Answer = Result<Value, ApiError>;

/// How long an authorization token is said to last; in truth it never ends.
const TOKEN_LASTS: SignedDuration = SignedDuration::from_hours(12);

impl Registry {
    /// Answers an operation of the ECR API; `operation` is what stands behind the dot in
    /// `X-Amz-Target`.
    pub async fn call(&self, operation: &str, input: Value) -> Answer {
        let input = &input;
        let answer = match operation {
            "GetAuthorizationToken" => Ok(self.get_authorization_token()),
            "CreateRepository" => self.call_create_repository(parse(input)?, parse(input)?).await,
            "DescribeRepositories" => self.describe_repositories(parse(input)?, parse(input)?),
            "DeleteRepository" => self.call_delete_repository(parse(input)?, parse(input)?).await,
            "PutImageTagMutability" => {
                self.put_image_tag_mutability(parse(input)?, parse(input)?).await
            }
            "PutImage" => {
                self.take_put_image()?;
                self.put_image(parse(input)?, parse(input)?).await
            }
            "BatchGetImage" => self.batch_get_image(parse(input)?, parse(input)?).await,
            "BatchDeleteImage" => self.batch_delete_image(parse(input)?, parse(input)?).await,
            "ListImages" => self.list_images(parse(input)?, parse(input)?, parse(input)?),
            "DescribeImages" => self.describe_images(parse(input)?, parse(input)?, parse(input)?),
            "ListImageReferrers" => {
                self.list_image_referrers(parse(input)?, parse(input)?, parse(input)?).await
            }
            "BatchCheckLayerAvailability" => self.check_layers(parse(input)?, parse(input)?),
            "GetDownloadUrlForLayer" => {
                self.get_download_url_for_layer(parse(input)?, parse(input)?)
            }
            _ => Err(ApiError::unknown_operation(operation)),
        };
        answer.map(without_nulls)
    }

    fn get_authorization_token(&self) -> Value {
        let now = self.inner.host.now();
        json!({"authorizationData": [{
            "authorizationToken": self.authorization_token(),
            "expiresAt": epoch_seconds(now.saturating_add(TOKEN_LASTS).unwrap_or(now)),
            "proxyEndpoint": format!("http://{}", self.address()),
        }]})
    }

    /// Reads a repository that an operation names.
    fn with_repository<T>(
        &self,
        target: &RepositoryTarget,
        read: impl FnOnce(&Repository) -> T,
    ) -> Result<T, ApiError> {
        self.check_registry(target)?;
        Ok(read(self.inner.state().repository(&target.repository_name)?))
    }

    /// A registry of another account has none of the repositories here.
    fn check_registry(&self, target: &RepositoryTarget) -> Result<(), ApiError> {
        match &target.registry_id {
            Some(id) if id != self.inner.host.account() => {
                Err(RegistryError::RepositoryNotFound(target.repository_name.clone()).into())
            }
            _ => Ok(()),
        }
    }
}

/// Which repository an operation is about.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RepositoryTarget {
    registry_id: Option<String>,
    repository_name: RepositoryName,
}

/// Reads part of an input. Parts are read one by one, and not as one structure with `flatten`,
/// because an error in a flattened part does not name its field.
fn parse<T: DeserializeOwned>(input: &Value) -> Result<T, ApiError> {
    ApiError::parse_input("InvalidParameterException", input.clone())
}

fn invalid_parameter(field: &str, expected: &str) -> ApiError {
    ApiError::client("InvalidParameterException", format!("{field}: expected {expected}"))
}

/// ECR leaves out what it has no value for.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        value => value,
    }
}

/// A list must have 1 to 100 entries.
fn check_batch<T>(field: &str, batch: &[T]) -> Result<(), ApiError> {
    if (1..=100).contains(&batch.len()) {
        Ok(())
    } else {
        Err(invalid_parameter(field, "1 to 100 entries"))
    }
}

fn epoch_seconds(time: Timestamp) -> f64 {
    // Exact until the year 287396.
    time.as_millisecond() as f64 / 1000.0
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let code = match &error {
            E::RepositoryNotFound(_) => "RepositoryNotFoundException",
            E::RepositoryExists(_) => "RepositoryAlreadyExistsException",
            E::RepositoryNotEmpty(_) => "RepositoryNotEmptyException",
            E::ImageNotFound { .. } => "ImageNotFoundException",
            E::BlobNotFound { .. } | E::LayersNotFound(_) => "LayersNotFoundException",
            E::TagImmutable { .. } => "ImageTagAlreadyExistsException",
            E::ReferencedImagesNotFound(_) => "ReferencedImagesNotFoundException",
            E::DigestMismatch { .. } => "ImageDigestDoesNotMatchException",
            E::Full { .. }
            | E::DiskFull(_)
            | E::TooManyTags { .. }
            | E::TooManyUploads(_)
            | E::LayerTooLarge { .. } => "LimitExceededException",
            E::ManifestInvalid(_)
            | E::ManifestTooLarge { .. }
            | E::ReferencedByIndex { .. }
            | E::ReferencedByImage { .. }
            | E::UploadNotFound(_)
            | E::UploadOffset { .. }
            | E::UploadInterrupted(_) => "InvalidParameterException",
            E::Store(source) => {
                tracing::error!(error = %source, "registry's store failed");
                return Self::server("ServerException", error.to_string());
            }
        };
        Self::client(code, error.to_string())
    }
}
