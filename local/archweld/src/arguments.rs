//! The command line.

use std::path::PathBuf;

use archweld_git::Provider;
use archweld_model::{GitRef, ImageName, Platform, Publisher};
use clap::{Args, Parser, Subcommand};

/// The port that the local cloud listens on by default.
const PORT_DEFAULT: u16 = 4577;

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
    /// Check archweld.toml, the state machine and the template, and that they agree
    Validate(Project),
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
}

fn publisher(text: &str) -> Result<Publisher, String> {
    [Publisher::Build, Publisher::Lambda]
        .into_iter()
        .find(|publisher| publisher.as_str() == text)
        .ok_or_else(|| "expected `build` or `lambda`".to_owned())
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
