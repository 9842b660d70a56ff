//! The archweld command: the workflow on one machine.
//!
//! Every function runs as the binary that would be deployed, and every build as the buildspec
//! says. Exit status: 0 when the image is published or the webhook taken, 1 when a run failed or a
//! webhook was refused, 2 when the command line or the deployment is wrong, 130 after Ctrl-C.

mod arguments;
mod deployment;
mod error;
mod home;
mod progress;
mod run;
mod source;
mod trigger;
mod up;
mod validate;
mod watch;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use arguments::{Arguments, Command};
use clap::Parser as _;
use error::{Error, Report};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log();
    let done = match arguments.command {
        Command::Run(arguments) => with_runtime(run::run(arguments)),
        Command::Up(arguments) => with_runtime(up::up(arguments)),
        Command::Trigger(arguments) => with_runtime(trigger::trigger(arguments)),
        Command::Validate(project) => validate::validate(&project),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            drop(writeln!(io::stderr(), "{}", Report(&error)));
            ExitCode::from(error.exit_status())
        }
    }
}

fn with_runtime(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { what: "start the runtime", source })?
        .block_on(work)
}

/// Warnings, or as `ARCHWELD_LOG` says.
fn log() {
    let level = env::var("ARCHWELD_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::WARN))
        .with_writer(io::stderr)
        .init();
}
