//! Functions as child processes, over the real Runtime API.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use archweld_lambda::{
    AsynchronousRetries, FunctionSettings, Handler, InvocationType, Lambda, LogLine, LogStream,
    Outcome,
};
use archweld_local_api::{ApiError, Host};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

/// What `cargo` built from `examples/probe.rs`, beside this test's own executable.
fn probe() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/probe")
}

fn settings(name: &str) -> FunctionSettings {
    FunctionSettings {
        name: name.to_owned(),
        arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{name}"),
        environment: BTreeMap::new(),
        timeout: Duration::from_secs(20),
        memory_mb: 256,
        concurrency_max: 10,
        retries: AsynchronousRetries::default(),
        on_failure: None,
        handler: Handler::Process(probe()),
    }
}

fn lambda(settings: FunctionSettings) -> Lambda {
    let host = Host::real("000000000000", "us-east-1");
    let endpoint = ("AWS_ENDPOINT_URL".to_owned(), "http://127.0.0.1:4566".to_owned());
    let lambda = Lambda::new(host, BTreeMap::from([endpoint]));
    lambda.create_function(settings).unwrap();
    lambda
}

async fn invoke(lambda: &Lambda, payload: Value) -> Result<Result<Value, Value>, ApiError> {
    let payload = Bytes::from(payload.to_string());
    let invoked = lambda.invoke("probe", payload, InvocationType::RequestResponse).await?;
    Ok(match invoked.outcome {
        Outcome::Succeeded(payload) => Ok(serde_json::from_slice(&payload).unwrap()),
        Outcome::FunctionError(payload) => Err(serde_json::from_slice(&payload).unwrap()),
        other => panic!("a synchronous invocation ended as {other:?}"),
    })
}

async fn failure(lambda: &Lambda, payload: Value) -> (String, String) {
    let error = invoke(lambda, payload).await.unwrap().unwrap_err();
    let text = |field: &str| error[field].as_str().unwrap().to_owned();
    (text("errorType"), text("errorMessage"))
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Whether a process is gone, or only its parent has not heard of it.
fn is_dead(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| status.contains(") Z ")) || test_kill_process(pid(process)).is_err()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not happen");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_event_goes_in_and_the_response_comes_out() {
    let lambda = lambda(settings("probe"));
    let event = json!({ "do": "echo", "platform": "linux/arm64" });
    assert_eq!(invoke(&lambda, event.clone()).await.unwrap(), Ok(event));
    lambda.shutdown().await;
}

#[tokio::test]
async fn a_function_is_told_its_context() {
    let lambda = lambda(settings("probe"));
    let before = jiff::Timestamp::now().as_millisecond();
    let invoked = lambda
        .invoke("probe", r#"{"do":"context"}"#.into(), InvocationType::RequestResponse)
        .await
        .unwrap();
    let Outcome::Succeeded(payload) = invoked.outcome else { panic!("it failed") };
    let context: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(context["requestId"], *invoked.request_id);
    assert_eq!(context["arn"], "arn:aws:lambda:us-east-1:000000000000:function:probe");
    assert_eq!(context["traceId"], *invoked.trace_id);
    let deadline = context["deadline"].as_i64().unwrap();
    assert!((before + 20_000..before + 40_000).contains(&deadline), "{deadline}");
    lambda.shutdown().await;
}

#[tokio::test]
async fn the_environment_is_lambdas_and_not_the_hosts() {
    let mut settings = settings("probe");
    settings.environment.insert("TABLE".to_owned(), "builds".to_owned());
    let lambda = lambda(settings);
    let environment = invoke(&lambda, json!({ "do": "environment" })).await.unwrap().unwrap();
    for (key, value) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "probe"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/probe"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
        ("TABLE", "builds"),
        ("LAMBDA_TASK_ROOT", probe().parent().unwrap().to_str().unwrap()),
    ] {
        assert_eq!(environment[key], value, "{key}");
    }
    for key in ["PATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        assert!(environment[key].is_string(), "{key}");
    }
    // Cargo sets it for this test.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert_eq!(environment["CARGO_MANIFEST_DIR"], Value::Null);
    lambda.shutdown().await;
}

#[tokio::test]
async fn an_idle_instance_is_used_again() {
    let lambda = lambda(settings("probe"));
    let event = json!({ "do": "context" });
    let first = invoke(&lambda, event.clone()).await.unwrap().unwrap();
    let second = invoke(&lambda, event).await.unwrap().unwrap();
    assert_eq!(first["pid"], second["pid"]);
    assert_ne!(first["requestId"], second["requestId"]);
    assert_eq!(lambda.children("probe").len(), 1);
    lambda.shutdown().await;
}

#[tokio::test]
async fn an_instance_that_has_not_answered_gets_no_other_event() {
    let lambda = lambda(settings("probe"));
    let answer = invoke(&lambda, json!({ "do": "next" })).await.unwrap().unwrap();
    let answer = answer.as_str().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("InvalidStateTransition"), "{answer}");
    assert_eq!(invoke(&lambda, json!({ "do": "echo" })).await.unwrap().unwrap()["do"], "echo");
    lambda.shutdown().await;
}

#[tokio::test]
async fn concurrent_invocations_have_an_instance_each_up_to_the_limit() {
    let lambda = lambda(FunctionSettings { concurrency_max: 2, ..settings("probe") });
    let sleep = json!({ "do": "sleep", "seconds": 3600 });
    let sleepers: Vec<_> = (0..2)
        .map(|_| {
            let (lambda, sleep) = (lambda.clone(), sleep.clone());
            tokio::spawn(async move { invoke(&lambda, sleep).await })
        })
        .collect();
    until("two instances", || lambda.children("probe").len() == 2).await;
    let throttled = invoke(&lambda, json!({})).await.unwrap_err();
    assert_eq!((throttled.code.as_str(), throttled.status), ("TooManyRequestsException", 429));
    lambda.shutdown().await;
    for sleeper in sleepers {
        assert_eq!(sleeper.await.unwrap().unwrap_err().code, "ServiceException");
    }
}

#[tokio::test]
async fn a_functions_error_is_its_own_and_the_instance_stays() {
    let lambda = lambda(settings("probe"));
    let error = invoke(&lambda, json!({ "do": "fail" })).await.unwrap().unwrap_err();
    assert_eq!(
        error,
        json!({ "errorType": "Build.Failed", "errorMessage": "the compiler said no" })
    );
    assert_eq!(lambda.children("probe").len(), 1);
    lambda.shutdown().await;
}

#[tokio::test]
async fn a_function_out_of_time_is_killed_and_the_next_call_has_a_new_instance() {
    let lambda =
        lambda(FunctionSettings { timeout: Duration::from_millis(500), ..settings("probe") });
    let first = invoke(&lambda, json!({ "do": "context" })).await.unwrap().unwrap();
    let (error_type, message) = failure(&lambda, json!({ "do": "sleep" })).await;
    assert_eq!(error_type, "Sandbox.Timedout");
    assert!(message.starts_with("RequestId: "), "{message}");
    assert!(message.ends_with(" Error: Task timed out after 0.50 seconds"), "{message}");
    assert_eq!(lambda.children("probe"), BTreeSet::new());
    let first_pid = u32::try_from(first["pid"].as_u64().unwrap()).unwrap();
    assert!(is_dead(first_pid));
    let second = invoke(&lambda, json!({ "do": "context" })).await.unwrap().unwrap();
    assert_ne!(first["pid"], second["pid"]);
    lambda.shutdown().await;
}

#[tokio::test]
async fn a_crash_says_how_the_process_exited_and_the_next_call_works() {
    let lambda = lambda(settings("probe"));
    let (error_type, message) = failure(&lambda, json!({ "do": "exit" })).await;
    assert_eq!(error_type, "Runtime.ExitError");
    assert!(message.ends_with(" Error: Runtime exited with error: exit status 3"), "{message}");
    let (_, message) = failure(&lambda, json!({ "do": "abort" })).await;
    assert!(message.ends_with(" Error: Runtime exited with error: signal: 6"), "{message}");
    assert!(invoke(&lambda, json!({})).await.unwrap().is_ok());
    lambda.shutdown().await;
}

#[tokio::test]
async fn an_instance_that_died_while_idle_is_replaced_unseen() {
    let lambda = lambda(settings("probe"));
    invoke(&lambda, json!({})).await.unwrap().unwrap();
    let dead = lambda.children("probe").pop_first().unwrap();
    kill_process(pid(dead), Signal::KILL).unwrap();
    until("the instance's death", || is_dead(dead)).await;
    let context = invoke(&lambda, json!({ "do": "context" })).await.unwrap().unwrap();
    assert_ne!(context["pid"], dead);
    assert_eq!(lambda.children("probe").len(), 1);
    lambda.shutdown().await;
}

#[tokio::test]
async fn a_start_that_fails_is_the_calls_error() {
    for (init, error_type, message) in [
        ("exit", "Runtime.ExitError", "Runtime exited with error: exit status 7"),
        ("error", "Config.Missing", "IMAGE_REPO is not set"),
    ] {
        let mut settings = settings("probe");
        settings.environment.insert("PROBE_INIT".to_owned(), init.to_owned());
        let lambda = lambda(settings);
        let failure = failure(&lambda, json!({})).await;
        assert_eq!(failure.0, error_type);
        assert!(failure.1.ends_with(message), "{failure:?}");
        assert_eq!(lambda.children("probe"), BTreeSet::new());
    }
}

#[tokio::test]
async fn a_missing_binary_is_named() {
    let lambda = lambda(FunctionSettings {
        handler: Handler::Process("/nonexistent/bootstrap".into()),
        ..settings("probe")
    });
    let (error_type, message) = failure(&lambda, json!({})).await;
    assert_eq!(error_type, "Runtime.InvalidEntrypoint");
    assert!(message.contains("/nonexistent/bootstrap"), "{message}");
}

#[tokio::test]
async fn a_response_over_six_megabytes_is_refused() {
    let lambda = lambda(settings("probe"));
    let (error_type, message) = failure(&lambda, json!({ "do": "large" })).await;
    assert_eq!(error_type, "Function.ResponseSizeTooLarge");
    assert!(message.contains("6291556"), "{message}");
    assert!(invoke(&lambda, json!({})).await.unwrap().is_ok());
    lambda.shutdown().await;
}

#[tokio::test]
async fn what_a_function_prints_carries_its_name_and_request() {
    let lambda = lambda(settings("probe"));
    let mut lines = lambda.subscribe_logs();
    let invoked = lambda
        .invoke("probe", r#"{"do":"print"}"#.into(), InvocationType::RequestResponse)
        .await
        .unwrap();
    let mut printed = [lines.recv().await.unwrap(), lines.recv().await.unwrap()];
    printed.sort_by_key(|line| line.text.clone());
    let line = |stream, text: &str| LogLine {
        function: "probe".into(),
        request_id: Some(invoked.request_id.clone()),
        stream,
        text: text.to_owned(),
    };
    assert_eq!(
        printed,
        [
            line(LogStream::Stderr, "to standard error"),
            line(LogStream::Stdout, "to standard output")
        ]
    );
    lambda.shutdown().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_end_the_invocation() {
    let lambda = lambda(settings("probe"));
    let call = invoke(&lambda, json!({ "do": "sleep", "seconds": 3600 }));
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    let context = invoke(&lambda, json!({ "do": "context" })).await.unwrap().unwrap();
    until("both instances", || lambda.children("probe").len() == 2).await;
    assert!(lambda.children("probe").iter().any(|child| context["pid"] == *child));
    lambda.shutdown().await;
}

#[tokio::test]
async fn shutdown_ends_every_process_of_every_group_within_a_second() {
    let mut settings = settings("probe");
    settings.environment.insert("PROBE_INIT".to_owned(), "ignore-sigterm".to_owned());
    let lambda = lambda(settings);
    let mut lines = lambda.subscribe_logs();
    invoke(&lambda, json!({})).await.unwrap().unwrap();
    let busy = lambda.clone();
    let busy = tokio::spawn(async move { invoke(&busy, json!({ "do": "sleep" })).await });
    let deaf: u32 = lines.recv().await.unwrap().text.parse().unwrap();
    let children = lambda.children("probe");
    let start = Instant::now();
    lambda.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    busy.await.unwrap().unwrap_err();
    for child in children {
        until("the child's end", || is_dead(child)).await;
    }
    until("the grandchild's end", || is_dead(deaf)).await;
    assert_eq!(lambda.children("probe"), BTreeSet::new());
    assert_eq!(invoke(&lambda, json!({})).await.unwrap_err().code, "ServiceException");
}

#[tokio::test]
async fn shutdown_kills_a_process_that_ignores_sigterm_within_a_second() {
    let deaf = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deaf.sh");
    let lambda =
        lambda(FunctionSettings { handler: Handler::Process(deaf.into()), ..settings("probe") });
    let mut lines = lambda.subscribe_logs();
    let call = lambda.clone();
    let call = tokio::spawn(async move { invoke(&call, json!({})).await });
    assert_eq!(lines.recv().await.unwrap().text, "deaf");
    let child = lambda.children("probe").pop_first().unwrap();
    let start = Instant::now();
    lambda.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(call.await.unwrap().unwrap_err().code, "ServiceException");
    assert!(is_dead(child));
}

#[tokio::test]
async fn dropping_the_last_handle_kills_idle_and_busy_instances() {
    let lambda = lambda(settings("probe"));
    invoke(&lambda, json!({})).await.unwrap().unwrap();
    let sleep = invoke(&lambda, json!({ "do": "sleep", "seconds": 3600 }));
    assert!(tokio::time::timeout(Duration::from_millis(50), sleep).await.is_err());
    invoke(&lambda, json!({})).await.unwrap().unwrap();
    let children = lambda.children("probe");
    assert_eq!(children.len(), 2);
    drop(lambda);
    for child in children {
        until("the child's end", || is_dead(child)).await;
    }
}
