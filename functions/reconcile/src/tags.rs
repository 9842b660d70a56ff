//! Moving tags that an execution announced and had no time to move, or moved over a newer one.

use std::collections::{BTreeMap, BTreeSet};

use archweld_ecr::{Repository, move_to_newest, newest};
use archweld_model::{
    Config, Digest, Execution, ExecutionInput, ImageTag, Marker, MovingTag, RepositoryName, RunTags,
};

use futures_util::{StreamExt as _, stream};

use crate::{AT_ONCE_MAX, Clients, EndedExecution, Error};

/// Whether a moving tag of any image is elsewhere than at its newest marker. It need not be
/// archweld's to move: see [`repair`].
pub(crate) async fn is_any_behind(config: &Config, clients: &Clients) -> Result<bool, Error> {
    let names: BTreeSet<&RepositoryName> =
        config.images().iter().map(|image| &image.repository).collect();
    let repositories =
        names.into_iter().map(|name| Repository::new(clients.ecr.clone(), name.clone()));
    let mut listed = stream::iter(repositories.collect::<Vec<_>>())
        .map(|repository| async move { repository.tags().await })
        .buffer_unordered(AT_ONCE_MAX);
    let mut failed = None;
    while let Some(listed) = listed.next().await {
        match listed {
            Ok(listed) if is_behind(&listed) => return Ok(true),
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(false), |error| Err(error.into()))
}

fn is_behind(listed: &BTreeMap<ImageTag, Digest>) -> bool {
    let marked = listed.keys().filter_map(Marker::of).map(|marker| marker.tag).collect();
    newest(listed, &marked).iter().any(|(tag, digest)| listed.get(tag) != Some(digest))
}

/// Moves the tags that the executions set markers for to where they belong; gives those that were
/// elsewhere. Which tags those are follows from an execution's input, as its plan did.
pub(crate) async fn repair(
    ended: &[EndedExecution],
    config: &Config,
    clients: &Clients,
) -> Result<Vec<ImageTag>, Error> {
    let mut of_repository: BTreeMap<RepositoryName, Vec<RunTags>> = BTreeMap::new();
    for execution in ended {
        // An execution whose input makes no plan never got as far as a tag.
        let Some((repository, tags)) = tags_of(execution, config) else { continue };
        of_repository.entry(repository).or_default().push(tags);
    }
    let mut moved = Vec::new();
    for (name, runs) in of_repository {
        let repository = Repository::new(clients.ecr.clone(), name);
        let listed = repository.tags().await?;
        let announced: BTreeSet<ImageTag> =
            runs.into_iter().flat_map(|tags| announced(tags, &listed)).collect();
        if announced.is_empty() {
            continue;
        }
        let before = listed.clone();
        let newest = move_to_newest(&repository, listed, &announced, None).await?;
        let were_elsewhere = newest.into_iter().filter(|(tag, at)| before.get(tag) != Some(at));
        moved.extend(were_elsewhere.map(|(tag, _)| tag));
    }
    Ok(moved)
}

/// The moving tags of a run that have its marker. A marker tells of the run by its name or by its
/// image, which is the one with the run's own tag.
fn announced(tags: RunTags, listed: &BTreeMap<ImageTag, Digest>) -> Vec<ImageTag> {
    let own = listed.get(&tags.own).copied();
    let is_announced = |moving: &MovingTag| {
        let marker = moving.marker().ok();
        let by_name = marker.is_some_and(|marker| listed.contains_key(&marker));
        by_name
            || listed.iter().any(|(tag, digest)| {
                Some(*digest) == own && Marker::of(tag).is_some_and(|it| it.tag == moving.tag)
            })
    };
    tags.moving.into_iter().filter(is_announced).map(|moving| moving.tag).collect()
}

fn tags_of(ended: &EndedExecution, config: &Config) -> Option<(RepositoryName, RunTags)> {
    let input = serde_json::from_str(ended.input.as_deref()?).ok()?;
    let input = ExecutionInput::parse(input).ok()?;
    let execution =
        Execution { arn: ended.arn.clone(), name: ended.name.clone(), start_time: ended.began };
    RunTags::of(config, &input, &execution).ok()
}
