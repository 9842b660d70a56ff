//! The Runtime API as one instance of a function sees it.
//!
//! Specification: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. Each instance
//! has a port of its own, because the address that a function is given has no room for a path
//! that would tell instances apart.
//!
//! Whoever asks here gets an event and may answer for the function, so only the function's runtime
//! may ask: a web page that guesses the port is told from it by its headers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// The largest response that a function may give. AWS adds 100 bytes to its 6 MB.
pub(crate) const RESPONSE_BYTES_MAX: usize = 6 * 1024 * 1024 + 100;

/// A runtime does one thing at a time, so more than a few reports never wait.
const REPORTS_WAITING_MAX: usize = 4;

/// What a function's runtime says.
pub(crate) enum Report {
    /// It is ready for an event.
    Next(oneshot::Sender<Result<Delivery, Unanswered>>),
    /// It could not start.
    InitError(Bytes),
    /// An invocation is over. The answer is whether it was the one that runs.
    Finished { request_id: String, end: End, known: oneshot::Sender<bool> },
}

/// How an invocation ended, by the runtime's account.
pub(crate) enum End {
    /// With this response.
    Response(Bytes),
    /// With this error.
    Error(Bytes),
    /// With a response larger than [`RESPONSE_BYTES_MAX`].
    TooLarge,
}

/// An event on its way to a runtime.
pub(crate) struct Delivery {
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Why a runtime gets no event: it has not answered the one that it was given.
pub(crate) struct Unanswered;

/// One instance's Runtime API; dropping it closes the port.
pub(crate) struct RuntimeApi {
    /// `AWS_LAMBDA_RUNTIME_API`
    pub(crate) address: String,
    pub(crate) reports: mpsc::Receiver<Report>,
    _server: AbortOnDropHandle<()>,
}

impl RuntimeApi {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let (sender, reports) = mpsc::channel(REPORTS_WAITING_MAX);
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{request_id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .layer(DefaultBodyLimit::max(RESPONSE_BYTES_MAX))
            .layer(middleware::from_fn_with_state(Arc::<str>::from(&*address), refuse_pages))
            .with_state(sender);
        let server = async move {
            // `serve` retries what can be retried and never returns.
            let _ = axum::serve(listener, router).await;
        };
        Ok(Self { address, reports, _server: AbortOnDropHandle::new(tokio::spawn(server)) })
    }
}

type Reports = State<mpsc::Sender<Report>>;

/// A runtime knows its API by [`RuntimeApi::address`]. A page whose own name leads to loopback (DNS
/// rebinding) sends that name, and browsers mark other requests by headers that pages cannot drop.
async fn refuse_pages(
    State(address): State<Arc<str>>,
    request: Request,
    next: middleware::Next,
) -> Response {
    let headers = request.headers();
    let is_named =
        headers.get(header::HOST).is_some_and(|host| host.as_bytes() == address.as_bytes());
    let is_page = headers.contains_key(header::ORIGIN)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
    if is_named && !is_page {
        return next.run(request).await;
    }
    let message = format!("expected a runtime's request to the host {address}");
    refused(StatusCode::FORBIDDEN, "AccessDenied", &message)
}

async fn next(State(reports): Reports) -> Response {
    let (sender, delivery) = oneshot::channel();
    if reports.send(Report::Next(sender)).await.is_err() {
        return container_error();
    }
    match delivery.await {
        Ok(Ok(Delivery { headers, payload })) => (headers, payload).into_response(),
        Ok(Err(Unanswered)) => {
            let message = "the event that was given last has no response yet";
            refused(StatusCode::FORBIDDEN, "InvalidStateTransition", message)
        }
        Err(_) => container_error(),
    }
}

async fn response(
    reports: Reports,
    Path(request_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match body {
        Ok(body) => finished(reports, request_id, End::Response(body)).await,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message =
                format!("Exceeded maximum allowed payload size ({RESPONSE_BYTES_MAX} bytes).");
            finished(reports, request_id, End::TooLarge).await;
            refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
        }
        Err(rejection) => rejection.into_response(),
    }
}

async fn error(reports: Reports, Path(request_id): Path<String>, body: Bytes) -> Response {
    finished(reports, request_id, End::Error(body)).await
}

async fn init_error(State(reports): Reports, body: Bytes) -> Response {
    match reports.send(Report::InitError(body)).await {
        Ok(()) => accepted(),
        Err(_) => container_error(),
    }
}

async fn finished(State(reports): Reports, request_id: String, end: End) -> Response {
    let (known, answer) = oneshot::channel();
    if reports.send(Report::Finished { request_id, end, known }).await.is_err() {
        return container_error();
    }
    match answer.await {
        Ok(true) => accepted(),
        Ok(false) => refused(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
        Err(_) => container_error(),
    }
}

fn accepted() -> Response {
    json_response(StatusCode::ACCEPTED, &json!({ "status": "OK" }))
}

/// Tells a runtime whose instance is being ended to exit.
fn container_error() -> Response {
    refused(StatusCode::INTERNAL_SERVER_ERROR, "ContainerError", "the instance is being ended")
}

fn refused(status: StatusCode, error_type: &str, message: &str) -> Response {
    json_response(status, &json!({ "errorType": error_type, "errorMessage": message }))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn status(address: &str, request: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{request} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }

    #[tokio::test]
    async fn only_a_runtime_is_listened_to() {
        let mut api = RuntimeApi::start().await.unwrap();
        let address = api.address.clone();
        let port = address.rsplit_once(':').unwrap().1;
        let own = format!("Host: {address}\r\n");
        let foreign = [
            format!("Host: evil.example:{port}\r\n"),
            format!("Host: localhost:{port}\r\n"),
            "Host: 127.0.0.1\r\n".to_owned(),
            String::new(),
            format!("{own}Origin: http://{address}\r\n"),
            format!("{own}Origin: null\r\n"),
            format!("{own}Sec-Fetch-Site: none\r\n"),
            format!("{own}Sec-Fetch-Mode: no-cors\r\n"),
        ];
        for headers in &foreign {
            for request in [
                "GET /2018-06-01/runtime/invocation/next",
                "POST /2018-06-01/runtime/invocation/id/response",
                "POST /2018-06-01/runtime/invocation/id/error",
                "POST /2018-06-01/runtime/init/error",
            ] {
                // Were it reported, it would wait for an answer that nobody gives.
                let status = tokio::select! {
                    status = status(&address, request, headers) => status,
                    _ = api.reports.recv() => "a report".to_owned(),
                };
                assert_eq!(status, "403", "{request} {headers}");
            }
        }
        let request = "POST /2018-06-01/runtime/init/error";
        assert_eq!(status(&address, request, &own).await, "202");
        assert!(matches!(api.reports.recv().await, Some(Report::InitError(_))));
    }
}
