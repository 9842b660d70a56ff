//! The registry by its public doors: the distribution API through its router, the ECR API through
//! `call`, the store across restarts, and real clients where there are any.

mod clients;
mod distribution;
mod ecr;
mod fixture;
mod store;
