//! Chaos: `archweld up` with the real function binaries and real builds, killed and cut off at
//! random.
//!
//! Builds push over HTTP with a script, so no Docker engine is needed; `tests/e2e/test_chaos.py` has
//! one. `CHAOS_SEED` and `CHAOS_ROUNDS` draw other faults and more of them: `make chaos`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is wrong, and says what it drew"
)]

mod checks;
mod machine;
mod processes;

use std::{env, fs, process::Command, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use self::{
    checks::{Checks, Run},
    machine::{Machine, Options},
    processes::Kind,
};

/// Faults of one round.
const FAULTS: usize = 3;
/// The longest pause between two faults, in milliseconds: about as long as a build.
const PAUSE_MS_MAX: u64 = 1_200;
/// The longest time between a delivery and the server's end, in milliseconds: about as long as it takes.
const DELIVERY_MS_MAX: u64 = 80;

/// A whole number of the environment.
fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillFunction,
    KillBuild,
    KillServer,
    CutUpload,
    Redeliver,
}

fn draw(random: &mut StdRng) -> Fault {
    match random.random_range(0..10) {
        0..3 => Fault::KillFunction,
        3..5 => Fault::KillBuild,
        5..8 => Fault::KillServer,
        8 => Fault::CutUpload,
        _ => Fault::Redeliver,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_invariant_is_broken_whatever_is_killed() {
    let seed = setting("CHAOS_SEED").unwrap_or(7);
    let rounds = setting("CHAOS_ROUNDS").unwrap_or(3);
    eprintln!("CHAOS_SEED={seed} CHAOS_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut machine = Machine::new(Options::default());
    machine.start().await;
    let mut checks = Checks::default();
    for round in 0..rounds {
        let push = machine.push(round);
        let before = machine.executions().await;
        if round % 2 == 1 {
            let wait = Duration::from_millis(random.random_range(0..DELIVERY_MS_MAX));
            let answer = machine.deliver_and_kill(&push, wait).await;
            eprintln!("round {round}: KillServer {wait:?} after a delivery: {answer}");
        }
        machine.deliver(&push).await;
        let mut started = machine.executions().await;
        started.retain(|execution| !before.contains(execution));
        assert_eq!(started.len(), 2, "one execution an image: {started:?}");
        for _ in 0..FAULTS {
            sleep(Duration::from_millis(random.random_range(0..PAUSE_MS_MAX))).await;
            let fault = draw(&mut random);
            let of = random.random::<u64>();
            eprintln!("round {round}: {fault:?} {}", inflict(&mut machine, fault, of).await);
        }
        // However often it is delivered again, and whatever was lost in between.
        assert_eq!(
            machine.deliver(&push).await,
            Vec::<String>::new(),
            "a redelivery starts nothing"
        );
        for execution in started {
            let run = machine.ended(&execution).await;
            eprintln!("round {round}: {} {}", run.name, run.ended);
            checks.add(run);
        }
        machine.settled().await;
        checks.hold(&machine).await;
    }
    assert!(checks.published() > 0, "no run published anything: {checks:?}");

    // What is on the disk is all there is: another start finds the same, and nothing half done.
    machine.kill().await;
    machine.start().await;
    machine.settled().await;
    checks.hold(&machine).await;
    machine.assert_nothing_half_written();
    machine.stop().await;
}

/// Does it, and says to whom.
async fn inflict(machine: &mut Machine, fault: Fault, of: u64) -> String {
    match fault {
        Fault::KillFunction => machine.kill_next(Kind::Function, of).await,
        Fault::KillBuild => machine.kill_next(Kind::Build, of).await,
        Fault::KillServer => {
            let goes_on = machine.kill().await;
            machine.start().await;
            format!("while {goes_on} executions ran")
        }
        Fault::CutUpload => machine.cut_upload(of).await,
        Fault::Redeliver => {
            let push = machine.last_push();
            assert_eq!(machine.deliver(&push).await, Vec::<String>::new());
            "nothing was started".to_owned()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_no_process_and_its_runs_go_on_after_a_restart() {
    let mut machine = Machine::new(Options::default());
    machine.start().await;
    let push = machine.push(0);
    let executions = machine.deliver(&push).await;
    machine.building(4).await;
    assert_eq!(machine.kill().await, 2);
    machine.start().await;
    machine.says("goes on: an earlier archweld left it unfinished").await;
    let mut checks = Checks::default();
    for execution in &executions {
        let run = machine.ended(execution).await;
        // Each of the four builds was cut off and tried again.
        assert!(run.published(), "{}", run.ended);
        let cut_off = "Build.Infrastructure: linux/amd64: BUILD failed: INTERNAL_ERROR: the local \
                       CodeBuild ended while the build ran";
        assert!(run.failures.contains(cut_off), "{}", run.failures);
        checks.add(run);
    }
    machine.settled().await;
    checks.hold(&machine).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_process_is_killed_fails_its_run_which_says_so() {
    let mut machine = Machine::new(Options::default());
    machine.start().await;
    let push = machine.push(0);
    let executions = machine.deliver(&push).await;
    machine.building(4).await;
    let killed = machine.kill_one(Kind::Build, 0);
    let mut runs = Vec::new();
    for execution in &executions {
        runs.push(machine.ended(execution).await);
    }
    let failed: Vec<&Run> = runs.iter().filter(|run| !run.published()).collect();
    let [failed] = failed[..] else { panic!("one of them fails, after {killed}: {runs:?}") };
    assert!(failed.ended.starts_with("Build.Failed: linux/"), "{}", failed.ended);
    assert!(failed.ended.contains("exit status 137"), "{}", failed.ended);
    assert!(failed.ended.contains("; log: http"), "{}", failed.ended);
    let mut checks = Checks::default();
    runs.into_iter().for_each(|run| checks.add(run));
    machine.settled().await;
    checks.hold(&machine).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_run_by_name_and_a_retry_works_once_there_is_room() {
    let Some(disk) = Disk::mount() else {
        eprintln!("SKIPPED: no small disk can be mounted here (it takes root and CAP_SYS_ADMIN)");
        return;
    };
    let options = Options { state: Some(disk.folder.path().join("state")), layer_bytes: 3_000_000 };
    let mut machine = Machine::new(options);
    machine.start().await;
    let mut checks = Checks::default();
    let first = machine.push(0);
    for execution in machine.deliver(&first).await {
        let run = machine.ended(&execution).await;
        assert!(run.published(), "{}", run.ended);
        checks.add(run);
    }

    // Room for journals and records, and for no layer.
    disk.fill(600_000);
    let second = machine.push(1);
    for execution in machine.deliver(&second).await {
        let run = machine.ended(&execution).await;
        assert!(run.ended.starts_with("Build.Failed: linux/"), "{}", run.ended);
        let log = machine.build_logs(&run).await;
        assert!(log.contains("403") && log.contains("disk is full"), "{log}");
        checks.add(run);
    }
    machine.settled().await;
    checks.hold(&machine).await;

    // No room for anything: what starts is refused or goes on in memory, and nothing is damaged.
    disk.fill(0);
    let third = machine.push(2);
    let refused = machine.try_deliver(&third).await;
    disk.free();
    let started = match refused {
        Ok(started) => started,
        Err(said) => {
            assert!(said.contains("deliver it again"), "{said}");
            machine.says("did not start: its journal could not be written").await;
            machine.says("No space left on device").await;
            machine.deliver(&third).await
        }
    };
    for execution in &started {
        checks.add(machine.ended(execution).await);
    }
    let fourth = machine.push(3);
    for execution in machine.deliver(&fourth).await {
        let run = machine.ended(&execution).await;
        assert!(run.published(), "there is room again: {}", run.ended);
        checks.add(run);
    }
    machine.settled().await;
    checks.hold(&machine).await;
    machine.kill().await;
    machine.start().await;
    machine.settled().await;
    checks.hold(&machine).await;
    machine.assert_nothing_half_written();
    machine.stop().await;
}

/// A disk of some megabytes.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// None where this may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { folder })
    }

    /// Leaves so many bytes.
    fn fill(&self, bytes: u64) {
        let path = self.folder.path().join("ballast");
        let _ = fs::remove_file(&path);
        let room = rustix::fs::statvfs(self.folder.path()).unwrap();
        let room = room.f_bavail * room.f_frsize;
        let filled = Command::new("fallocate")
            .args(["--length", &room.saturating_sub(bytes).to_string()])
            .arg(&path)
            .status();
        assert!(filled.unwrap().success());
    }

    fn free(&self) {
        fs::remove_file(self.folder.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that failed may leave a server there for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}
