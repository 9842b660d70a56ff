//! The domain model: platforms, digests, names, the configuration, the plan and the errors.
//!
//! What crosses a boundary is parsed here once, into types that need no second check. Nothing in
//! this crate does I/O or knows of AWS's SDK.

pub mod annotation;
mod config;
mod digest;
mod environment;
mod error;
mod index;
mod input;
mod manifest;
mod name;
mod notify;
mod plan;
mod platform;
mod rank;
mod run_tags;
mod tag;
mod trigger;
mod wildcard;

pub use config::{Config, ConfigError, ImageConfig, Publisher, SourcePath};
pub use digest::{Digest, DigestError};
pub use environment::{Environment, variable};
pub use error::{ErrorName, Named};
pub use index::{
    Annotations, Attestation, Child, Index, IndexError, IndexedImage, PlatformFields, media_type,
};
pub use input::{ExecutionInput, InputError, Trigger};
pub use manifest::{Descriptor, Manifest};
pub use name::{
    Commit, GitRef, ImageName, NameError, RepositoryName, Run, Source, SourceKind, SourceTree,
};
pub use notify::{Notify, Provider, Receiver, RunState, SecretRef, is_url};
pub use plan::{
    BuildOutcome, BuildRequest, Built, CHARACTERS_MAX, Deployment, ExecutableCheck, Execution,
    Plan, PlanError, PlannedPlatform, Projects, Published, PublishedPlatform, TimingSeconds,
    built_tag,
};
pub use platform::{Architecture, Platform, PlatformError};
pub use rank::{Marker, Rank, Sequence, SequenceError, Version};
pub use run_tags::{MovingTag, RunTags};
pub use tag::{ImageTag, TagError, TagTemplate, TagValues};
pub use trigger::{BaseImage, RefPattern, ScheduleName, TriggerError, TriggerKind};
pub use wildcard::matches_wildcard;
