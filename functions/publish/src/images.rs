//! The images of an index: that each is of the platform that it was built for, by its config and by
//! the program that it starts.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use archweld_ecr::{Image, Repository};
use archweld_executable::{Bounds, Finding, Layer, Program, ReadError, Start, examine};
use archweld_model::{
    Built, Child, Descriptor, Digest, ExecutableCheck, Manifest, Plan, Platform, PlatformFields,
};
use archweld_runtime::download;
use bytes::Bytes;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::Deserialize;

use crate::{BlobError, Clients, Error};

/// Longer than any config that a build makes, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// An image that is what it was built for.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    /// Its place in the index.
    pub(crate) child: Child,
    /// When it was created, as its config says.
    pub(crate) created: Option<Timestamp>,
    /// What the program that it starts is made for.
    pub(crate) executable: ExecutableCheck,
}

/// What an image's config says
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#properties>).
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(flatten)]
    platform: PlatformFields,
    created: Option<String>,
    /// What the image starts.
    #[serde(default)]
    config: Option<Start>,
}

/// Verifies every image, side by side.
///
/// # Errors
/// At the first image that is not in the repository, is itself an index, or is of another platform
/// than it was built for.
pub(crate) async fn verify(
    plan: &Plan,
    builds: Vec<Built>,
    manifests: Vec<Option<Image>>,
    repository: &Repository,
    clients: &Clients,
) -> Result<Vec<Verified>, Error> {
    let images = plan.platforms.iter().zip(builds).zip(manifests);
    try_join_all(images.map(|((planned, built), manifest)| async move {
        let platform = planned.platform;
        let image = manifest.ok_or_else(|| Error::NotFound {
            what: format!("image of {platform}"),
            repository: repository.name().clone(),
            digest: built.digest,
        })?;
        verify_one(plan, platform, built, &image, repository, clients).await
    }))
    .await
}

async fn verify_one(
    plan: &Plan,
    platform: Platform,
    built: Built,
    image: &Image,
    repository: &Repository,
    clients: &Clients,
) -> Result<Verified, Error> {
    let digest = built.digest;
    let not_an_image = |problem: String| Error::NotAnImage { digest, platform, problem };
    if image.is_index() {
        return Err(not_an_image("it is itself an index".to_owned()));
    }
    let manifest =
        Manifest::parse(image.text()).map_err(|error| not_an_image(error.to_string()))?;
    let blobs = Blobs { repository, clients, urls: Mutex::default() };
    let config = blobs.config(&manifest.config).await.map_err(|reason| Error::Config {
        digest,
        platform,
        config: manifest.config.digest,
        reason: Box::new(reason),
    })?;
    let config: Config = serde_json::from_slice(&config)
        .map_err(|error| not_an_image(format!("config {}: {error}", manifest.config.digest)))?;
    let found = config.platform.platform();
    if found.as_ref() != Ok(&platform) {
        let found = format!("its config says {}", config.platform);
        return Err(Error::WrongPlatform { digest, platform, found });
    }
    let executable = if plan.check_executable {
        check_executable(platform, digest, config.config.unwrap_or_default(), &manifest, &blobs)
            .await?
    } else {
        ExecutableCheck::Off
    };
    let built = Built {
        media_type: image.media_type().to_owned(),
        manifest_bytes: image.text().len() as u64,
        size_bytes: manifest.size_bytes(),
        ..built
    };
    Ok(Verified {
        child: Child { platform, fields: config.platform, built },
        // What is no time is no reason to publish nothing.
        created: config.created.and_then(|created| created.parse().ok()),
        executable,
    })
}

/// Looks into an image for the program that it starts. Whether it can be told is not decisive, what
/// it tells is.
async fn check_executable(
    platform: Platform,
    digest: Digest,
    start: Start,
    manifest: &Manifest,
    blobs: &Blobs<'_>,
) -> Result<ExecutableCheck, Error> {
    let layers = manifest.layers.iter().map(|layer| Layer {
        digest: layer.digest,
        media_type: layer.media_type.clone(),
        size_bytes: layer.size,
    });
    let says = |Program { path, machine, .. }| format!("{path} is compiled for {machine}");
    match examine(platform, &start, layers.collect(), blobs, Bounds::default()).await {
        Finding::Runs(program) => Ok(ExecutableCheck::Confirmed(says(program))),
        Finding::Foreign(program) => {
            Err(Error::WrongPlatform { digest, platform, found: says(program) })
        }
        Finding::Unknown(reason) => {
            tracing::warn!(
                image.digest = %digest,
                image.platform = %platform,
                error.message = %reason,
                "the processor that the image's program is for could not be told"
            );
            Ok(ExecutableCheck::Unknown(reason.to_string()))
        }
    }
}

/// The blobs of a repository.
struct Blobs<'a> {
    repository: &'a Repository,
    clients: &'a Clients,
    /// Where each was found: an address holds for an hour.
    urls: Mutex<BTreeMap<Digest, String>>,
}

impl archweld_executable::Blobs for Blobs<'_> {
    async fn read(&self, digest: Digest, range: Range<u64>) -> Result<Bytes, ReadError> {
        let read = async {
            let url = self.url(digest).await?;
            Ok(download(&self.clients.config, "download of a layer", &url, range).await?)
        };
        read.await.map_err(|error: BlobError| ReadError(error.to_string()))
    }
}

impl Blobs<'_> {
    async fn config(&self, config: &Descriptor) -> Result<Bytes, BlobError> {
        let wrong = BlobError::Wrong;
        if config.size > CONFIG_BYTES_MAX {
            let expected = format!("expected at most {CONFIG_BYTES_MAX}");
            return Err(wrong(format!("{} bytes, {expected}", config.size)));
        }
        let url = self.url(config.digest).await?;
        let bytes =
            download(&self.clients.config, "download of a config", &url, 0..config.size).await?;
        let digest = Digest::of(&bytes);
        if digest == config.digest {
            Ok(bytes)
        } else {
            Err(wrong(format!("its content has the digest {digest}")))
        }
    }

    async fn url(&self, digest: Digest) -> Result<String, BlobError> {
        let urls = || self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        let known = urls().get(&digest).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let url = self.repository.download_url(digest).await?;
        urls().insert(digest, url.clone());
        Ok(url)
    }
}
