//! The registry by its public doors: the distribution API through its router, the ECR API through
//! `call`, the store across restarts, and real clients where there are any.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

mod clients;
mod differential;
mod distribution;
mod ecr;
mod fixture;
mod store;
