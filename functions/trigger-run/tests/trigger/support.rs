//! A cloud whose runs last until they are stopped, the function in front of it, and a git server.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use archweld_cloud::{Builds, Cloud, Functions, Settings as CloudSettings};
use archweld_codebuild::{Job, Outcome, Status, Worker};
use archweld_local_api::Host;
use aws_sdk_sfn::types::ExecutionStatus;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use futures_util::{FutureExt as _, future::BoxFuture};
use hmac::{Hmac, Mac as _};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use trigger_run::{Clients, Error, Output, Settings, handle};

pub(crate) const SECRET: &str = "It's a Secret to Everybody";
pub(crate) const SOURCE: &str = "https://github.com/team/app.git";
pub(crate) const TOKEN: &str = "token-of-the-source";

/// No build is ever started here.
struct NoBuilds;

impl Worker for NoBuilds {
    fn run(&self, _: Job) -> BoxFuture<'_, Outcome> {
        async { Outcome::from(Status::Failed) }.boxed()
    }
}

/// How the git server answers, by address: status and body. What goes over the network.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) answers: BTreeMap<String, (u16, String)>,
    /// What the addresses begin with that nobody ever answers at.
    pub(crate) silent: Vec<&'static str>,
    /// Addresses, and what authorizes the request.
    pub(crate) asked: Vec<(String, Option<String>)>,
    /// What authorizes the calls of AWS.
    pub(crate) signed: Vec<String>,
}

/// The cloud's HTTP client, and the git server's beside it.
#[derive(Debug, Clone)]
struct Network {
    cloud: SharedHttpClient,
    git: Arc<Mutex<Recorded>>,
}

#[derive(Debug)]
struct Connector {
    cloud: SharedHttpConnector,
    git: Arc<Mutex<Recorded>>,
}

impl HttpClient for Network {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let cloud = self.cloud.http_connector(settings, components);
        SharedHttpConnector::new(Connector { cloud, git: Arc::clone(&self.git) })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let authorization = request.headers().get("authorization").map(str::to_owned);
        if request.headers().get("x-amz-target").is_some() {
            self.git.lock().unwrap().signed.push(authorization.unwrap_or_default());
            return self.cloud.call(request);
        }
        let mut git = self.git.lock().unwrap();
        git.asked.push((request.uri().to_owned(), authorization));
        if git.silent.iter().any(|host| request.uri().starts_with(host)) {
            return HttpConnectorFuture::new(std::future::pending());
        }
        let (status, body) =
            git.answers.get(request.uri()).cloned().unwrap_or((404, String::new()));
        let status = StatusCode::from_u16(status).unwrap();
        let mut response = HttpResponse::new(status.into(), SdkBody::empty());
        if status.is_redirection() {
            response.headers_mut().insert("location", body);
        } else {
            *response.body_mut() = SdkBody::from(body);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) settings: Settings,
    pub(crate) clients: Clients,
    pub(crate) sdk: SdkConfig,
    pub(crate) sfn: aws_sdk_sfn::Client,
    pub(crate) network: Arc<Mutex<Recorded>>,
    pub(crate) folder: TempDir,
}

pub(crate) const IMAGES: &str = r#"
[[image]]
name = "api"
platforms = ["linux/arm64"]
context = "services/api"
refs = ["main", "refs/tags/v*"]

[[image]]
name = "web"
platforms = ["linux/arm64"]
context = "services/web"
refs = ["main"]

[[image]]
name = "worker"
platforms = ["linux/arm64"]
context = "services/worker"
refs = ["main", "release/*"]
"#;

impl World {
    pub(crate) async fn open() -> Self {
        Self::with(IMAGES).await
    }

    pub(crate) async fn with(images: &str) -> Self {
        Self::with_secret(images, "arn:aws:secretsmanager:us-east-1:123456789012:secret:webhook")
            .await
    }

    pub(crate) async fn with_secret(images: &str, secret: &str) -> Self {
        let host =
            Host::seeded("123456789012", "us-east-1", "2026-11-23T10:00:40Z".parse().unwrap(), 7);
        let cloud = Cloud::open(CloudSettings {
            host,
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud/template.yaml"),
            stack_name: "test".to_owned(),
            parameters: BTreeMap::new(),
            layers: BTreeMap::<String, PathBuf>::new(),
            state: None,
            port: None,
            git: None,
            registry_bytes_max: None,
            functions: Functions::InProcess(Box::new(|_, _, _| panic!("no functions"))),
            builds: Builds::Worker(Arc::new(NoBuilds)),
        })
        .await
        .unwrap();
        let git: Arc<Mutex<Recorded>> = Arc::default();
        let config = cloud.sdk_config();
        let network = Network { cloud: config.http_client().unwrap(), git: Arc::clone(&git) };
        let sdk = config.into_builder().http_client(network).build();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archweld.toml");
        std::fs::write(&path, images).unwrap();
        let machine = cloud.stack().state_machines[0].arn.clone();
        let token = "arn:aws:ssm:us-east-1:123456789012:parameter/git-token";
        put_parameter(&cloud, "/git-token", TOKEN).await;
        let source = SOURCE.to_owned();
        let settings = Settings::new(&path, machine, source, secret, Some(token)).unwrap();
        Self {
            clients: Clients::new(&sdk),
            sfn: aws_sdk_sfn::Client::new(&sdk),
            settings,
            cloud,
            sdk,
            network: git,
            folder,
        }
    }

    /// The function's answer to an event.
    pub(crate) async fn event(&self, event: Value) -> Result<Value, Error> {
        // Boxed, as hosts of several threads do.
        match handle(event, &self.settings, &self.clients).boxed().await? {
            Output::Outcome(outcome) => Ok(json!(outcome)),
            Output::Answer(answer) => panic!("an answer to an event: {answer:?}"),
        }
    }

    /// The status and body of the function's answer to a webhook.
    pub(crate) async fn webhook(&self, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        self.request(request(headers, body)).await
    }

    pub(crate) async fn request(&self, request: Value) -> (u16, Value) {
        match handle(request, &self.settings, &self.clients).await.unwrap() {
            Output::Answer(answer) => {
                (answer.status_code, serde_json::from_str(&answer.body).unwrap())
            }
            Output::Outcome(outcome) => panic!("an outcome of a webhook: {outcome:?}"),
        }
    }

    /// A signed delivery of GitHub's.
    pub(crate) async fn github(&self, delivery: &str, payload: &Value) -> (u16, Value) {
        let body = payload.to_string();
        let signature = format!("sha256={}", sign(SECRET.as_bytes(), body.as_bytes()));
        let headers = [
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", delivery),
            ("X-Hub-Signature-256", &signature),
        ];
        self.webhook(&headers, &body).await
    }

    /// Every execution by name: its status, its input, and why it was stopped.
    pub(crate) async fn executions(&self) -> BTreeMap<String, (ExecutionStatus, Value, String)> {
        let machine = &self.cloud.stack().state_machines[0].arn;
        let listed = self.sfn.list_executions().state_machine_arn(machine).send().await.unwrap();
        let mut executions = BTreeMap::new();
        for listed in listed.executions {
            let describe = self.sfn.describe_execution().execution_arn(&listed.execution_arn);
            let execution = describe.send().await.unwrap();
            let input = serde_json::from_str(execution.input.as_deref().unwrap()).unwrap();
            let cause = execution.cause.unwrap_or_default();
            executions.insert(listed.name, (execution.status, input, cause));
        }
        executions
    }

    /// The images and refs of the running executions.
    pub(crate) async fn running(&self) -> Vec<String> {
        let executions = self.executions().await;
        let running =
            executions.values().filter(|(status, ..)| *status == ExecutionStatus::Running);
        let mut running: Vec<String> = running
            .map(|(_, input, _)| {
                format!(
                    "{} {} {}",
                    input["image"].as_str().unwrap(),
                    input["ref"].as_str().unwrap(),
                    input["commit"].as_str().map_or("-", |commit| &commit[..7])
                )
            })
            .collect();
        running.sort();
        running
    }

    /// How often an operation was called.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.cloud.calls().iter().filter(|call| call.operation == operation).count()
    }
}

pub(crate) async fn put_parameter(cloud: &Cloud, name: &str, value: &str) {
    let input = json!({"Name": name, "Value": value, "Type": "SecureString", "Overwrite": true});
    cloud.secrets().call_parameters("PutParameter", input).await.unwrap();
}

/// HMAC-SHA256, as hexadecimal digits.
pub(crate) fn sign(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// A request of the function URL's.
pub(crate) fn request(headers: &[(&str, &str)], body: &str) -> Value {
    let headers: BTreeMap<&str, &str> = headers.iter().copied().collect();
    json!({
        "version": "2.0",
        "rawPath": "/",
        "headers": headers,
        "requestContext": {"http": {"method": "POST", "path": "/", "sourceIp": "192.0.2.1"}},
        "body": body,
        "isBase64Encoded": false,
    })
}

/// A payload of `tests/payloads`.
pub(crate) fn payload(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/payloads/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A push of GitHub's to a branch, as the published one with a few things changed.
pub(crate) fn push(
    branch: &str,
    before: char,
    after: char,
    pushed_at: u64,
    files: &[&str],
) -> Value {
    let mut payload = payload("github-push");
    let [before, after] = [before, after].map(|digit| digit.to_string().repeat(40));
    payload["ref"] = format!("refs/heads/{branch}").into();
    payload["before"] = before.into();
    payload["after"] = after.clone().into();
    payload["repository"]["pushed_at"] = pushed_at.into();
    for commit in ["/head_commit", "/commits/0"] {
        let commit = payload.pointer_mut(commit).unwrap();
        commit["id"] = after.clone().into();
        commit["added"] = json!([]);
        commit["modified"] = json!(files);
    }
    payload
}
