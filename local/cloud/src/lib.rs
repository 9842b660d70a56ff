//! The local cloud: one set of services behind an HTTP door and an in-process door.
//!
//! [`Cloud::open`] reads the template, creates every service from it and wires them together:
//! events to rules to functions, schedules and URLs to functions, tasks to functions, builds and
//! pushes to events. Door 1 is an HTTP server on loopback; door 2 is [`Cloud::sdk_config`], whose
//! clients need no sockets.
//!
//! Nothing here knows what archweld's workflow does: another template is another cloud.

mod calls;
mod cloud;
mod door;
mod error;
mod in_process;
mod metrics;
mod server;
mod webhooks;
mod wiring;

pub use calls::{CALLS_MAX, Call};
pub use cloud::{
    Builds, Cloud, Functions, GitRemote, InProcessFunctions, Seams, Settings, ShellBuilds,
};
pub use door::BODY_BYTES_MAX;
pub use error::OpenError;
pub use webhooks::{WebhookTarget, webhook_target};
