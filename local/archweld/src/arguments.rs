//! The command line.

use std::{num::NonZero, path::PathBuf};

use archweld_git::Provider;
use archweld_model::{Commit, GitRef, ImageName, Platform, Publisher, TagTemplate};
use clap::{Args, Parser, Subcommand};

use crate::runs::MANIFEST;

/// The port that the local cloud listens on by default.
pub(crate) const PORT_DEFAULT: u16 = 4577;

/// A source tree in, a multi-architecture container image out
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build and publish one image on this machine
    Run(Run),
    /// Keep the local cloud running, for the AWS CLI, SDKs and Docker
    Up(Up),
    /// Send a signed webhook by hand, to the local cloud or to a function's URL
    Trigger(Trigger),
    /// Start a run of a deployed stack or of the local cloud, and follow it
    Start(Start),
    /// Stop a run
    Stop(Stop),
    /// Show the last runs, or one in detail
    Status(Status),
    /// Show the logs of a run's builds
    Logs(Logs),
    /// Find what keeps a deployed stack, or this machine, from building, and say the mend
    Doctor(Doctor),
    /// Check archweld.toml, the state machine and the template, and that they agree
    Validate(Project),
    /// Simulate many runs under faults, and check that what archweld promises holds
    Simulate(Simulate),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The image to build; may be left out where archweld.toml has one image
    #[arg(long)]
    pub(crate) image: Option<ImageName>,
    /// What to build: a folder, or the address of a git repository [default: the configuration's folder]
    #[arg(long, value_name = "DIR-or-URL")]
    pub(crate) source: Option<String>,
    /// The branch or tag to build [default: the folder as it is; a repository's default branch]
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) git_ref: Option<GitRef>,
    /// A platform to build for, instead of the configuration's; may be repeated
    #[arg(long = "platform", value_name = "PLATFORM")]
    pub(crate) platforms: Vec<Platform>,
    /// Who makes the index, instead of the configuration's choice
    #[arg(long, value_parser = publisher)]
    pub(crate) publisher: Option<Publisher>,
    /// Build even what an earlier run built from the same source
    #[arg(long)]
    pub(crate) force: bool,
    /// Report in JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) host: Host,
    #[command(flatten)]
    pub(crate) project: Project,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// What every build builds, whatever its project says: a folder, or the address of a git
    /// repository [default: the configuration's folder]
    #[arg(long, value_name = "DIR-or-URL")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) host: Host,
    #[command(flatten)]
    pub(crate) project: Project,
}

#[derive(Debug, Args)]
pub(crate) struct Trigger {
    /// The provider whose webhook it is: github, gitlab, bitbucket or gitea
    #[arg(long)]
    pub(crate) provider: Provider,
    /// The payload, which is sent as it is
    #[arg(long, value_name = "FILE")]
    pub(crate) payload: PathBuf,
    /// The URL of a function [default: the local cloud's]
    #[arg(long, requires = "secret_file")]
    pub(crate) url: Option<String>,
    /// A file with the secret that signs [default: the local cloud's secret]
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The identity of the delivery [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(crate) delivery: Option<String>,
    /// The event: push, tag_push, or the provider's own name of another
    #[arg(long, default_value = "push")]
    pub(crate) event: String,
    /// The local cloud's port on loopback
    #[arg(long, default_value_t = PORT_DEFAULT)]
    pub(crate) port: u16,
    /// The template of the local cloud [default: as for the other commands]
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The image to build; may be left out where archweld.toml has one image
    #[arg(long)]
    pub(crate) image: Option<ImageName>,
    /// The branch or tag to build [default: the source's default branch]
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) git_ref: Option<GitRef>,
    /// The commit to build
    #[arg(long)]
    pub(crate) commit: Option<Commit>,
    /// A platform to build for, instead of the configuration's; may be repeated
    #[arg(long = "platform", value_name = "PLATFORM")]
    pub(crate) platforms: Vec<Platform>,
    /// A tag of the image, instead of the configuration's; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<TagTemplate>,
    /// Who makes the index, instead of the configuration's choice
    #[arg(long, value_parser = publisher)]
    pub(crate) publisher: Option<Publisher>,
    /// Build even what an earlier run built from the same source
    #[arg(long)]
    pub(crate) force: bool,
    /// The execution's input as JSON, @FILE with it, or - for the standard input; other options
    /// take the place of its fields
    #[arg(long, value_name = "JSON")]
    pub(crate) input: Option<String>,
    /// The run's name [default: one that Step Functions makes]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// End as soon as the run has started
    #[arg(long, conflicts_with = "stop_on_interrupt")]
    pub(crate) no_wait: bool,
    /// Let Ctrl-C stop the run, and not only following it
    #[arg(long)]
    pub(crate) stop_on_interrupt: bool,
    /// Report in JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The run's name, or its execution's ARN
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The run to show in detail: its name, or its execution's ARN
    pub(crate) run: Option<String>,
    /// How many runs to list
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) limit: u16,
    /// Follow the run, or the newest, to its end
    #[arg(long)]
    pub(crate) follow: bool,
    /// Report in JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The run's name, or its execution's ARN [default: the newest run]
    pub(crate) run: Option<String>,
    /// The platform whose build it is, or `manifest`; may be repeated [default: all builds]
    #[arg(long = "platform", value_name = "PLATFORM", value_parser = build_target)]
    pub(crate) platforms: Vec<String>,
    /// How many of the last lines of each build to show [default: all]
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) tail: Option<u16>,
    /// Go on with what builds write until the run is over
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Report in JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The folder of the functions' binaries of the local cloud [default: the folder of this command]
    #[arg(long, value_name = "DIR", conflicts_with = "stack")]
    pub(crate) functions: Option<PathBuf>,
    /// The local cloud's folder for state and images
    #[arg(long, value_name = "DIR", default_value = ".archweld", conflicts_with = "stack")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) project: Project,
    #[command(flatten)]
    pub(crate) at: At,
}

/// Which deployment it is about: the local cloud, unless a stack is named.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The stack of CloudFormation's that archweld is deployed as [default: the local cloud]
    #[arg(long, value_name = "NAME")]
    pub(crate) stack: Option<String>,
    /// The stack's region [default: as the environment or the profile says]
    #[arg(long, requires = "stack")]
    pub(crate) region: Option<String>,
    /// The profile of ~/.aws whose credentials are used
    #[arg(long, requires = "stack")]
    pub(crate) profile: Option<String>,
    /// Where the AWS APIs are [default: AWS's own, or the local cloud's port]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// The local cloud's port on loopback
    #[arg(long, default_value_t = PORT_DEFAULT, conflicts_with = "endpoint_url")]
    pub(crate) port: u16,
}

impl At {
    /// Where the local cloud is.
    pub(crate) fn local_endpoint(&self) -> String {
        self.endpoint_url.clone().unwrap_or_else(|| format!("http://localhost:{}", self.port))
    }

    /// Whether the port is the one that needs no mention.
    pub(crate) fn has_default_port(&self) -> bool {
        self.port == PORT_DEFAULT
    }
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// How many runs; worlds of some 35 are simulated until there were as many
    #[arg(long, default_value_t = 10_000)]
    pub(crate) runs: u64,
    /// The seed of the first world; the next has the next
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The faults: none, light, heavy, or a TOML file with a rate from 0 to 1 for each
    #[arg(long, default_value = "light", value_name = "PLAN")]
    pub(crate) faults: String,
    /// Simulate the seed's world alone, with exactly these faults, and print what happens
    #[arg(long, value_name = "FAULT@N,...", conflicts_with_all = ["runs", "faults"])]
    pub(crate) replay: Option<String>,
    /// How many worlds at a time [default: one a core]
    #[arg(long)]
    pub(crate) threads: Option<NonZero<usize>>,
}

/// Where the local cloud runs.
#[derive(Debug, Args)]
pub(crate) struct Host {
    /// The port on loopback
    #[arg(long, default_value_t = PORT_DEFAULT)]
    pub(crate) port: u16,
    /// The folder for state and images
    #[arg(long, value_name = "DIR", default_value = ".archweld")]
    pub(crate) state: PathBuf,
    /// The folder of the functions' binaries [default: the folder of this command]
    #[arg(long, value_name = "DIR")]
    pub(crate) functions: Option<PathBuf>,
    /// How many bytes of images the registry may hold [default: as many as the disk]
    #[arg(long, value_name = "BYTES")]
    pub(crate) registry_bytes_max: Option<u64>,
}

/// What is deployed.
#[derive(Debug, Args)]
pub(crate) struct Project {
    /// The images' configuration
    #[arg(long, value_name = "FILE", default_value = "archweld.toml")]
    pub(crate) config: PathBuf,
    /// The template [default: infra/template.yaml beside this command or above this folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// The value of a parameter of the template; may be repeated [default: the template's own]
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    pub(crate) parameters: Vec<(String, String)>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn publisher(text: &str) -> Result<Publisher, String> {
    [Publisher::Build, Publisher::Lambda]
        .into_iter()
        .find(|publisher| publisher.as_str() == text)
        .ok_or_else(|| "expected `build` or `lambda`".to_owned())
}

fn build_target(text: &str) -> Result<String, String> {
    if text == MANIFEST {
        return Ok(text.to_owned());
    }
    let platform = text.parse::<Platform>().map_err(|error| format!("{error}, or manifest"))?;
    Ok(platform.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn refuses_an_unknown_platform_by_name() {
        let error =
            Arguments::try_parse_from(["archweld", "run", "--platform", "linux/mips"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("unknown platform \"linux/mips\""), "{error}");
    }
}
