//! Executions that ended without success and are redriven.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{EXECUTION, MACHINE, World, hold, invoke};
use archweld_step_functions::Notice;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

const RUNNING: &str = "Execution is RUNNING and cannot be redriven";
const SUCCEEDED: &str = "Execution is SUCCEEDED and cannot be redriven";

/// The error of an execution that cannot be redriven.
fn refused(arn: &str, reason: &str) -> (String, String) {
    let message = format!("Execution {arn} invalid for redrive as: {reason}");
    ("ExecutionNotRedrivable".to_owned(), message)
}

fn with_token(arn: &str, client_token: &str) -> Value {
    json!({ "executionArn": arn, "clientToken": client_token })
}

#[tokio::test(start_paused = true)]
async fn a_redriven_execution_runs_and_says_so_everywhere() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({ "a": 1 })).await;
    let first = world.token(1).await;
    sleep(Duration::from_secs(5)).await;
    let stop = json!({ "executionArn": arn, "error": "User", "cause": "changed my mind" });
    world.ok("StopExecution", stop).await;
    let stopped = world.describe(&arn).await;
    assert_eq!(
        (&stopped["status"], &stopped["redriveStatus"]),
        (&json!("ABORTED"), &json!("REDRIVABLE"))
    );
    assert_eq!((stopped["redriveCount"].as_u64(), stopped.get("redriveDate")), (Some(0), None));
    assert_eq!(stopped.get("redriveStatusReason"), None);
    sleep(Duration::from_secs(60)).await;
    let mut notices = world.service.subscribe();

    let redriven = world.redrive(&arn).await;
    assert!(redriven.as_f64().unwrap() >= 65.0);
    assert_eq!(
        world.describe(&arn).await,
        json!({
            "executionArn": arn, "stateMachineArn": MACHINE, "name": "n", "status": "RUNNING",
            "startDate": 0.0, "input": "{\"a\":1}", "inputDetails": { "included": true },
            "redriveCount": 1, "redriveDate": redriven, "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": RUNNING,
        })
    );
    let running = json!({ "stateMachineArn": MACHINE, "statusFilter": "RUNNING" });
    assert_eq!(
        world.ok("ListExecutions", running).await["executions"],
        json!([{
            "executionArn": arn, "stateMachineArn": MACHINE, "name": "n", "status": "RUNNING",
            "startDate": 0.0, "redriveCount": 1, "redriveDate": redriven,
        }])
    );
    assert_eq!(notices.try_recv().unwrap(), Notice::Started { execution_arn: arn.as_str().into() });

    // The token of the first attempt is worth nothing any more.
    let second = world.token(2).await;
    let late = json!({ "taskToken": first, "output": "\"late\"" });
    assert_eq!(world.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    world.send(&second, "\"in time\"").await;
    let ended = world.end(&arn).await;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("SUCCEEDED"), &json!("\"in time\"")));
    assert_eq!(
        (&ended["redriveDate"], &ended["redriveStatusReason"]),
        (&redriven, &json!(SUCCEEDED))
    );
    assert_eq!((ended.get("error"), ended.get("cause")), (None, None));

    let events = world.events();
    let detail = |field: &str| -> Vec<Value> {
        events.iter().map(|event| event.detail[field].clone()).collect()
    };
    assert_eq!(detail("status"), ["RUNNING", "ABORTED", "RUNNING", "SUCCEEDED"]);
    assert_eq!(detail("redriveCount"), [0, 0, 1, 1]);
    let redriven_ms = json!((redriven.as_f64().unwrap() * 1000.0).round() as i64);
    assert_eq!(detail("redriveDate"), [json!(null), json!(null), redriven_ms.clone(), redriven_ms]);
    assert_eq!(
        detail("redriveStatusReason"),
        [json!(RUNNING), json!(null), json!(RUNNING), json!(SUCCEEDED)]
    );
    assert_eq!(detail("redriveStatus")[1], "REDRIVABLE");
    assert_eq!((&detail("stopDate")[2], &detail("error")[2]), (&json!(null), &json!(null)));

    let history = world.history(&arn).await;
    let redrive = &history[6];
    assert_eq!(redrive["type"], "ExecutionRedriven");
    assert_eq!(redrive["executionRedrivenEventDetails"], json!({ "redriveCount": 1 }));
    assert_eq!((&redrive["previousEventId"], &redrive["timestamp"]), (&json!(6), &redriven));
}

#[tokio::test(start_paused = true)]
async fn a_failed_execution_fails_again_until_what_failed_it_is_gone() {
    let world = World::new(&invoke("fail-twice", json!({})));
    let arn = world.run("n", json!({})).await["executionArn"].as_str().unwrap().to_owned();
    world.redrive(&arn).await;
    let again = world.end(&arn).await;
    assert_eq!((&again["status"], &again["error"]), (&json!("FAILED"), &json!("Build.Capacity")));
    assert_eq!(
        (&again["redriveStatus"], &again["redriveCount"]),
        (&json!("REDRIVABLE"), &json!(1))
    );
    world.redrive(&arn).await;
    let ended = world.end(&arn).await;
    assert_eq!((&ended["status"], &ended["redriveCount"]), (&json!("SUCCEEDED"), &json!(2)));
    let statuses: Vec<Value> =
        world.events().iter().map(|event| event.detail["status"].clone()).collect();
    assert_eq!(statuses, ["RUNNING", "FAILED", "RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_redriven_is_told_as_aws_tells_it() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({})).await;
    let redrive = json!({ "executionArn": arn });
    assert_eq!(world.err("RedriveExecution", redrive.clone()).await, refused(&arn, RUNNING));
    world.send(&world.token(1).await, "1").await;
    world.end(&arn).await;
    assert_eq!(world.err("RedriveExecution", redrive).await, refused(&arn, SUCCEEDED));

    for (input, code) in [
        (json!({ "executionArn": format!("{EXECUTION}:absent") }), "ExecutionDoesNotExist"),
        (json!({ "executionArn": MACHINE }), "InvalidArn"),
        (json!({ "executionArn": EXECUTION.replace("execution", "express") }), "InvalidArn"),
        (json!({}), "ValidationException"),
        (with_token(&arn, ""), "ValidationException"),
        (with_token(&arn, "a b"), "ValidationException"),
        (with_token(&arn, &"x".repeat(65)), "ValidationException"),
    ] {
        assert_eq!(world.err("RedriveExecution", input.clone()).await.0, code, "{input}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_execution_can_be_redriven_for_fourteen_days_within_one_year_from_its_start() {
    let days = |days: u64| Duration::from_hours(days * 24);
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({})).await;
    world.token(1).await;
    world.stop(&arn).await;
    sleep(days(14) - Duration::from_secs(1)).await;
    world.redrive(&arn).await;
    world.token(2).await;
    world.stop(&arn).await;
    sleep(days(14) + Duration::from_secs(1)).await;
    let reason = "Execution redrivable period exceeded";
    let described = world.describe(&arn).await;
    assert_eq!(described["redriveStatus"], "NOT_REDRIVABLE");
    assert_eq!(described["redriveStatusReason"], reason);
    let redrive = json!({ "executionArn": arn });
    assert_eq!(world.err("RedriveExecution", redrive).await, refused(&arn, reason));

    let arn = world.start("long", json!({})).await;
    world.token(3).await;
    sleep(days(365) + Duration::from_secs(1)).await;
    world.stop(&arn).await;
    let reason = "Execution has exceeded the max execution time";
    let redrive = json!({ "executionArn": arn });
    assert_eq!(world.err("RedriveExecution", redrive).await, refused(&arn, reason));
}

#[tokio::test(start_paused = true)]
async fn a_history_without_room_cannot_be_redriven() {
    let world = World::new(&json!({
        "QueryLanguage": "JSONata", "StartAt": "Map", "States": {
            "Map": {
                "Type": "Map", "Items": "{% [1..6248] %}", "Next": "No",
                "ItemProcessor": {"StartAt": "Item", "States": {"Item": {"Type": "Pass", "End": true}}}
            },
            "No": {"Type": "Fail"}
        }
    }));
    let arn = world.run("n", json!({})).await["executionArn"].as_str().unwrap().to_owned();
    let reason = "Execution history event limit exceeded";
    assert_eq!(world.describe(&arn).await["redriveStatusReason"], reason);
    let redrive = json!({ "executionArn": arn });
    assert_eq!(world.err("RedriveExecution", redrive).await, refused(&arn, reason));
}

#[tokio::test(start_paused = true)]
async fn the_same_request_again_redrives_nothing_and_has_the_same_answer() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({})).await;
    world.token(1).await;
    // Before the execution ends, a token counts for nothing.
    world.err("RedriveExecution", with_token(&arn, "a")).await;
    world.stop(&arn).await;
    let first = world.ok("RedriveExecution", with_token(&arn, "a")).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.ok("RedriveExecution", with_token(&arn, "a")).await, first);
    assert_eq!(world.err("RedriveExecution", with_token(&arn, "b")).await, refused(&arn, RUNNING));
    world.stop(&arn).await;
    assert_eq!(world.ok("RedriveExecution", with_token(&arn, "a")).await, first);
    assert_eq!(world.describe(&arn).await["status"], "ABORTED");
    let second = world.ok("RedriveExecution", with_token(&arn, "b")).await;
    assert_ne!(second, first);
    assert_eq!(world.ok("RedriveExecution", with_token(&arn, "a")).await, first);
    world.send(&world.token(3).await, "1").await;
    world.end(&arn).await;
    assert_eq!(world.ok("RedriveExecution", with_token(&arn, "b")).await, second);
    let (code, _) = world.err("RedriveExecution", with_token(&arn, "c")).await;
    assert_eq!(code, "ExecutionNotRedrivable");
    assert_eq!(world.describe(&arn).await["redriveCount"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_token_counts_for_fifteen_minutes_and_ten_redrives() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({})).await;
    world.stop(&arn).await;
    let dates = |answer: Value| answer["redriveDate"].as_f64().unwrap();
    let first = dates(world.ok("RedriveExecution", with_token(&arn, "a")).await);
    world.stop(&arn).await;
    sleep(Duration::from_mins(15)).await;
    assert_eq!(dates(world.ok("RedriveExecution", with_token(&arn, "a")).await), first);
    sleep(Duration::from_secs(1)).await;
    let second = dates(world.ok("RedriveExecution", with_token(&arn, "a")).await);
    assert!(second >= first + 901.0, "{first} {second}");

    for number in 0..10 {
        world.stop(&arn).await;
        world.ok("RedriveExecution", with_token(&arn, &format!("t{number}"))).await;
    }
    world.stop(&arn).await;
    let third = dates(world.ok("RedriveExecution", with_token(&arn, "t1")).await);
    assert_eq!(world.describe(&arn).await["status"], "ABORTED", "it is one of the last ten");
    sleep(Duration::from_secs(1)).await;
    let fourth = dates(world.ok("RedriveExecution", with_token(&arn, "a")).await);
    assert!(fourth > third, "it is none of the last ten");
}

#[tokio::test(start_paused = true)]
async fn of_two_requests_at_once_one_redrives() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({})).await;
    world.stop(&arn).await;
    let redrive = |token: &str| world.service.call("RedriveExecution", with_token(&arn, token));
    let (first, second) = tokio::join!(redrive("a"), redrive("b"));
    first.unwrap();
    let error = second.unwrap_err();
    assert_eq!((error.code, error.message), refused(&arn, RUNNING));
    world.stop(&arn).await;
    // A client that tried again too early has one redrive, too.
    let (first, second) = tokio::join!(redrive("c"), redrive("c"));
    assert_eq!(first, second);
    assert_eq!(world.describe(&arn).await["redriveCount"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stops_redrives_nothing() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({})).await;
    world.stop(&arn).await;
    world.service.shutdown().await;
    let redrive = json!({ "executionArn": arn });
    assert_eq!(world.err("RedriveExecution", redrive).await.0, "ServiceUnavailable");
    assert_eq!(world.describe(&arn).await["status"], "ABORTED");
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("executions/00000000.jsonl")
}

#[tokio::test(start_paused = true)]
async fn a_redrive_outlives_its_service_and_so_do_its_tokens() {
    let folder = TempDir::new().unwrap();
    let definition = hold(json!({ "TimeoutSeconds": 100 }));
    let world = World::open(&definition, folder.path(), 1_000);
    let arn = world.start("n", json!({})).await;
    let first = world.token(1).await;
    world.stop(&arn).await;
    world.service.shutdown().await;

    // One that is at rest does not go on by itself.
    let again = World::suspended(&definition, folder.path(), 2_000);
    assert_eq!(again.service.resume(), Vec::<String>::new());
    assert_eq!(again.describe(&arn).await["redriveStatus"], "REDRIVABLE");
    let redriven = again.ok("RedriveExecution", with_token(&arn, "a")).await;
    let second = again.token(1).await;
    sleep(Duration::from_secs(1)).await;
    let before = (again.describe(&arn).await, again.history(&arn).await);
    again.service.shutdown().await;

    let third = World::suspended(&definition, folder.path(), 2_050);
    assert_eq!((third.describe(&arn).await, third.history(&arn).await), before);
    assert_eq!(third.service.resume(), std::slice::from_ref(&arn));
    assert_eq!(third.ok("RedriveExecution", with_token(&arn, "a")).await, redriven);
    let late = json!({ "taskToken": first, "output": "1" });
    assert_eq!(third.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    assert_eq!(third.services.calls("hold"), 0, "its service had answered");
    third.send(&second, "1").await;
    assert_eq!(third.end(&arn).await["status"], "SUCCEEDED");
    third.service.shutdown().await;

    let last = World::open(&definition, folder.path(), 2_060);
    assert_eq!(last.describe(&arn).await["redriveCount"], 1);
    let types = last.event_types(&arn).await;
    assert_eq!(types.iter().filter(|kind| *kind == "ExecutionRedriven").count(), 1);
}

/// A redriven execution is cut wherever a line of its journal ends, and anywhere within it.
#[tokio::test(start_paused = true)]
async fn a_journal_with_redrives_cut_anywhere_goes_on_from_a_prefix_of_the_history() {
    let folder = TempDir::new().unwrap();
    let definition = hold(json!({ "TimeoutSeconds": 100 }));
    let world = World::open(&definition, folder.path(), 1_000);
    let arn = world.start("n", json!({})).await;
    for attempt in 1..=2 {
        world.token(attempt).await;
        world.stop(&arn).await;
        world.redrive(&arn).await;
    }
    world.send(&world.token(3).await, "1").await;
    world.end(&arn).await;
    let whole = world.history(&arn).await;
    drop(world);
    let bytes = fs::read(journal(folder.path())).unwrap();
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut at_rest = 0;
    for length in (first_line..bytes.len()).step_by(7) {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("executions")).unwrap();
        fs::write(journal(folder.path()), &bytes[..length]).unwrap();
        let again = World::suspended(&definition, folder.path(), 2_000);
        let kept = again.history(&arn).await;
        assert_eq!(kept, &whole[..kept.len()], "cut at byte {length}");
        again.service.resume();
        if again.end(&arn).await["redriveStatus"] == "REDRIVABLE" {
            at_rest += 1;
            let tokens = again.services.tokens().len();
            again.redrive(&arn).await;
            again.send(&again.token(tokens + 1).await, "1").await;
        }
        let ended = again.end(&arn).await;
        assert_eq!(ended["status"], "SUCCEEDED", "cut at byte {length}");
        let history = again.history(&arn).await;
        again.service.shutdown().await;
        let last = World::open(&definition, folder.path(), 3_000);
        assert_eq!(last.history(&arn).await, history, "cut at byte {length}");
    }
    assert!(at_rest > 0);
}

#[tokio::test(start_paused = true)]
async fn a_redriven_execution_runs_the_definition_that_it_began_with() {
    let folder = TempDir::new().unwrap();
    let world = World::open(&hold(json!({})), folder.path(), 1_000);
    let arn = world.start("n", json!({})).await;
    world.stop(&arn).await;
    world.service.shutdown().await;
    let again = World::open(&invoke("fail", json!({})), folder.path(), 2_000);
    again.redrive(&arn).await;
    again.send(&again.token(1).await, "1").await;
    assert_eq!(again.end(&arn).await["status"], "SUCCEEDED");
    assert_eq!(again.services.calls("fail"), 0);
}

#[tokio::test(start_paused = true)]
async fn executions_at_rest_keep_no_file_open() {
    let folder = TempDir::new().unwrap();
    let open_files = || {
        let files = fs::read_dir("/proc/self/fd").unwrap();
        let targets = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(folder.path())).count()
    };
    let world = World::open(&invoke("fail", json!({})), folder.path(), 1_000);
    for name in ["a", "b", "c"] {
        world.run(name, json!({})).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(open_files(), 0);
    world.service.shutdown().await;
    let again = World::open(&invoke("fail", json!({})), folder.path(), 2_000);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(open_files(), 0);
    let arn = format!("{EXECUTION}:b");
    again.redrive(&arn).await;
    assert_eq!(again.end(&arn).await["redriveCount"], 1);
}
