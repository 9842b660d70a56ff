//! The deployment that the command runs: configuration, template, functions, and a cloud of them.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use archweld_cloud::{Builds, Cloud, Functions, Settings, ShellBuilds};
use archweld_codebuild::SourceOverride;
use archweld_local_api::Host;
use archweld_model::Config;

use crate::{
    arguments::{Host as HostArguments, Project},
    error::Error,
    home,
    source::Place,
};

/// The name of the local stack: what physical names begin with.
pub(crate) const STACK: &str = "archweld";
/// The local account and region.
pub(crate) const ACCOUNT: &str = "000000000000";
/// The local region.
pub(crate) const REGION: &str = "us-east-1";
/// The layer of the template that holds the configuration, and the file's name in it.
const CONFIG_LAYER: &str = "ConfigLayer";
const CONFIG_FILE: &str = "archweld.toml";
/// What builds inherit of the environment: how Docker is reached.
const INHERITED: [&str; 5] = [
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_BUILDKIT",
    "DOCKER_API_VERSION",
];

/// The configuration, and where it is.
pub(crate) struct Deployment {
    /// The images.
    pub(crate) config: Config,
    /// The configuration's folder.
    pub(crate) folder: PathBuf,
    /// The template.
    pub(crate) template: PathBuf,
}

impl Deployment {
    /// Reads the configuration and finds the template.
    ///
    /// # Errors
    /// When either is missing or the configuration is wrong.
    pub(crate) fn read(project: &Project) -> Result<Self, Error> {
        let path = &project.config;
        let no_config = |source| Error::NoConfig { path: path.clone(), source };
        let text = fs::read_to_string(path).map_err(no_config)?;
        let config =
            Config::parse(&text).map_err(|error| Error::Config { path: path.clone(), error })?;
        if path.file_name().is_none_or(|name| name != CONFIG_FILE) {
            return Err(Error::ConfigName(path.clone()));
        }
        let whole = path.canonicalize().map_err(no_config)?;
        let folder = whole.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { config, folder, template: home::template(project.template.as_deref())? })
    }

    /// Opens the local cloud, with a repository for every image.
    ///
    /// # Errors
    /// When something of the deployment cannot be used, or the state folder or port is taken.
    pub(crate) async fn open(&self, host: &HostArguments, source: &Place) -> Result<Cloud, Error> {
        let source = match source {
            Place::Folder(folder) => SourceOverride::Folder(folder.clone()),
            Place::Repository(address) => SourceOverride::Git(address.clone()),
        };
        let settings = Settings {
            host: Host::real(ACCOUNT, REGION),
            template: self.template.clone(),
            stack_name: STACK.to_owned(),
            parameters: BTreeMap::new(),
            layers: BTreeMap::from([(CONFIG_LAYER.to_owned(), self.folder.clone())]),
            port: Some(host.port),
            registry_bytes_max: host.registry_bytes_max,
            functions: Functions::Folder(home::functions(host.functions.as_deref())?),
            builds: Builds::Shell(ShellBuilds {
                folder: host.state.join("work"),
                path: env::var_os("PATH").unwrap_or_default(),
                variables: docker_variables(),
                source: Some(source),
            }),
            state: Some(host.state.clone()),
        };
        let cloud = Cloud::open(settings).await?;
        for image in self.config.images() {
            cloud.ensure_repository(&image.repository).await?;
        }
        Ok(cloud)
    }
}

/// How Docker is reached. A build has a home of its own and with it no Docker context, so that the
/// context's engine is named here.
fn docker_variables() -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = INHERITED
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), env::var(name).ok()?)))
        .collect();
    if !variables.iter().any(|(name, _)| name == "DOCKER_HOST")
        && let Some(engine) = context_engine()
    {
        variables.push(("DOCKER_HOST".to_owned(), engine));
    }
    variables
}

fn context_engine() -> Option<String> {
    let output = Command::new("docker")
        .args(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let engine = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !engine.is_empty()).then_some(engine)
}
