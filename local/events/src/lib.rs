//! EventBridge on one machine: the pattern language, rules and targets.
//!
//! A [`Bus`] takes events, matches them against its rules and hands them to the rules' targets
//! through a closure; what a target is, it does not know. It retries as a rule's retry policy
//! says and tells of everything that it does in [`Notice`]s.
//!
//! It deliberately has no archives, replays, partner sources or cross-account targets, and it does
//! not run schedules: a rule with no pattern matches nothing.

mod api;
mod bus;
mod input;
mod pattern;
mod rule;

pub use bus::{Bus, Deliver, DeliveryError, DeliveryRef, ExhaustedRetry, Notice};
pub use input::{Input, JsonPath, PathError, Transformer};
pub use pattern::{PATTERN_BYTES_MAX, Pattern, PatternError};
pub use rule::{RetryPolicy, Rule, RuleError, Target};
