//! Executions that outlive their service.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{EXECUTION, MACHINE, World, hold, invoke};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

/// Everything that the API shows of an execution.
async fn shown(world: &World, name: &str) -> (Value, Vec<Value>) {
    let arn = format!("{EXECUTION}:{name}");
    let execution = world.ok("DescribeExecution", json!({ "executionArn": arn })).await;
    (execution, world.history(&arn).await)
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("executions/00000000.jsonl")
}

fn definition() -> Value {
    hold(json!({
        "TimeoutSeconds": 100, "HeartbeatSeconds": 50,
        "Retry": [{
            "ErrorEquals": ["States.Timeout"], "IntervalSeconds": 20, "MaxAttempts": 2,
            "JitterStrategy": "FULL",
        }],
    }))
}

/// A service on a folder, with an execution `done` that a heartbeat, a time-out and a retry
/// went into.
async fn world_with_history(folder: &Path) -> World {
    let world = World::open(&definition(), folder, 1_000);
    let arn = world.start("done", json!({ "tags": ["latest"], "ratio": 0.1 })).await;
    let first = world.token(1).await;
    sleep(Duration::from_secs(30)).await;
    world.ok("SendTaskHeartbeat", json!({ "taskToken": first })).await;
    let second = world.token(2).await;
    let output =
        r#"{"digest":"sha256:1","seconds":0.30000000000000004,"z":1,"a":123456789.12345679}"#;
    world.ok("SendTaskSuccess", json!({ "taskToken": second, "output": output })).await;
    assert_eq!(world.end(&arn).await["status"], "SUCCEEDED");
    world
}

#[tokio::test(start_paused = true)]
async fn a_finished_execution_is_there_again_event_for_event() {
    let folder = TempDir::new().unwrap();
    let world = world_with_history(folder.path()).await;
    let before = shown(&world, "done").await;
    let token = world.token(1).await;
    world.service.shutdown().await;

    let again = World::open(&definition(), folder.path(), 2_000);
    assert_eq!(shown(&again, "done").await, before);
    let listed = again.ok("ListExecutions", json!({ "stateMachineArn": MACHINE })).await;
    assert_eq!(listed["executions"].as_array().unwrap().len(), 1);
    // Its name stays taken, and its tokens stay closed.
    let start = json!({ "stateMachineArn": MACHINE, "name": "done" });
    assert_eq!(again.err("StartExecution", start).await.0, "ExecutionAlreadyExists");
    let late = json!({ "taskToken": token, "output": "1" });
    assert_eq!(again.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    assert_eq!(again.events(), []);
}

/// What is left of a service that is killed: it comes to no end of its own.
async fn kill(world: World) {
    world.service.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_task_goes_on_with_the_token_that_it_had() {
    let folder = TempDir::new().unwrap();
    let world = World::open(&definition(), folder.path(), 1_000);
    let arn = world.start("cut", json!({})).await;
    let token = world.token(1).await;
    sleep(Duration::from_secs(1)).await;
    let before = world.history(&arn).await;
    kill(world).await;

    let again = World::suspended(&definition(), folder.path(), 1_010);
    assert_eq!(again.history(&arn).await, before);
    assert_eq!(again.service.resume(), std::slice::from_ref(&arn));
    assert_eq!(again.service.resume(), Vec::<String>::new());
    sleep(Duration::from_secs(1)).await;
    let execution = again.ok("DescribeExecution", json!({ "executionArn": arn })).await;
    assert_eq!(execution["status"], "RUNNING");
    again.ok("SendTaskSuccess", json!({ "taskToken": token, "output": "1" })).await;
    assert_eq!(again.end(&arn).await["status"], "SUCCEEDED");
    assert_eq!(again.services.calls("hold"), 0, "its service had answered");
    let late = json!({ "taskToken": token, "output": "1" });
    assert_eq!(again.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    let [event] = again.events().try_into().unwrap();
    assert_eq!(event.detail["status"], "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_sent_before_its_execution_goes_on_is_not_lost() {
    let folder = TempDir::new().unwrap();
    let world = World::open(&definition(), folder.path(), 1_000);
    let arn = world.start("cut", json!({})).await;
    let token = world.token(1).await;
    kill(world).await;
    let again = World::suspended(&definition(), folder.path(), 1_010);
    let send = again.ok("SendTaskSuccess", json!({ "taskToken": token, "output": "1" }));
    let resume = async {
        sleep(Duration::from_secs(1)).await;
        again.service.resume();
    };
    tokio::join!(send, resume);
    assert_eq!(again.end(&arn).await["status"], "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_time_out_that_passed_meanwhile_is_due_at_once_and_a_later_one_when_it_was() {
    let folder = TempDir::new().unwrap();
    let world = World::open(&definition(), folder.path(), 1_000);
    let arn = world.start("cut", json!({})).await;
    let first = world.token(1).await;
    sleep(Duration::from_secs(1)).await;
    kill(world).await;

    // Its heartbeat was due at 1050; the retry's delay is at most 20 seconds.
    let again = World::open(&definition(), folder.path(), 2_000);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(again.event_types(&arn).await.last().unwrap(), "TaskTimedOut");
    let late = json!({ "taskToken": first, "output": "1" });
    assert_eq!(again.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    let second = again.token(1).await;
    assert_ne!(second, first);
    kill(again).await;

    let third = World::open(&definition(), folder.path(), 2_040);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(third.event_types(&arn).await.last().unwrap(), "TaskSubmitted");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(third.event_types(&arn).await.last().unwrap(), "TaskTimedOut");
}

#[tokio::test(start_paused = true)]
async fn a_task_in_flight_is_handed_out_again_and_starts_once() {
    let folder = TempDir::new().unwrap();
    let definition = invoke("slow", json!({}));
    let world = World::open(&definition, folder.path(), 1_000);
    let arn = world.start("cut", json!({ "seconds": 100 })).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.services.calls("slow"), 1);
    kill(world).await;
    for second in [2_000, 3_000] {
        let again = World::open(&definition, folder.path(), second);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(again.services.calls("slow"), 1);
        kill(again).await;
    }
    let last = World::open(&definition, folder.path(), 4_000);
    assert_eq!(last.end(&arn).await["status"], "SUCCEEDED");
    let types = last.event_types(&arn).await;
    assert_eq!(types.iter().filter(|kind| *kind == "TaskStarted").count(), 1, "{types:?}");
    assert_eq!(last.history(&arn).await.last().unwrap()["timestamp"], 4_100.0);
}

#[tokio::test(start_paused = true)]
async fn a_task_in_flight_whose_time_is_over_is_not_handed_out_again() {
    let folder = TempDir::new().unwrap();
    let definition = invoke("slow", json!({ "TimeoutSeconds": 50 }));
    let world = World::open(&definition, folder.path(), 1_000);
    let arn = world.start("cut", json!({ "seconds": 100 })).await;
    sleep(Duration::from_secs(1)).await;
    kill(world).await;
    let again = World::open(&definition, folder.path(), 2_000);
    let execution = again.end(&arn).await;
    assert_eq!(
        (&execution["status"], &execution["error"]),
        (&json!("FAILED"), &json!("States.Timeout"))
    );
    assert_eq!(execution["stopDate"], 2_000.0);
    assert_eq!(again.services.calls("slow"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_execution_can_be_stopped() {
    let folder = TempDir::new().unwrap();
    let world = World::open(&definition(), folder.path(), 1_000);
    let arn = world.start("cut", json!({})).await;
    world.token(1).await;
    kill(world).await;
    let again = World::open(&definition(), folder.path(), 1_010);
    again.ok("StopExecution", json!({ "executionArn": arn, "cause": "enough" })).await;
    let ended = shown(&again, "cut").await;
    assert_eq!(ended.0["status"], "ABORTED");
    kill(again).await;
    let third = World::open(&definition(), folder.path(), 3_000);
    assert_eq!(shown(&third, "cut").await, ended);
    assert_eq!(third.events(), []);
}

/// An execution is cut wherever a line of its journal ends, and anywhere within it.
#[tokio::test(start_paused = true)]
async fn a_journal_cut_anywhere_goes_on_from_a_prefix_of_the_history() {
    let folder = TempDir::new().unwrap();
    let world = world_with_history(folder.path()).await;
    let whole = shown(&world, "done").await.1;
    drop(world);
    let bytes = fs::read(journal(folder.path())).unwrap();
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in (first_line..bytes.len()).step_by(23) {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("executions")).unwrap();
        fs::write(journal(folder.path()), &bytes[..length]).unwrap();
        let suspended = World::suspended(&definition(), folder.path(), 2_000);
        let (execution, kept) = shown(&suspended, "done").await;
        assert_eq!(execution["status"], "RUNNING", "cut at byte {length}");
        assert_eq!(kept, &whole[..kept.len()], "cut at byte {length}");
        kill(suspended).await;
        // Its heartbeat is over in any case: another attempt gets a token.
        let again = World::open(&definition(), folder.path(), 3_000);
        let token = again.token(1).await;
        again.ok("SendTaskSuccess", json!({ "taskToken": token, "output": "1" })).await;
        let arn = format!("{EXECUTION}:done");
        assert_eq!(again.end(&arn).await["status"], "SUCCEEDED", "cut at byte {length}");
        assert_eq!(again.history(&arn).await[..kept.len()], kept, "cut at byte {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_cut_off_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("executions")).unwrap();
    fs::write(journal(folder.path()), r#"{"format":1,"execution_arn":"arn:aws"#).unwrap();
    let world = World::open(&invoke("echo", json!({})), folder.path(), 1_000);
    let listed = world.ok("ListExecutions", json!({ "stateMachineArn": MACHINE })).await;
    assert_eq!(listed, json!({ "executions": [] }));
    assert!(!journal(folder.path()).exists());
    assert_eq!(world.run("n", json!({})).await["status"], "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_is_left_alone() {
    let folder = TempDir::new().unwrap();
    world_with_history(folder.path()).await.service.shutdown().await;
    let path = journal(folder.path());
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"not JSON\n").unwrap();
    let damaged = fs::read(&path).unwrap();
    let world = World::open(&definition(), folder.path(), 2_000);
    let listed = world.ok("ListExecutions", json!({ "stateMachineArn": MACHINE })).await;
    assert_eq!(listed, json!({ "executions": [] }));
    world.start("other", json!({})).await;
    assert_eq!(fs::read(&path).unwrap(), damaged);
    assert!(folder.path().join("executions/00000001.jsonl").exists());
}

#[tokio::test(start_paused = true)]
async fn new_executions_come_after_those_found() {
    let folder = TempDir::new().unwrap();
    let definition = invoke("echo", json!({}));
    let world = World::open(&definition, folder.path(), 1_000);
    world.run("a", json!({})).await;
    world.run("b", json!({})).await;
    world.service.shutdown().await;
    let again = World::open(&definition, folder.path(), 2_000);
    again.run("c", json!({})).await;
    let listed = again.ok("ListExecutions", json!({ "stateMachineArn": MACHINE })).await;
    let names: Vec<&Value> =
        listed["executions"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["c", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn an_execution_keeps_the_definition_that_it_ran() {
    let folder = TempDir::new().unwrap();
    let old = invoke("echo", json!({}));
    let world = World::open(&old, folder.path(), 1_000);
    world.run("a", json!({})).await;
    world.service.shutdown().await;
    let again = World::open(&invoke("fail", json!({})), folder.path(), 2_000);
    let input = json!({ "executionArn": format!("{EXECUTION}:a") });
    let described = again.ok("DescribeStateMachineForExecution", input).await;
    assert_eq!(described["definition"], old.to_string());
}
