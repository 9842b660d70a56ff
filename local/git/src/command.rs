//! The installed git, as child processes.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// What every command is told: nothing that a user or this machine configured takes part, no hook
/// runs, and nothing goes on in the background.
const CONFIGURATION: [&str; 8] = [
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "receive.autogc=false",
    // A build asks for its commit by name, even when a branch has left it behind.
    "uploadpack.allowAnySHA1InWant=true",
    "uploadpack.allowFilter=true",
    "transfer.advertiseSID=false",
];

/// A git command in a bare repository.
pub(crate) fn git(repository: &Path, version: Option<&str>) -> Command {
    let mut git = Command::new("git");
    git.env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C");
    if let Some(version) = version {
        git.env("GIT_PROTOCOL", version);
    }
    for setting in CONFIGURATION {
        git.args(["-c", setting]);
    }
    git.arg("--git-dir").arg(repository);
    git
}

/// A command that runs. When it is dropped, it and all that it started are killed.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let gone = || io::Error::other("git has no pipes");
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        Ok((Self(child), stdin, stdout))
    }

    pub(crate) async fn wait(mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that was waited for has no id any more.
        let group = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // It may have ended by itself.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// What a command prints, where it succeeds and prints no more than that.
pub(crate) async fn output<'a>(
    repository: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    bytes_max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut command = git(repository, None);
    command.args(arguments.into_iter().map(OsStr::new));
    let (running, stdin, stdout) = Running::start(command)?;
    drop(stdin);
    let Some(output) = read(stdout, bytes_max).await? else { return Ok(None) };
    Ok(running.wait().await?.success().then_some(output))
}

/// All of it, or nothing where it is more.
pub(crate) async fn read(
    from: impl AsyncRead + Unpin,
    bytes_max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut output = Vec::new();
    from.take(limit).read_to_end(&mut output).await?;
    Ok((output.len() <= bytes_max).then_some(output))
}
