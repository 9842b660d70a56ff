//! A cloud over both doors, its wiring from the template, and what it refuses and leaves behind.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use archweld_cloud::{
    BODY_BYTES_MAX, Builds, Cloud, Functions, GitRemote, OpenError, Settings, ShellBuilds,
};
use archweld_codebuild::{Job, Notice as BuildNotice, Outcome, Status, Worker};
use archweld_events::Notice;
use archweld_git::Provider;
use archweld_lambda::{InProcessHandler, Invocation};
use archweld_local_api::Host;
use archweld_template::Function;
use aws_sdk_codebuild::types::StatusType;
use aws_sdk_sfn::types::ExecutionStatus;
use aws_types::SdkConfig;
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// A wait that is longer than any answer takes; under paused time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// A worker whose builds succeed at once.
struct Succeeding;

impl Worker for Succeeding {
    fn run(&self, _: Job) -> BoxFuture<'_, Outcome> {
        async { Outcome::from(Status::Succeeded) }.boxed()
    }
}

/// What a function was called with: its binary, its environment, its event.
type Seen = (String, BTreeMap<String, String>, Value);

fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/template.yaml")
}

fn settings(parameters: &[(&str, &str)]) -> (Settings, UnboundedReceiver<Seen>) {
    let (seen, receiver) = unbounded_channel();
    let parameters =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = Settings {
        host: Host::real("000000000000", "us-east-1"),
        template: template(),
        stack_name: "test".to_owned(),
        parameters: parameters.collect(),
        layers: BTreeMap::from([("Config".to_owned(), PathBuf::from("/replaced"))]),
        state: None,
        port: None,
        registry_bytes_max: None,
        git: None,
        functions: Functions::InProcess(Box::new(move |function, environment, config| {
            handler(function, environment, config, seen.clone())
        })),
        builds: Builds::Worker(Arc::new(Succeeding)),
    };
    (settings, receiver)
}

/// Tells what it sees, and answers with its event.
fn handler(
    function: &Function,
    environment: &BTreeMap<String, String>,
    config: &SdkConfig,
    seen: UnboundedSender<Seen>,
) -> InProcessHandler {
    let (binary, environment) = (function.binary.clone(), environment.clone());
    // As real functions do, it keeps a client for as long as it lives.
    let client = aws_sdk_codebuild::Client::new(config);
    Arc::new(move |invocation: Invocation| {
        let (seen, client) = (seen.clone(), client.clone());
        let entry = (binary.clone(), environment.clone(), invocation.payload.clone());
        async move {
            let projects = client.list_projects().send().await;
            assert!(projects.is_ok(), "a function reaches the cloud: {projects:?}");
            seen.send(entry).ok();
            Ok(invocation.payload)
        }
        .boxed()
    })
}

/// The same cloud through a socket.
fn over_http(cloud: &Cloud) -> SdkConfig {
    let client = aws_smithy_http_client::Builder::new().build_http();
    cloud.sdk_config().into_builder().http_client(client).build()
}

async fn next(seen: &mut UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap()
}

/// What a user of the SDK does, whatever the door.
async fn behaves(cloud: &Cloud, config: &SdkConfig) {
    let states = aws_sdk_sfn::Client::new(config);
    let machine = &cloud.stack().state_machines[0].arn;
    let mut notices = cloud.step_functions().subscribe();
    let input = json!({"n": 1}).to_string();
    let started = states.start_execution().state_machine_arn(machine).input(&input);
    let started = started.send().await.unwrap();
    let describe = || states.describe_execution().execution_arn(started.execution_arn()).send();
    let described = loop {
        let described = describe().await.unwrap();
        if *described.status() != ExecutionStatus::Running {
            break described;
        }
        tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
    };
    assert_eq!(described.status(), &ExecutionStatus::Succeeded);
    assert_eq!(described.output(), Some(input.as_str()));
    let missing = format!("{}-none", started.execution_arn());
    let error = states.describe_execution().execution_arn(missing).send().await.unwrap_err();
    assert!(error.into_service_error().is_execution_does_not_exist());

    let builds = aws_sdk_codebuild::Client::new(config);
    let mut notices = cloud.codebuild().subscribe();
    let started = builds.start_build().project_name("test-Project").send().await.unwrap();
    let id = started.build_value().and_then(|build| build.id()).unwrap().to_owned();
    loop {
        let found = builds.batch_get_builds().ids(&id).send().await.unwrap();
        match found.builds()[0].build_status().unwrap() {
            StatusType::InProgress => {}
            status => break assert_eq!(status, &StatusType::Succeeded),
        }
        tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
    }
    let error = builds.start_build().project_name("none").send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());

    let images = aws_sdk_ecr::Client::new(config);
    let repositories = images.describe_repositories().send().await.unwrap();
    assert_eq!(repositories.repositories()[0].repository_name(), Some("app"));
    let error = images.list_images().repository_name("none").send().await.unwrap_err();
    assert!(error.into_service_error().is_repository_not_found_exception());
    let error = images.describe_registry().send().await.unwrap_err();
    assert_eq!(error.into_service_error().meta().code(), Some("UnknownOperationException"));
}

#[tokio::test(start_paused = true)]
async fn serves_the_sdk_in_process() {
    let (settings, _seen) = settings(&[]);
    let cloud = Cloud::open(settings).await.unwrap();
    behaves(&cloud, &cloud.sdk_config()).await;
    cloud.shutdown().await;
}

#[tokio::test]
async fn serves_the_sdk_over_http() {
    let (settings, _seen) = settings(&[]);
    let cloud = Cloud::open(Settings { port: Some(0), ..settings }).await.unwrap();
    behaves(&cloud, &over_http(&cloud)).await;
    cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_parameter_changes_a_functions_environment() {
    for greeting in ["hello", "good day"] {
        let (settings, mut seen) = settings(&[("Greeting", greeting)]);
        let cloud = Cloud::open(settings).await.unwrap();
        let states = aws_sdk_sfn::Client::new(&cloud.sdk_config());
        let machine = &cloud.stack().state_machines[0].arn;
        states.start_execution().state_machine_arn(machine).send().await.unwrap();
        let (binary, environment, _) = next(&mut seen).await;
        assert_eq!((binary.as_str(), environment["GREETING"].as_str()), ("echo", greeting));
        assert_eq!(environment["CONFIG"], "/replaced/config.toml");
        cloud.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pattern_decides_which_builds_a_function_hears_of() {
    for (status, hears) in [("SUCCEEDED", true), ("FAILED", false)] {
        let (settings, mut seen) = settings(&[("Status", status)]);
        let cloud = Cloud::open(settings).await.unwrap();
        let mut notices = cloud.bus().subscribe();
        let builds = aws_sdk_codebuild::Client::new(&cloud.sdk_config());
        builds.start_build().project_name("test-Project").send().await.unwrap();
        loop {
            let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
            let Notice::Event(event) = notice else { continue };
            if event.detail["build-status"] == "SUCCEEDED" {
                break;
            }
        }
        if hears {
            let (binary, _, event) = next(&mut seen).await;
            assert_eq!((binary.as_str(), &event["source"]), ("on-build", &json!("aws.codebuild")));
        } else {
            // The event was matched before its notice was seen: nothing is on its way.
            assert_eq!(cloud.bus().deliveries_pending(), 0);
            assert!(seen.try_recv().is_err());
        }
        cloud.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_invokes_a_function_every_night() {
    let (mut settings, mut seen) = settings(&[]);
    let origin = "2026-11-23T10:00:00Z".parse().unwrap();
    settings.host = Host::seeded("000000000000", "us-east-1", origin, 7);
    let cloud = Cloud::open(settings).await.unwrap();
    for night in ["2026-11-24T02:00:00Z", "2026-11-25T02:00:00Z"] {
        let patience = Duration::from_hours(25);
        let (binary, _, event) =
            tokio::time::timeout(patience, seen.recv()).await.unwrap().unwrap();
        assert_eq!((binary.as_str(), event), ("hook", json!({"slot": night})));
    }
    let slot = "2026-11-25T02:00:00Z".parse().unwrap();
    cloud.scheduler().fire("nightly", slot).await.unwrap();
    assert_eq!(next(&mut seen).await.2, json!({"slot": "2026-11-25T02:00:00Z"}));
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_request_to_a_url_is_its_functions_event() {
    let (settings, mut seen) = settings(&[]);
    let cloud = Cloud::open(Settings { port: Some(0), ..settings }).await.unwrap();
    let url = cloud.function_url("Hook").unwrap();
    assert_eq!(url, format!("{}/url/Hook/", cloud.endpoint()));
    assert_eq!(cloud.function_url("Echo"), None);
    let headers = "Host: localhost\r\nX-GitHub-Event: ping\r\nContent-Type: text/plain\r\n";
    let (status, answer) =
        request(&cloud, "POST", "/url/Hook/webhook?a=b", headers, b"hello").await;
    assert_eq!(status, 200, "{answer}");
    let (binary, environment, event) = next(&mut seen).await;
    assert_eq!(binary, "hook");
    assert_eq!((&event["rawPath"], &event["body"]), (&json!("/webhook"), &json!("hello")));
    assert_eq!(event["headers"]["x-github-event"], "ping");
    assert!(environment["WEBHOOK"].starts_with("arn:aws:secretsmanager:us-east-1:000000000000:"));
    for path in ["/url/Echo/", "/url/", "/url/Nothing/x"] {
        assert_eq!(request(&cloud, "POST", path, headers, b"hello").await.0, 404, "{path}");
    }
    let large = vec![b'x'; 6 * 1024 * 1024];
    assert_eq!(request(&cloud, "POST", "/url/Hook/", headers, &large).await.0, 413);
    cloud.shutdown().await;
}

async fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = tokio::process::Command::new("git");
    git.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", folder);
    git.args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-C"]).arg(folder);
    let output = git.args(arguments).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test]
async fn a_push_is_a_signed_webhook_and_its_commit_can_be_built() {
    let folder = tempfile::tempdir().unwrap();
    let (mut settings, mut seen) = settings(&[]);
    settings.port = Some(0);
    settings.git = Some(GitRemote {
        name: "app".to_owned(),
        folder: folder.path().join("app.git"),
        parameter: Some("Location".to_owned()),
    });
    settings.builds = Builds::Shell(ShellBuilds {
        folder: folder.path().join("work"),
        path: std::env::var_os("PATH").unwrap(),
        variables: Vec::new(),
        source: None,
    });
    let cloud = Cloud::open(settings).await.unwrap();
    let url = cloud.git().unwrap().url().to_owned();
    assert_eq!(url, format!("{}/git/app.git", cloud.endpoint()));
    let work = folder.path().join("source");
    std::fs::create_dir(&work).unwrap();
    git(&work, &["init", "--quiet", "--initial-branch=main"]).await;
    std::fs::write(work.join("text"), "pushed").unwrap();
    git(&work, &["add", "."]).await;
    git(&work, &["commit", "--quiet", "--message=first"]).await;
    let commit = git(&work, &["rev-parse", "HEAD"]).await;
    let said = git(&work, &["push", &url, "main"]).await;
    // The function answers its event, which says nothing of runs.
    assert!(said.contains("remote: archweld: main: nothing to start"), "{said}");

    let (binary, environment, event) = next(&mut seen).await;
    assert_eq!((binary.as_str(), &environment["LOCATION"]), ("hook", &url));
    let body = event["body"].as_str().unwrap();
    let payload: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&payload["after"], &payload["repository"]["clone_url"]),
        (&json!(commit), &json!(url))
    );
    let secret = json!({"SecretId": environment["WEBHOOK"]});
    let secret = cloud.secrets().call("GetSecretValue", secret).await.unwrap();
    let secret = secret["SecretString"].as_str().unwrap();
    let headers = Provider::GitHub.headers("push", "any", secret.as_bytes(), body.as_bytes());
    for name in ["x-github-event", "x-hub-signature-256"] {
        let (_, value) = headers.iter().find(|(it, _)| *it == name).unwrap();
        assert_eq!(event["headers"][name], *value);
    }

    let mut notices = cloud.codebuild().subscribe();
    let build = json!({
        "projectName": "test-Project",
        "sourceVersion": commit,
        "buildspecOverride": "{version: 0.2, phases: {build: {commands: [cat text]}}}",
    });
    let started = cloud.codebuild().call("StartBuild", build).await.unwrap();
    let mut lines = Vec::new();
    let status = loop {
        match tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap() {
            BuildNotice::Log { line, .. } => lines.push(line.to_string()),
            BuildNotice::Finished { status, .. } => break status,
            _ => {}
        }
    };
    assert_eq!(status, Status::Succeeded, "{started} {lines:#?}");
    assert!(lines.iter().any(|line| line.contains("pushed")), "{lines:#?}");
    cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pushed_image_is_told_as_ecr_tells_it() {
    let (settings, mut seen) = settings(&[]);
    let cloud = Cloud::open(settings).await.unwrap();
    let images = aws_sdk_ecr::Client::new(&cloud.sdk_config());
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": []}).to_string();
    let put = images.put_image().repository_name("app").image_tag("3.20").image_manifest(index);
    let image = put.send().await.unwrap().image.unwrap();
    let (binary, _, event) = next(&mut seen).await;
    assert_eq!((binary.as_str(), &event["source"]), ("hook", &json!("aws.ecr")));
    assert_eq!(event["resources"], json!([]));
    assert_eq!(
        event["detail"],
        json!({
            "result": "SUCCESS",
            "repository-name": "app",
            "image-digest": image.image_id().unwrap().image_digest(),
            "action-type": "PUSH",
            "image-tag": "3.20",
            "manifest-media-type": media_type,
        })
    );
    cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_the_template_is_served() {
    let (settings, _seen) = settings(&[]);
    let cloud = Cloud::open(settings).await.unwrap();
    let client = aws_sdk_secretsmanager::Client::new(&cloud.sdk_config());
    let arn = &cloud.stack().secrets[0].settings.arn;
    let found = client.get_secret_value().secret_id(arn).send().await.unwrap();
    assert_eq!(found.secret_string().unwrap().len(), 32);
    let error = client.get_secret_value().secret_id("none").send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_starts_a_state_machine() {
    let (settings, mut seen) = settings(&[]);
    let cloud = Cloud::open(settings).await.unwrap();
    let event = cloud.bus().call(
        "PutEvents",
        json!({"Entries": [{"Source": "test.start", "DetailType": "Start", "Detail": "{\"n\": 7}"}]}),
    );
    assert_eq!(event.await.unwrap()["FailedEntryCount"], 0);
    let (binary, _, event) = next(&mut seen).await;
    assert_eq!((binary.as_str(), event), ("echo", json!({"n": 7})));
    cloud.shutdown().await;
}

/// Method, path, headers and body of a request; status and a part of its answer.
type Exchange<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, &'a str);

/// One request as a client that is no SDK sends it; the status and the rest of the answer.
async fn request(
    cloud: &Cloud,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String) {
    let mut stream = TcpStream::connect(cloud.address()).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses by the head alone may close before it has read the body.
    stream.write_all(body).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[tokio::test]
async fn answers_clients_that_are_no_sdk() {
    let (settings, _seen) = settings(&[]);
    let cloud = Cloud::open(Settings { port: Some(0), ..settings }).await.unwrap();
    let target = |target: &str| format!("Host: localhost\r\nX-Amz-Target: {target}\r\n");
    let start = target("AWSStepFunctions.StartExecution");
    let parameter = target("AmazonSSM.GetParameter");
    let cases: [Exchange<'_>; 12] = [
        ("GET", "/schedules", "Host: localhost\r\n", b"", 200, "nightly"),
        ("GET", "/schedules/none", "Host: localhost\r\n", b"", 404, "ResourceNotFoundException"),
        ("POST", "/", &parameter, b"{\"Name\": \"/none\"}", 400, "ParameterNotFound"),
        ("GET", "/v2/", "Host: localhost\r\n", b"", 401, "www-authenticate"),
        ("POST", "/", "Host: localhost\r\n", b"{}", 400, "UnknownOperationException"),
        (
            "POST",
            "/",
            &target("AWSStepFunctions.CreateActivity"),
            b"{}",
            400,
            "UnknownOperationException",
        ),
        (
            "POST",
            "/",
            &target("DynamoDB_20120810.ListTables"),
            b"{}",
            400,
            "UnknownOperationException",
        ),
        ("POST", "/", &start, b"{", 400, "SerializationException"),
        ("POST", "/", &start, b"[]", 400, "x-amzn-errortype"),
        ("POST", "/", "Host: evil.example\r\n", b"{}", 421, "evil.example"),
        (
            "POST",
            "/",
            "Host: localhost\r\nOrigin: http://evil.example\r\n",
            b"{}",
            403,
            "another origin",
        ),
        (
            "POST",
            "/2015-03-31/functions/test-Echo/invocations",
            "Host: localhost\r\n",
            b"{\"a\":1}",
            200,
            "{\"a\":1}",
        ),
    ];
    for (method, path, headers, body, status, contains) in cases {
        let (found, answer) = request(&cloud, method, path, headers, body).await;
        assert_eq!(found, status, "{headers}{answer}");
        assert!(answer.contains(contains), "{headers}{answer}");
    }
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    assert_eq!(request(&cloud, "POST", "/", &start, &large).await.0, 413);
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let (settings, _seen) = settings(&[]);
    let cloud = Cloud::open(Settings { port: Some(0), ..settings }).await.unwrap();
    let own = cloud.address();
    let cases = [
        ("Sec-Fetch-Site: cross-site".to_owned(), 403),
        ("Sec-Fetch-Site: same-site".to_owned(), 403),
        ("Sec-Fetch-Site: same-origin".to_owned(), 200),
        ("Sec-Fetch-Site: none".to_owned(), 200),
        ("Origin: http://localhost:3000".to_owned(), 403),
        ("Origin: http://127.0.0.1".to_owned(), 403),
        ("Origin: null".to_owned(), 403),
        (format!("Origin: https://{own}"), 403),
        (format!("Origin: http://{own}"), 200),
        (format!("Origin: http://{own}\r\nSec-Fetch-Site: cross-site"), 403),
    ];
    for (header, status) in cases {
        let headers = format!("Host: {own}\r\n{header}\r\n");
        let (found, answer) = request(&cloud, "GET", "/schedules", &headers, b"").await;
        assert_eq!(found, status, "{header}: {answer}");
    }
    cloud.shutdown().await;
}

#[tokio::test]
async fn pages_answer_what_no_service_does_behind_the_same_checks() {
    let (settings, _seen) = settings(&[]);
    let cloud = Cloud::open(Settings { port: Some(0), ..settings }).await.unwrap();
    let own = cloud.address().to_owned();
    let get = async |path: &str, headers: &str| {
        let headers = format!("Host: {own}\r\n{headers}");
        request(&cloud, "GET", path, &headers, b"").await
    };
    assert_eq!(get("/", "").await.0, 400, "nothing is mounted");
    cloud.mount(axum::Router::new().fallback(async || "a page"));
    assert_eq!(get("/", "").await.0, 200);
    assert!(get("/any", "").await.1.ends_with("a page"));
    assert_eq!(get("/schedules", "").await.0, 200);
    assert!(!get("/schedules", "").await.1.ends_with("a page"));
    let link =
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    let picture =
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    let cases = [
        ("/", link, 200),
        (
            "/",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
            403,
        ),
        (
            "/",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
            403,
        ),
        ("/any", link, 403),
        ("/url/Echo/", link, 403),
        ("/badge/a.svg", picture, 200),
        ("/any", picture, 403),
        ("/badge/a.svg", &picture.replace("same-site", "cross-site"), 403),
        ("/badge/a.svg", &format!("{picture}Origin: http://localhost:1\r\n"), 403),
    ];
    for (path, headers, status) in cases {
        assert_eq!(get(path, headers).await.0, status, "{path} {headers}");
    }
    let (status, _) = request(&cloud, "GET", "/", "Host: evil.example\r\n", b"").await;
    assert_eq!(status, 421);
    cloud.shutdown().await;
}

#[tokio::test]
async fn records_the_calls_that_came_in() {
    let (settings, mut seen) = settings(&[]);
    let cloud = Cloud::open(settings).await.unwrap();
    let states = aws_sdk_sfn::Client::new(&cloud.sdk_config());
    states
        .start_execution()
        .state_machine_arn("arn:aws:states:us-east-1:000000000000:stateMachine:no")
        .send()
        .await
        .unwrap_err();
    let machine = &cloud.stack().state_machines[0].arn;
    states.start_execution().state_machine_arn(machine).send().await.unwrap();
    next(&mut seen).await;
    let calls = cloud.calls();
    let calls: Vec<_> = calls
        .iter()
        .map(|call| {
            (call.service, call.operation.as_str(), call.status.as_u16(), call.caller.as_deref())
        })
        .collect();
    assert_eq!(
        calls,
        [
            ("states", "StartExecution", 400, None),
            ("states", "StartExecution", 200, None),
            ("codebuild", "ListProjects", 200, Some("test-Echo")),
        ]
    );
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_state_folder_serves_one_cloud_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let open = |port| {
        let (settings, seen) = settings(&[]);
        let settings = Settings { state: Some(folder.path().to_owned()), port, ..settings };
        async move { (Cloud::open(settings).await, seen) }
    };
    let (first, _seen) = open(Some(0)).await;
    let first = first.unwrap();
    assert!(matches!(open(None).await.0, Err(OpenError::InUse(path)) if path == folder.path()));

    // A client that keeps its connection, as docker does, must not keep the folder.
    let mut idle = TcpStream::connect(first.address()).await.unwrap();
    idle.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 4096]).await.unwrap(), 0);
    first.shutdown().await;

    let (second, _seen) = open(None).await;
    drop(second.unwrap());
    let (third, _seen) = open(None).await;
    third.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_port_serves_one_cloud_and_is_free_after_it() {
    let (first_settings, _seen) = settings(&[]);
    let first = Cloud::open(Settings { port: Some(0), ..first_settings }).await.unwrap();
    let taken = first.address().rsplit_once(':').unwrap().1.parse().unwrap();
    let (second, _seen) = settings(&[]);
    match Cloud::open(Settings { port: Some(taken), ..second }).await {
        Err(OpenError::Listen { port, source }) => {
            assert_eq!((port, source.kind()), (taken, io::ErrorKind::AddrInUse));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two clouds on one port"),
    }
    let address = first.address().to_owned();
    first.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn refuses_templates_that_ask_for_what_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |properties: &str| {
        format!(
            "Resources:\n  R:\n    Type: AWS::Events::Rule\n    Properties: {{EventPattern: {{source: [x]}}, {properties}}}\n"
        )
    };
    let schedule = |expression: &str, target: &str| {
        format!(
            "Resources:\n  S:\n    Type: AWS::Scheduler::Schedule\n    Properties: {{ScheduleExpression: {expression}, FlexibleTimeWindow: {{Mode: \"OFF\"}}, Target: {{Arn: \"{target}\", RoleArn: x}}}}\n"
        )
    };
    let cases = [
        (rule("Targets: [{Id: t, Arn: \"arn:aws:sqs:us-east-1:000000000000:q\"}]"), "arn:aws:sqs"),
        (rule("EventBusName: other"), "other"),
        (schedule("rate(1 day)", "arn:aws:sqs:us-east-1:000000000000:q"), "arn:aws:sqs"),
    ];
    for (text, problem) in cases {
        let path = folder.path().join("template.yaml");
        std::fs::write(&path, text).unwrap();
        let (settings, _seen) = settings(&[]);
        let opened =
            Cloud::open(Settings { template: path, parameters: BTreeMap::new(), ..settings });
        match opened.await {
            Err(error) => assert!(error.to_string().contains(problem), "{error}"),
            Ok(_) => panic!("opened with {problem}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn opens_the_template_that_aws_deploys() {
    let (settings, _seen) = settings(&[]);
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
    let cloud = Cloud::open(Settings { template, ..settings }).await.unwrap();
    let rules = cloud.bus().call("ListRules", json!({})).await.unwrap();
    assert_eq!(rules["Rules"].as_array().unwrap().len(), cloud.stack().rules.len());
    assert!(!cloud.stack().rules.is_empty());
    cloud.shutdown().await;
}
