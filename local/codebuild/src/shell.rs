//! The real worker: runs a buildspec's commands as processes of this machine.
//!
//! Each build gets a folder with a clean copy of its source, a home, a folder for temporary files
//! and a `docker` that knows the local registry, and a process group that ends with it. Nothing of
//! archweld's own environment reaches the commands but the PATH. It does not isolate: commands
//! run as the user of archweld and see the whole machine.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use archweld_local_api::Host;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::group::Group;
use self::session::{Program, Session};
pub use self::source::{Remote, SourceOverride};
use crate::build::{ExportedVariable, PhaseContext, PhaseType, Status};
use crate::buildspec::{Buildspec, OnFailure, PhaseSpec, ShellKind};
use crate::worker::{Job, Outcome, Worker};

mod docker;
mod group;
mod session;
mod source;

/// How long processes may take to end when asked, before they are killed, in milliseconds.
const TERMINATE_MS_MAX: u64 = 700;
/// The longest buildspec that is read, in bytes.
const BUILDSPEC_BYTES_MAX: u64 = 1024 * 1024;
const BUILDSPEC_DEFAULT: &str = "buildspec.yml";
const LANG: &str = "C.UTF-8";

/// How builds run on this machine.
#[derive(Clone)]
pub struct ShellSettings {
    /// Where each build gets a folder while it runs.
    pub folder: PathBuf,
    /// Whether these folders stay afterwards.
    pub keep_folders: bool,
    /// The PATH of the builds.
    pub path: OsString,
    /// The host and port of the local registry, which takes the place of ECR's host name in the
    /// arguments of `docker`.
    pub registry: Option<String>,
    /// Further variables of every build, such as `AWS_ENDPOINT_URL` and `DOCKER_HOST`; those of
    /// buildspec, project and build override them.
    pub variables: Vec<(String, String)>,
    /// Where all builds take their source from, whatever their project says.
    pub source: Option<SourceOverride>,
    /// Where builds take a source version from that was pushed to this machine, whatever `source`
    /// says.
    pub remote: Option<Remote>,
}

/// The variables may be credentials, so they are not shown.
impl fmt::Debug for ShellSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ShellSettings")
            .field("folder", &self.folder)
            .field("registry", &self.registry)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Why [`Shell`] did not start.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The folder could not be made.
    #[error("cannot use {path}")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The registry is not a host and port.
    #[error("the registry {0:?} is not a host name or address with an optional port")]
    Registry(String),
}

/// Runs buildspecs for real; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shell {
    host: Host,
    settings: Arc<ShellSettings>,
}

impl Shell {
    /// A worker for builds of `host`'s account and region. The folder is its own: what builds of an
    /// earlier process left there goes, and so do processes of theirs that outlived it.
    pub fn new(host: Host, mut settings: ShellSettings) -> Result<Self, ShellError> {
        if let Some(registry) = &settings.registry {
            let of_host = |c: char| c.is_ascii_alphanumeric() || ".:-[]".contains(c);
            if registry.is_empty() || !registry.chars().all(of_host) {
                return Err(ShellError::Registry(registry.clone()));
            }
        }
        let folder = settings.folder.clone();
        let unusable = |source| ShellError::Folder { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(unusable)?;
        settings.folder = folder.canonicalize().map_err(unusable)?;
        if !settings.keep_folders {
            sweep(&settings.folder).map_err(unusable)?;
        }
        Ok(Self { host, settings: Arc::new(settings) })
    }

    /// Runs a build in its folder.
    async fn build(&self, job: Job) -> Outcome {
        let run = Run { shell: self, job: &job };
        job.reporter.begin(PhaseType::DownloadSource);
        match run.whole().await {
            Ok(outcome) => outcome,
            Err(error) => {
                run.log(&format!("Build cannot go on: {error}"));
                let context = PhaseContext::new("INTERNAL_ERROR", error.to_string());
                job.reporter.end(Status::Fault, vec![context]);
                Status::Fault.into()
            }
        }
    }
}

impl Worker for Shell {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        self.build(job).boxed()
    }
}

/// One build.
struct Run<'a> {
    shell: &'a Shell,
    job: &'a Job,
}

/// How a phase failed.
struct Failure {
    context: PhaseContext,
    /// What a retry's pattern is held against.
    text: String,
}

impl Run<'_> {
    /// Everything, cleaning up included.
    async fn whole(&self) -> io::Result<Outcome> {
        let uuid = crate::build::uuid_of(&self.job.id);
        let folder = tempfile::Builder::new()
            .prefix(uuid)
            .rand_bytes(0)
            .disable_cleanup(self.shell.settings.keep_folders)
            .tempdir_in(&self.shell.settings.folder)?;
        let group = Group::start(&format!("{}{}", group::MARK, self.job.arn))?;
        let outcome = {
            let mut phases = std::pin::pin!(self.phases(folder.path(), &group));
            tokio::select! {
                biased;
                () = self.job.cancelled.cancelled() => {
                    group.terminate();
                    // No further command starts; the one that runs has this long to end.
                    let bound = Duration::from_millis(TERMINATE_MS_MAX);
                    drop(tokio::time::timeout(bound, &mut phases).await);
                    Ok(Status::Stopped.into())
                }
                outcome = &mut phases => outcome,
            }
        };
        group.kill().await;
        if !self.shell.settings.keep_folders {
            let path = folder.keep();
            let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
            if let Err(error) = removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
                tracing::warn!(build.id = self.job.id, %error, "could not remove a build's folder");
            }
        }
        outcome
    }

    async fn phases(&self, folder: &Path, group: &Group) -> io::Result<Outcome> {
        let source = folder.join("src");
        let (buildspec, resolved) = match self.download_source(&source, group).await {
            Ok(downloaded) => downloaded,
            Err(context) => {
                self.end_phase(PhaseType::DownloadSource, Err(&context));
                self.finalize();
                return Ok(Status::Failed.into());
            }
        };
        let environment = self.environment(folder, &source, &buildspec, resolved.as_deref())?;
        let program = self.program(buildspec.shell, environment.get(OsStr::new("PATH")))?;
        let mut session = Session::new(
            group,
            &self.job.reporter,
            program,
            folder.join("state"),
            source,
            environment,
        )?;
        self.end_phase(PhaseType::DownloadSource, Ok(()));

        let mut failed = false;
        let mut retries_max = None;
        let mut aborted = false;
        for phase in
            [PhaseType::Install, PhaseType::PreBuild, PhaseType::Build, PhaseType::PostBuild]
        {
            self.job.reporter.begin(phase);
            self.log(&format!("Entering phase {phase}"));
            let empty = PhaseSpec::default();
            let spec = buildspec.phases.get(&phase).unwrap_or(&empty);
            let failure = self.phase(spec, &mut session, failed).await?;
            if self.job.cancelled.is_cancelled() {
                return Ok(Status::Stopped.into());
            }
            let Some(failure) = failure else {
                self.end_phase(phase, Ok(()));
                continue;
            };
            self.end_phase(phase, Err(&failure.context));
            failed = true;
            match &spec.on_failure {
                // POST_BUILD runs after a BUILD that failed.
                None => aborted = phase != PhaseType::Build && phase != PhaseType::PostBuild,
                Some(OnFailure::Continue) => {}
                Some(OnFailure::Abort) => aborted = true,
                Some(OnFailure::Retry { count, pattern }) => {
                    aborted = true;
                    let matches = pattern.as_ref().is_none_or(|p| p.is_match(&failure.text));
                    retries_max = matches.then_some(*count);
                }
            }
            if aborted {
                break;
            }
        }
        let exported = match &buildspec.exported_variables[..] {
            [] => Vec::new(),
            names => session.exported(names).await?,
        };
        if !aborted {
            self.job.reporter.begin(PhaseType::UploadArtifacts);
            self.end_phase(PhaseType::UploadArtifacts, Ok(()));
        }
        self.finalize();
        Ok(Outcome {
            status: if failed { Status::Failed } else { Status::Succeeded },
            exported: exported
                .into_iter()
                .map(|(name, value)| ExportedVariable { name, value })
                .collect(),
            retries_max,
        })
    }

    /// Gets the source and the buildspec, and the commit of the source where it has one.
    async fn download_source(
        &self,
        source: &Path,
        group: &Group,
    ) -> Result<(Buildspec, Option<String>), PhaseContext> {
        self.log("Waiting for DOWNLOAD_SOURCE");
        let resolved = source::fetch(self.job, &self.shell.settings, group, source)
            .await
            .map_err(|error| error.context(self.job))?;
        if let Some(commit) = &resolved {
            self.job.reporter.source_resolved(commit);
        }
        self.log("Phase is DOWNLOAD_SOURCE");
        self.log(&format!("CODEBUILD_SRC_DIR={}", source.display()));
        let yaml_error = |message: String| PhaseContext::new("YAML_FILE_ERROR", message);
        let text = self.buildspec_text(source).map_err(yaml_error)?;
        let buildspec = Buildspec::parse(&text).map_err(|error| yaml_error(error.to_string()))?;
        for section in &buildspec.without_effect {
            self.log(&format!("The section {section} of the buildspec has no effect here"));
        }
        self.log(&format!("Phases found in YAML: {}", buildspec.phases.len()));
        for (phase, spec) in &buildspec.phases {
            self.log(&format!(" {phase}: {} commands", spec.commands.len()));
            for runtime in &spec.runtime_versions {
                self.log(&format!("The runtime {runtime} is not selected: this machine's is used"));
            }
        }
        Ok((buildspec, resolved))
    }

    /// The buildspec, from the project or from the source.
    fn buildspec_text(&self, source: &Path) -> Result<String, String> {
        let given = self.job.source.buildspec.as_deref().unwrap_or_default();
        let name = match given.trim() {
            "" => BUILDSPEC_DEFAULT,
            text if text.contains('\n') || text.starts_with('{') => return Ok(given.to_owned()),
            name if name.starts_with("arn:") => {
                return Err(format!("a buildspec in S3 cannot be had on this machine: {name}"));
            }
            name => name,
        };
        let within = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(name).components().all(within) {
            return Err(format!("the buildspec {name} is not a path within the source"));
        }
        let path = source.join(name);
        self.log(&format!("YAML location is {}", path.display()));
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("stat {}: no such file or directory", path.display())
            }
            _ => format!("stat {}: {error}", path.display()),
        };
        let bytes = fs::metadata(&path).map_err(unreadable)?.len();
        if bytes > BUILDSPEC_BYTES_MAX {
            return Err(format!(
                "the buildspec {name} has {bytes} bytes, more than {BUILDSPEC_BYTES_MAX}"
            ));
        }
        fs::read_to_string(&path).map_err(unreadable)
    }

    /// The environment of the first command. Later entries win, CodeBuild's own most of all.
    fn environment(
        &self,
        folder: &Path,
        source: &Path,
        buildspec: &Buildspec,
        resolved: Option<&str>,
    ) -> io::Result<BTreeMap<OsString, OsString>> {
        let (host, settings, job) = (&self.shell.host, &self.shell.settings, self.job);
        let (home, temporary) = (folder.join("home"), folder.join("tmp"));
        let docker_config = home.join(".docker");
        fs::create_dir_all(&docker_config)?;
        fs::create_dir_all(&temporary)?;

        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: &OsStr| {
            variables.insert(OsString::from(name), value.to_owned());
        };
        set("PATH", &settings.path);
        set("HOME", home.as_os_str());
        set("TMPDIR", temporary.as_os_str());
        set("LANG", LANG.as_ref());
        set("AWS_REGION", host.region().as_ref());
        set("AWS_DEFAULT_REGION", host.region().as_ref());
        for (name, value) in &settings.variables {
            set(name, value.as_ref());
        }
        let platform = job
            .variable("IMAGE_PLATFORM")
            .or_else(|| buildspec.variables.get("IMAGE_PLATFORM").map(String::as_str))
            .or_else(|| job.environment.environment_type.docker_platform());
        if let Some(platform) = platform {
            set("DOCKER_DEFAULT_PLATFORM", platform.as_ref());
        }
        for (name, value) in &buildspec.variables {
            set(name, value.as_ref());
        }
        for variable in &job.environment.environment_variables {
            set(&variable.name, variable.value.as_ref());
        }

        let started = job.started.as_millisecond().to_string();
        let number = job.number.to_string();
        let version = job.source_version.as_deref().or(resolved);
        let own = [
            ("CI", Some("true")),
            ("CODEBUILD_CI", Some("true")),
            ("CODEBUILD_BUILD_ID", Some(&*job.id)),
            ("CODEBUILD_BUILD_ARN", Some(&*job.arn)),
            ("CODEBUILD_BUILD_NUMBER", Some(&*number)),
            ("CODEBUILD_BUILD_IMAGE", Some(&*job.environment.image)),
            ("CODEBUILD_INITIATOR", Some(&*job.initiator)),
            ("CODEBUILD_START_TIME", Some(&*started)),
            ("CODEBUILD_LOG_PATH", Some(&*job.logs.stream_name)),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", resolved),
            ("CODEBUILD_SOURCE_VERSION", version),
            ("CODEBUILD_SOURCE_REPO_URL", job.source.location.as_deref()),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                set(name, value.as_ref());
            }
        }
        set("CODEBUILD_SRC_DIR", source.as_os_str());
        // A login must never end up in the configuration of whoever runs archweld.
        set("DOCKER_CONFIG", docker_config.as_os_str());
        if let Some(registry) = &settings.registry {
            let ecr_host = format!("{}.dkr.ecr.{}.amazonaws.com", host.account(), host.region());
            let shim =
                docker::install(&folder.join("docker"), &ecr_host, registry, &settings.path)?;
            let path = variables.get(OsStr::new("PATH")).unwrap_or(&settings.path);
            let folders = std::iter::once(shim).chain(std::env::split_paths(path));
            let path = std::env::join_paths(folders).map_err(io::Error::other)?;
            variables.insert("PATH".into(), path);
        }
        Ok(variables)
    }

    /// The shell of the build. On Amazon Linux `sh` is bash, elsewhere often less.
    fn program(&self, shell: ShellKind, path: Option<&OsString>) -> io::Result<Program> {
        let path = path.unwrap_or(&self.shell.settings.path);
        let amazon_linux = self.job.environment.image.contains("amazonlinux");
        let bash = docker::find(path, "bash");
        match shell {
            ShellKind::Sh => match bash {
                Some(path) if amazon_linux => Ok(Program { path, name: "sh" }),
                _ => Ok(Program { path: "/bin/sh".into(), name: "sh" }),
            },
            ShellKind::Bash => match bash {
                Some(path) => Ok(Program { path, name: "bash" }),
                None => Err(io::Error::other("the buildspec asks for bash, which is not here")),
            },
        }
    }

    /// Runs the commands of one phase; tells how it failed, if it did.
    async fn phase(
        &self,
        spec: &PhaseSpec,
        session: &mut Session<'_>,
        failed_before: bool,
    ) -> io::Result<Option<Failure>> {
        let mut failure = None;
        for commands in [&spec.commands, &spec.finally] {
            for command in commands {
                if self.job.cancelled.is_cancelled() {
                    return Ok(None);
                }
                let shown = command.trim_end();
                self.log(&format!("Running command {shown}"));
                let succeeding = !failed_before && failure.is_none();
                let code = session.run(command, succeeding).await?;
                if code == 0 {
                    continue;
                }
                self.log(&format!("Command did not exit successfully {shown} exit status {code}"));
                let message =
                    format!("Error while executing command: {shown}. Reason: exit status {code}");
                failure.get_or_insert_with(|| Failure {
                    text: format!("{message}\n{}", session.tail()),
                    context: PhaseContext::new("COMMAND_EXECUTION_ERROR", message),
                });
                break;
            }
        }
        Ok(failure)
    }

    fn finalize(&self) {
        self.job.reporter.begin(PhaseType::Finalizing);
        self.end_phase(PhaseType::Finalizing, Ok(()));
    }

    fn end_phase(&self, phase: PhaseType, result: Result<(), &PhaseContext>) {
        let (status, context) = match result {
            Ok(()) => (Status::Succeeded, PhaseContext::default()),
            Err(context) => (Status::Failed, context.clone()),
        };
        if phase != PhaseType::Finalizing {
            self.log(&format!("Phase complete: {phase} State: {status}"));
            let PhaseContext { status_code, message } = &context;
            self.log(&format!("Phase context status code: {status_code} Message: {message}"));
        }
        self.job.reporter.end(status, vec![context]);
    }

    /// A line of the log that is CodeBuild's own.
    fn log(&self, message: &str) {
        let time = self.shell.host.now().strftime("%Y/%m/%d %H:%M:%S%.6f");
        self.job.reporter.log(&format!("[Container] {time} {message}"));
    }
}

/// Removes the folders of builds whose process ended before them, and kills what still runs in them.
fn sweep(folder: &Path) -> io::Result<()> {
    let mut uuids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        uuids.extend(
            name.to_str().filter(|name| uuid::Uuid::parse_str(name).is_ok()).map(str::to_owned),
        );
    }
    if uuids.is_empty() {
        return Ok(());
    }
    let is_mark = |variable: &[u8]| {
        variable.starts_with(group::MARK.as_bytes())
            && uuids.iter().any(|uuid| variable.ends_with(uuid.as_bytes()))
    };
    for _ in 0..group::LEFTOVER_PASSES_MAX {
        if !group::kill_marked(&is_mark) {
            break;
        }
        // A killed process holds what it has open for a moment longer.
        std::thread::sleep(Duration::from_millis(5));
    }
    uuids.iter().try_for_each(|uuid| remove(&folder.join(uuid)))
}

/// Removes a build's folder, with what the build made read-only in it.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        other => other,
    }
}

/// Makes folders writable, which is what it takes to remove what is in them.
fn open_up(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
