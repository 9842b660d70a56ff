//! What the registry holds: each image's indexes, with platforms, sizes and tags.

use std::collections::BTreeMap;

use archweld_model::{Digest, ImageConfig, Index, RepositoryName, annotation, media_type};
use archweld_registry::Registry;
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    app::{App, Shared},
    error::Error,
};

/// How many indexes of an image are shown, the newest first.
const INDEXES_MAX: usize = 50;
/// Tags that begin so are archweld's own.
const OWN_TAGS: &str = "archweld.";
/// How many images ECR describes at a time.
const PAGE: usize = 1_000;

/// An image of the configuration, and what is published of it.
#[derive(Debug, Serialize)]
pub(crate) struct ImageView {
    name: String,
    /// `<registry>/<repository>`
    uri: String,
    /// What the configuration says of it.
    platforms: Vec<String>,
    tags: Vec<String>,
    indexes: Vec<IndexView>,
    /// How many indexes there are.
    total: usize,
}

#[derive(Debug, Serialize)]
struct IndexView {
    digest: String,
    media_type: String,
    pushed: i64,
    tags: Vec<String>,
    /// What pulls it: by its last moving tag, or else by its digest.
    pull: String,
    platforms: Vec<PlatformView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    git_ref: Option<String>,
}

#[derive(Debug, Serialize)]
struct PlatformView {
    platform: String,
    digest: String,
    /// Of layers and config as they are stored, in bytes.
    size_bytes: Option<u64>,
    /// How many attestations it has, such as provenance.
    attestations: usize,
}

/// An image as `DescribeImages` has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    image_digest: Digest,
    #[serde(default)]
    image_tags: Vec<String>,
    image_size_in_bytes: Option<u64>,
    image_pushed_at: f64,
    image_manifest_media_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribedPage {
    image_details: Vec<Described>,
    next_token: Option<String>,
}

pub(crate) async fn list(State(app): Shared) -> Result<Json<Vec<ImageView>>, Error> {
    let mut images = Vec::new();
    for image in app.config.images() {
        images.push(view(&app, image).await?);
    }
    Ok(Json(images))
}

async fn view(app: &App, image: &ImageConfig) -> Result<ImageView, Error> {
    let uri = format!("{}/{}", app.registry.address(), image.repository);
    let described = describe(&app.registry, &image.repository).await?;
    let sizes: BTreeMap<Digest, Option<u64>> =
        described.iter().map(|it| (it.image_digest, it.image_size_in_bytes)).collect();
    let mut indexes: Vec<&Described> =
        described.iter().filter(|it| media_type::is_index(&it.image_manifest_media_type)).collect();
    indexes.sort_by(|one, other| other.image_pushed_at.total_cmp(&one.image_pushed_at));
    let total = indexes.len();
    let mut views = Vec::new();
    for described in indexes.into_iter().take(INDEXES_MAX) {
        let Ok(manifest) = app.registry.manifest(&image.repository, described.image_digest).await
        else {
            // Deleted meanwhile.
            continue;
        };
        let index = Index::parse(&String::from_utf8_lossy(&manifest.bytes)).ok();
        views.push(IndexView::of(&uri, described, index.as_ref(), &sizes));
    }
    Ok(ImageView {
        name: image.name.to_string(),
        uri,
        platforms: image.platforms.iter().map(ToString::to_string).collect(),
        tags: image.tags.iter().map(ToString::to_string).collect(),
        indexes: views,
        total,
    })
}

async fn describe(
    registry: &Registry,
    repository: &RepositoryName,
) -> Result<Vec<Described>, Error> {
    let mut described = Vec::new();
    let mut token = None;
    loop {
        let mut input = json!({ "repositoryName": repository, "maxResults": PAGE });
        if let Some(token) = token {
            input["nextToken"] = json!(token);
        }
        let answer = registry.call("DescribeImages", input).await;
        let answer = match answer {
            Ok(answer) => answer,
            // It is made with the first push.
            Err(error) if error.code == "RepositoryNotFoundException" => return Ok(described),
            Err(error) => return Err(error.into()),
        };
        let page: DescribedPage = serde_json::from_value(answer).map_err(|error| {
            Error::new(http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })?;
        described.extend(page.image_details);
        match page.next_token {
            Some(next) => token = Some(next),
            None => return Ok(described),
        }
    }
}

impl IndexView {
    fn of(
        uri: &str,
        described: &Described,
        index: Option<&Index>,
        sizes: &BTreeMap<Digest, Option<u64>>,
    ) -> Self {
        let digest = described.image_digest.to_string();
        let tags = described.image_tags.iter().filter(|tag| !tag.starts_with(OWN_TAGS));
        let tags: Vec<String> = tags.cloned().collect();
        // A short name is what people remember; the run's own name is the longest of them.
        let shortest = tags.iter().min_by_key(|tag| (*tag != "latest", tag.len()));
        let pull = match shortest {
            Some(tag) => format!("docker pull {uri}:{tag}"),
            None => format!("docker pull {uri}@{digest}"),
        };
        let annotation =
            |name: &str| index.and_then(|index| index.annotations().get(name)).cloned();
        let images = index.and_then(|index| index.images().ok()).unwrap_or_default();
        let platforms = images.iter().map(|image| PlatformView {
            platform: image.platform.to_string(),
            digest: image.digest.to_string(),
            size_bytes: sizes.get(&image.digest).copied().flatten(),
            attestations: image.attestations.len(),
        });
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds fit for 285,000 years")]
        let pushed = (described.image_pushed_at * 1000.0) as i64;
        Self {
            platforms: platforms.collect(),
            revision: annotation(annotation::REVISION),
            git_ref: annotation(annotation::REF_NAME),
            media_type: described.image_manifest_media_type.clone(),
            digest,
            pushed,
            tags,
            pull,
        }
    }
}
