//! Moving tags end at the newest run, though ECR has no compare-and-swap.
//!
//! A run sets its markers first. Whoever then moves a tag, moves it to the image of the newest
//! marker, and looks again after it has written: of all who write, the last one has seen every
//! marker that was there before its last look, and who sets a marker later looks later. The argument
//! for every interleaving and crash is in `ARCHITECTURE.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use archweld_model::{Digest, ImageTag, Marker, Rank};

use crate::{EcrError, IfTaken, Image, Put, Repository};

/// How often it looks before it gives way: each further look is due to yet another run that set its
/// marker in between.
const LOOKS_MAX: u32 = 10;
/// How much longer it waits before each further look.
const LOOK_WAIT: Duration = Duration::from_millis(100);

/// Moves these tags to the images of their newest markers, and answers where each belongs; a tag
/// without a marker is left alone.
///
/// `listed` is what [`Repository::tags`] answered to the caller's first look; `own` is an image that
/// need not be read first.
///
/// # Errors
/// When a tag may not move, or a call fails. Whoever calls again goes on where this stopped.
pub async fn move_to_newest(
    repository: &Repository,
    mut listed: BTreeMap<ImageTag, Digest>,
    tags: &BTreeSet<ImageTag>,
    own: Option<&Image>,
) -> Result<BTreeMap<ImageTag, Digest>, EcrError> {
    for looks in 0..LOOKS_MAX {
        // The first two looks are the rule; more of them wait for others, or for a list that lags.
        tokio::time::sleep(LOOK_WAIT * looks.saturating_sub(1)).await;
        let newest = newest(&listed, tags);
        let behind: Vec<(&ImageTag, Digest)> = newest
            .iter()
            .filter(|(tag, digest)| listed.get(*tag) != Some(digest))
            .map(|(tag, digest)| (tag, *digest))
            .collect();
        if behind.is_empty() {
            return Ok(newest);
        }
        let foreign: BTreeSet<Digest> = behind.iter().map(|(_, digest)| *digest).collect();
        let foreign: Vec<Digest> =
            foreign.into_iter().filter(|digest| own.map(Image::digest) != Some(*digest)).collect();
        let references: Vec<_> = foreign.into_iter().map(Into::into).collect();
        // A marker goes with its image: one that is gone was deleted since the look.
        let images: Vec<Image> =
            repository.images(&references).await?.into_iter().flatten().collect();
        let moves = behind.into_iter().filter_map(|(tag, digest)| {
            let mut images = images.iter().chain(own);
            let image = images.find(|image| image.digest() == digest)?;
            Some(Put { image, tag, if_taken: IfTaken::Refuse })
        });
        repository.put_all(moves.collect()).await?;
        listed = repository.tags().await?;
    }
    Err(EcrError::Unsettled {
        repository: repository.name().clone(),
        tags: tags.iter().map(ImageTag::as_str).collect::<Vec<_>>().join(", "),
    })
}

/// The image of the newest marker of each of these tags.
pub fn newest(
    listed: &BTreeMap<ImageTag, Digest>,
    tags: &BTreeSet<ImageTag>,
) -> BTreeMap<ImageTag, Digest> {
    let mut newest: BTreeMap<ImageTag, (Rank, Digest)> = BTreeMap::new();
    for (tag, digest) in listed {
        let Some(Marker { tag, rank }) = Marker::of(tag) else { continue };
        let is_newer = newest.get(&tag).is_none_or(|(known, _)| rank > *known);
        if tags.contains(&tag) && is_newer {
            newest.insert(tag, (rank, *digest));
        }
    }
    newest.into_iter().map(|(tag, (_, digest))| (tag, digest)).collect()
}
