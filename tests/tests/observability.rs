//! What recorded runs tell: logs and metrics as they are documented, results to their receivers, and
//! no secret to anybody.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not right")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use archweld_lambda::LogLine;
use archweld_tests::{Behaviour, CONFIG, Door, Push, World, commit, root, template};
use aws_sdk_sfn::types::ExecutionStatus;
use axum::{Router, body::Bytes, extract::State, http::StatusCode, http::Uri};
use http::Request;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::broadcast,
    time::timeout,
};

const TOKEN: &str = "canary-token-of-the-git-server-7f3a";
const KEY: &str = "canary-key-of-the-webhook-7f3a";
const PATIENCE: Duration = Duration::from_secs(60);

/// A git server and a receiver of webhooks in one. The first status is refused, in words that repeat
/// the token.
type Told = Arc<Mutex<Vec<(String, String)>>>;

async fn receive(State(told): State<Told>, uri: Uri, body: Bytes) -> (StatusCode, String) {
    let mut told = told.lock().unwrap();
    let is_status = uri.path().contains("/statuses/");
    let is_first = !told.iter().any(|(path, _)| path.contains("/statuses/"));
    told.push((uri.path().to_owned(), String::from_utf8(body.to_vec()).unwrap()));
    if is_status && is_first {
        return (StatusCode::UNAUTHORIZED, json!({"message": format!("no {TOKEN}")}).to_string());
    }
    (StatusCode::CREATED, "{}".to_owned())
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn badge(world: &World, target: &str) -> String {
    let functions = &world.cloud.stack().functions;
    let function = functions.iter().find(|function| function.binary == "trigger-run").unwrap();
    let request = Request::get(target).body(Bytes::new()).unwrap();
    let path = request.uri().path().to_owned();
    let answer = world.cloud.lambda().handle_url(&function.name, &path, request).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "public, max-age=60");
    String::from_utf8(answer.into_body().to_vec()).unwrap()
}

/// Collects lines until there is one that is waited for.
async fn lines_until(
    lines: &mut broadcast::Receiver<LogLine>,
    all: &mut Vec<Value>,
    wanted: impl Fn(&Value) -> bool,
) {
    if all.iter().any(&wanted) {
        return;
    }
    loop {
        let line = timeout(PATIENCE, lines.recv()).await.unwrap();
        let line = line.unwrap().text;
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        let found = wanted(&line);
        all.push(line);
        if found {
            return;
        }
    }
}

fn names<'a>(lines: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    lines.flat_map(|line| line.as_object().unwrap().keys().cloned()).collect()
}

/// The properties of a part of the schema that occur in ordinary runs.
fn documented(schema: &Value, part: &str) -> BTreeSet<String> {
    let properties = schema["$defs"][part]["properties"].as_object().unwrap();
    let often = properties.iter().filter(|(_, property)| property["$comment"] != "seldom");
    often.map(|(name, _)| name.clone()).collect()
}

#[tokio::test]
async fn recorded_runs_tell_what_is_documented_and_no_secret() {
    let told = Told::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(receive).with_state(told.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let config = format!(
        "{CONFIG}\n[[notify]]\nkind = \"github\"\napi = \"{receiver}\"\ntoken = \"ssm:/archweld/git\"\n\
         [[notify]]\nkind = \"webhook\"\nurl = \"{receiver}/hook\"\nsecret = \"ssm:/archweld/key\"\n\
         on = [\"started\", \"succeeded\", \"failed\", \"stopped\"]\n"
    );
    let template = std::fs::read_to_string(template()).unwrap();
    let template = template.replace(
        "StatusBadges:\n    Type: String\n    Default: \"false\"",
        "StatusBadges:\n    Type: String\n    Default: \"true\"",
    );
    let world = World::with(Door::Http, &config, &template).await;
    for (name, value) in [("/archweld/git", TOKEN), ("/archweld/key", KEY)] {
        let input = json!({"Name": name, "Value": value, "Type": "SecureString"});
        world.cloud.secrets().call_parameters("PutParameter", input).await.unwrap();
    }
    let mut lines = world.cloud.lambda().subscribe_logs();
    let mut events = world.cloud.bus().subscribe();
    let mut all = vec![];

    // A push that a newer one stops, which meets with a fault of CodeBuild's; then a failing build.
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let says = |message: &'static str| move |line: &Value| line["message"] == message;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    let push = |number| Push::of(&commit(number), now - 20 + number).payload();
    let (status, _) = world.deliver_signed("canary-guess-at-the-secret", "d0", &push(0)).await;
    assert_eq!(status, 401);
    assert_eq!(world.deliver("d1", &push(1)).await.0, 200);
    let hanging = |line: &Value| line["build.target"] == "linux/amd64";
    lines_until(&mut lines, &mut all, hanging).await;
    world.builds.behave("linux/amd64", Behaviour::Fault(1));
    let (status, answer) = world.deliver("d2", &push(2)).await;
    assert_eq!(status, 200, "{answer}");
    let second = answer["started"][0]["execution"].as_str().unwrap().to_owned();
    let ended = world.ended(&second).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let ended = world.run("again", json!({"commit": commit(2), "ref": "main"})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    world.builds.behave("linux/arm64", Behaviour::Fail("no".to_owned()));
    let ended = world.run("failing", json!({"commit": commit(3)})).await;
    assert_eq!(ended.error, "Build.Failed", "{ended:?}");
    for result in ["ABORTED", "SUCCEEDED", "FAILED"] {
        let ended = |line: &Value| line["Result"] == result && line["Runs"].is_number();
        lines_until(&mut lines, &mut all, ended).await;
    }
    for state in ["stopped", "succeeded", "failed"] {
        let told =
            |line: &Value| line["receiver.kind"] == "webhook" && line["receiver.state"] == state;
        lines_until(&mut lines, &mut all, told).await;
    }
    lines_until(&mut lines, &mut all, |line| line["ReconcileRepairs"].is_number()).await;
    lines_until(&mut lines, &mut all, says("invocation failed")).await;

    // Each line is as documented, and what is documented is there.
    let schema = std::fs::read_to_string(root().join("docs/logging.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for line in &all {
        let wrong: Vec<String> = validator.iter_errors(line).map(|it| it.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}: {line}");
    }
    let is_metric = |line: &&Value| line["_aws"].is_object();
    let missing = |part: &str, found: BTreeSet<String>| {
        documented(&schema, part).difference(&found).cloned().collect::<Vec<_>>()
    };
    assert!(missing("metric", names(all.iter().filter(is_metric))).is_empty());
    let absent = missing("line", names(all.iter().filter(|line| !is_metric(line))));
    assert!(absent.is_empty(), "no line has {absent:?}");
    let page = std::fs::read_to_string(root().join("docs/logging.md")).unwrap();
    for metric in &archweld_metrics::ALL {
        let row = format!("| `{}` | {} | ", metric.name, metric.unit.as_str());
        assert!(page.contains(&row), "docs/logging.md has no row {row:?}");
    }
    for field in schema["$defs"]["line"]["properties"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{field}`")), "docs/logging.md does not name {field}");
    }

    // One name finds the whole story of a run, from its webhook on.
    let run = second.rsplit(':').next().unwrap();
    let story: Vec<&str> = all
        .iter()
        .filter(|line| line["run"] == run)
        .filter_map(|line| line["message"].as_str())
        .collect();
    for step in ["run started", "run planned", "build started", "build ended", "index published"] {
        assert!(story.contains(&step), "no {step:?} in {story:?}");
    }

    // Nobody is told a secret.
    let metrics = get(world.cloud.address(), "/metrics").await;
    for part in [
        "archweld_runs_total{result=\"ABORTED\"} 1.0",
        "archweld_build_retries_total{cause=\"Build.Infrastructure\"} 1.0",
        "archweld_push_to_image_seconds_count{image=\"hello\"} 1",
    ] {
        assert!(metrics.contains(part), "{part} in {metrics}");
    }
    let published = badge(&world, "/badge/hello.svg?ref=main").await;
    assert!(published.contains("hello main: published"), "{published}");
    let unknown = badge(&world, "/badge/other.svg").await;
    assert!(unknown.contains("unknown image"), "{unknown}");

    let listed = world.codebuild.list_builds().send().await.unwrap();
    let builds = world.codebuild.batch_get_builds().set_ids(listed.ids).send().await.unwrap();
    let mut secrets: Vec<String> = builds
        .builds()
        .iter()
        .flat_map(|build| build.environment().unwrap().environment_variables())
        .filter(|variable| variable.name() == "ARCHWELD_TASK_TOKEN")
        .map(|variable| variable.value().to_owned())
        .collect();
    assert!(secrets.len() >= 5, "every build has a task token");
    let [secret] = &world.cloud.stack().secrets[..] else { panic!("one secret") };
    let secret = json!({"SecretId": secret.settings.arn});
    let secret = world.cloud.secrets().call("GetSecretValue", secret).await.unwrap();
    secrets.push(secret["SecretString"].as_str().unwrap().to_owned());
    secrets.extend([TOKEN, KEY, "canary-guess-at-the-secret"].map(str::to_owned));
    let mut shown: Vec<String> = all.iter().map(Value::to_string).collect();
    shown.extend([metrics, published, unknown]);
    let told = told.lock().unwrap().clone();
    assert!(told.iter().any(|(path, _)| path.contains("/repos/archweld/hello/statuses/")));
    shown.extend(told.into_iter().flat_map(|(path, body)| [path, body]));
    while let Ok(notice) = events.try_recv() {
        let notice = format!("{notice:?}");
        // CodeBuild's own events carry a build's environment, on AWS as here.
        if notice.contains("Archweld Run State Change") {
            shown.push(notice);
        }
    }
    let executions = world.sfn.list_executions().state_machine_arn(world.state_machine());
    for execution in executions.send().await.unwrap().executions {
        let describe = world.sfn.describe_execution().execution_arn(&execution.execution_arn);
        shown.push(format!("{:?}", describe.send().await.unwrap()));
        shown.push(execution.name);
    }
    for secret in secrets {
        let leak = shown.iter().find(|text| text.contains(&secret));
        assert!(leak.is_none(), "{secret} in {leak:?}");
    }
    for variable in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ARCHWELD_TASK_TOKEN"] {
        let leak = shown.iter().find(|text| text.contains(variable));
        assert!(leak.is_none(), "an environment in {leak:?}");
    }
    serving.abort();
    world.cloud.shutdown().await;
}
