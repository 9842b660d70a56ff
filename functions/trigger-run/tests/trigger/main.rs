//! The function against the local cloud, through the SDK: what events start, once, and what they
//! stop.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

mod events;
mod support;
mod webhooks;
