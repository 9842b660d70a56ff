//! What the routes answer, to whom, and what they never say.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use archweld_cloud::{Builds, Cloud, Functions, Settings};
use archweld_codebuild::{Job, Outcome, PhaseContext, PhaseType, Status, Worker};
use archweld_lambda::FunctionError;
use archweld_local_api::Host;
use archweld_model::{Config, variable};
use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tower::ServiceExt as _;

const CONFIG: &str = r#"
[[image]]
name = "hello"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["{sha7}", "latest"]
schedule = "nightly"
schedule_ref = "main"

[[image]]
name = "other"
platforms = ["linux/arm64"]
publisher = "lambda"
"#;
const BUILD_SECRET: &str = "a-password-of-the-build";
/// Longer than anything here takes; under paused time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Builds that say what they should not, and fail then.
struct Talkative(UnboundedSender<String>);

impl Worker for Talkative {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        async move {
            let token = job.variable(variable::TASK_TOKEN).unwrap_or_default().to_owned();
            self.0.send(token.clone()).ok();
            job.reporter.begin(PhaseType::Build);
            for line in 0..500 {
                job.reporter.log(&format!("line {line} {token}"));
            }
            let context = PhaseContext::new("COMMAND_EXECUTION_ERROR", format!("failed: {token}"));
            job.reporter.end(Status::Failed, vec![context]);
            Status::Failed.into()
        }
        .boxed()
    }
}

struct World {
    cloud: Cloud,
    router: Router,
    tokens: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl World {
    async fn open() -> Self {
        let (sender, tokens) = unbounded_channel();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let functions = Functions::InProcess(Box::new(|function, _, _| {
            let binary = function.binary.clone();
            Arc::new(move |invocation| {
                let binary = binary.clone();
                async move { answer(&binary, &invocation.payload) }.boxed()
            })
        }));
        let cloud = Cloud::open(Settings {
            host: Host::seeded(
                "000000000000",
                "us-east-1",
                "2026-11-23T10:00:00Z".parse().unwrap(),
                7,
            ),
            template: root.join("infra/template.yaml"),
            stack_name: "archweld".to_owned(),
            parameters: BTreeMap::new(),
            layers: BTreeMap::new(),
            state: None,
            port: None,
            registry_bytes_max: None,
            git: None,
            functions,
            builds: Builds::Worker(Arc::new(Talkative(sender))),
        })
        .await
        .unwrap();
        for image in ["hello", "other"] {
            cloud.ensure_repository(&image.parse().unwrap()).await.unwrap();
        }
        let router = archweld_console::router(&cloud, Config::parse(CONFIG).unwrap()).await;
        Self { cloud, router, tokens }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let (status, _, body) = self.send(request.body(body.to_string().into()).unwrap()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Starts a run and waits until it is over.
    async fn run(&self, input: Value) -> Value {
        let mut notices = self.cloud.step_functions().subscribe();
        let (status, started) = self.post("/api/executions", json!({ "input": input })).await;
        assert_eq!(status, StatusCode::CREATED, "{started}");
        let path = format!("/api/executions/{}", started["id"].as_str().unwrap());
        loop {
            let (_, whole) = self.get(&path).await;
            if whole["status"] != "RUNNING" {
                return whole;
            }
            tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().ok();
        }
    }
}

/// As much of the functions as a run without builds needs; of the image `other` there is no plan.
fn answer(binary: &str, payload: &Value) -> Result<Value, FunctionError> {
    if binary != "plan-build" {
        return Ok(json!({}));
    }
    if payload["input"]["image"] == "other" {
        let (error_type, error_message) = ("Plan.Invalid".to_owned(), "not today".to_owned());
        return Err(FunctionError { error_type, error_message });
    }
    Ok(json!({"execution": payload["execution"]["arn"], "platforms": []}))
}

/// A build as `start-build` starts it.
async fn start_build(world: &World, execution: &str, token: &str) -> String {
    let project = &world.cloud.stack().builds.first().unwrap().name;
    let variables = [
        (variable::EXECUTION, execution),
        (variable::IMAGE_PLATFORM, "linux/arm64"),
        (variable::TASK_TOKEN, token),
        ("PASSWORD", BUILD_SECRET),
    ];
    let variables: Vec<Value> = variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value, "type": "PLAINTEXT"}))
        .collect();
    let input = json!({"projectName": project, "environmentVariablesOverride": variables});
    let mut notices = world.cloud.codebuild().subscribe();
    let started = world.cloud.codebuild().call("StartBuild", input).await.unwrap();
    while !matches!(notices.recv().await, Ok(archweld_codebuild::Notice::Finished { .. })) {}
    started["build"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_page_loads_nothing_but_itself() {
    let world = World::open().await;
    let (status, headers, page) = world.send(Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    // What it is first painted with is in it, and known to the policy: nothing else is waited for.
    for (begin, end, directive) in
        [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src 'self'")]
    {
        let text = page.split_once(begin).unwrap().1.split_once(end).unwrap().0;
        assert!(!text.trim().is_empty(), "{begin}");
        let hash = BASE64.encode(Sha256::digest(text));
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}'")), "{policy}");
    }
    assert!(!page.contains("rel=\"stylesheet\"") && !page.contains("<script src"), "{page}");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    assert!(!page.contains("http://") && !page.contains("https://"), "it works offline");
    // Every file that the page and its modules name is there.
    let mut wanted = vec![page];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(text) = wanted.pop() {
        let names = text.split(['"', '(', '`']).filter_map(|part| {
            let name = part.strip_prefix("/assets/").or_else(|| part.strip_prefix("./"))?;
            name.ends_with(".js").then_some(name).or(name.ends_with(".css").then_some(name))
        });
        for name in names.map(str::to_owned).collect::<Vec<_>>() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let request = Request::get(format!("/assets/{name}")).body(Body::empty()).unwrap();
            let (status, headers, text) = world.send(request).await;
            assert_eq!(status, StatusCode::OK, "{name}");
            let again = Request::get(format!("/assets/{name}"))
                .header(header::IF_NONE_MATCH, &headers[header::ETAG])
                .body(Body::empty());
            assert_eq!(world.send(again.unwrap()).await.0, StatusCode::NOT_MODIFIED);
            wanted.push(text);
        }
    }
    assert!(seen.len() > 12, "{seen:?}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn only_json_changes_something() {
    let world = World::open().await;
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data"),
    ] {
        for path in ["/api/executions", "/api/check", "/api/executions/a/b/stop"] {
            let mut request = Request::post(path);
            if let Some(kind) = kind {
                request = request.header(header::CONTENT_TYPE, kind);
            }
            let request = request.body(r#"{"input":{"image":"hello"}}"#.into()).unwrap();
            let (status, _, body) = world.send(request).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?} {path} {body}");
        }
    }
    let (_, page) = world.get("/api/executions").await;
    assert_eq!(page["total"], 0, "nothing was started");
    let (status, _) = world.get("/api/executions/a/b/stop").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_input_starts_nothing_and_is_told_by_field() {
    let world = World::open().await;
    let (status, about) = world.get("/api/start").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        about[0],
        json!({
            "name": "hello", "platforms": ["linux/amd64", "linux/arm64"],
            "tags": ["{sha7}", "latest"], "publisher": "build", "reuse": true,
        })
    );
    let cases = [
        (json!({}), vec!["image"]),
        (json!({"image": "no"}), vec!["image"]),
        (
            json!({"image": "hello", "platforms": ["linux/vax", "linux/arm64", "x"], "commit": "main"}),
            vec!["commit", "platforms[0]", "platforms[2]"],
        ),
        (json!({"image": "hello", "platforms": []}), vec!["platforms"]),
        (json!({"image": "hello", "tags": ["{nope}"]}), vec!["tags[0]"]),
        (json!({"image": "hello", "trigger": {"sequence": "7"}}), vec!["trigger.sequence"]),
        (json!({"image": "hello", "secret": "s3cr3t-of-the-user"}), vec!["secret"]),
        (json!([]), vec![""]),
    ];
    for path in ["/api/check", "/api/executions"] {
        for (input, fields) in &cases {
            let (status, answer) = world.post(path, json!({ "input": input })).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{input} {answer}");
            let problems = answer["problems"].as_array().unwrap();
            let mut found: Vec<_> =
                problems.iter().map(|it| it["path"].as_str().unwrap()).collect();
            found.sort_unstable();
            assert_eq!(&found, fields, "{input} {answer}");
            assert!(!answer.to_string().contains("s3cr3t"), "{answer}");
        }
    }
    let right =
        json!({"input": {"image": "hello", "commit": "0123456789abcdef0123456789abcdef01234567"}});
    let (status, plan) = world.post("/api/check", right).await;
    assert_eq!(status, StatusCode::OK, "{plan}");
    assert_eq!(
        (&plan["fixed_tags"], &plan["moving_tags"]),
        (&json!(["0123456"]), &json!(["latest"]))
    );
    assert_eq!(world.get("/api/executions").await.1["total"], 0);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn runs_are_listed_newest_first_in_windows_and_by_status_and_image() {
    let world = World::open().await;
    for number in 0..5 {
        let image = if number % 2 == 0 { "hello" } else { "other" };
        let trigger = json!({"kind": "push", "actor": format!("person{number}")});
        world.run(json!({"image": image, "ref": "main", "trigger": trigger})).await;
    }
    let actors = async |query: &str| {
        let (status, page) = world.get(&format!("/api/executions?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let items = page["items"].as_array().unwrap().iter();
        let actors: Vec<_> = items.map(|it| it["actor"].as_str().unwrap().to_owned()).collect();
        (page["total"].as_u64().unwrap(), actors.join(" "))
    };
    assert_eq!(actors("from=0&count=2").await, (5, "person4 person3".to_owned()));
    assert_eq!(actors("from=3&count=50").await, (5, "person1 person0".to_owned()));
    assert_eq!(actors("from=99").await, (5, String::new()));
    assert_eq!(actors("image=other").await, (2, "person3 person1".to_owned()));
    assert_eq!(actors("status=FAILED&image=other&count=1").await, (2, "person3".to_owned()));
    assert_eq!(actors("status=SUCCEEDED&image=other").await, (0, String::new()));
    assert_eq!(actors("status=SUCCEEDED&from=1").await, (3, "person2 person0".to_owned()));
    assert_eq!(world.get("/api/executions?status=NO").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(world.get("/api/executions?from=x").await.0, StatusCode::BAD_REQUEST);
    for path in [
        "/api/executions/no/no",
        "/api/executions/archweld-multi-arch-build/no",
        "/api/builds/no",
        "/api/builds/no/log",
        "/api/machines/no",
        "/nothing",
    ] {
        assert_eq!(world.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_badge_tells_how_the_newest_run_of_a_ref_ended() {
    let world = World::open().await;
    let badge = async |path: &str| {
        let (status, headers, svg) =
            world.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("image/svg+xml"));
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers["cross-origin-resource-policy"], "cross-origin");
        (status.as_u16(), svg)
    };
    assert!(badge("/badge/hello.svg").await.1.contains("no runs"));
    world.run(json!({"image": "hello", "ref": "refs/heads/main"})).await;
    assert!(badge("/badge/hello.svg").await.1.contains("hello: published"));
    assert!(badge("/badge/hello.svg?ref=main").await.1.contains("hello main: published"));
    assert!(badge("/badge/hello.svg?ref=other").await.1.contains("hello other: no runs"));
    assert!(badge("/badge/other.svg").await.1.contains("other: no runs"));
    let (_, first) = world.post("/api/executions", json!({"input": {"image": "other"}})).await;
    assert!(badge("/badge/other.svg").await.1.contains("other: running"));
    let stop = format!("/api/executions/{}/stop", first["id"].as_str().unwrap());
    world.post(&stop, json!({})).await;
    world.run(json!({"image": "other"})).await;
    assert!(badge("/badge/other.svg").await.1.contains("other: failed"));
    let (_, started) = world.post("/api/executions", json!({"input": {"image": "other"}})).await;
    assert!(badge("/badge/other.svg").await.1.contains("other: failed"), "one is on its way");
    let stop = format!("/api/executions/{}/stop", started["id"].as_str().unwrap());
    world.post(&stop, json!({})).await;
    assert!(badge("/badge/other.svg").await.1.contains("other: stopped"));
    let (status, svg) = badge("/badge/nothing.svg?ref=%3Cscript%3E").await;
    assert!(status == 404 && svg.contains("unknown image") && !svg.contains("<script"), "{svg}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn neither_answers_nor_the_stream_say_tokens_secrets_or_an_environment() {
    let mut world = World::open().await;
    // Somebody listens from the beginning.
    let response =
        world.router.clone().oneshot(Request::get("/api/stream").body(Body::empty()).unwrap());
    let mut stream = response.await.unwrap().into_body();
    let whole = world.run(json!({"image": "hello", "ref": "main"})).await;
    let arn = whole["arn"].as_str().unwrap();
    let token = "t".repeat(680);
    let build = start_build(&world, arn, &token).await;
    assert_eq!(world.tokens.recv().await.as_deref(), Some(token.as_str()), "the build had it");
    let function = &world.cloud.stack().functions.iter().find(|it| it.url.is_some()).unwrap();
    let leak = json!({"Entries": [{
        "Source": "test", "DetailType": "Leak",
        "Detail": json!({"password": BUILD_SECRET, "status": "SUCCEEDED"}).to_string(),
    }]});
    world.cloud.bus().call("PutEvents", leak).await.unwrap();

    let mut said = String::new();
    let id = whole["id"].as_str().unwrap().to_owned();
    let paths = [
        "/api/about".to_owned(),
        "/api/executions".to_owned(),
        format!("/api/executions/{id}"),
        "/api/machines/archweld-multi-arch-build".to_owned(),
        format!("/api/builds/{build}"),
        format!("/api/builds/{build}/log"),
        "/api/images".to_owned(),
        "/api/schedules".to_owned(),
        "/api/start".to_owned(),
        "/api/events".to_owned(),
        "/badge/hello.svg".to_owned(),
    ];
    for path in paths {
        let (status, answer) = world.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{path} {answer}");
        said += &answer.to_string();
    }
    while let Ok(Some(Ok(frame))) =
        tokio::time::timeout(Duration::from_secs(5), stream.frame()).await
    {
        said += &String::from_utf8_lossy(frame.data_ref().unwrap());
    }
    for expected in [
        "line 3 ***",
        "linux/arm64",
        "event: build",
        "event: bus",
        "event: history",
        "event: function",
        "event: log",
        "Leak",
        "failed: ***",
    ] {
        assert!(said.contains(expected), "{expected}");
    }
    let mut secrets = vec![token, BUILD_SECRET.to_owned(), "PASSWORD".to_owned()];
    for variable in
        [variable::TASK_TOKEN, variable::EXECUTION, "IMAGE_REPO_NAME", "ARCHWELD_CONFIG"]
    {
        secrets.push(variable.to_owned());
    }
    secrets.extend(function.environment.keys().filter(|name| name.contains("SECRET")).cloned());
    let registry = world.cloud.registry().authorization_token();
    secrets.push(registry);
    for secret in &world.cloud.stack().secrets {
        let input = json!({"SecretId": secret.settings.arn});
        let found = world.cloud.secrets().call("GetSecretValue", input).await.unwrap();
        let text = found["SecretString"].as_str().unwrap();
        assert!(text.len() >= 8, "a secret worth to be looked for");
        secrets.push(text.to_owned());
    }
    assert!(secrets.len() > 8);
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret} was said");
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_away_is_sent_what_it_missed() {
    let world = World::open().await;
    let open = async |after: Option<&str>| {
        let mut request = Request::get("/api/stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let request = request.body(Body::empty()).unwrap();
        world.router.clone().oneshot(request).await.unwrap().into_body()
    };
    let read = async |stream: &mut Body| {
        let mut said = String::new();
        while let Ok(Some(Ok(frame))) =
            tokio::time::timeout(Duration::from_secs(5), stream.frame()).await
        {
            said += &String::from_utf8_lossy(frame.data_ref().unwrap());
        }
        said
    };
    let id_of = |said: &str| {
        said.lines().rev().find_map(|line| line.strip_prefix("id: ").map(str::to_owned)).unwrap()
    };
    let mut first = open(None).await;
    let hello = read(&mut first).await;
    assert!(hello.contains("event: hello") && !hello.contains("resync"), "{hello}");
    let seen = id_of(&hello);
    drop(first);
    world.run(json!({"image": "hello"})).await;
    let mut second = open(Some(&seen)).await;
    let missed = read(&mut second).await;
    assert!(
        missed.contains("ExecutionStarted") && missed.contains("\"status\":\"SUCCEEDED\""),
        "{missed}"
    );
    let again = read(&mut open(Some(&id_of(&missed))).await).await;
    assert!(!again.contains("event: history") && !again.contains("resync"), "{again}");
    let other = read(&mut open(Some("another-5")).await).await;
    assert!(other.contains("event: resync"), "{other}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_in_windows() {
    let world = World::open().await;
    let build = start_build(&world, "no", "no-token-at-all").await;
    let log = async |query: &str| world.get(&format!("/api/builds/{build}/log?{query}")).await.1;
    let window = log("first=498&count=100").await;
    assert_eq!((&window["total"], &window["open"]), (&json!(500), &json!(false)));
    let lines = window["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1][1], "line 499 ***");
    assert!(lines[0][0].as_i64().unwrap() > 0);
    assert_eq!(log("first=0&count=99999").await["lines"].as_array().unwrap().len(), 500);
    assert_eq!(log("first=500").await["lines"], json!([]));
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn schedules_and_images_are_told_with_what_belongs_to_them() {
    let world = World::open().await;
    let (_, schedules) = world.get("/api/schedules").await;
    let nightly = &schedules.as_array().unwrap()[0];
    assert_eq!(nightly["images"], json!(["hello"]), "{schedules}");
    let (_, images) = world.get("/api/images").await;
    let names: Vec<_> = images.as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["hello", "other"]);
    assert_eq!((&images[0]["indexes"], &images[0]["total"]), (&json!([]), &json!(0)));
    assert_eq!(images[0]["uri"], "localhost/hello");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_stopped_and_says_so() {
    let world = World::open().await;
    let (_, started) = world.post("/api/executions", json!({"input": {"image": "hello"}})).await;
    let path = format!("/api/executions/{}", started["id"].as_str().unwrap());
    let (status, _) = world.post(&format!("{path}/stop"), json!({})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (_, whole) = world.get(&path).await;
    assert_eq!(whole["status"], "ABORTED");
    assert_eq!(whole["cause"], "stopped in the local console");
    let types: Vec<_> =
        whole["history"].as_array().unwrap().iter().map(|it| it["type"].clone()).collect();
    assert_eq!(types.last(), Some(&json!("ExecutionAborted")));
    world.cloud.shutdown().await;
}
