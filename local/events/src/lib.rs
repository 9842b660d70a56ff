//! EventBridge on one machine: the pattern language, rules and targets.
