//! The service through its API, under paused time.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod executions;
mod journal;
mod redrive;
mod support;
mod tasks;
