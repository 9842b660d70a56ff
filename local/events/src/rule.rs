//! Rules and their targets.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{Input, Pattern};

/// The most targets of one rule
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html>).
const TARGETS_MAX: usize = 5;

/// Which events go to which targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The rule's name: 1 to 64 of letters, digits, `.`, `-` and `_`.
    pub name: String,
    /// Which events; a rule without one matches none.
    pub pattern: Option<Pattern>,
    /// Whether the rule is in force.
    pub enabled: bool,
    /// Where matching events go.
    pub targets: Vec<Target>,
}

/// Where a rule sends events, and what of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The name of the target within its rule.
    pub id: String,
    /// What receives the event.
    pub arn: String,
    /// What it receives.
    pub input: Input,
    /// How long delivery is tried.
    pub retry: RetryPolicy,
    /// Where what could not be delivered goes; the local cloud only tells of it.
    pub dead_letter_arn: Option<String>,
}

/// How long delivery to a target is tried
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first: 0 to 185.
    pub attempts_max: u32,
    /// The age of an event after which it is given up: 1 minute to 24 hours.
    pub age_max: Duration,
}

impl RetryPolicy {
    /// The most attempts after the first.
    pub const ATTEMPTS_MAX: u32 = 185;
    /// The least age that a policy may state.
    pub const AGE_MIN: Duration = Duration::from_secs(60);
    /// The greatest age that a policy may state.
    pub const AGE_MAX: Duration = Duration::from_secs(86_400);
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: Self::ATTEMPTS_MAX, age_max: Self::AGE_MAX }
    }
}

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A name that is not one.
    #[error("{what} {name:?}: expected 1 to 64 of letters, digits, '.', '-' and '_'")]
    Name {
        /// What is named so.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Too many targets.
    #[error("rule {rule}: has {count} targets, expected at most {TARGETS_MAX}")]
    Targets {
        /// The rule.
        rule: String,
        /// How many it has.
        count: usize,
    },
    /// Two targets of one name.
    #[error("rule {rule}: expected target id {id:?} once")]
    DuplicateTarget {
        /// The rule.
        rule: String,
        /// The id that is there twice.
        id: String,
    },
    /// A retry policy out of its range.
    #[error("rule {rule}, target {id}: expected 0 to 185 retries within 60 to 86400 seconds")]
    Retry {
        /// The rule.
        rule: String,
        /// The target.
        id: String,
    },
}

impl Rule {
    pub(crate) fn check(&self) -> Result<(), RuleError> {
        check_name("rule name", &self.name)?;
        if self.targets.len() > TARGETS_MAX {
            return Err(RuleError::Targets { rule: self.name.clone(), count: self.targets.len() });
        }
        let mut ids = BTreeSet::new();
        for target in &self.targets {
            check_name("target id", &target.id)?;
            let (rule, id) = (self.name.clone(), target.id.clone());
            if !ids.insert(&target.id) {
                return Err(RuleError::DuplicateTarget { rule, id });
            }
            let age = RetryPolicy::AGE_MIN..=RetryPolicy::AGE_MAX;
            if target.retry.attempts_max > RetryPolicy::ATTEMPTS_MAX
                || !age.contains(&target.retry.age_max)
            {
                return Err(RuleError::Retry { rule, id });
            }
        }
        Ok(())
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), RuleError> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if fits { Ok(()) } else { Err(RuleError::Name { what, name: name.to_owned() }) }
}
