//! The domain model: platforms, digests, names, the configuration, the plan and the errors.
//!
//! What crosses a boundary is parsed here once, into types that need no second check. Nothing in
//! this crate does I/O or knows of AWS's SDK.

mod config;
mod digest;
mod environment;
mod error;
mod index;
mod input;
mod name;
mod plan;
mod platform;
mod tag;

pub use config::{Config, ConfigError, ImageConfig, Publisher, SourcePath};
pub use digest::{Digest, DigestError};
pub use environment::{Environment, variable};
pub use error::{ErrorName, Named};
pub use index::{Index, IndexError, media_type};
pub use input::{ExecutionInput, InputError, Trigger};
pub use name::{Commit, GitRef, ImageName, NameError, RepositoryName, Run, Source, SourceKind};
pub use plan::{
    BuildOutcome, BuildRequest, Built, CHARACTERS_MAX, Execution, Plan, PlanError, PlannedPlatform,
    Projects, Published, PublishedPlatform, TimingSeconds,
};
pub use platform::{Architecture, Platform, PlatformError};
pub use tag::{ImageTag, TagError, TagTemplate, TagValues};
