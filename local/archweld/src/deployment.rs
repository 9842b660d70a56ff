//! The deployment that the command runs: configuration, template, functions, and a cloud of them.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{self, Path, PathBuf},
    process::{Command, Stdio},
};

use archweld_cloud::{Builds, Cloud, Functions, GitRemote, Settings, ShellBuilds};
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
/// The parameter of the template that says where the source is.
const SOURCE_PARAMETER: &str = "SourceLocation";
/// How long the name of the git remote's repository may be, in characters.
const REPOSITORY_NAME_MAX: usize = 60;
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
    /// The values of its parameters; for others the default is taken.
    pub(crate) parameters: BTreeMap<String, String>,
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
        let template = home::template(project.template.as_deref())?;
        let parameters = project.parameters.iter().cloned().collect();
        Ok(Self { config, folder, template, parameters })
    }

    /// A git remote for pushes to this machine, which are then what the deployment is of.
    ///
    /// # Errors
    /// When the state folder cannot be told.
    pub(crate) fn git(&self, host: &HostArguments) -> Result<GitRemote, Error> {
        let what = "find the state folder";
        let state = path::absolute(&host.state).map_err(|source| Error::System { what, source })?;
        let name = repository_name(&self.folder);
        let folder = state.join("git").join(format!("{name}.git"));
        Ok(GitRemote { name, folder, parameter: Some(SOURCE_PARAMETER.to_owned()) })
    }

    /// Opens the local cloud, with a repository for every image.
    ///
    /// # Errors
    /// When something of the deployment cannot be used, or the state folder or port is taken.
    pub(crate) async fn open(
        &self,
        host: &HostArguments,
        source: &Place,
        git: Option<GitRemote>,
    ) -> Result<Cloud, Error> {
        let source = match source {
            Place::Folder(folder) => SourceOverride::Folder(folder.clone()),
            Place::Repository(address) => SourceOverride::Git(address.clone()),
        };
        let settings = Settings {
            host: Host::real(ACCOUNT, REGION),
            template: self.template.clone(),
            stack_name: STACK.to_owned(),
            parameters: self.parameters.clone(),
            layers: BTreeMap::from([(CONFIG_LAYER.to_owned(), self.folder.clone())]),
            port: Some(host.port),
            registry_bytes_max: host.registry_bytes_max,
            git,
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

/// The name of the repository in a folder: the folder's, with a dash for what an address would
/// have to quote.
fn repository_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let plain = |it: char| if it.is_ascii_alphanumeric() || "._-".contains(it) { it } else { '-' };
    let name: String = name.chars().map(plain).take(REPOSITORY_NAME_MAX).collect();
    let name = name.trim_start_matches(['.', '_', '-']).trim_end_matches(".git");
    if name.is_empty() { "source".to_owned() } else { name.to_owned() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_name_is_its_repositorys() {
        let cases = [
            ("/home/ada/hello", "hello"),
            ("/srv/hello.git", "hello"),
            ("/home/ada/my app (2)", "my-app--2-"),
            ("/home/ada/größe", "gr--e"),
            ("/home/ada/.config", "config"),
            ("/home/ada/---", "source"),
            ("/", "source"),
        ];
        for (folder, name) in cases {
            assert_eq!(repository_name(Path::new(folder)), name);
        }
    }
}
