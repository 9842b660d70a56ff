//! What stands between the registry and its clients: it delays every request, and notes it.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    serve::ListenerExt as _,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts, uri::PathAndQuery};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::{net::TcpListener, task::AbortHandle};

/// How long a body may be, in bytes: a layer of the images here, with much room.
const BODY_BYTES_MAX: usize = 64 << 20;

/// One request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    /// The operation of ECR's API, or else the method and the path.
    pub(crate) what: String,
    /// The tag that a `PutImage` sets.
    pub(crate) tag: Option<String>,
    /// The config or layer that it is about, as a digest.
    pub(crate) blob: Option<String>,
    pub(crate) status: u16,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// A proxy; ends when it is dropped.
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    delay_ms: AtomicU64,
    noted: Mutex<Vec<Noted>>,
}

/// Why a request was not passed on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Uri(#[from] http::Error),
    #[error(transparent)]
    Body(#[from] axum::Error),
    #[error(transparent)]
    Upstream(#[from] hyper_util::client::legacy::Error),
}

impl Proxy {
    /// Listens on a port of loopback, for the server that has the address `upstream`.
    pub(crate) async fn open(upstream: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            delay_ms: AtomicU64::new(0),
            noted: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        // A connection that keeps its delay costs time, which is no reason to refuse it.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let task = tokio::spawn(axum::serve(listener, router).into_future()).abort_handle();
        Ok(Self { address, shared, task })
    }

    /// The host and port that it listens on.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Delays every request from now on, in milliseconds.
    pub(crate) fn set_delay(&self, delay_ms: u64) {
        self.shared.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// The requests since the last call, in the order in which they ended.
    pub(crate) fn take(&self) -> Vec<Noted> {
        std::mem::take(&mut *self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    match shared.pass_on(parts, body, began).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

impl Shared {
    async fn pass_on(
        &self,
        mut parts: Parts,
        body: Body,
        began: Instant,
    ) -> Result<Response, Error> {
        let body = to_bytes(body, BODY_BYTES_MAX).await?;
        let delay_ms = self.delay_ms.load(Ordering::Relaxed);
        // Even to sleep for no time takes until the next millisecond.
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let (what, tag, blob) = about(&parts, &body);
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        parts.uri = Uri::builder()
            .scheme("http")
            .authority(&*self.upstream)
            .path_and_query(path)
            .build()?;
        // Bodies go on in one piece.
        parts.headers.remove(header::TRANSFER_ENCODING);
        let answered = self.client.request(Request::from_parts(parts, Full::new(body))).await?;
        let (mut answer, body) = answered.into_parts();
        let body = to_bytes(Body::new(body), BODY_BYTES_MAX).await?;
        answer.headers.remove(header::TRANSFER_ENCODING);
        challenge_as_ecr(answer.status, &mut answer.headers);
        // Before the client can have it all: what it does next then begins after this.
        let ended = Instant::now();
        let noted = Noted { what, tag, blob, status: answer.status.as_u16(), began, ended };
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
        Ok(Response::from_parts(answer, Body::from(body)))
    }
}

/// The local registry challenges with `Bearer`, which costs a client one more request for a token;
/// ECR challenges with `Basic`.
fn challenge_as_ecr(status: StatusCode, headers: &mut HeaderMap) {
    if status == StatusCode::UNAUTHORIZED {
        let basic = HeaderValue::from_static("Basic realm=\"ecr\",service=\"ecr.amazonaws.com\"");
        headers.insert(header::WWW_AUTHENTICATE, basic);
    }
}

/// What a request is, the tag that it sets, and the config or layer that it is about.
fn about(parts: &Parts, body: &Bytes) -> (String, Option<String>, Option<String>) {
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    if let Some((_, operation)) = target.and_then(|target| target.split_once('.')) {
        let input: Value = serde_json::from_slice(body).unwrap_or_default();
        let field = |name: &str| input[name].as_str().map(str::to_owned);
        return (operation.to_owned(), field("imageTag"), field("layerDigest"));
    }
    let path = parts.uri.path();
    let blob = path.split_once("/blobs/").map(|(_, digest)| digest.to_owned());
    (format!("{} {path}", parts.method), None, blob)
}

/// The longest chain of requests of which each begins after the one before has ended.
pub(crate) fn depth<'a>(requests: impl IntoIterator<Item = &'a Noted>) -> usize {
    let mut requests: Vec<&Noted> = requests.into_iter().collect();
    requests.sort_by_key(|request| request.ended);
    // Whatever a chain begins with, the request that ends first leaves it the most room.
    let mut last: Option<Instant> = None;
    let chain = requests.into_iter().filter(|request| {
        let follows = last.is_none_or(|ended| request.began >= ended);
        if follows {
            last = Some(request.ended);
        }
        follows
    });
    chain.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth_of(spans: &[(u64, u64)]) -> usize {
        let origin = Instant::now();
        let at = |ms| origin + Duration::from_millis(ms);
        let noted = |&(began, ended): &(u64, u64)| Noted {
            what: "GET /".to_owned(),
            tag: None,
            blob: None,
            status: 200,
            began: at(began),
            ended: at(ended),
        };
        depth(&spans.iter().map(noted).collect::<Vec<_>>())
    }

    #[test]
    fn requests_at_once_count_once() {
        assert_eq!(depth_of(&[]), 0);
        assert_eq!(depth_of(&[(0, 10), (10, 20), (25, 30)]), 3);
        assert_eq!(depth_of(&[(0, 10), (1, 9), (2, 8), (3, 20)]), 1);
        assert_eq!(depth_of(&[(0, 10), (1, 2), (2, 3), (3, 4), (11, 12)]), 4);
        assert_eq!(depth_of(&[(0, 100), (10, 20), (30, 40), (35, 60), (60, 70)]), 3);
    }

    #[tokio::test]
    async fn passes_requests_on_notes_them_and_challenges_as_ecr_does() {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = upstream.local_addr().unwrap().to_string();
        let server = Router::new().fallback(async |request: Request| {
            let bearer = [(header::WWW_AUTHENTICATE, "Bearer realm=\"x\"")];
            match request.uri().path() {
                "/v2/" => (StatusCode::UNAUTHORIZED, bearer, Body::empty()).into_response(),
                _ => request.into_body().into_response(),
            }
        });
        let server = tokio::spawn(axum::serve(upstream, server).into_future());
        let proxy = Proxy::open(&address).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let send = async |path: &str, target: &str, body: &'static str| {
            let request = Request::post(format!("http://{}{path}", proxy.address()))
                .header("x-amz-target", target)
                .body(Full::from(body));
            client.request(request.unwrap()).await.unwrap().map(Body::new)
        };

        let challenged = send("/v2/", "", "").await;
        let challenge = challenged.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Basic "), "{challenge}");
        let body = r#"{"imageTag":"v1"}"#;
        let echoed = send("/", "AmazonEC2ContainerRegistry_V20150921.PutImage", body).await;
        assert_eq!(to_bytes(echoed.into_body(), 100).await.unwrap(), body);
        send("/v2/app/blobs/sha256:0", "", "").await;

        let noted = proxy.take();
        let what: Vec<_> = noted.iter().map(|noted| (&*noted.what, noted.status)).collect();
        let blob = "POST /v2/app/blobs/sha256:0";
        assert_eq!(what, [("POST /v2/", 401), ("PutImage", 200), (blob, 200)]);
        assert_eq!(noted[1].tag.as_deref(), Some("v1"));
        assert_eq!(noted[2].blob.as_deref(), Some("sha256:0"));
        assert_eq!((depth(&noted), proxy.take().len()), (3, 0));
        server.abort();
    }
}
