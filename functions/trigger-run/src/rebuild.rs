//! Runs without a push: a schedule's time has come, or a base image was pushed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archweld_aws::{Service, secret::Secret};
use archweld_model::{
    Architecture, BaseImage, Commit, GitRef, ImageConfig, ImageTag, Marker, Named as _, Sequence,
    TagValues, TriggerKind, built_tag,
};
use archweld_runtime::CallError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use aws_types::SdkConfig;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, join_all},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::{
    Clients, Error, Settings,
    address::Address,
    event::{ImageAction, Notice, Slot},
    git::Resolved,
    outcome::Outcome,
    push::{sequence, short},
    run::Ask,
};

/// How long the pushes of one base image under its several tags may take. Within such a slot of
/// time, an image starts one run, whatever the number of tags.
const BASE_IMAGE_SLOT: Duration = Duration::from_secs(10 * 60);
/// How many images of a base image's repository are looked through for the newest, by thousands.
const PAGES_MAX: usize = 10;
/// How many images one page has.
const PAGE_MAX: u32 = 1_000;

/// How long all of an event's images may take: less than the function's 60 seconds, so that it
/// still says what is left.
const ALL_MAX: Duration = Duration::from_secs(50);

const ECR: Service = Service {
    name: "ecr",
    host: "api.ecr",
    target: "AmazonEC2ContainerRegistry_V20150921",
    version: "1.1",
};

/// ECR's answer
/// (<https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html>).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    image_details: Vec<ImageDetail>,
    next_token: Option<String>,
}

/// An image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageDetail {
    #[serde(default)]
    image_tags: Vec<String>,
    /// In seconds since 1970.
    image_pushed_at: Option<f64>,
}

impl ImageDetail {
    fn pushed_at(&self) -> Option<Timestamp> {
        let since = Duration::try_from_secs_f64(self.image_pushed_at?).ok()?;
        Timestamp::UNIX_EPOCH.checked_add(since).ok()
    }
}

/// Starts the runs of a schedule's time.
pub(crate) async fn scheduled(
    slot: Slot,
    settings: &Settings,
    clients: &Clients,
) -> Result<Outcome, Error> {
    let slot_id = format!("{} {}", short(&slot.schedule), slot.scheduled_time);
    let mut rebuild = Rebuild::new(TriggerKind::Schedule, slot.scheduled_time, settings, clients);
    let is_meant = |image: &&ImageConfig| {
        image.schedule.as_ref().is_some_and(|schedule| schedule.as_str() == slot.schedule)
    };
    for image in settings.config()?.images().iter().filter(is_meant) {
        rebuild.add(image, slot_id.clone(), slot_id.clone());
    }
    rebuild.start(format!("no image names schedule {:?}", short(&slot.schedule))).await
}

/// Starts the runs of the images that are built on an image that was pushed.
pub(crate) async fn based_on(
    notice: Notice<ImageAction>,
    settings: &Settings,
    clients: &Clients,
) -> Result<Outcome, Error> {
    let action = notice.detail;
    let mut rebuild = Rebuild::new(TriggerKind::BaseImage, notice.time, settings, clients);
    if (action.result.as_str(), action.action_type.as_str()) != ("SUCCESS", "PUSH") {
        return rebuild.start("no image was pushed".to_owned()).await;
    }
    let slot = notice.time.as_second().div_euclid(BASE_IMAGE_SLOT.as_secs().cast_signed());
    for image in settings.config()?.images() {
        if image.base_images.iter().any(|base| is_push_of(base, &action)) {
            let identity = format!("{} {} {slot}", action.repository_name, action.image_digest);
            rebuild.add(image, identity, short(&notice.id));
        }
    }
    rebuild.start(format!("no image is built on {}", action.repository_name)).await
}

/// Whether a push is one of a base image: under its tag, or, where any will do, under one that
/// stands for a whole image. The images of single architectures come before the index of them all,
/// and archweld's own tags after it.
fn is_push_of(base: &BaseImage, action: &ImageAction) -> bool {
    let Some(tag) = action.image_tag.as_ref().filter(|tag| !tag.is_reserved()) else {
        return false;
    };
    let is_of_one_architecture = || {
        Architecture::ALL.iter().any(|architecture| {
            let rest = tag.as_str().strip_suffix(architecture.image_name());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
        })
    };
    base.repository == action.repository_name
        && base.tag.as_ref().map_or_else(|| !is_of_one_architecture(), |meant| meant == tag)
}

/// A ref of a source while it is asked for: many images may be of one source.
type Resolving<'a> = Shared<BoxFuture<'a, Result<Resolved, Error>>>;

/// Runs of images' newest sources.
struct Rebuild<'a> {
    kind: TriggerKind,
    time: Timestamp,
    settings: &'a Settings,
    clients: &'a Clients,
    wanted: Vec<Wanted<'a>>,
    resolving: BTreeMap<(&'a str, &'a GitRef), Resolving<'a>>,
}

/// A run of an image.
struct Wanted<'a> {
    image: &'a ImageConfig,
    git_ref: &'a GitRef,
    resolving: Resolving<'a>,
    identity: String,
    id: String,
}

impl<'a> Rebuild<'a> {
    fn new(
        kind: TriggerKind,
        time: Timestamp,
        settings: &'a Settings,
        clients: &'a Clients,
    ) -> Self {
        Self { kind, time, settings, clients, wanted: vec![], resolving: BTreeMap::new() }
    }

    /// Adds the run of an image.
    fn add(&mut self, image: &'a ImageConfig, identity: String, id: String) {
        let Some(git_ref) = &image.schedule_ref else { return };
        let (settings, clients) = (self.settings, self.clients);
        let source = image.source.as_ref();
        let source = source.map_or(settings.source.as_str(), |source| source.as_str());
        let resolving = self
            .resolving
            .entry((source, git_ref))
            .or_insert_with(|| resolve(source, git_ref, settings, clients).boxed().shared())
            .clone();
        self.wanted.push(Wanted { image, git_ref, resolving, identity, id });
    }

    /// Starts the runs that were added, each as soon as its source is known: what keeps one from
    /// starting keeps no other. Where none was added, says why.
    async fn start(mut self, otherwise: String) -> Result<Outcome, Error> {
        let mut all = Outcome::default();
        if self.wanted.is_empty() {
            all.ignored.push(otherwise);
        }
        let end = Instant::now() + ALL_MAX;
        let wanted = std::mem::take(&mut self.wanted);
        let this = &self;
        let runs = wanted.into_iter().map(|wanted| async move {
            let image = wanted.image;
            let mut outcome = Outcome::default();
            let started = timeout_at(end, this.start_one(wanted, &mut outcome)).await;
            let result = started.unwrap_or(Err(Error::TooLong));
            if let Err(error) = &result {
                tracing::error!(
                    image.name = %image.name,
                    error.name = %error.name(),
                    error.message = %error,
                    "no run"
                );
                if outcome.failed.is_empty() {
                    outcome.fail(&image.name);
                }
            }
            (outcome, result)
        });
        let mut result = Ok(());
        for (one, started) in join_all(runs.collect::<Vec<_>>()).await {
            all.started.extend(one.started);
            all.skipped.extend(one.skipped);
            all.failed.extend(one.failed);
            result = result.and(started);
        }
        result.map(|()| all)
    }

    async fn start_one(&self, wanted: Wanted<'a>, outcome: &mut Outcome) -> Result<(), Error> {
        let Wanted { image, git_ref, resolving, identity, id } = wanted;
        let (commit, note) = match resolving.await? {
            Resolved::Commit(commit) => (Some(commit), None),
            Resolved::Missing => {
                skip(image, format!("its source has no {git_ref}"), outcome);
                return Ok(());
            }
            Resolved::Unknown(reason) => (None, Some(format!("started from {git_ref}: {reason}"))),
        };
        let published = published(image, commit.as_ref(), &self.clients.config).await?;
        if self.kind == TriggerKind::Schedule
            && image.only_if_base_changed
            && let Some(published) = &published
            && let Some(since) = unmoved(image, published, &self.clients.config).await?
        {
            let reason = format!("neither its source nor a base image has moved since {since}");
            skip(image, reason, outcome);
            return Ok(());
        }
        // The source is as old as it was: a push that comes after it is newer, though it may be of
        // commits from before now. Among runs of one sequence, the one that builds anew is ahead.
        let sequence = match published.as_ref().and_then(sequence_of) {
            Some(sequence) => Some(sequence),
            None => {
                newest(image, git_ref, &self.clients.config).await?.or_else(|| sequence(self.time))
            }
        };
        let ask = Ask {
            image,
            git_ref: git_ref.clone(),
            commit,
            before: None,
            kind: self.kind,
            identity,
            id,
            sequence,
            actor: None,
            note,
        };
        let executions = self.clients.executions(self.settings);
        Ok(executions.start_all(vec![ask], outcome).await?)
    }
}

fn skip(image: &ImageConfig, reason: String, outcome: &mut Outcome) {
    tracing::info!(image.name = %image.name, reason, "no run");
    outcome.skip(&image.name, reason);
}

async fn resolve(
    source: &str,
    git_ref: &GitRef,
    settings: &Settings,
    clients: &Clients,
) -> Result<Resolved, Error> {
    let host = |url: &str| Address::parse(url).map(|address| address.host().to_owned());
    // The token is the deployment's source's, and no other server's to see.
    let token: Option<Arc<[Secret]>> = match &settings.git_token {
        Some(token) if host(source) == host(&settings.source) => {
            Some(clients.secrets.get(token).await?)
        }
        _ => None,
    };
    let token = token.as_ref().and_then(|secrets| secrets.first());
    Ok(clients.git.resolve(source, git_ref, token).await?)
}

/// The index that a run published of a commit, where one did.
async fn published(
    image: &ImageConfig,
    commit: Option<&Commit>,
    config: &SdkConfig,
) -> Result<Option<ImageDetail>, CallError> {
    let Ok(Some(tag)) = built_tag(image, &commit.cloned(), None) else { return Ok(None) };
    tagged(image, tag, config).await
}

/// The index of a tag in an image's repository.
async fn tagged(
    image: &ImageConfig,
    tag: ImageTag,
    config: &SdkConfig,
) -> Result<Option<ImageDetail>, CallError> {
    let tagged = BaseImage { repository: image.repository.clone(), tag: Some(tag) };
    let page = describe(&tagged, None, config).await?;
    Ok(page.and_then(|page| page.image_details.into_iter().next()))
}

/// The sequence of the newest run that published an index: its moving tags' markers tell.
fn sequence_of(published: &ImageDetail) -> Option<Sequence> {
    let tags = published.image_tags.iter().filter_map(|tag| tag.parse().ok());
    tags.filter_map(|tag| Marker::of(&tag)).map(|marker| marker.rank.sequence).max()
}

/// The sequence of the newest run that an image's moving tags belong to. Where nobody published a
/// commit yet, this is what it follows: a push of it that is still built is newer.
async fn newest(
    image: &ImageConfig,
    git_ref: &GitRef,
    config: &SdkConfig,
) -> Result<Option<Sequence>, CallError> {
    let values = TagValues { git_ref: Some(git_ref), ..TagValues::default() };
    let moving = image.tags.iter().filter(|tag| !tag.is_fixed());
    let mut newest = None;
    for tag in moving.filter_map(|tag| tag.render(&values).ok().flatten()) {
        let tagged = tagged(image, tag, config).await?;
        newest = newest.max(tagged.as_ref().and_then(sequence_of));
    }
    Ok(newest)
}

/// Since when an image is what a run would make of it, as far as that is known: its source was
/// published, and each base image was pushed before that run could have begun.
async fn unmoved(
    image: &ImageConfig,
    published: &ImageDetail,
    config: &SdkConfig,
) -> Result<Option<Timestamp>, CallError> {
    let Some(published) = published.pushed_at() else { return Ok(None) };
    let minutes = image.build_timeout_minutes.saturating_add(image.queue_timeout_minutes);
    let longest = Duration::from_secs(60 * u64::from(minutes));
    let began = published.checked_sub(longest).unwrap_or(Timestamp::MIN);
    for base in &image.base_images {
        if pushed_at(base, config).await?.is_none_or(|pushed| pushed >= began) {
            return Ok(None);
        }
    }
    Ok(Some(published))
}

/// When an image was pushed, or the newest of a repository; `None` where it is not known.
async fn pushed_at(image: &BaseImage, config: &SdkConfig) -> Result<Option<Timestamp>, CallError> {
    let mut newest = None;
    let mut next_token = None;
    for _ in 0..PAGES_MAX {
        let Some(page) = describe(image, next_token, config).await? else { return Ok(None) };
        newest = newest.max(page.image_details.iter().filter_map(ImageDetail::pushed_at).max());
        next_token = page.next_token;
        if next_token.is_none() {
            return Ok(newest);
        }
    }
    // More images than are looked through: one of the others may be the newest.
    Ok(None)
}

/// The image of a tag, or a page of a repository's; `None` where there is no such image or
/// repository.
async fn describe(
    image: &BaseImage,
    next_token: Option<String>,
    config: &SdkConfig,
) -> Result<Option<Page>, CallError> {
    let mut input = match &image.tag {
        Some(tag) => json!({"imageIds": [{"imageTag": tag}]}),
        None => json!({"maxResults": PAGE_MAX}),
    };
    input["repositoryName"] = Value::from(image.repository.as_str());
    if let Some(next_token) = next_token {
        input["nextToken"] = next_token.into();
    }
    match ECR.call(config, "DescribeImages", input).await {
        Ok(page) => Ok(Some(page)),
        Err(error) => match error.code() {
            Some("ImageNotFoundException" | "RepositoryNotFoundException") => Ok(None),
            _ => Err(CallError::new("ecr:DescribeImages", &error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use archweld_model::Digest;

    use super::*;

    #[test]
    fn a_base_image_is_pushed_under_its_tag_or_under_one_of_a_whole_image() {
        let is_push = |base: &str, tag: Option<&str>| {
            let action = ImageAction {
                result: "SUCCESS".to_owned(),
                action_type: "PUSH".to_owned(),
                repository_name: "base".parse().unwrap(),
                image_digest: Digest::of(b"base"),
                image_tag: tag.map(|tag| tag.parse().unwrap()),
            };
            is_push_of(&base.to_owned().try_into().unwrap(), &action)
        };
        for (base, tag) in
            [("base", "3"), ("base", "latest"), ("base:3", "3"), ("base:3-amd64", "3-amd64")]
        {
            assert!(is_push(base, Some(tag)), "{base} {tag}");
        }
        for (base, tag) in [
            ("base:3", "4"),
            ("base2", "3"),
            ("base", "archweld.latest.1"),
            ("base", "r1-arm64v8"),
            ("base", "amd64"),
        ] {
            assert!(!is_push(base, Some(tag)), "{base} {tag}");
        }
        assert!(!is_push("base", None));
    }
}
