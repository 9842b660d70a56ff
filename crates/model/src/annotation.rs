//! The annotations that archweld sets on an index.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md>

/// When the newest of the images was created, as their configs say.
pub const CREATED: &str = "org.opencontainers.image.created";
/// The branch or tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The commit.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// The git repository.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// The sequence of the run.
pub const SEQUENCE: &str = "dev.archweld.sequence";

/// Whether no configuration may set it.
pub(crate) fn is_reserved(name: &str) -> bool {
    [CREATED, REF_NAME, REVISION, SOURCE].contains(&name) || name.starts_with("dev.archweld.")
}
