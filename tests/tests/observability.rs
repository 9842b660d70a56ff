//! What recorded runs tell: logs and metrics as they are documented, results to their receivers, and
//! no secret to anybody.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not right")]

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use archweld_metrics::Sample;
use archweld_model::{Config, variable};
use archweld_tests::{Behaviour, CONFIG, Door, Push, World, commit, root, template};
use aws_sdk_codebuild::types::{EnvironmentVariable, EnvironmentVariableType};
use aws_sdk_sfn::types::ExecutionStatus;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{broadcast::Receiver, mpsc, watch},
    time::timeout,
};
use tower::ServiceExt as _;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

const TOKEN: &str = "canary-token-of-the-git-server-7f3a";
const KEY: &str = "canary-key-of-the-webhook-7f3a";
const GUESS: &str = "canary-guess-at-the-secret-7f3a";
const VARIABLE: &str = "canary-variable-of-a-project-7f3a";
/// Longer than any run takes; on virtual time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// What receivers were sent: where to, by what right, and what.
type Told = Vec<(String, Option<String>, String)>;

/// A git server and a receiver of webhooks in one. The first status is refused, in words that repeat
/// the token.
async fn receive(
    State(told): State<Arc<Mutex<Told>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let mut told = told.lock().unwrap();
    let is_status = uri.path().contains("/statuses/");
    let is_first = !told.iter().any(|(path, ..)| path.contains("/statuses/"));
    let authorization = headers.get("authorization").map(|it| it.to_str().unwrap().to_owned());
    let body = String::from_utf8(body.to_vec()).unwrap();
    told.push((uri.path().to_owned(), authorization, body));
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

/// The log of the functions, as far as somebody has waited for it.
struct Lines {
    new: mpsc::UnboundedReceiver<String>,
    all: Vec<Value>,
}

impl Lines {
    /// Collects lines until there is one that is waited for.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) {
        if self.all.iter().any(&wanted) {
            return;
        }
        loop {
            let line = timeout(PATIENCE, self.new.recv()).await.unwrap().unwrap();
            let line: Value =
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            let found = wanted(&line);
            self.all.push(line);
            if found {
                return;
            }
        }
    }
}

/// What functions of this process log, at the lowest level that a function may be told: a line each.
struct Logged(mpsc::UnboundedSender<String>);

impl<S: Subscriber> Layer<S> for Logged {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        match Sample::of(event) {
            Some(sample) => sample.embed("archweld", 0, &mut fields.0),
            None => event.record(&mut fields),
        }
        self.0.send(Value::Object(fields.0).to_string()).ok();
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

/// Runs that end in every way, with secrets on their way through, and all that is told of them.
struct Recording {
    world: World,
    lines: Lines,
    /// The run that succeeded after a fault of CodeBuild's.
    second: String,
    console: Router,
    /// What a page was sent from the beginning on.
    stream: watch::Receiver<String>,
    events: Receiver<archweld_events::Notice>,
    receiver: Arc<Mutex<Told>>,
    _subscriber: Option<DefaultGuard>,
}

impl Recording {
    async fn of(door: Door) -> Self {
        let receiver = Arc::default();
        let url = match door {
            Door::Http => {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}", listener.local_addr().unwrap());
                let router = Router::new().fallback(receive).with_state(Arc::clone(&receiver));
                tokio::spawn(async move { axum::serve(listener, router).await });
                url
            }
            Door::InProcess => "https://receiver.example".to_owned(),
        };
        let config = format!(
            "{CONFIG}\n[[notify]]\nkind = \"github\"\napi = \"{url}\"\ntoken = \"ssm:/archweld/git\"\n\
             [[notify]]\nkind = \"webhook\"\nurl = \"{url}/hook\"\nsecret = \"ssm:/archweld/key\"\n\
             on = [\"started\", \"succeeded\", \"failed\", \"stopped\"]\n"
        );
        let variables = "EnvironmentVariables:\n";
        let canary = format!("{variables}          - {{Name: NPM_TOKEN, Value: {VARIABLE}}}\n");
        let template = template_with_badges().replace(variables, &canary);
        let (line, new) = mpsc::unbounded_channel();
        let subscriber = (door == Door::InProcess).then(|| {
            let layers = LevelFilter::DEBUG.and_then(Logged(line.clone()));
            tracing::subscriber::set_default(tracing_subscriber::registry().with(layers))
        });
        let world = World::with(door, &config, &template).await;
        for (name, value) in [("/archweld/git", TOKEN), ("/archweld/key", KEY)] {
            let input = json!({"Name": name, "Value": value, "Type": "SecureString"});
            world.cloud.secrets().call_parameters("PutParameter", input).await.unwrap();
        }
        if door == Door::Http {
            let mut printed = world.cloud.lambda().subscribe_logs();
            tokio::spawn(async move {
                while let Ok(text) = printed.recv().await {
                    line.send(text.text).ok();
                }
            });
        }
        let events = world.cloud.bus().subscribe();
        let console = archweld_console::router(&world.cloud, Config::parse(&config).unwrap()).await;
        let stream = follow(&console).await;
        let mut recording = Self {
            world,
            lines: Lines { new, all: vec![] },
            second: String::new(),
            console,
            stream,
            events,
            receiver,
            _subscriber: subscriber,
        };
        recording.run().await;
        recording
    }

    /// A push that a newer one stops, which meets with a fault of CodeBuild's; then a failing build.
    async fn run(&mut self) {
        let Self { world, lines, .. } = self;
        let now = u64::try_from(world.cloud.host().now().as_second()).unwrap();
        world.builds.behave("linux/amd64", Behaviour::Hang);
        let push = |number| Push::of(&commit(number), now - 20 + number).payload();
        let (status, _) = world.deliver_signed(GUESS, "d0", &push(0)).await;
        assert_eq!(status, 401);
        assert_eq!(world.deliver("d1", &push(1)).await.0, 200);
        lines.until(|line| line["build.target"] == "linux/amd64").await;
        world.builds.behave("linux/amd64", Behaviour::Fault(1));
        let (status, answer) = world.deliver("d2", &push(2)).await;
        assert_eq!(status, 200, "{answer}");
        self.second = answer["started"][0]["execution"].as_str().unwrap().to_owned();
        let ended = world.ended(&self.second).await;
        assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
        let ended = world.run("again", json!({"commit": commit(2), "ref": "main"})).await;
        assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
        world.builds.behave("linux/arm64", Behaviour::Fail("no".to_owned()));
        let ended = world.run("failing", json!({"commit": commit(3)})).await;
        assert_eq!(ended.error, "Build.Failed", "{ended:?}");
        for result in ["ABORTED", "SUCCEEDED", "FAILED"] {
            lines.until(|line| line["Result"] == result && line["Runs"].is_number()).await;
        }
        for state in ["stopped", "succeeded", "failed"] {
            let told = |line: &Value| {
                line["receiver.kind"] == "webhook" && line["receiver.state"] == state
            };
            lines.until(told).await;
        }
        lines.until(|line| line["ReconcileRepairs"].is_number()).await;
    }

    /// What the receivers were sent.
    fn told(&self) -> Told {
        let in_process = self.world.recorder.told().into_iter();
        let in_process = in_process.map(|it| (it.url, it.authorization, it.body));
        in_process.chain(self.receiver.lock().unwrap().clone()).collect()
    }

    /// All that the console answers, and what it sent by itself.
    async fn console(&mut self) -> Vec<String> {
        let is_over =
            |said: &str| said.contains("/failing\"") && said.contains("\"status\":\"FAILED\"");
        let said = timeout(PATIENCE, self.stream.wait_for(|said| said.lines().any(is_over)));
        let stream = said.await.unwrap().unwrap().clone();
        for kind in ["execution", "history", "build", "log", "bus", "function"] {
            assert!(stream.contains(&format!("event: {kind}\n")), "{kind}");
        }
        let mut said = vec![stream];
        let mut paths: Vec<String> = [
            "about",
            "events",
            "executions",
            "images",
            "machines/archweld-multi-arch-build",
            "schedules",
            "start",
        ]
        .map(str::to_owned)
        .into();
        while let Some(path) = paths.pop() {
            let answer = read(&self.console, &format!("/api/{path}")).await;
            let parsed: Value = serde_json::from_str(&answer).unwrap();
            if path == "executions" {
                let ids = parsed["items"].as_array().unwrap().iter();
                paths.extend(ids.map(|it| format!("executions/{}", it["id"].as_str().unwrap())));
            }
            for build in parsed["builds"].as_array().into_iter().flatten() {
                let id = build["id"].as_str().unwrap();
                paths.extend([format!("builds/{id}"), format!("builds/{id}/log")]);
            }
            said.push(answer);
        }
        assert!(said.iter().any(|it| it.contains("building linux/arm64")), "a log was read");
        said.push(read(&self.console, "/badge/hello.svg").await);
        said
    }

    /// Whoever is told of a run is told no secret, and no environment.
    async fn tells_no_secret(&mut self, mut shown: Vec<String>) {
        let world = &self.world;
        let published = badge(world, "/badge/hello.svg?ref=main").await;
        assert!(published.contains("hello main: published"), "{published}");
        let unknown = badge(world, "/badge/other.svg").await;
        assert!(unknown.contains("unknown image"), "{unknown}");
        shown.extend([published, unknown]);
        let executions = world.sfn.list_executions().state_machine_arn(world.state_machine());
        for execution in executions.send().await.unwrap().executions {
            let describe = world.sfn.describe_execution().execution_arn(&execution.execution_arn);
            shown.push(format!("{:?}", describe.send().await.unwrap()));
            shown.push(execution.name);
        }
        while let Ok(notice) = self.events.try_recv() {
            let notice = format!("{notice:?}");
            // CodeBuild's own events carry a build's environment, on AWS as here.
            if notice.contains("Archweld Run State Change") {
                shown.push(notice);
            }
        }

        // Each secret was on its way, and came where it belongs.
        let told = self.told();
        let is_told = |part: &str, right: Option<&str>| {
            told.iter().any(|(to, by, _)| to.contains(part) && by.as_deref() == right)
        };
        let right = format!("Bearer {TOKEN}");
        assert!(is_told("/repos/archweld/hello/statuses/", Some(&right)), "{told:?}");
        assert!(is_told("/hook", None), "{told:?}");
        let mut secrets = self.secrets_of_builds().await;
        assert!(secrets.len() >= 5, "every build has a task token");
        assert!(secrets.contains(VARIABLE), "and the project's variables");
        let [secret] = &self.world.cloud.stack().secrets[..] else { panic!("one secret") };
        let secret = json!({"SecretId": secret.settings.arn});
        let secret = self.world.cloud.secrets().call("GetSecretValue", secret).await.unwrap();
        secrets.insert(secret["SecretString"].as_str().unwrap().to_owned());
        secrets.insert(self.world.cloud.registry().authorization_token());
        secrets.extend([TOKEN, KEY, GUESS].map(str::to_owned));

        shown.extend(told.into_iter().flat_map(|(to, _, body)| [to, body]));
        shown.extend(self.console().await);
        shown.extend(self.lines.all.iter().map(Value::to_string));
        while let Ok(line) = self.lines.new.try_recv() {
            shown.push(line);
        }
        for secret in &secrets {
            let leak = shown.iter().find(|text| text.contains(secret));
            assert!(leak.is_none(), "{secret} in {leak:?}");
        }
        for variable in
            ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "NPM_TOKEN", variable::TASK_TOKEN]
        {
            let leak = shown.iter().find(|text| text.contains(variable));
            assert!(leak.is_none(), "an environment in {leak:?}");
        }
    }

    /// What builds have in their environments and nobody else should see.
    async fn secrets_of_builds(&self) -> BTreeSet<String> {
        let codebuild = &self.world.codebuild;
        let listed = codebuild.list_builds().send().await.unwrap();
        let builds = codebuild.batch_get_builds().set_ids(listed.ids).send().await.unwrap();
        let variables = builds
            .builds()
            .iter()
            .flat_map(|build| build.environment().unwrap().environment_variables());
        variables
            .filter(|it| [variable::TASK_TOKEN, "NPM_TOKEN"].contains(&it.name()))
            .map(|it| it.value().to_owned())
            .collect()
    }

    /// A run that finds no room, until what is in its way is stopped.
    async fn run_without_room(&mut self) {
        let Self { world, lines, .. } = self;
        world.builds.behave("in the way", Behaviour::Hang);
        world.builds.behave("linux/arm64", Behaviour::Push);
        let target = EnvironmentVariable::builder()
            .name(variable::IMAGE_PLATFORM)
            .value("in the way")
            .r#type(EnvironmentVariableType::Plaintext);
        let start = world
            .codebuild
            .start_build()
            .project_name("archweld-amd64")
            .environment_variables_override(target.build().unwrap());
        let mut in_the_way = vec![];
        while let Ok(started) = start.clone().send().await {
            in_the_way.push(started.build_value.unwrap().id.unwrap());
        }
        let execution = world.start("crowded", json!({"commit": commit(4)})).await;
        let is_retried =
            |line: &Value| line["BuildRetries"] == 1.0 && line["Cause"] == "Build.Capacity";
        lines.until(is_retried).await;
        for id in in_the_way {
            world.codebuild.stop_build().id(id).send().await.unwrap();
        }
        let ended = world.ended(&execution).await;
        assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    }
}

fn template_with_badges() -> String {
    let off = "StatusBadges:\n    Type: String\n    Default: \"false\"";
    let template = std::fs::read_to_string(template()).unwrap();
    assert!(template.contains(off));
    template.replace(off, &off.replace("false", "true"))
}

async fn read(console: &Router, path: &str) -> String {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = console.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What the console sends a page by itself from now on.
async fn follow(console: &Router) -> watch::Receiver<String> {
    let request = Request::get("/api/stream").body(Body::empty()).unwrap();
    let mut body = console.clone().oneshot(request).await.unwrap().into_body();
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            let text = String::from_utf8_lossy(frame.data_ref().unwrap()).into_owned();
            sender.send_modify(|said| said.push_str(&text));
        }
    });
    receiver
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
    let mut recording = Recording::of(Door::Http).await;
    recording.lines.until(|line| line["message"] == "invocation failed").await;
    let all = &recording.lines.all;

    // Each line is as documented, and what is documented is there.
    let schema = std::fs::read_to_string(root().join("docs/logging.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for line in all {
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
    let run = recording.second.rsplit(':').next().unwrap();
    let story: Vec<&str> = all
        .iter()
        .filter(|line| line["run"] == run)
        .filter_map(|line| line["message"].as_str())
        .collect();
    for step in ["run started", "run planned", "build started", "build ended", "index published"] {
        assert!(story.contains(&step), "no {step:?} in {story:?}");
    }

    let metrics = get(recording.world.cloud.address(), "/metrics").await;
    for part in [
        "archweld_runs_total{result=\"ABORTED\"} 1.0",
        "archweld_build_retries_total{cause=\"Build.Infrastructure\"} 1.0",
        "archweld_push_to_image_seconds_count{image=\"hello\"} 1",
    ] {
        assert!(metrics.contains(part), "{part} in {metrics}");
    }
    recording.tells_no_secret(vec![metrics]).await;
    recording.world.cloud.shutdown().await;
}

/// Here, functions log at the lowest level that they may be told, and the AWS SDK with them.
#[tokio::test(start_paused = true)]
async fn functions_of_one_process_tell_no_secret_at_any_level_either() {
    let mut recording = Recording::of(Door::InProcess).await;
    recording.run_without_room().await;
    recording.tells_no_secret(vec![]).await;
    recording.world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_badge_of_the_functions_url_tells_how_the_newest_run_of_a_ref_stands() {
    let world = World::with(Door::InProcess, CONFIG, &template_with_badges()).await;
    let says = async |state: &str| {
        // Until what is kept is old.
        tokio::time::sleep(Duration::from_secs(61)).await;
        let svg = badge(&world, "/badge/hello.svg?ref=main").await;
        assert!(svg.contains(&format!("hello main: {state}")), "{state} in {svg}");
    };
    let of_main = |number| json!({"image": "hello", "ref": "main", "commit": commit(number)});
    says("no runs").await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    let execution = world.start("hello-main-1", of_main(1)).await;
    says("running").await;
    world.sfn.stop_execution().execution_arn(&execution).send().await.unwrap();
    says("stopped").await;
    world.builds.behave("linux/amd64", Behaviour::Fail("no".to_owned()));
    world.run("hello-main-2", of_main(2)).await;
    says("failed").await;
    world.builds.behave("linux/amd64", Behaviour::Push);
    world.run("hello-main-3", of_main(3)).await;
    says("published").await;
    let other = badge(&world, "/badge/hello.svg?ref=other").await;
    assert!(other.contains("hello other: no runs"), "{other}");
    world.cloud.shutdown().await;
}
