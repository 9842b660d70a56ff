//! Operations on images and their layers.

use std::{collections::BTreeSet, sync::PoisonError};

use archweld_local_api::ApiError;
use archweld_model::{Digest, ImageTag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, RepositoryTarget, check_batch, epoch_seconds, invalid_parameter, page::PageInput,
};
use crate::{
    Image, Registry, RegistryError,
    manifest::{MANIFEST_BYTES_MAX, Manifest},
    state::Repository,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutImage {
    image_manifest: String,
    image_manifest_media_type: Option<String>,
    image_tag: Option<ImageTag>,
    image_digest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchGetImage {
    image_ids: Vec<ImageId>,
    accepted_media_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchDeleteImage {
    image_ids: Vec<ImageId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListImages {
    filter: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeImages {
    image_ids: Option<Vec<ImageId>>,
    filter: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListImageReferrers {
    subject_id: SubjectId,
    filter: Option<ReferrersFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubjectId {
    image_digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersFilter {
    artifact_types: Option<Vec<String>>,
    artifact_status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckLayers {
    layer_digests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetDownloadUrlForLayer {
    layer_digest: Digest,
}

/// An image's name as ECR's batches have it; each may be wrong in its own way.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageId {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    tag_status: Option<TagStatus>,
    image_status: Option<Status>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "UPPERCASE")]
enum TagStatus {
    Tagged,
    Untagged,
    Any,
}

/// Images here are never archived.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Active,
    Archived,
    Activating,
    Any,
}

/// Why one image of a batch failed.
struct Failure {
    code: &'static str,
    reason: String,
}

impl Registry {
    /// Throttles `PutImage` by the account's limit, whatever it is about to be called with.
    pub(super) fn take_put_image(&self) -> Result<(), ApiError> {
        let rate = &self.inner.put_image_rate;
        let taken = rate.lock().unwrap_or_else(PoisonError::into_inner).take(self.inner.host.now());
        if taken { Ok(()) } else { Err(ApiError::client("ThrottlingException", "Rate exceeded")) }
    }

    pub(super) async fn put_image(&self, target: RepositoryTarget, input: PutImage) -> Answer {
        self.check_registry(&target)?;
        let name = &target.repository_name;
        if !(1..=MANIFEST_BYTES_MAX).contains(&input.image_manifest.len()) {
            let expected = format!("1 to {MANIFEST_BYTES_MAX} bytes");
            return Err(invalid_parameter("imageManifest", &expected));
        }
        let (tag, media_type) =
            (input.image_tag.as_ref(), input.image_manifest_media_type.as_deref());
        let bytes = input.image_manifest.clone().into();
        let put = self.put(name, tag, media_type, bytes, input.image_digest).await?;
        if !put.changed {
            let tagged = tag.map(|tag| format!(" and tag {tag}")).unwrap_or_default();
            return Err(ApiError::client(
                "ImageAlreadyExistsException",
                format!("image with digest {}{tagged} already exists in {name}", put.digest),
            ));
        }
        Ok(json!({"image": {
            "registryId": self.inner.host.account(),
            "repositoryName": name,
            "imageId": ImageId::new(&put.digest, tag),
            "imageManifest": input.image_manifest,
            "imageManifestMediaType": put.manifest.media_type,
        }}))
    }

    pub(super) async fn batch_get_image(
        &self,
        target: RepositoryTarget,
        input: BatchGetImage,
    ) -> Answer {
        self.with_repository(&target, |_| ())?;
        check_batch("imageIds", &input.image_ids)?;
        if let Some(accepted) = &input.accepted_media_types {
            check_batch("acceptedMediaTypes", accepted)?;
        }
        let (mut images, mut failures) = (Vec::new(), Vec::new());
        for id in input.image_ids {
            match self.get_image(&target, &id, input.accepted_media_types.as_deref()).await? {
                Ok(image) => images.push(json!({
                    "registryId": self.inner.host.account(),
                    "repositoryName": target.repository_name,
                    "imageId": {"imageDigest": image.digest, "imageTag": id.image_tag},
                    "imageManifest": String::from_utf8_lossy(&image.bytes),
                    "imageManifestMediaType": image.media_type,
                })),
                Err(failure) => failures.push(failure.value(&id)),
            }
        }
        Ok(json!({"images": images, "failures": failures}))
    }

    async fn get_image(
        &self,
        target: &RepositoryTarget,
        id: &ImageId,
        accepted: Option<&[String]>,
    ) -> Result<Result<Image, Failure>, ApiError> {
        let digest = match self.with_repository(target, |repository| id.resolve(repository))? {
            Ok(digest) => digest,
            Err(failure) => return Ok(Err(failure)),
        };
        let image = self.manifest(&target.repository_name, digest).await?;
        if accepted.is_some_and(|accepted| !accepted.contains(&image.media_type)) {
            let reason = format!("acceptedMediaTypes lacks the image's {}", image.media_type);
            return Ok(Err(Failure { code: "ImageNotFound", reason }));
        }
        Ok(Ok(image))
    }

    pub(super) async fn batch_delete_image(
        &self,
        target: RepositoryTarget,
        input: BatchDeleteImage,
    ) -> Answer {
        self.with_repository(&target, |_| ())?;
        check_batch("imageIds", &input.image_ids)?;
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in input.image_ids {
            match self.delete_image(&target, &id).await? {
                Ok(ids) => deleted.extend(ids),
                Err(failure) => failures.push(failure.value(&id)),
            }
        }
        Ok(json!({"imageIds": deleted, "failures": failures}))
    }

    /// Takes a tag off its image, and deletes the image with its last one; or deletes an image
    /// with all its tags.
    async fn delete_image(
        &self,
        target: &RepositoryTarget,
        id: &ImageId,
    ) -> Result<Result<Vec<ImageId>, Failure>, ApiError> {
        let (name, id) = (target.repository_name.clone(), id.clone());
        let deleted = self.transact(move |transaction| {
            let repository = transaction.state.repository(&name)?;
            let digest = match id.resolve(repository) {
                Ok(digest) => digest,
                Err(failure) => return Ok(Err(failure)),
            };
            let tag = id.image_tag.as_deref().and_then(|tag| tag.parse::<ImageTag>().ok());
            if let Some(tag) = tag
                && (repository.tags.of(&digest).len() > 1 || repository.index_of(&digest).is_some())
            {
                transaction.delete_tag(&name, &tag)?;
                return Ok(Ok(vec![ImageId::new(&digest, Some(&tag))]));
            }
            match transaction.delete_image(&name, digest) {
                Ok(tags) if tags.is_empty() => Ok(Ok(vec![ImageId::new(&digest, None)])),
                Ok(tags) => {
                    Ok(Ok(tags.iter().map(|tag| ImageId::new(&digest, Some(tag))).collect()))
                }
                Err(error @ RegistryError::ReferencedByIndex { .. }) => {
                    let code = "ImageReferencedByManifestList";
                    Ok(Err(Failure { code, reason: error.to_string() }))
                }
                Err(error) => Err(error),
            }
        });
        Ok(deleted.await?)
    }

    pub(super) fn list_images(
        &self,
        target: RepositoryTarget,
        input: ListImages,
        page: PageInput,
    ) -> Answer {
        let filter = input.filter;
        self.with_repository(&target, |repository| {
            let ids = images_from(repository, page.after()?.as_deref()).flat_map(|(digest, _)| {
                let tags = repository.tags.of(digest);
                let untagged = (tags.len() == 0).then_some((digest, None));
                tags.map(move |tag| (digest, Some(tag))).chain(untagged)
            });
            let ids = ids.filter(|(_, tag)| Filter::takes(filter.as_ref(), tag.is_some()));
            let key = |(digest, tag): &(&Digest, Option<&ImageTag>)| {
                format!("{digest} {}", tag.map_or("", ImageTag::as_str))
            };
            let (ids, next) = page.of(ids, key, 100, 1000)?;
            let ids: Vec<_> =
                ids.into_iter().map(|(digest, tag)| ImageId::new(digest, tag)).collect();
            Ok(json!({"imageIds": ids, "nextToken": next}))
        })?
    }

    pub(super) fn describe_images(
        &self,
        target: RepositoryTarget,
        input: DescribeImages,
        page: PageInput,
    ) -> Answer {
        let DescribeImages { image_ids, filter } = input;
        self.with_repository(&target, |repository| {
            let describe = |digest: &Digest, manifest: &Manifest| {
                self.image_detail(&target, repository, digest, manifest)
            };
            if let Some(ids) = image_ids {
                check_batch("imageIds", &ids)?;
                if !page.is_empty() {
                    return Err(invalid_parameter("imageIds", "no maxResults or nextToken"));
                }
                let digests =
                    ids.iter().map(|id| id.resolve(repository).map_err(Failure::into_error));
                let digests: BTreeSet<Digest> = digests.collect::<Result<_, _>>()?;
                let known = digests
                    .iter()
                    .filter_map(|digest| Some(describe(digest, repository.manifests.get(digest)?)));
                return Ok(json!({"imageDetails": known.collect::<Vec<_>>()}));
            }
            let images = images_from(repository, page.after()?.as_deref());
            let images = images.filter(|(digest, _)| {
                Filter::takes(filter.as_ref(), repository.tags.of(digest).len() > 0)
            });
            let (images, next) = page.of(images, |(digest, _)| digest.to_string(), 100, 1000)?;
            let details: Vec<_> =
                images.into_iter().map(|(digest, manifest)| describe(digest, manifest)).collect();
            Ok(json!({"imageDetails": details, "nextToken": next}))
        })?
    }

    fn image_detail(
        &self,
        target: &RepositoryTarget,
        repository: &Repository,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Value {
        // An index is said to be as large as its largest image.
        let children = manifest.children.iter().filter_map(|child| repository.manifests.get(child));
        let child_bytes = children.map(|child| child.content_bytes).max();
        let mut detail = json!({
            "registryId": self.inner.host.account(),
            "repositoryName": target.repository_name,
            "imageDigest": digest,
            "imageSizeInBytes": child_bytes.unwrap_or(manifest.content_bytes),
            "imagePushedAt": epoch_seconds(manifest.pushed_at),
            "imageManifestMediaType": manifest.media_type,
            "imageStatus": "ACTIVE",
        });
        let tags = repository.tags.of(digest);
        if tags.len() > 0 {
            detail["imageTags"] = json!(tags.collect::<Vec<_>>());
        }
        if let Some(artifact_type) = &manifest.artifact_type {
            detail["artifactMediaType"] = json!(artifact_type);
        }
        if let Some(subject) = &manifest.subject {
            detail["subjectManifestDigest"] = json!(subject);
        }
        detail
    }

    pub(super) async fn list_image_referrers(
        &self,
        target: RepositoryTarget,
        input: ListImageReferrers,
        page: PageInput,
    ) -> Answer {
        let ListImageReferrers { subject_id, filter } = input;
        self.check_registry(&target)?;
        let referrers = self.referrers(&target.repository_name, &subject_id.image_digest)?;
        let takes = |manifest: &Manifest| {
            let Some(filter) = &filter else { return true };
            let types = filter.artifact_types.as_ref().filter(|types| !types.is_empty());
            let wanted = types.is_none_or(|types| {
                manifest.artifact_type.as_ref().is_some_and(|own| types.contains(own))
            });
            wanted && Status::takes(filter.artifact_status)
        };
        let referrers = referrers.into_iter().filter(|(_, manifest)| takes(manifest));
        let (referrers, next) = page.of(referrers, |(digest, _)| digest.to_string(), 50, 50)?;
        let mut values = Vec::new();
        for (digest, manifest) in referrers {
            values.push(json!({
                "digest": digest,
                "mediaType": manifest.media_type,
                "artifactType": manifest.artifact_type,
                "size": manifest.bytes,
                "annotations": Manifest::annotations(&self.read(&digest).await?),
                "artifactStatus": "ACTIVE",
            }));
        }
        Ok(json!({"referrers": values, "nextToken": next}))
    }

    pub(super) fn check_layers(&self, target: RepositoryTarget, input: CheckLayers) -> Answer {
        check_batch("layerDigests", &input.layer_digests)?;
        let (mut layers, mut failures) = (Vec::new(), Vec::new());
        self.with_repository(&target, |repository| {
            for layer in input.layer_digests {
                match layer.parse::<Digest>() {
                    Ok(digest) => {
                        let held = repository.blobs.contains(&digest);
                        let blob = self.inner.blobs.get(&digest).filter(|_| held);
                        let availability = if blob.is_some() { "AVAILABLE" } else { "UNAVAILABLE" };
                        layers.push(json!({
                            "layerDigest": digest,
                            "layerAvailability": availability,
                            "layerSize": blob.map(|blob| blob.bytes()),
                        }));
                    }
                    Err(error) => failures.push(json!({
                        "layerDigest": layer,
                        "failureCode": "InvalidLayerDigest",
                        "failureReason": error.to_string(),
                    })),
                }
            }
        })?;
        Ok(json!({"layers": layers, "failures": failures}))
    }

    /// The address of a layer or a config. Anybody who knows it may read it, as with the
    /// pre-signed addresses of AWS.
    pub(super) fn get_download_url_for_layer(
        &self,
        target: RepositoryTarget,
        input: GetDownloadUrlForLayer,
    ) -> Answer {
        let digest = input.layer_digest;
        let needed =
            self.with_repository(&target, |repository| repository.image_of(&digest, None))?;
        let name = &target.repository_name;
        self.find_blob(name, &digest)?;
        if needed.is_none() {
            let message = format!("layer {digest} is part of no image of repository {name}");
            return Err(ApiError::client("LayerInaccessibleException", message));
        }
        let address = self.address();
        let url = format!("http://{address}/v2/{name}/blobs/{digest}");
        Ok(json!({"downloadUrl": url, "layerDigest": digest}))
    }
}

impl ImageId {
    fn new(digest: &Digest, tag: Option<&ImageTag>) -> Self {
        Self { image_digest: Some(digest.to_string()), image_tag: tag.map(ToString::to_string) }
    }

    /// The image that this names.
    fn resolve(&self, repository: &Repository) -> Result<Digest, Failure> {
        let fail = |code, reason| Err(Failure { code, reason });
        let digest = match self.image_digest.as_deref().map(str::parse::<Digest>) {
            Some(Err(error)) => return fail("InvalidImageDigest", error.to_string()),
            digest => digest.and_then(Result::ok),
        };
        let tag = match self.image_tag.as_deref().map(str::parse::<ImageTag>) {
            Some(Err(error)) => return fail("InvalidImageTag", error.to_string()),
            tag => tag.and_then(Result::ok),
        };
        let missing = |what: &str| fail("ImageNotFound", format!("image {what} does not exist"));
        let tagged = match &tag {
            Some(tag) => match repository.tags.get(tag) {
                Some(tagged) => Some(*tagged),
                None => return missing(tag.as_str()),
            },
            None => None,
        };
        match (digest, tagged) {
            (None, None) => fail("MissingDigestAndTag", "neither digest nor tag given".to_owned()),
            (Some(digest), Some(tagged)) if digest != tagged => {
                fail("ImageTagDoesNotMatchDigest", format!("the tag points at {tagged}"))
            }
            (Some(digest), _) if !repository.manifests.contains_key(&digest) => {
                missing(&digest.to_string())
            }
            (Some(digest), _) | (None, Some(digest)) => Ok(digest),
        }
    }
}

impl Failure {
    fn value(&self, id: &ImageId) -> Value {
        json!({"imageId": id, "failureCode": self.code, "failureReason": self.reason})
    }

    /// For an operation that fails as a whole.
    fn into_error(self) -> ApiError {
        let code = match self.code {
            "ImageNotFound" => "ImageNotFoundException",
            _ => "InvalidParameterException",
        };
        ApiError::client(code, self.reason)
    }
}

impl Filter {
    fn takes(filter: Option<&Self>, tagged: bool) -> bool {
        let Some(filter) = filter else { return true };
        let by_tag = match filter.tag_status {
            Some(TagStatus::Tagged) => tagged,
            Some(TagStatus::Untagged) => !tagged,
            Some(TagStatus::Any) | None => true,
        };
        by_tag && Status::takes(filter.image_status)
    }
}

impl Status {
    fn takes(status: Option<Self>) -> bool {
        match status {
            Some(Self::Archived | Self::Activating) => false,
            Some(Self::Active | Self::Any) | None => true,
        }
    }
}

/// The images in the order of their digests, from the one that the last page's key begins with.
fn images_from<'a>(
    repository: &'a Repository,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Digest, &'a Manifest)> + use<'a> {
    let digest = after.and_then(|key| key.split(' ').next()?.parse::<Digest>().ok());
    match digest {
        Some(digest) => repository.manifests.range(digest..),
        None => repository.manifests.range(..),
    }
}
