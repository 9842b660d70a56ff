//! What tasks run, wait for and come to.

use std::time::Duration;

use crate::support::{EXECUTION, MACHINE, World, hold, invoke, task};
use serde_json::{Value, json};
use tokio::time::sleep;

fn json_in(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

const GONE: &str = "Task Timed Out: 'Provided task does not exist anymore'";

#[tokio::test(start_paused = true)]
async fn an_invocation_has_the_shape_of_the_optimized_integration() {
    let world = World::new(&invoke("echo", json!({})));
    let execution = world.run("one", json!({ "a": 1 })).await;
    assert_eq!(execution["status"], "SUCCEEDED");
    let headers = json!({
        "X-Amz-Executed-Version": "$LATEST",
        "x-amzn-Remapped-Content-Length": "0",
        "Connection": "keep-alive",
        "x-amzn-RequestId": "8a2c7a5c-0000-4000-8000-000000000000",
        "Content-Length": "7",
        "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "X-Amzn-Trace-Id": "Root=1-00000000-000000000000000000000000",
        "Content-Type": "application/json",
    });
    let all: serde_json::Map<_, _> = headers
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), json!([value])))
        .collect();
    assert_eq!(
        json_in(&execution["output"]),
        json!({
            "ExecutedVersion": "$LATEST",
            "Payload": { "a": 1 },
            "SdkHttpMetadata": {
                "AllHttpHeaders": all,
                "HttpHeaders": headers,
                "HttpStatusCode": 200,
            },
            "SdkResponseMetadata": { "RequestId": "8a2c7a5c-0000-4000-8000-000000000000" },
            "StatusCode": 200,
        })
    );
    assert_eq!(
        world.event_types(execution["executionArn"].as_str().unwrap()).await,
        [
            "ExecutionStarted",
            "TaskStateEntered",
            "TaskScheduled",
            "TaskStarted",
            "TaskSucceeded",
            "TaskStateExited",
            "ExecutionSucceeded"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_function_error_is_the_tasks_error_with_its_payload_as_the_cause() {
    let world = World::new(&invoke("fail", json!({})));
    let execution = world.run("one", json!({})).await;
    assert_eq!(
        (&execution["status"], &execution["error"]),
        (&json!("FAILED"), &json!("Build.Failed"))
    );
    let cause = json!({ "errorType": "Build.Failed", "errorMessage": "on purpose" });
    assert_eq!(json_in(&execution["cause"]), cause);
    assert_eq!(execution.get("output"), None);
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_services_have_their_service_before_them() {
    for (function, error) in [
        ("missing", "Lambda.ResourceNotFoundException"),
        ("throttled", "Lambda.TooManyRequestsException"),
        ("untyped", "Lambda.Unknown"),
    ] {
        let world = World::new(&invoke(function, json!({})));
        assert_eq!(world.run("one", json!({})).await["error"], error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_is_retried_with_backoff_and_succeeds() {
    let retry = json!({ "Retry": [{
        "ErrorEquals": ["Build.Capacity"], "IntervalSeconds": 10, "BackoffRate": 2.0,
        "MaxAttempts": 2,
    }] });
    let world = World::new(&invoke("fail-twice", retry));
    let execution = world.run("one", json!({})).await;
    assert_eq!(execution["status"], "SUCCEEDED");
    assert_eq!(world.services.calls("fail-twice"), 3);
    // Ten seconds, then twenty.
    assert_eq!(execution["stopDate"], 30.0);
}

#[tokio::test(start_paused = true)]
async fn a_task_out_of_time_fails_and_its_late_answer_changes_nothing() {
    let world = World::new(&invoke("slow", json!({ "TimeoutSeconds": 5 })));
    let execution = world.run("one", json!({ "seconds": 60 })).await;
    assert_eq!(
        (&execution["status"], &execution["error"]),
        (&json!("FAILED"), &json!("States.Timeout"))
    );
    assert_eq!(execution["stopDate"], 5.0);
    let arn = execution["executionArn"].as_str().unwrap();
    let history = world.history(arn).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.history(arn).await, history);
}

#[tokio::test(start_paused = true)]
async fn the_definitions_own_time_out_ends_the_execution() {
    let mut definition = hold(json!({}));
    definition["TimeoutSeconds"] = 30.into();
    let world = World::new(&definition);
    let execution = world.run("one", json!({})).await;
    assert_eq!(execution["status"], "TIMED_OUT");
    assert_eq!(execution["stopDate"], 30.0);
    let input = json!({ "taskToken": world.token(1).await, "output": "1" });
    assert_eq!(world.err("SendTaskSuccess", input).await.0, "TaskTimedOut");
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_its_token_and_takes_it_once() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("one", json!({})).await;
    let token = world.token(1).await;
    sleep(Duration::from_hours(100)).await;
    let success = json!({ "taskToken": token, "output": "{\"digest\":\"sha256:1\"}" });
    assert_eq!(world.ok("SendTaskSuccess", success.clone()).await, json!({}));
    let execution = world.end(&arn).await;
    assert_eq!(json_in(&execution["output"]), json!({ "digest": "sha256:1" }));
    let gone = ("TaskTimedOut".to_owned(), GONE.to_owned());
    assert_eq!(world.err("SendTaskSuccess", success).await, gone);
    let failure = json!({ "taskToken": token, "error": "Build.Failed", "cause": "late" });
    assert_eq!(world.err("SendTaskFailure", failure).await, gone);
    assert_eq!(world.err("SendTaskHeartbeat", json!({ "taskToken": token })).await, gone);
    let types = world.event_types(&arn).await;
    assert_eq!(types[2..6], ["TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded"]);
}

#[tokio::test(start_paused = true)]
async fn two_answers_at_once_are_taken_in_order() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("one", json!({})).await;
    let token = world.token(1).await;
    let (first, second) = tokio::join!(
        world.service.call("SendTaskSuccess", json!({ "taskToken": token, "output": "1" })),
        world.service.call("SendTaskFailure", json!({ "taskToken": token, "error": "Late" })),
    );
    assert_eq!(first, Ok(json!({})));
    assert_eq!(second.unwrap_err().code, "TaskTimedOut");
    assert_eq!(world.end(&arn).await["output"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_failure_sent_with_a_token_is_caught_by_its_name() {
    let catch = json!({ "Catch": [{ "ErrorEquals": ["Build.Failed"], "Next": "Caught" }] });
    let mut definition = hold(catch);
    definition["States"]["Caught"] =
        json!({ "Type": "Pass", "Output": "{% $states.input %}", "End": true });
    let world = World::new(&definition);
    let arn = world.start("one", json!({})).await;
    let token = world.token(1).await;
    let failure = json!({ "taskToken": token, "error": "Build.Failed", "cause": "line 3" });
    world.ok("SendTaskFailure", failure).await;
    let execution = world.end(&arn).await;
    assert_eq!(
        json_in(&execution["output"]),
        json!({ "Error": "Build.Failed", "Cause": "line 3" })
    );
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_task_alive_and_a_missed_one_ends_it() {
    let world = World::new(&hold(json!({ "HeartbeatSeconds": 60, "TimeoutSeconds": 3600 })));
    let arn = world.start("one", json!({})).await;
    let token = world.token(1).await;
    for _ in 0..4 {
        sleep(Duration::from_secs(50)).await;
        world.ok("SendTaskHeartbeat", json!({ "taskToken": token })).await;
    }
    let execution = world.end(&arn).await;
    // As recorded on AWS: a missed heartbeat is told as a time-out.
    assert_eq!(execution["error"], "States.Timeout");
    assert_eq!(execution["stopDate"].as_f64().unwrap().round(), 260.0);
    let late = json!({ "taskToken": token });
    assert_eq!(world.err("SendTaskHeartbeat", late).await.1, GONE);
}

#[tokio::test(start_paused = true)]
async fn a_retry_has_a_token_of_its_own() {
    let retry = json!({
        "TimeoutSeconds": 10,
        "Retry": [{ "ErrorEquals": ["States.Timeout"], "MaxAttempts": 1, "IntervalSeconds": 1 }],
    });
    let world = World::new(&hold(retry));
    let arn = world.start("one", json!({})).await;
    let (first, second) = (world.token(1).await, world.token(2).await);
    assert_ne!(first, second);
    let late = json!({ "taskToken": first, "output": "\"late\"" });
    assert_eq!(world.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    world.ok("SendTaskSuccess", json!({ "taskToken": second, "output": "\"in time\"" })).await;
    assert_eq!(world.end(&arn).await["output"], "\"in time\"");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_never_given_is_invalid() {
    let world = World::new(&hold(json!({})));
    world.start("one", json!({})).await;
    for operation in ["SendTaskSuccess", "SendTaskFailure", "SendTaskHeartbeat"] {
        let input = json!({ "taskToken": "AAAA", "output": "1" });
        let invalid = ("InvalidToken".to_owned(), "Invalid Token: 'Invalid token'".to_owned());
        assert_eq!(world.err(operation, input).await, invalid);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_with_a_token_has_bounds() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("one", json!({})).await;
    let token = world.token(1).await;
    let not_json = json!({ "taskToken": token, "output": "{" });
    assert_eq!(world.err("SendTaskSuccess", not_json).await.0, "InvalidOutput");
    let large = json!({ "taskToken": token, "output": format!("\"{}\"", "x".repeat(262_143)) });
    assert_eq!(world.err("SendTaskSuccess", large).await.0, "ValidationException");
    let error = json!({ "taskToken": token, "error": "x".repeat(257) });
    assert_eq!(world.err("SendTaskFailure", error).await.0, "ValidationException");
    let cause = json!({ "taskToken": token, "cause": "x".repeat(32_769) });
    assert_eq!(world.err("SendTaskFailure", cause).await.0, "ValidationException");
    let cause = json!({ "taskToken": token, "cause": "ü".repeat(32_768) });
    world.ok("SendTaskFailure", cause).await;
    assert_eq!(world.end(&arn).await["status"], "FAILED");
}

#[tokio::test(start_paused = true)]
async fn a_function_that_fails_to_take_the_token_fails_the_task() {
    let definition = task(
        "arn:aws:states:::lambda:invoke.waitForTaskToken",
        json!({
            "FunctionName": "fail",
            "Payload": { "token": "{% $states.context.Task.Token %}" },
        }),
        json!({}),
    );
    let world = World::new(&definition);
    assert_eq!(world.run("one", json!({})).await["error"], "Build.Failed");
}

#[tokio::test(start_paused = true)]
async fn events_are_put_with_their_origin() {
    let definition = task(
        "arn:aws:states:::events:putEvents",
        json!({ "Entries": [{
            "Source": "archweld", "DetailType": "Image Published",
            "Detail": { "digest": "sha256:1" },
        }] }),
        json!({}),
    );
    let world = World::new(&definition);
    let execution = world.run("one", json!({})).await;
    let output = json_in(&execution["output"]);
    assert_eq!(output["Entries"], json!([{ "EventId": "event-0" }]));
    assert_eq!(output["FailedEntryCount"], 0);
    assert_eq!(
        world.services.entries(),
        [json!({
            "Source": "archweld", "DetailType": "Image Published",
            "Detail": "{\"digest\":\"sha256:1\"}",
            "Resources": [format!("{EXECUTION}:one"), MACHINE],
        })]
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_bus_refuses_fails_the_task() {
    let definition = task(
        "arn:aws:states:::events:putEvents",
        json!({ "Entries": [{ "Source": "aws.forged", "DetailType": "x", "Detail": {} }] }),
        json!({}),
    );
    let world = World::new(&definition);
    let execution = world.run("one", json!({})).await;
    assert_eq!(execution["error"], "EventBridge.FailedEntry");
    assert_eq!(json_in(&execution["cause"])["FailedEntryCount"], 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_an_execution_closes_its_tasks() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("one", json!({})).await;
    let token = world.token(1).await;
    sleep(Duration::from_secs(9)).await;
    let stop = json!({ "executionArn": arn, "error": "User", "cause": "changed my mind" });
    let answer = world.ok("StopExecution", stop.clone()).await;
    let execution = world.end(&arn).await;
    assert_eq!(execution["status"], "ABORTED");
    assert_eq!((&execution["error"], &execution["cause"]), (&stop["error"], &stop["cause"]));
    assert_eq!(execution["stopDate"], answer["stopDate"]);
    let late = json!({ "taskToken": token, "output": "1" });
    assert_eq!(world.err("SendTaskSuccess", late).await.0, "TaskTimedOut");
    // Once more: nothing changes.
    sleep(Duration::from_secs(9)).await;
    assert_eq!(world.ok("StopExecution", stop).await, answer);
    assert_eq!(world.event_types(&arn).await.last().unwrap(), "ExecutionAborted");
}
