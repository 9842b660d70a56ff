//! Ends the functions' processes when archweld is killed, which leaves it no time to do so itself.

use std::io::{self, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use std::os::unix::process::CommandExt as _;

/// The shell script that outlives archweld for a moment.
const SCRIPT: &str = include_str!("watchdog.sh");

/// A process that waits for archweld's end. Not there before there is something to watch.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Mutex<Option<Child>>);

impl Watchdog {
    /// A process group began.
    pub(crate) fn watch(&self, group: u32) {
        self.tell('+', group);
    }

    /// A process group is over.
    pub(crate) fn forget(&self, group: u32) {
        self.tell('-', group);
    }

    fn tell(&self, change: char, group: u32) {
        let mut process = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match &mut *process {
            Some(process) => write(process, change, group),
            None => start().and_then(|started| write(process.insert(started), change, group)),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "functions may outlive archweld for some seconds, if it is killed");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let process = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut process) = process.take() {
            drop(process.stdin.take());
            // It ends at once; a zombie would be left of it otherwise.
            let _ = process.wait();
        }
    }
}

/// In a group of its own, so that a signal to archweld's terminal does not reach it.
fn start() -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn write(process: &mut Child, change: char, group: u32) -> io::Result<()> {
    let input = process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    input.write_all(format!("{change} {group}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn sleep() -> Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_is_watched_dies_with_archweld_and_what_is_over_is_left_alone() {
        let (mut watched, mut over, mut other) = (sleep(), sleep(), sleep());
        let watchdog = Watchdog::default();
        for group in [over.id(), watched.id(), other.id()] {
            watchdog.watch(group);
        }
        watchdog.forget(over.id());
        // The system closes the pipe of a process that is killed in the same way.
        drop(watchdog);
        assert_eq!(watched.wait().unwrap().signal(), Some(9));
        assert_eq!(other.wait().unwrap().signal(), Some(9));
        assert_eq!(over.try_wait().unwrap(), None);
        over.kill().unwrap();
        over.wait().unwrap();
    }
}
