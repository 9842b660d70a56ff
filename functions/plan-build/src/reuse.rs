//! Images that an earlier run published from the same source: they need not be built again.

use archweld_ecr::{EcrError, Repository};
use archweld_model::{Annotations, Index, Plan, annotation};

/// Plans to reuse what an earlier run published: the image of each platform that it had, and its
/// index, too, where it has exactly the planned platforms.
///
/// # Errors
/// When ECR does not answer. The plan is then as good as before.
pub(crate) async fn reuse(plan: &mut Plan, repository: &Repository) -> Result<(), EcrError> {
    let Some(tag) = plan.built_tag.clone() else { return Ok(()) };
    let Some(index) = repository.image(tag).await? else { return Ok(()) };
    let parsed = Index::parse(index.text());
    let Ok(images) = parsed.as_ref().map_err(Clone::clone).and_then(Index::images) else {
        tracing::warn!(image.digest = %index.digest(), "the record of earlier images is no index");
        return Ok(());
    };
    let digests: Vec<_> = images.iter().map(|image| image.digest.into()).collect();
    // The size of what is reused is in its manifest, and a manifest may have been deleted.
    let manifests = repository.images(&digests).await?;
    for planned in &mut plan.platforms {
        let known = images.iter().zip(&manifests);
        planned.reused = known.filter(|(image, _)| image.platform == planned.platform).find_map(
            |(image, manifest)| {
                let mut built = manifest.as_ref()?.built().ok()?;
                built.attestations.clone_from(&image.attestations);
                Some(built)
            },
        );
    }
    let reused = plan.platforms.iter().filter(|planned| planned.reused.is_some()).count();
    // An index that tells of another commit is not this one's, though its images are.
    let revision = |annotations: &Annotations| annotations.get(annotation::REVISION).cloned();
    let known = parsed.ok().and_then(|index| revision(index.annotations()));
    let is_of_commit = known.is_none() || known == revision(&plan.annotations);
    if reused == plan.platforms.len() && reused == images.len() && is_of_commit {
        plan.index = index.built().ok();
        plan.manifest = None;
    }
    tracing::info!(images.reused = reused, "images of an earlier run are reused");
    Ok(())
}
