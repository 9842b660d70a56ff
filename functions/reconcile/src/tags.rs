//! Moving tags that an execution announced and had no time to move, or moved over a newer one.

use std::collections::BTreeSet;

use archweld_ecr::{Repository, move_to_newest};
use archweld_model::{Config, Execution, ExecutionInput, ImageTag, RepositoryName, RunTags};
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
    let announced: BTreeSet<ImageTag> = tags
        .moving
        .into_iter()
        .filter(|moving| {
            moving.marker(tags.sequence).is_ok_and(|marker| listed.contains_key(&marker))
        })
        .map(|moving| moving.tag)
        .collect();
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
