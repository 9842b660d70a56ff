//! `archweld start`, `stop`, `status`, `logs` and `doctor` against the local cloud over HTTP, with the real
//! functions and simulated builds.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Output, Stdio};

use archweld_tests::{Behaviour, Door, World};
use aws_sdk_sfn::types::ExecutionStatus;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];

fn command(world: &World, arguments: &[&str]) -> Command {
    let port = world.cloud.address().rsplit_once(':').unwrap().1.to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_archweld"));
    command.args(arguments).args(["--port", &port]).env("TZ", "UTC").stdin(Stdio::null());
    command.kill_on_drop(true);
    command
}

async fn archweld(world: &World, arguments: &[&str]) -> Output {
    command(world, arguments).output().await.unwrap()
}

/// What a command wrote to the standard output, and what to the standard error, of one that exits
/// with a status. Nothing of it controls a terminal.
#[track_caller]
fn said(output: &Output, status: i32) -> (String, String) {
    let texts = [&output.stdout, &output.stderr].map(|it| String::from_utf8(it.clone()).unwrap());
    assert_eq!(output.status.code(), Some(status), "{texts:?}");
    for text in &texts {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    let [stdout, stderr] = texts;
    (stdout, stderr)
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for a line of the standard error.
async fn hears(child: &mut Child, part: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains(part) {
            // What comes after is read with the output.
            child.stderr = Some(lines.into_inner().into_inner());
            return;
        }
    }
    panic!("it ended without {part:?}");
}

fn interrupt(child: &Child) {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn start_follows_a_run_to_its_end_and_says_what_it_came_to() {
    let world = World::open(Door::Http).await;
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let start = ["start", "--name", "r1", "--ref", "main", "--commit", commit];
    let (stdout, stderr) = said(&archweld(&world, &start).await, 0);
    assert!(stderr.starts_with("run r1 started\n"), "{stderr}");
    for target in PLATFORMS.iter().chain(&["manifest"]) {
        assert!(stderr.contains(&format!("{target:<14} SUCCEEDED")), "{stderr}");
    }
    assert!(!stderr.contains("usually"), "nothing is known of earlier builds: {stderr}");
    assert!(
        stdout.starts_with(&format!("published {}/hello\n", world.cloud.address())),
        "{stdout}"
    );
    for part in ["  tags           r1, 0123456, latest\n", ", built in ", "time "] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert_eq!(stdout.matches(", the slowest").count(), 1, "{stdout}");

    // Another run knows how long builds take.
    let again = ["start", "--force", "--json", "--tag", "latest", "--name", "r2"];
    let (stdout, _) = said(&archweld(&world, &again).await, 0);
    let events = json_lines(&stdout);
    assert_eq!(events[0]["type"], "started");
    assert_eq!(events[0]["run"], "r2");
    let of = |kind| events.iter().filter(move |event| event["type"] == kind);
    let estimated: Vec<_> = of("estimate").map(|it| it["target"].as_str().unwrap()).collect();
    assert_eq!(estimated, ["linux/amd64", "linux/arm64", "manifest"]);
    assert!(of("estimate").all(|it| it["builds"] == 1 && it["took_ms"].is_u64()), "{stdout}");
    assert_eq!(of("build").filter(|it| it["status"] == "SUCCEEDED").count(), 3);
    assert!(of("log").any(|it| it["line"] == "building linux/arm64"), "{stdout}");
    let summary = events.last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["status"], "SUCCEEDED");
    assert!(summary["platforms"][0]["took_ms"].is_u64(), "{summary}");
    assert!(summary["slowest"].is_string() && summary["manifest_took_ms"].is_u64(), "{summary}");
    world.cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_says_where_tags_moved_from() {
    let world = World::open(Door::Http).await;
    let mut before = Value::Null;
    // A run may be over before its plan was seen; it says then that it does not know.
    for _ in 0..30 {
        let start = ["start", "--force", "--json", "--tag", "latest"];
        let (stdout, _) = said(&archweld(&world, &start).await, 0);
        let summary = json_lines(&stdout).pop().unwrap();
        let known = !summary["moved"].is_null();
        if known {
            assert_eq!(summary["moved"], json!([{"tag": "latest", "from": before}]));
        }
        if known && !before.is_null() {
            world.cloud.shutdown().await;
            return;
        }
        before = json!(world.tagged("latest").await.unwrap().digest);
    }
    panic!("no run was seen before it was over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_from_its_start_to_its_end() {
    let world = World::open(Door::Http).await;
    let (stdout, _) = said(&archweld(&world, &["status"]).await, 0);
    assert_eq!(stdout, "no runs yet: start one with `archweld start`\n");
    for command in [&["logs"][..], &["status", "--follow"]] {
        let (_, stderr) = said(&archweld(&world, command).await, 1);
        assert!(stderr.contains("no runs yet"), "{stderr}");
    }
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let input = r#"{"ref": "main", "trigger": {"kind": "push", "actor": "ada"}}"#;
    let start = ["start", "--name", "r1", "--input", input, "--no-wait"];
    let (_, stderr) = said(&archweld(&world, &start).await, 0);
    assert!(stderr.contains("archweld status r1 --port "), "{stderr}");
    // The same again is the same run; another of its name is refused.
    said(&archweld(&world, &start).await, 0);
    let (_, stderr) = said(&archweld(&world, &["start", "--name", "r1"]).await, 1);
    assert!(stderr.contains("there was a run r1"), "{stderr}");

    // Whoever follows leaves a run that goes on, and is told how to stop it.
    let mut following = command(&world, &["status", "--follow"]);
    let mut following = following.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    hears(&mut following, "linux/amd64    SUCCEEDED").await;
    let (stdout, _) = said(&archweld(&world, &["status"]).await, 0);
    let row = stdout.lines().nth(1).unwrap();
    for part in ["r1", "push", "main", "linux/amd64,linux/arm64", "RUNNING"] {
        assert!(row.contains(part), "{part}: {stdout}");
    }
    let (stdout, _) = said(&archweld(&world, &["status", "r1"]).await, 0);
    for part in [
        "RUNNING for ",
        "at `Build platform`",
        "push by ada",
        "linux/amd64  SUCCEEDED ",
        "linux/arm64  IN_PROGRESS ",
        "in BUILD",
        "log   /aws/codebuild/archweld-arm64 ",
        "archweld logs r1 --port",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(!stdout.contains("TOKEN"), "{stdout}");
    interrupt(&following);
    let (_, stderr) = said(&following.wait_with_output().await.unwrap(), 130);
    assert!(stderr.contains("run r1 goes on\n"), "{stderr}");
    assert!(stderr.contains("stop it:    archweld stop r1 --port"), "{stderr}");

    let (stdout, _) = said(&archweld(&world, &["stop", "r1"]).await, 0);
    assert!(stdout.starts_with("run r1 is stopped"), "{stdout}");
    assert_eq!(world.ended(&arn(&world, "r1")).await.status, ExecutionStatus::Aborted);
    let (stdout, _) = said(&archweld(&world, &["stop", "r1"]).await, 0);
    assert_eq!(stdout, "run r1 is over: ABORTED\n");
    let (_, stderr) = said(&archweld(&world, &["status", "r1", "--follow"]).await, 1);
    assert!(stderr.contains("archweld: ABORTED: archweld stop"), "{stderr}");
    let (stdout, _) = said(&archweld(&world, &["status", "--json"]).await, 0);
    let [run] = json_lines(&stdout).try_into().unwrap();
    assert_eq!(run["status"], "ABORTED");
    assert_eq!(run["platforms"], json!(PLATFORMS));
    world.cloud.shutdown().await;
}

fn arn(world: &World, run: &str) -> String {
    format!("{}:{run}", world.state_machine().replace(":stateMachine:", ":execution:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_the_run_where_that_is_asked_for() {
    let world = World::open(Door::Http).await;
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let mut start = command(&world, &["start", "--name", "r1", "--stop-on-interrupt"]);
    let mut start = start.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    hears(&mut start, "linux/arm64    BUILD").await;
    interrupt(&start);
    let (_, stderr) = said(&start.wait_with_output().await.unwrap(), 130);
    assert!(stderr.contains("run r1 is stopped\n"), "{stderr}");
    assert_eq!(world.ended(&arn(&world, "r1")).await.status, ExecutionStatus::Aborted);
    world.cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_shows_what_failed_and_exits_with_one() {
    let world = World::open(Door::Http).await;
    let failure = Behaviour::Fail("exit status 3: \u{1b}[31mno such crate\u{1b}[0m".to_owned());
    world.builds.behave("linux/arm64", failure);
    let (stdout, stderr) = said(&archweld(&world, &["start", "--name", "r1"]).await, 1);
    assert_eq!(stdout, "");
    for part in [
        "linux/arm64    FAILED",
        "linux/arm64: the output of the command that failed:\n  building linux/arm64\n",
        "archweld logs r1 --platform linux/arm64 --port",
        "archweld: Build.Failed: ",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let (stdout, _) = said(&archweld(&world, &["start", "--json"]).await, 1);
    let events = json_lines(&stdout);
    assert_eq!(events.last().unwrap()["status"], "FAILED");
    assert_eq!(events.last().unwrap()["error"], "Build.Failed");

    let (stdout, _) = said(&archweld(&world, &["status"]).await, 0);
    assert!(stdout.lines().nth(2).unwrap().contains("Build.Failed: "), "{stdout}");
    let (stdout, _) = said(&archweld(&world, &["status", "r1"]).await, 0);
    for part in
        ["linux/arm64  FAILED ", "in BUILD: COMMAND_EXECUTION_ERROR: exit status 3: no such"]
    {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let (stdout, _) = said(&archweld(&world, &["logs", "r1"]).await, 0);
    assert!(stdout.contains("linux/arm64    building linux/arm64\n"), "{stdout}");
    let one = ["logs", "r1", "--platform", "linux/arm64", "--tail", "1", "--follow"];
    let (stdout, _) = said(&archweld(&world, &one).await, 0);
    assert_eq!(stdout, "building linux/arm64\n");
    let manifest = ["logs", "r1", "--platform", "manifest"];
    let (_, stderr) = said(&archweld(&world, &manifest).await, 2);
    assert!(stderr.contains("run r1 has no build of manifest"), "{stderr}");
    world.cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let world = World::open(Door::Http).await;
    let wrong = [
        (&["start", "--input", r#"{"platfroms": []}"#][..], 2, "platfroms: unknown field"),
        (&["start", "--platform", "linux/mips"], 2, "unknown platform \"linux/mips\""),
        (&["start", "--image", "other"], 2, "Plan.Invalid: execution input: image:"),
        (&["start", "--name", "a b"], 2, "states:StartExecution failed: InvalidName"),
        (&["start", "--region", "eu-west-1"], 2, "--stack <NAME>"),
        (&["status", "nobody"], 2, "no run nobody: `archweld status` lists the last ones"),
        (&["logs", "nobody"], 2, "no run nobody"),
        (&["stop", "nobody"], 2, "no run nobody"),
        (&["status", "--limit", "0"], 2, "0 is not in 1..=1000"),
        (&["logs", "--platform", "x86"], 2, "or manifest"),
    ];
    for (arguments, status, part) in wrong {
        let (_, stderr) = said(&archweld(&world, arguments).await, status);
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
    }
    let endpoint = world.cloud.endpoint();
    world.cloud.shutdown().await;
    let mut gone = Command::new(env!("CARGO_BIN_EXE_archweld"));
    let gone = gone.args(["start", "--endpoint-url", &endpoint]).output().await.unwrap();
    let (_, stderr) = said(&gone, 1);
    let expected = format!("no local cloud answers at {endpoint}: start one with `archweld up`");
    assert!(stderr.contains(&expected), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_examines_this_machine() {
    let world = World::open(Door::Http).await;
    // Without a configuration there is something to mend, whatever else this machine has.
    let doctor = ["doctor", "--json", "--config", "/nowhere/archweld.toml"];
    let (stdout, stderr) = said(&archweld(&world, &doctor).await, 1);
    assert!(stderr.contains(" to mend\n"), "{stderr}");
    let findings = json_lines(&stdout);
    let of = |check: &str| findings.iter().find(|it| it["check"] == check).unwrap();
    assert_eq!(of("configuration")["verdict"], "problem");
    assert!(of("configuration")["mend"].as_str().unwrap().contains("--config"), "{stdout}");
    assert_eq!(of("functions")["verdict"], "ok", "{stdout}");
    let answers = format!("the local cloud answers at {}", world.cloud.endpoint());
    assert_eq!(of("port")["found"], answers);
    for finding in &findings {
        let is_problem = finding["verdict"] == "problem";
        assert!(!is_problem || finding["mend"].is_string(), "{finding}");
    }
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    let (stdout, _) = said(&archweld(&world, &["doctor", "--functions", folder]).await, 1);
    let missing = stdout.lines().find(|line| line.contains(" has no ")).unwrap();
    assert!(missing.contains("plan-build") && missing.contains("publish"), "{stdout}");
    assert!(stdout.contains("mend: build them with `make build`"), "{stdout}");
    world.cloud.shutdown().await;
}
