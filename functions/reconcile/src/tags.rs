//! Moving tags that an execution announced and had no time to move, or moved over a newer one.

use std::collections::BTreeSet;

use archweld_ecr::{Repository, move_to_newest};
use archweld_model::{ExecutionInput, ImageConfig, ImageTag, Marker, Run};

use crate::{Clients, Error, Settings, StatusDetail};

/// Moves the tags that the execution set markers for to where they belong. The markers tell: they
/// are on the same image as the run's own tag.
pub(crate) async fn repair(
    ended: &StatusDetail,
    settings: &Settings,
    clients: &Clients,
) -> Result<Vec<ImageTag>, Error> {
    // An execution without an image never got as far as a tag.
    let Some(image) = image_of(ended, settings) else { return Ok(vec![]) };
    let repository = Repository::new(clients.ecr.clone(), image.repository.clone());
    let listed = repository.tags().await?;
    let own: ImageTag = match Run::of_execution(&ended.name).as_str().parse() {
        Ok(own) => own,
        Err(_) => return Ok(vec![]),
    };
    let Some(index) = listed.get(&own) else { return Ok(vec![]) };
    let announced: BTreeSet<ImageTag> = listed
        .iter()
        .filter(|(_, digest)| *digest == index)
        .filter_map(|(tag, _)| Marker::of(tag))
        .map(|marker| marker.tag)
        .collect();
    if !announced.is_empty() {
        move_to_newest(&repository, listed, &announced, None).await?;
    }
    Ok(announced.into_iter().collect())
}

fn image_of<'a>(ended: &StatusDetail, settings: &'a Settings) -> Option<&'a ImageConfig> {
    let input = serde_json::from_str(ended.input.as_deref()?).ok()?;
    let input = ExecutionInput::parse(input).ok()?;
    match (&input.image, settings.config.images()) {
        (Some(name), _) => settings.config.image(name),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}
