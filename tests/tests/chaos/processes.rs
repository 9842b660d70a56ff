//! The processes that `archweld up` starts, as the system sees them.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Function,
    Build,
}

/// A process that runs.
pub(crate) struct Process {
    pid: Pid,
    pub(crate) kind: Kind,
    pub(crate) command: String,
}

impl Process {
    pub(crate) fn kill(&self) {
        // One that has just ended is no error.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// The functions and the builds' processes that know a cloud by its endpoint.
pub(crate) fn of(endpoint: &str) -> Vec<Process> {
    let endpoint = format!("AWS_ENDPOINT_URL={endpoint}");
    let mut processes: Vec<Process> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| read(&entry.ok()?.path(), &endpoint))
        .collect();
    processes.sort_by_key(|process| process.pid.as_raw_nonzero());
    processes
}

fn read(folder: &Path, endpoint: &str) -> Option<Process> {
    let pid = Pid::from_raw(folder.file_name()?.to_str()?.parse().ok()?)?;
    // A zombie has no environment.
    let environment = fs::read(folder.join("environ")).ok()?;
    let variables = || environment.split(|&byte| byte == 0);
    if !variables().any(|variable| variable == endpoint.as_bytes()) {
        return None;
    }
    let has = |name: &[u8]| variables().any(|variable| variable.starts_with(name));
    let kind = if has(b"CODEBUILD_BUILD_ARN=") {
        Kind::Build
    } else if has(b"AWS_LAMBDA_RUNTIME_API=") {
        Kind::Function
    } else {
        return None;
    };
    let command = fs::read(folder.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    (!command.is_empty()).then_some(Process { pid, kind, command })
}
