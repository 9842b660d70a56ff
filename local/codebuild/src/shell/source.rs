//! Gets a clean copy of a build's source.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{ShellSettings, group::Group};
use crate::build::PhaseContext;
use crate::project::SourceType;
use crate::worker::Job;

/// What is never source: git's own files, archweld's state, and what Rust built.
const NOT_SOURCE: [&str; 3] = [".git", ".archweld", "target"];

/// The variables that tie git to a repository, as when archweld is started by a git hook.
/// `git rev-parse --local-env-vars` lists them.
const GIT_LOCAL_VARIABLES: [&str; 15] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
];

/// Where builds take their source from, whatever their project says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceOverride {
    /// A folder as it is now, uncommitted changes included; the source version is not looked at.
    /// In a git work tree, what git ignores is left out.
    Folder(PathBuf),
    /// A git repository, by URL or path; the source version is checked out.
    Git(String),
}

/// A git repository of this machine that people push to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The folder of the bare repository, which tells what was pushed. It may not be there yet.
    pub repository: PathBuf,
    /// The address that it is cloned from.
    pub location: String,
}

impl Remote {
    /// Whether a branch, tag or commit was pushed.
    async fn has(&self, version: &str, group: &Group) -> bool {
        let git = Git { command: "rev-parse", folder: &self.repository, group };
        git.commit(version).await.is_some()
    }
}

/// Why there is no source, as the phase's context tells it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("source type {} cannot be had on this machine", .0)]
    Type(String),
    #[error("the source has no location")]
    NoLocation,
    #[error("the source folder {path} cannot be read: {error}")]
    Folder { path: PathBuf, error: io::Error },
    #[error("git is not on the PATH of archweld")]
    NoGit,
    #[error("git {command} failed: {message}")]
    Git { command: &'static str, message: String },
    #[error("the source version {version} is not a branch, tag or commit of the repository")]
    NoVersion { version: String },
    #[error("could not copy {path}: {error}")]
    Copy { path: PathBuf, error: io::Error },
    #[error("cancelled")]
    Cancelled,
}

impl SourceError {
    pub(super) fn context(&self, job: &Job) -> PhaseContext {
        let version = job.source_version.as_deref().unwrap_or("(default)");
        PhaseContext::new(
            "CLIENT_ERROR",
            format!("{self} for primary source and source version {version}"),
        )
    }
}

/// Puts the source into `target`, which is made; tells the commit, where there is one.
pub(super) async fn fetch(
    job: &Job,
    settings: &ShellSettings,
    group: &Group,
    target: &Path,
) -> Result<Option<String>, SourceError> {
    if let (Some(remote), Some(version)) = (&settings.remote, job.source_version.as_deref())
        && remote.has(version, group).await
    {
        return clone(&remote.location, Some(version), group, target).await.map(Some);
    }
    match &settings.source {
        Some(SourceOverride::Folder(folder)) => copy(folder, target, group, &job.cancelled).await,
        Some(SourceOverride::Git(location)) => {
            clone(location, job.source_version.as_deref(), group, target).await.map(Some)
        }
        None => match job.source.source_type {
            SourceType::NoSource => {
                make(target)?;
                Ok(None)
            }
            SourceType::GitHub
            | SourceType::GitHubEnterprise
            | SourceType::GitLab
            | SourceType::GitLabSelfManaged
            | SourceType::Bitbucket
            | SourceType::CodeCommit => {
                let location = job.source.location.as_deref().ok_or(SourceError::NoLocation)?;
                clone(location, job.source_version.as_deref(), group, target).await.map(Some)
            }
            SourceType::S3 => Err(SourceError::Type("S3".to_owned())),
            SourceType::CodePipeline => Err(SourceError::Type("CODEPIPELINE".to_owned())),
        },
    }
}

fn make(folder: &Path) -> Result<(), SourceError> {
    fs::create_dir_all(folder).map_err(|error| SourceError::Copy { path: folder.to_owned(), error })
}

/// Clones a repository and checks a version out.
async fn clone(
    location: &str,
    version: Option<&str>,
    group: &Group,
    target: &Path,
) -> Result<String, SourceError> {
    let git = |command: &'static str| Git { command, folder: target, group };
    let parent = target.parent().unwrap_or(target);
    Git { command: "clone", folder: parent, group }
        .run(&["--quiet", "--no-checkout", "--"], &[OsStr::new(location), target.as_os_str()])
        .await?;
    let commit = match version {
        None => git("rev-parse").commit("HEAD").await,
        Some(version) => {
            let branch = version.strip_prefix("refs/heads/").unwrap_or(version);
            let mut commit = None;
            for name in [format!("refs/remotes/origin/{branch}"), format!("refs/tags/{version}")] {
                commit = commit.or(git("rev-parse").commit(&name).await);
            }
            if commit.is_none() {
                // Commits, abbreviated ones included, and full names such as refs/tags/v1.
                commit = git("rev-parse").commit(version).await;
            }
            if commit.is_none() {
                // What a clone does not bring: commits on no branch, refs of pull requests.
                git("fetch")
                    .run(&["--quiet", "--end-of-options", "origin"], &[OsStr::new(version)])
                    .await
                    .map_err(|_| SourceError::NoVersion { version: version.to_owned() })?;
                commit = git("rev-parse").commit("FETCH_HEAD").await;
            }
            commit
        }
    };
    let version = version.unwrap_or("HEAD").to_owned();
    let commit = commit.ok_or(SourceError::NoVersion { version })?;
    // The commit is hexadecimal digits, so it cannot be taken for an option.
    git("checkout").run(&["--quiet", "--detach"], &[OsStr::new(&commit)]).await?;
    Ok(commit)
}

/// A git command to be run in a folder.
struct Git<'a> {
    command: &'static str,
    folder: &'a Path,
    group: &'a Group,
}

impl Git<'_> {
    async fn run(&self, options: &[&str], arguments: &[&OsStr]) -> Result<Vec<u8>, SourceError> {
        let mut git = Command::new("git");
        git.arg("-C")
            .arg(self.folder)
            .arg(self.command)
            .args(options)
            .args(arguments)
            .stdin(Stdio::null())
            // Nobody is there to answer a question: not from git, not from ssh.
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("SSH_ASKPASS", "false");
        for variable in GIT_LOCAL_VARIABLES {
            git.env_remove(variable);
        }
        self.group.adopt(&mut git);
        let output = git.output().await.map_err(|_| SourceError::NoGit)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr);
        let told =
            message.lines().find(|line| line.starts_with("fatal:") || line.starts_with("error:"));
        let message = told.or(message.lines().last()).unwrap_or("it did not say why").to_owned();
        Err(SourceError::Git { command: self.command, message })
    }

    /// The commit that a name stands for.
    async fn commit(&self, name: &str) -> Option<String> {
        let name = format!("{name}^{{commit}}");
        let options = ["--verify", "--quiet", "--end-of-options"];
        let output = self.run(&options, &[OsStr::new(&name)]).await.ok()?;
        Some(String::from_utf8_lossy(&output).trim().to_owned())
    }
}

/// Copies a folder, without what is not source; tells the commit that a git work tree is at.
async fn copy(
    folder: &Path,
    target: &Path,
    group: &Group,
    cancelled: &CancellationToken,
) -> Result<Option<String>, SourceError> {
    let unreadable = |error| SourceError::Folder { path: folder.to_owned(), error };
    if !fs::metadata(folder).map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::NotADirectory.into()));
    }
    let git = |command| Git { command, folder, group };
    // Fails outside of a work tree, and where git does not trust the folder's owner.
    let options = ["-co", "--exclude-standard", "-z"];
    let listed = git("ls-files").run(&options, &[]).await.unwrap_or_default();
    let commit = git("rev-parse").commit("HEAD").await;
    // A folder that the surrounding repository ignores altogether is not one of git's.
    let commit = if listed.is_empty() { None } else { commit };

    let copy = Copy {
        from: folder.to_owned(),
        // The copy may lie within what is copied.
        without: target.parent().and_then(|work| work.canonicalize().ok()),
        cancelled: cancelled.clone(),
    };
    let target = target.to_owned();
    let copied = tokio::task::spawn_blocking(move || {
        make(&target)?;
        if listed.is_empty() {
            return copy.entries(Path::new(""), &target);
        }
        for name in listed.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let name = Path::new(OsStr::from_bytes(name));
            let archwelds =
                name.components().next() == Some(Component::Normal(".archweld".as_ref()));
            if !archwelds {
                copy.entry(name, &target)?;
            }
        }
        Ok(())
    });
    copied.await.map_err(|error| SourceError::Folder {
        path: folder.to_owned(),
        error: io::Error::other(error),
    })??;
    Ok(commit)
}

struct Copy {
    from: PathBuf,
    without: Option<PathBuf>,
    cancelled: CancellationToken,
}

impl Copy {
    /// Copies what is in the folder `name`.
    fn entries(&self, name: &Path, target: &Path) -> Result<(), SourceError> {
        let folder = self.from.join(name);
        let failed = |error| SourceError::Copy { path: folder.clone(), error };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?.file_name();
            let top = name.as_os_str().is_empty();
            if entry == ".git" || top && NOT_SOURCE.iter().any(|not| entry == *not) {
                continue;
            }
            self.entry(&name.join(entry), target)?;
        }
        Ok(())
    }

    /// Copies one file, link or folder, with its mode.
    fn entry(&self, name: &Path, target: &Path) -> Result<(), SourceError> {
        if self.cancelled.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        let (from, to) = (self.from.join(name), target.join(name));
        let failed = |error| SourceError::Copy { path: from.clone(), error };
        let data = match fs::symlink_metadata(&from) {
            Ok(data) => data,
            // Git lists files that were deleted and not yet committed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let kind = data.file_type();
        if kind.is_symlink() {
            symlink(fs::read_link(&from).map_err(failed)?, &to).map_err(failed)
        } else if kind.is_dir() {
            if self.without.is_some() && from.canonicalize().ok() == self.without {
                return Ok(());
            }
            fs::create_dir_all(&to).map_err(failed)?;
            self.entries(name, target)?;
            fs::set_permissions(&to, data.permissions()).map_err(failed)
        } else if kind.is_file() {
            fs::copy(&from, &to).map(drop).map_err(failed)
        } else {
            // Sockets, pipes and devices are not source.
            Ok(())
        }
    }
}
