//! Functions of this process, under paused time: no socket, no process.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archweld_lambda::{
    AsynchronousRetries, FailureCondition, FailureNotice, FailureSink, FunctionError,
    FunctionSettings, Handler, Invocation, InvocationType, Lambda, Notice, Outcome,
};
use archweld_local_api::Host;
use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:publish";

/// A service with one function `publish`, and when that ran, in seconds from the start.
struct World {
    lambda: Lambda,
    runs: Arc<Mutex<Vec<u64>>>,
    notices: Arc<Mutex<Vec<FailureNotice>>>,
}

impl World {
    fn new(retries: AsynchronousRetries, concurrency_max: usize) -> Self {
        let lambda = Lambda::new(host(), BTreeMap::new());
        Self::on(lambda, retries, concurrency_max)
    }

    /// A service on a folder, which has gone on with what it found.
    fn reopened(folder: &Path) -> Self {
        let lambda = Lambda::open(host(), BTreeMap::new(), folder).unwrap();
        let world = Self::on(lambda, AsynchronousRetries::default(), 10);
        world.lambda.recover().unwrap();
        world
    }

    fn on(lambda: Lambda, retries: AsynchronousRetries, concurrency_max: usize) -> Self {
        let start = Instant::now();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let notices = Arc::new(Mutex::new(Vec::new()));
        let (runs_of_handler, notices_of_sink) = (runs.clone(), notices.clone());
        let handler = Handler::InProcess(Arc::new(move |invocation: Invocation| {
            runs_of_handler.lock().unwrap().push(start.elapsed().as_secs());
            let run = runs_of_handler.lock().unwrap().len();
            Box::pin(handle(invocation, run))
        }));
        let settings = FunctionSettings {
            name: "publish".to_owned(),
            arn: ARN.to_owned(),
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            memory_mb: 128,
            concurrency_max,
            retries,
            on_failure: Some(FailureSink::new(move |notice| {
                notices_of_sink.lock().unwrap().push(notice);
            })),
            handler,
        };
        lambda.create_function(settings).unwrap();
        Self { lambda, runs, notices }
    }

    fn runs(&self) -> Vec<u64> {
        self.runs.lock().unwrap().clone()
    }

    async fn invoke(&self, payload: Value) -> Outcome {
        let payload = payload.to_string().into();
        let kind = InvocationType::RequestResponse;
        self.lambda.invoke("publish", payload, kind).await.unwrap().outcome
    }

    async fn send(&self, payload: Value) {
        let invoked = self
            .lambda
            .invoke("publish", payload.to_string().into(), InvocationType::Event)
            .await
            .unwrap();
        assert_eq!(invoked.outcome, Outcome::Accepted);
    }

    async fn post(&self, function: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let uri = format!("/2015-03-31/functions/{function}/invocations");
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.lambda.handle_http(request.body(Bytes::from(body.to_owned())).unwrap()).await
    }
}

fn host() -> Host {
    Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 1)
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Does what the event says; `run` counts from 1.
async fn handle(invocation: Invocation, run: usize) -> Result<Value, FunctionError> {
    let failed = || FunctionError {
        error_type: "Index.Mismatch".to_owned(),
        error_message: "a child is missing".to_owned(),
    };
    match invocation.payload["do"].as_str() {
        Some("fail") => Err(failed()),
        Some("fail once") if run == 1 => Err(failed()),
        Some("panic") => panic!("on purpose"),
        Some("sleep") => {
            sleep(Duration::from_secs(invocation.payload["seconds"].as_u64().unwrap())).await;
            Ok(Value::Null)
        }
        Some("context") => Ok(json!({
            "deadline": invocation.deadline.as_millisecond(),
            "arn": *invocation.function_arn,
        })),
        _ => Ok(invocation.payload),
    }
}

fn world() -> World {
    World::new(AsynchronousRetries::default(), 10)
}

fn error_of(outcome: Outcome) -> Value {
    match outcome {
        Outcome::FunctionError(payload) => serde_json::from_slice(&payload).unwrap(),
        other => panic!("not a function error: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_handler_runs_with_the_event_and_its_context() {
    let world = world();
    let outcome = world.invoke(json!({ "do": "context" })).await;
    let expected = json!({ "deadline": 30_000, "arn": ARN });
    assert_eq!(outcome, Outcome::Succeeded(expected.to_string().into()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_payload_is_an_empty_object() {
    let world = world();
    let invoked =
        world.lambda.invoke("publish", Bytes::new(), InvocationType::RequestResponse).await;
    assert_eq!(invoked.unwrap().outcome, Outcome::Succeeded("{}".into()));
}

#[tokio::test(start_paused = true)]
async fn a_time_out_and_a_panic_are_the_platforms_errors() {
    let world = world();
    let timed_out = error_of(world.invoke(json!({ "do": "sleep", "seconds": 31 })).await);
    assert_eq!(timed_out["errorType"], "Sandbox.Timedout");
    assert!(timed_out["errorMessage"].as_str().unwrap().contains("after 30.00 seconds"));
    let crashed = error_of(world.invoke(json!({ "do": "panic" })).await);
    assert_eq!(crashed["errorType"], "Runtime.ExitError");
}

#[tokio::test(start_paused = true)]
async fn a_failing_event_runs_again_after_one_and_two_minutes_and_is_then_given_up() {
    let world = world();
    world.send(json!({ "do": "fail" })).await;
    sleep(Duration::from_hours(7)).await;
    assert_eq!(world.runs(), [0, 60, 180]);
    let notices = world.notices.lock().unwrap().clone();
    let [notice] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!(notice.condition, FailureCondition::RetriesExhausted);
    assert_eq!(notice.invocations, 3);
    assert_eq!(notice.payload, json!({ "do": "fail" }).to_string());
    let error: Value = serde_json::from_slice(notice.error.as_ref().unwrap()).unwrap();
    assert_eq!(error["errorType"], "Index.Mismatch");
}

#[tokio::test(start_paused = true)]
async fn an_event_outlives_the_process_with_the_attempts_that_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::reopened(folder.path());
    world.send(json!({ "do": "fail" })).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!((world.runs(), files(folder.path())), (vec![0], 1));
    world.lambda.shutdown().await;

    // What failed once before has two more attempts.
    let again = World::reopened(folder.path());
    sleep(Duration::from_hours(7)).await;
    assert_eq!(again.runs(), [0, 120]);
    let notices = again.notices.lock().unwrap().clone();
    let [notice] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!(notice.invocations, 3);
    assert_eq!(notice.payload, json!({ "do": "fail" }).to_string());
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_running_runs_again_and_is_forgotten_when_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::reopened(folder.path());
    world.send(json!({ "do": "sleep", "seconds": 20 })).await;
    sleep(Duration::from_secs(1)).await;
    world.lambda.shutdown().await;
    let again = World::reopened(folder.path());
    sleep(Duration::from_secs(1)).await;
    assert_eq!((again.runs(), files(folder.path())), (vec![0], 1));
    sleep(Duration::from_secs(20)).await;
    again.lambda.shutdown().await;
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_succeeds_on_retry_is_done() {
    let world = world();
    world.send(json!({ "do": "fail once" })).await;
    sleep(Duration::from_hours(7)).await;
    assert_eq!(world.runs(), [0, 60]);
    assert_eq!(*world.notices.lock().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn retries_and_age_are_the_functions_own() {
    let retries = AsynchronousRetries { attempts_max: 0, ..AsynchronousRetries::default() };
    let never = World::new(retries, 10);
    never.send(json!({ "do": "fail" })).await;
    sleep(Duration::from_hours(7)).await;
    assert_eq!(never.runs(), [0]);

    let age_max = Duration::from_secs(90);
    let young = World::new(AsynchronousRetries { age_max, ..AsynchronousRetries::default() }, 10);
    young.send(json!({ "do": "fail" })).await;
    sleep(Duration::from_hours(7)).await;
    assert_eq!(young.runs(), [0, 60]);
    let condition = young.notices.lock().unwrap()[0].condition;
    assert_eq!(condition, FailureCondition::EventAgeExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_event_waits_for_a_free_instance_and_costs_no_retry() {
    let world = World::new(AsynchronousRetries::default(), 1);
    world.send(json!({ "do": "sleep", "seconds": 20 })).await;
    tokio::task::yield_now().await;
    world.send(json!({ "do": "fail" })).await;
    sleep(Duration::from_hours(7)).await;
    // Refused at 0, 1, 3, 7 and 15 s.
    assert_eq!(world.runs(), [0, 31, 91, 211]);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_may_never_run_is_given_up_when_the_event_is_too_old() {
    let world = World::new(AsynchronousRetries::default(), 0);
    world.send(json!({})).await;
    sleep(Duration::from_hours(7)).await;
    assert!(world.runs().is_empty());
    let notices = world.notices.lock().unwrap().clone();
    assert_eq!(notices[0].condition, FailureCondition::EventAgeExceeded);
    assert_eq!((notices[0].invocations, &notices[0].error), (0, &None));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_invocations_and_forgets_retries() {
    let world = world();
    world.send(json!({ "do": "fail" })).await;
    let lambda = world.lambda.clone();
    let call = tokio::spawn(async move {
        let payload = r#"{"do":"sleep","seconds":20}"#.into();
        lambda.invoke("publish", payload, InvocationType::RequestResponse).await
    });
    sleep(Duration::from_secs(1)).await;
    world.lambda.shutdown().await;
    assert_eq!(call.await.unwrap().unwrap_err().code, "ServiceException");
    sleep(Duration::from_hours(1)).await;
    assert_eq!(world.runs(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_function_answers_to_its_name_and_its_arns() {
    let world = world();
    for name in ["publish", "000000000000:function:publish", ARN, &format!("{ARN}:$LATEST")] {
        let answer = world.lambda.invoke(name, Bytes::new(), InvocationType::DryRun).await;
        assert_eq!(answer.unwrap().outcome, Outcome::Checked, "{name}");
    }
    for name in ["missing", "publish:7", "arn:aws:lambda:eu-west-1:000000000000:function:publish"] {
        let error = world.lambda.invoke(name, Bytes::new(), InvocationType::DryRun).await;
        let error = error.unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("ResourceNotFoundException", 404));
    }
    assert!(world.runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn payloads_have_bounds_and_are_json() {
    let world = world();
    let megabytes = |count: usize| Bytes::from(format!("\"{}\"", "x".repeat(count * 1024 * 1024)));
    let invoke = |payload, kind| world.lambda.invoke("publish", payload, kind);
    let error = invoke(megabytes(1), InvocationType::Event).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("RequestTooLargeException", 413));
    let error = invoke(megabytes(6), InvocationType::RequestResponse).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("RequestTooLargeException", 413));
    invoke(megabytes(5), InvocationType::RequestResponse).await.unwrap();
    let error = invoke("{".into(), InvocationType::RequestResponse).await.unwrap_err();
    assert_eq!(error.code, "InvalidRequestContentException");
}

#[tokio::test(start_paused = true)]
async fn a_second_function_of_a_name_and_a_reserved_variable_are_refused() {
    let world = world();
    let settings = FunctionSettings {
        name: "publish".to_owned(),
        arn: ARN.to_owned(),
        environment: BTreeMap::new(),
        timeout: Duration::from_secs(3),
        memory_mb: 128,
        concurrency_max: 1,
        retries: AsynchronousRetries::default(),
        on_failure: None,
        handler: Handler::Process("bootstrap".into()),
    };
    let error = world.lambda.create_function(settings.clone()).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ResourceConflictException", 409));
    let error = world.lambda.create_function(FunctionSettings {
        name: "other".to_owned(),
        environment: BTreeMap::from([("AWS_REGION".to_owned(), "eu-west-1".to_owned())]),
        ..settings
    });
    let error = error.unwrap_err();
    assert_eq!(error.code, "InvalidParameterValueException");
    assert!(error.message.ends_with("AWS_REGION"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_http_door_answers_as_lambda_does() {
    let world = world();
    let response = world.post("publish", &[], r#"{"a":1}"#).await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &br#"{"a":1}"#[..]));
    assert_eq!(response.headers()["x-amz-executed-version"], "$LATEST");
    assert!(response.headers().contains_key("x-amzn-requestid"));
    assert!(!response.headers().contains_key("x-amz-function-error"));

    let response = world.post("publish", &[], r#"{"do":"fail"}"#).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-amz-function-error"], "Unhandled");

    let response = world.post("publish", &[("X-Amz-Invocation-Type", "Event")], "{}").await;
    assert_eq!((response.status().as_u16(), response.body().len()), (202, 0));
    let response = world.post("publish", &[("X-Amz-Invocation-Type", "DryRun")], "{}").await;
    assert_eq!((response.status().as_u16(), response.body().len()), (204, 0));

    let arn = ARN.replace(':', "%3A");
    assert_eq!(world.post(&arn, &[], "{}").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_http_door_types_its_errors() {
    let world = world();
    let response = world.post("missing", &[], "{}").await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["x-amzn-errortype"], "ResourceNotFoundException");
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        body["Message"],
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:missing"
    );
    let response = world.post("publish", &[("X-Amz-Invocation-Type", "Sometimes")], "{}").await;
    assert_eq!(response.status(), 400);
    let request = Request::get("/2015-03-31/functions/publish").body(Bytes::new()).unwrap();
    let response = world.lambda.handle_http(request).await;
    assert_eq!(response.headers()["x-amzn-errortype"], "UnknownOperationException");
    let response = world.post("publish", &[], "{}").await;
    assert_eq!(response.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn who_looks_is_told_of_every_run_and_never_of_its_payload() {
    let world = World::new(AsynchronousRetries::default(), 1);
    let mut notices = world.lambda.subscribe();
    world.invoke(json!({"secret": "s3cr3t"})).await;
    let (began, ended) = (notices.recv().await.unwrap(), notices.recv().await.unwrap());
    assert!(matches!(&began, Notice::Began { function, .. } if &**function == "publish"));
    let text = format!("{began:?}{ended:?}");
    assert!(!text.contains("s3cr3t"), "{text}");
    match (began, ended) {
        (Notice::Began { request_id: one, .. }, Notice::Ended { request_id: other, .. }) => {
            assert_eq!(one, other);
        }
        others => panic!("{others:?}"),
    }
}
