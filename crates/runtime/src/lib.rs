//! Lambda start-up shared by every function.
//!
//! Start-up time is a feature: the SDK's configuration is read from the variables that Lambda
//! itself sets, with no further chain of providers, and nothing waits for TLS before the first
//! poll.

mod call;
mod config;
mod config_file;
mod download;
mod log;
mod serve;

pub use archweld_metrics as metrics;
pub use call::CallError;
pub use config::{StartError, sdk_config, variable};
pub use config_file::{ConfigFileError, read_config};
pub use download::download;
pub use log::about_run;
pub use serve::{Malformed, parse, serve};
