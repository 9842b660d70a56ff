//! Moving tags that an execution announced and had no time to move, or moved over a newer one.

use std::collections::BTreeSet;

use archweld_ecr::{Repository, move_to_newest};
use archweld_model::{
    Config, Execution, ExecutionInput, ImageTag, Marker, MovingTag, RepositoryName, RunTags,
};
use jiff::Timestamp;

use crate::{Clients, Error, StatusDetail};

/// Moves the tags that the execution set markers for to where they belong. Which those are follows
/// from its input, as its plan did.
pub(crate) async fn repair(
    ended: &StatusDetail,
    config: &Config,
    clients: &Clients,
) -> Result<Vec<ImageTag>, Error> {
    // An execution whose input makes no plan never got as far as a tag.
    let Some((repository, tags)) = tags_of(ended, config) else { return Ok(vec![]) };
    let repository = Repository::new(clients.ecr.clone(), repository);
    let listed = repository.tags().await?;
    // A marker tells of the run by its name or by its image, which is the one with the run's own tag.
    let own = listed.get(&tags.own).copied();
    let is_announced = |moving: &MovingTag| {
        let marker = moving.marker().ok();
        let by_name = marker.is_some_and(|marker| listed.contains_key(&marker));
        by_name
            || listed.iter().any(|(tag, digest)| {
                Some(*digest) == own && Marker::of(tag).is_some_and(|it| it.tag == moving.tag)
            })
    };
    let announced: BTreeSet<ImageTag> =
        tags.moving.into_iter().filter(is_announced).map(|moving| moving.tag).collect();
    if !announced.is_empty() {
        move_to_newest(&repository, listed, &announced, None).await?;
    }
    Ok(announced.into_iter().collect())
}

fn tags_of(ended: &StatusDetail, config: &Config) -> Option<(RepositoryName, RunTags)> {
    let input = serde_json::from_str(ended.input.as_deref()?).ok()?;
    let input = ExecutionInput::parse(input).ok()?;
    let execution = Execution {
        arn: ended.execution_arn.clone(),
        name: ended.name.clone(),
        start_time: Timestamp::from_millisecond(ended.start_date).ok()?,
    };
    RunTags::of(config, &input, &execution).ok()
}
