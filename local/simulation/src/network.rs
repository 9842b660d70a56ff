//! The network and the APIs as they are: slow, throttled, failing, and at times a little behind.
//!
//! An HTTP client around the one that reaches the local cloud in process. The services behind it are
//! as they always are.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use crate::{
    faults::Fault,
    lambdas::{INVOCATION, Invocation, OUT_OF_TIME},
    state::{Shared, between_ms},
};

/// How long what ECR and Step Functions list may be behind.
const IMAGES_BEHIND_MAX_MS: u64 = 2_000;
const EXECUTIONS_BEHIND_MAX_MS: u64 = 30_000;
/// How many lists are remembered, to be answered late.
const LISTS_MAX: usize = 16;

/// What all clients of a world share.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shares>);

struct Shares {
    shared: Shared,
    /// The newest request of each list, and what is answered to it instead of the truth, until when.
    lists: Mutex<BTreeMap<(&'static str, Vec<u8>), List>>,
    /// The refs of the git server, and their commits.
    heads: Mutex<BTreeMap<String, String>>,
    /// Builds that end at once when they are told to.
    finish_now: Mutex<BTreeMap<String, Arc<Notify>>>,
}

struct List {
    request: HttpRequest,
    stale: Option<(Vec<u8>, Instant)>,
}

/// The client of one function.
#[derive(Clone)]
struct Client {
    network: Network,
    inner: SharedHttpClient,
}

#[derive(Debug)]
struct Connector {
    client: Client,
    inner: SharedHttpConnector,
}

/// What `PutImage` is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutImage<'a> {
    #[serde(borrow)]
    repository_name: Cow<'a, str>,
    #[serde(borrow)]
    image_manifest: Cow<'a, str>,
    #[serde(borrow)]
    image_tag: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendTaskFailure<'a> {
    #[serde(borrow)]
    task_token: Cow<'a, str>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cause: Option<Cow<'a, str>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connector { client: self.clone(), inner })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (network, inner) = (self.client.network.clone(), self.inner.clone());
        HttpConnectorFuture::new(async move { network.call(request, &inner).await })
    }
}

impl Network {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(Shares {
            shared,
            lists: Mutex::default(),
            heads: Mutex::default(),
            finish_now: Mutex::default(),
        }))
    }

    /// A configuration whose calls go over this network.
    pub(crate) fn config(&self, config: &SdkConfig) -> SdkConfig {
        let Some(inner) = config.http_client() else { return config.clone() };
        let client = Client { network: self.clone(), inner };
        let mut builder = config.clone().into_builder();
        builder.set_http_client(Some(SharedHttpClient::new(client)));
        builder.build()
    }

    /// Sets what a branch or a tag is at.
    pub(crate) fn set_head(&self, git_ref: &str, commit: &str) {
        lock(&self.0.heads).insert(git_ref.to_owned(), commit.to_owned());
    }

    /// What makes a build end at once.
    pub(crate) fn finish_now(&self, build: &str) -> Arc<Notify> {
        Arc::clone(lock(&self.0.finish_now).entry(build.to_owned()).or_default())
    }

    pub(crate) fn forget(&self, build: &str) {
        lock(&self.0.finish_now).remove(build);
    }

    async fn call(
        &self,
        request: HttpRequest,
        inner: &SharedHttpConnector,
    ) -> Result<HttpResponse, ConnectorError> {
        let shared = &self.0.shared;
        let invocation = INVOCATION.try_with(Clone::clone).ok();
        let execution = invocation.as_ref().and_then(Invocation::execution);
        let inject = |fault| shared.inject(fault, execution);
        tokio::time::sleep(shared.draw_ms(3, 60)).await;
        let Some(operation) = operation(&request) else {
            if request.uri().contains("/info/refs?") {
                return Ok(self.refs());
            }
            // What is downloaded never changes.
            return inner.call(request).await;
        };
        shared.state().calls += 1;
        let kill = |invocation: &Option<Invocation>| {
            if let Some(invocation) = invocation {
                invocation.kill();
            }
        };
        if invocation.is_some() {
            if inject(Fault::LambdaKilledBefore).is_some() {
                kill(&invocation);
                return std::future::pending().await;
            }
            if inject(Fault::LambdaTimedOut).is_some() {
                tokio::time::sleep(OUT_OF_TIME).await;
            }
        }
        if inject(Fault::ApiThrottled).is_some() {
            return Ok(refusal(400, "ThrottlingException"));
        }
        if inject(Fault::ApiUnavailable).is_some() {
            return Ok(refusal(503, "ServiceUnavailableException"));
        }
        if inject(Fault::ConnectionDroppedBefore).is_some() {
            return Err(dropped());
        }
        match operation {
            "StartBuild" if inject(Fault::BuildLimit).is_some() => {
                return Ok(refusal(400, "AccountLimitExceededException"));
            }
            "StopBuild" => self.race(&request, execution).await,
            "BatchGetImage" => {
                if let Some(answer) = self.not_there_yet(&request, execution) {
                    return Ok(answer);
                }
            }
            "ListImages" | "ListExecutions" => {
                if let Some(answer) = self.stale(operation, &request) {
                    return Ok(answer);
                }
            }
            "PutImage" => self.fall_behind("ListImages", execution, inner).await,
            "StartExecution" | "StopExecution" | "RedriveExecution" | "SendTaskSuccess"
            | "SendTaskFailure" => {
                self.fall_behind("ListExecutions", execution, inner).await;
            }
            _ => {}
        }
        let is_watched = matches!(operation, "PutImage" | "SendTaskFailure");
        let watched =
            is_watched.then(|| request.body().bytes().map(<[u8]>::to_vec).unwrap_or_default());
        let response = inner.call(request).await?;
        let is_done = response.status().is_success();
        if shared.is_traced() {
            let actor = invocation.as_ref().map_or("world", Invocation::actor).to_owned();
            let status = response.status();
            shared.trace(|| (actor, format!("calls {operation}: {status}")));
        }
        if is_done && let Some(body) = watched {
            self.watch(operation, &body);
        }
        if inject(Fault::ConnectionDroppedAfter).is_some() {
            return Err(dropped());
        }
        if invocation.is_some() && inject(Fault::LambdaKilledAfter).is_some() {
            kill(&invocation);
            return std::future::pending().await;
        }
        Ok(response)
    }

    /// Shows the checks what took effect.
    fn watch(&self, operation: &str, body: &[u8]) {
        let shared = &self.0.shared;
        if operation == "PutImage" {
            let Ok(put) = serde_json::from_slice::<PutImage<'_>>(body) else { return };
            let Some(tag) = put.image_tag else { return };
            let digest = archweld_model::Digest::of(put.image_manifest.as_bytes()).to_string();
            shared.trace(|| {
                ("ecr".to_owned(), format!("{}:{tag} is at {digest}", put.repository_name))
            });
            shared.check(|model, now| {
                model.tag_put(&put.repository_name, &tag, &digest, &put.image_manifest, now)
            });
        } else if let Ok(told) = serde_json::from_slice::<SendTaskFailure<'_>>(body) {
            let (error, cause) = (told.error.unwrap_or_default(), told.cause.unwrap_or_default());
            shared.check(|model, _| model.failure_told(&told.task_token, &error, &cause));
        }
    }

    /// A build that is to be stopped ends by itself a moment before.
    async fn race(&self, request: &HttpRequest, execution: Option<&str>) {
        let id = body(request)["id"].as_str().unwrap_or_default().to_owned();
        let waiting = lock(&self.0.finish_now).get(&id).cloned();
        let Some(build) = waiting else { return };
        if let Some(size) = self.0.shared.inject(Fault::StopRaces, execution) {
            build.notify_one();
            tokio::time::sleep(between_ms(size, 0, 100)).await;
        }
    }

    /// ECR does not know yet what a build has just pushed.
    fn not_there_yet(
        &self,
        request: &HttpRequest,
        execution: Option<&str>,
    ) -> Option<HttpResponse> {
        let input = body(request);
        let [id] = &input["imageIds"].as_array()?[..] else { return None };
        let shared = &self.0.shared;
        let name = id["imageTag"].as_str().or_else(|| id["imageDigest"].as_str())?;
        let pushed = *shared.state().model.pushed_at.get(name)?;
        let behind = Duration::try_from(shared.host().now().duration_since(pushed)).ok()?;
        if behind > Duration::from_millis(IMAGES_BEHIND_MAX_MS) {
            return None;
        }
        shared.inject(Fault::StaleImages, execution)?;
        let failure = json!({"imageId": id, "failureCode": "ImageNotFound",
                             "failureReason": "Requested image not found"});
        Some(answer(200, &json!({"images": [], "failures": [failure]})))
    }

    /// Remembers a list that is asked for; answers it as it was, where it is behind.
    fn stale(&self, operation: &'static str, request: &HttpRequest) -> Option<HttpResponse> {
        let key = (operation, request.body().bytes()?.to_vec());
        let mut lists = lock(&self.0.lists);
        if let Some(list) = lists.get(&key) {
            let (answer, until) = list.stale.as_ref()?;
            if Instant::now() > *until {
                return None;
            }
            let answer = SdkBody::from(answer.clone());
            self.0.shared.trace(|| ("network".to_owned(), format!("{operation} is behind")));
            return Some(HttpResponse::new(StatusCode::OK.into(), answer));
        }
        if lists.len() >= LISTS_MAX {
            lists.pop_first();
        }
        lists.insert(key, List { request: request.try_clone()?, stale: None });
        None
    }

    /// Before something changes: lists go on saying what they said before, for a while.
    async fn fall_behind(
        &self,
        operation: &'static str,
        execution: Option<&str>,
        inner: &SharedHttpConnector,
    ) {
        let (fault, behind_max_ms) = match operation {
            "ListImages" => (Fault::StaleImages, IMAGES_BEHIND_MAX_MS),
            _ => (Fault::StaleExecutions, EXECUTIONS_BEHIND_MAX_MS),
        };
        let known: Vec<((&'static str, Vec<u8>), HttpRequest)> = lock(&self.0.lists)
            .iter()
            .filter(|((of, _), _)| *of == operation)
            .filter_map(|(key, list)| Some((key.clone(), list.request.try_clone()?)))
            .collect();
        if known.is_empty() {
            return;
        }
        let Some(size) = self.0.shared.inject(fault, execution) else { return };
        let until = Instant::now() + between_ms(size, 100, behind_max_ms);
        for (key, request) in known {
            let Ok(answer) = inner.call(request).await else { continue };
            let answer = answer.body().bytes().map(<[u8]>::to_vec);
            if let (Some(answer), Some(list)) = (answer, lock(&self.0.lists).get_mut(&key)) {
                list.stale = Some((answer, until));
            }
        }
    }

    /// The git server's refs
    /// (<https://git-scm.com/docs/http-protocol#_smart_clients>).
    fn refs(&self) -> HttpResponse {
        let frame = |line: String| format!("{:04x}{line}", line.len() + 4);
        let mut text = frame("# service=git-upload-pack\n".to_owned()) + "0000";
        for (number, (git_ref, commit)) in lock(&self.0.heads).iter().enumerate() {
            let capabilities = if number == 0 { "\0" } else { "" };
            text += &frame(format!("{commit} {git_ref}{capabilities}\n"));
        }
        HttpResponse::new(StatusCode::OK.into(), SdkBody::from(text + "0000"))
    }
}

fn operation(request: &HttpRequest) -> Option<&'static str> {
    const KNOWN: [&str; 22] = [
        "BatchGetBuilds",
        "BatchGetImage",
        "DescribeExecution",
        "DescribeImages",
        "DescribeRepositories",
        "GetDownloadUrlForLayer",
        "GetSecretValue",
        "ListBuilds",
        "ListBuildsForProject",
        "ListExecutions",
        "ListImages",
        "PutImage",
        "PutImageTagMutability",
        "RedriveExecution",
        "SendTaskFailure",
        "SendTaskHeartbeat",
        "SendTaskSuccess",
        "StartBuild",
        "StartExecution",
        "StopBuild",
        "StopExecution",
        "DescribeStateMachine",
    ];
    let target = request.headers().get("x-amz-target")?;
    let (_, operation) = target.rsplit_once('.')?;
    Some(KNOWN.into_iter().find(|known| *known == operation).unwrap_or("another operation"))
}

fn body(request: &HttpRequest) -> Value {
    let body = request.body().bytes().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_default()
}

fn answer(status: u16, body: &Value) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::new(status.into(), SdkBody::from(body.to_string()))
}

fn refusal(status: u16, code: &str) -> HttpResponse {
    answer(status, &json!({"__type": code, "message": "simulated"}))
}

fn dropped() -> ConnectorError {
    ConnectorError::io("connection reset by peer (simulated)".into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
