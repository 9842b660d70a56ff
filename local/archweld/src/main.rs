//! The archweld command: the workflow on one machine, and a stack on AWS from a terminal.
//!
//! On one machine, every function runs as the binary that would be deployed, and every build as the
//! buildspec says. Exit status: 0 when the image is published, the webhook taken or all in order; 1
//! when a run failed, a webhook was refused or something is wrong with a deployment; 2 when the
//! command line or the configuration is wrong; 130 after Ctrl-C.

mod arguments;
mod aws;
mod deployment;
mod doctor;
mod error;
mod estimate;
mod follow;
mod home;
mod logs;
mod progress;
mod request;
mod run;
mod runs;
mod simulate;
mod source;
mod start;
mod status;
mod summary;
mod target;
mod transitions;
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
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// A fifth of a simulation's time is spent allocating by the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log();
    let done = match arguments.command {
        Command::Run(arguments) => with_runtime(run::run(arguments)),
        Command::Up(arguments) => with_runtime(up::up(arguments)),
        Command::Trigger(arguments) => with_runtime(trigger::trigger(arguments)),
        Command::Validate(project) => validate::validate(&project),
        Command::Start(arguments) => with_runtime(start::start(arguments)),
        Command::Stop(arguments) => with_runtime(start::stop(arguments)),
        Command::Status(arguments) => with_runtime(status::status(arguments)),
        Command::Logs(arguments) => with_runtime(logs::logs(arguments)),
        Command::Doctor(arguments) => with_runtime(doctor::doctor(arguments)),
        Command::Simulate(arguments) => simulate::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has read enough, such as `head`.
        Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
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

/// Writes text to the standard output.
fn print(text: &str) -> Result<(), Error> {
    io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
        .map_err(|source| Error::System { what: "write to the standard output", source })
}

/// Warnings, or as `ARCHWELD_LOG` says.
fn log() {
    let level: Option<LevelFilter> =
        env::var("ARCHWELD_LOG").ok().and_then(|level| level.parse().ok());
    let shown = match level {
        Some(level) => Targets::new().with_default(level),
        // Why there are no credentials is told by the command, once.
        None => Targets::new()
            .with_default(LevelFilter::WARN)
            .with_target("aws_config", LevelFilter::OFF),
    };
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr))
        .with(shown)
        .init();
}
