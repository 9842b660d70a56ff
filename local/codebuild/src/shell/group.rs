//! The processes of one build, as a group that can be ended as a whole.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// How often what escaped from the group is looked for again.
pub(super) const LEFTOVER_PASSES_MAX: usize = 5;
/// The variable that each process of a build has in its environment, up to the build's ARN.
pub(super) const MARK: &str = "CODEBUILD_BUILD_ARN=";

/// A process group that exists as long as this does.
///
/// Its leader does nothing but wait for the end of its input, which comes when archweld ends,
/// however that happens; it then kills the group. Being alive, it also keeps the group's number
/// from being given to strangers.
pub(super) struct Group {
    /// Its input is held open and never written to.
    leader: Child,
    id: Pid,
    /// A variable that each process of the build has in its environment.
    mark: Vec<u8>,
}

impl Group {
    /// Starts the leader. `mark` is `name=value` of a variable that only this build's processes
    /// have.
    pub(super) fn start(mark: &str) -> io::Result<Self> {
        let leader = Command::new("/bin/sh")
            .args(["-c", "trap '' HUP INT TERM; read -r line; kill -KILL 0"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = leader.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.ok_or_else(|| io::Error::other("the leader of a process group has no id"))?;
        Ok(Self { leader, id, mark: mark.as_bytes().to_vec() })
    }

    /// Makes a process start in this group, and die with its handle.
    pub(super) fn adopt(&self, command: &mut Command) {
        command.process_group(self.id.as_raw_nonzero().get()).kill_on_drop(true);
    }

    /// Asks every process to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.id, signal) {
            tracing::debug!(%error, "a process group had nobody to signal");
        }
    }

    /// Kills every process, those that left the group with `setsid` included.
    pub(super) async fn kill(mut self) {
        self.signal(Signal::KILL);
        if let Err(error) = self.leader.wait().await {
            tracing::warn!(%error, "could not wait for the leader of a process group");
        }
        for _ in 0..LEFTOVER_PASSES_MAX {
            if !kill_marked(&|variable| variable == self.mark) {
                return;
            }
            // A killed process shows for a moment longer, until its parent has heard.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Kills the processes with such a variable in their environment; tells whether there were any.
pub(super) fn kill_marked(is_mark: &dyn Fn(&[u8]) -> bool) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let mut any = false;
    for entry in entries.flatten() {
        let id = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        let Some(id) = id else { continue };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|&byte| byte == 0).any(is_mark) {
            any = true;
            if let Err(error) = kill_process(id, Signal::KILL) {
                tracing::debug!(%error, "a leftover process ended by itself");
            }
        }
    }
    any
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not once the leader has been waited for: the number may be a stranger's by then.
        if self.leader.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[tokio::test]
    async fn the_group_dies_when_archweld_does() {
        let mut group = Group::start("MARK=the_group_dies_when_archweld_does").unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        group.adopt(&mut command);
        let mut process = command.spawn().unwrap();
        // The system closes this end for archweld when it is killed.
        drop(group.leader.stdin.take());
        assert_eq!(process.wait().await.unwrap().signal(), Some(9));
    }
}
