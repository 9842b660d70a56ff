//! What both doors lead to: the AWS JSON protocols, the REST APIs of Lambda and the scheduler,
//! function URLs, the registry and the git remote, as one router.
//!
//! The protocols: <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>. Signatures are
//! not checked: whoever reaches loopback may do everything here.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use archweld_codebuild::CodeBuild;
use archweld_events::Bus;
use archweld_git::GitServer;
use archweld_lambda::Lambda;
use archweld_local_api::{ApiError, Host};
use archweld_registry::Registry;
use archweld_scheduler::Scheduler;
use archweld_secrets::Secrets;
use archweld_step_functions::StepFunctions;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    calls::{Call, Calls},
    metrics::{self, Metrics},
};

/// How long the body of a request to an AWS API may be, in bytes: a manifest of ECR's greatest
/// size as a JSON string, or Lambda's greatest payload, and some room.
pub const BODY_BYTES_MAX: usize = 9 * 1024 * 1024;

/// What stands before a function's id in the path of its URL. On AWS each has a host name.
pub(crate) const FUNCTION_URLS: &str = "/url/";

/// What the paths of badges begin with, where there are any.
const BADGES: &str = "/badge/";

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The services.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) host: Host,
    pub(crate) bus: Bus,
    pub(crate) codebuild: CodeBuild,
    pub(crate) lambda: Lambda,
    pub(crate) registry: Registry,
    pub(crate) scheduler: Scheduler,
    pub(crate) secrets: Secrets,
    pub(crate) step_functions: StepFunctions,
    /// Kept for the bus, which knows its state machines only through this.
    pub(crate) _state_machines: Arc<OnceLock<StepFunctions>>,
    pub(crate) calls: Calls,
    /// What the functions count and measure.
    pub(crate) metrics: Metrics,
    /// The functions that have a URL: their names by their ids in the template.
    pub(crate) urls: Arc<BTreeMap<String, String>>,
    /// What people see in a browser: [`Cloud::mount`](crate::Cloud::mount).
    pub(crate) pages: Arc<OnceLock<Router>>,
}

/// A service that speaks an AWS JSON protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    CodeBuild,
    Ecr,
    Events,
    Logs,
    Secrets,
    Ssm,
    States,
}

impl Service {
    /// By the first part of `X-Amz-Target`.
    fn of_target(prefix: &str) -> Option<Self> {
        Some(match prefix {
            "CodeBuild_20161006" => Self::CodeBuild,
            "AmazonEC2ContainerRegistry_V20150921" => Self::Ecr,
            "AWSEvents" => Self::Events,
            "Logs_20140328" => Self::Logs,
            "secretsmanager" => Self::Secrets,
            "AmazonSSM" => Self::Ssm,
            "AWSStepFunctions" => Self::States,
            _ => return None,
        })
    }

    /// As IAM calls it.
    fn name(self) -> &'static str {
        match self {
            Self::CodeBuild => "codebuild",
            Self::Ecr => "ecr",
            Self::Events => "events",
            Self::Logs => "logs",
            Self::Secrets => "secretsmanager",
            Self::Ssm => "ssm",
            Self::States => "states",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::States => "application/x-amz-json-1.0",
            _ => "application/x-amz-json-1.1",
        }
    }
}

/// What is behind door 2.
pub(crate) struct Door {
    services: Services,
    router: Arc<Router>,
}

impl Door {
    pub(crate) fn new(services: Services, router: Arc<Router>) -> Self {
        Self { services, router }
    }

    /// Answers a client in this process. Most call an AWS JSON API, and have no need of the router,
    /// nor of the checks that keep web pages out.
    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Response {
        if let Some((service, operation)) = target(request.headers()) {
            let caller = caller(request.headers());
            return self.services.answer_call(service, operation, request.body(), caller).await;
        }
        // The router cannot fail: what goes wrong in it is an HTTP status.
        let answer = Router::clone(&self.router).oneshot(request.map(Body::from)).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

/// Everything behind the doors.
pub(crate) fn router(services: Services, git: Option<&GitServer>) -> Router {
    let (host, registry) = (services.host.clone(), services.registry.router());
    let metrics = services.metrics.clone();
    let page = move || {
        let content_type = [(header::CONTENT_TYPE, metrics::MEDIA_TYPE)];
        std::future::ready((content_type, metrics.page()))
    };
    Router::new()
        .route("/metrics", get(page))
        .fallback(answer)
        .with_state(services)
        .merge(registry)
        .merge(git.map(GitServer::router).unwrap_or_default())
        .layer(middleware::from_fn_with_state(host, refuse_foreign_names))
}

/// Keeps web pages out: one that points its own name at loopback (DNS rebinding), by the name that
/// it asks for; one of another origin, by what browsers say of it and it cannot take back.
async fn refuse_foreign_names(State(host): State<Host>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let name = headers
        .get(header::HOST)
        .and_then(|name| name.to_str().ok())
        .or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if let Some(name) = name.filter(|name| !is_local(name, &host)) {
        let message = format!("host {name:?} is none of this cloud's names, such as localhost");
        return (StatusCode::MISDIRECTED_REQUEST, message).into_response();
    }
    if is_cross_origin(headers, name.unwrap_or_default()) && !tells_nothing(&request) {
        let message = "a page of another origin may not use this cloud";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// Whether a browser sends this for a page of another scheme, host or port. Clients that are no
/// browser say neither `Origin` nor `Sec-Fetch-Site`:
/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>.
fn is_cross_origin(headers: &HeaderMap, name: &str) -> bool {
    let own = format!("http://{name}");
    headers.get_all(header::ORIGIN).iter().any(|origin| origin.as_bytes() != own.as_bytes())
        || headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Whether a page of another origin learns nothing by a request, so that it may make it all the
/// same: a link to the page of people, which opens in a place of its own; and the picture of a badge
/// in a page of this machine, which a page from elsewhere could tell apart by its width.
/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-dest-header>
fn tells_nothing(request: &Request) -> bool {
    let headers = request.headers();
    let says = |name: &HeaderName, expected: &[u8]| {
        let mut values = headers.get_all(name).iter();
        values.next().is_some_and(|value| value.as_bytes() == expected) && values.next().is_none()
    };
    let path = request.uri().path();
    let is_link =
        path == "/" && says(&SEC_FETCH_MODE, b"navigate") && says(&SEC_FETCH_DEST, b"document");
    let is_picture = path.starts_with(BADGES)
        && says(&SEC_FETCH_SITE, b"same-site")
        && says(&SEC_FETCH_DEST, b"image");
    request.method() == Method::GET
        && !headers.contains_key(header::ORIGIN)
        && (is_link || is_picture)
}

fn is_local(authority: &str, host: &Host) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => authority,
    };
    let ecr = format!("{}.dkr.ecr.{}.amazonaws.com", host.account(), host.region());
    name == "localhost"
        || name.ends_with(".localhost")
        || name == ecr
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn answer(State(services): State<Services>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let caller = caller(&parts.headers);
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        let message = format!("expected a body of at most {BODY_BYTES_MAX} bytes");
        let error = ApiError { status: 413, ..ApiError::client("RequestTooLarge", message) };
        return failure(&services, None, &error);
    };
    if parts.uri.path().starts_with("/2015-03-31/") {
        let response = services.lambda.handle_http(Request::from_parts(parts, body)).await;
        let (service, operation) = ("lambda", "Invoke".to_owned());
        services.calls.record(Call { service, operation, status: response.status(), caller });
        return response.map(Body::from);
    }
    if let Some(path) = parts.uri.path().strip_prefix(FUNCTION_URLS) {
        let path = path.to_owned();
        return services.answer_url(&path, Request::from_parts(parts, body), caller).await;
    }
    if let Some(operation) = Scheduler::operation(&parts.method, parts.uri.path()) {
        let request = Request::from_parts(parts, body);
        let response = services.scheduler.handle_http(&request).await;
        let (service, operation) = ("scheduler", operation.to_owned());
        services.calls.record(Call { service, operation, status: response.status(), caller });
        return response.map(Body::from);
    }
    let Some((service, operation)) = target(&parts.headers) else {
        if let Some(pages) = services.pages.get() {
            let request = Request::from_parts(parts, Body::from(body));
            // The router cannot fail: what goes wrong in it is an HTTP status.
            return pages.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        }
        let what = format!("{} {}", parts.method, parts.uri.path());
        return failure(&services, None, &ApiError::unknown_operation(&what));
    };
    services.answer_call(service, operation, &body, caller).await
}

/// The name that a function's SDK sends of it: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-appid.html>.
fn caller(headers: &HeaderMap) -> Option<String> {
    let agents =
        headers.get_all("x-amz-user-agent").iter().chain(headers.get_all(header::USER_AGENT));
    agents
        .filter_map(|agent| agent.to_str().ok())
        .flat_map(|agent| agent.split(' '))
        .find_map(|part| part.strip_prefix("app/").map(str::to_owned))
}

fn target(headers: &HeaderMap) -> Option<(Service, String)> {
    let target = headers.get(TARGET)?.to_str().ok()?;
    let (prefix, operation) = target.split_once('.')?;
    Some((Service::of_target(prefix)?, operation.to_owned()))
}

fn input(body: &Bytes) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::client("SerializationException", error.to_string()))
}

impl Services {
    /// A request to `<function>/<path>` below the prefix of function URLs.
    async fn answer_url(
        &self,
        path: &str,
        request: Request<Bytes>,
        caller: Option<String>,
    ) -> Response {
        let (id, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        let Some(function) = self.urls.get(id) else {
            let message = format!("no function {id:?} with a URL of AuthType NONE");
            let status = StatusCode::NOT_FOUND;
            return (status, axum::Json(json!({ "Message": message }))).into_response();
        };
        let response = self.lambda.handle_url(function, rest, request).await;
        let (service, operation) = ("lambda", "InvokeFunctionUrl".to_owned());
        self.calls.record(Call { service, operation, status: response.status(), caller });
        response.map(Body::from)
    }

    /// A call of an AWS JSON API.
    async fn answer_call(
        &self,
        service: Service,
        operation: String,
        body: &Bytes,
        caller: Option<String>,
    ) -> Response {
        let answer = match input(body) {
            Ok(input) => self.call(service, &operation, input).await,
            Err(error) => Err(error),
        };
        let response = match answer {
            Ok(output) => success(self, service, output),
            Err(error) => {
                tracing::debug!(
                    service = service.name(),
                    operation,
                    error.code = error.code,
                    "call refused"
                );
                failure(self, Some(service), &error)
            }
        };
        let (service, status) = (service.name(), response.status());
        self.calls.record(Call { service, operation, status, caller });
        response
    }

    async fn call(
        &self,
        service: Service,
        operation: &str,
        input: Value,
    ) -> Result<String, ApiError> {
        let answer = match service {
            Service::CodeBuild => return self.codebuild.call_for_text(operation, input).await,
            Service::Ecr => self.registry.call(operation, input).await,
            Service::Events => self.bus.call(operation, input).await,
            Service::Logs => self.codebuild.call_logs(operation, input).await,
            Service::Secrets => self.secrets.call(operation, input).await,
            Service::Ssm => self.secrets.call_parameters(operation, input).await,
            Service::States => self.step_functions.call(operation, input).await,
        };
        answer.map(|answer| answer.to_string())
    }
}

fn success(services: &Services, service: Service, output: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, service.content_type().to_owned()),
        (REQUEST_ID, services.host.uuid().to_string()),
    ];
    (headers, output).into_response()
}

fn failure(services: &Services, service: Option<Service>, error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = service.map_or("application/json", Service::content_type);
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (REQUEST_ID, services.host.uuid().to_string()),
        (ERROR_TYPE, error.code.clone()),
    ];
    let body = json!({"__type": error.code, "message": error.message});
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_loopback_and_the_registrys_name_are_local() {
        let host = Host::real("000000000000", "us-east-1");
        for name in [
            "localhost",
            "localhost:4577",
            "127.0.0.1:80",
            "[::1]:80",
            "api.localhost",
            "000000000000.dkr.ecr.us-east-1.amazonaws.com",
        ] {
            assert!(is_local(name, &host), "{name}");
        }
        for name in ["example.com", "localhost.example.com", "10.0.0.1", "", "evil:80"] {
            assert!(!is_local(name, &host), "{name}");
        }
    }
}
