//! Measures archweld: what its functions cost, what it takes to publish an image and to answer a
//! webhook, and what a call through the AWS SDK costs.
//!
//! What is compared is measured in turns, so that a change in the
//! machine's load falls on all of it alike. `make bench` runs everything.

mod cloud;
mod figures;
mod functions;
mod publish;
mod sdk;
mod webhook;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;

/// Measures archweld.
#[derive(Parser)]
enum Command {
    Functions(functions::Arguments),
    Publish(publish::Arguments),
    Sdk(sdk::Arguments),
    Webhook(webhook::Arguments),
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Functions(#[from] functions::Error),
    #[error(transparent)]
    Publish(#[from] publish::Error),
    #[error(transparent)]
    Sdk(#[from] sdk::Error),
    #[error(transparent)]
    Webhook(#[from] webhook::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            let _ = writeln!(io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), Error> {
    let report = match command {
        Command::Functions(arguments) => functions::bench(arguments)?,
        Command::Publish(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(publish::bench(arguments))?
        }
        Command::Sdk(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(sdk::bench(arguments))?
        }
        Command::Webhook(arguments) => {
            // As `archweld up` has it.
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(webhook::bench(arguments))?
        }
    };
    Ok(io::stdout().write_all(report.as_bytes())?)
}
