//! The remote: git's smart HTTP protocol, and a webhook for each branch and tag that moved.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use archweld_local_api::Host;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, StatusCode, header, request::Parts};
use jiff::Timestamp;
use tokio::{io::AsyncWriteExt as _, process::ChildStdin, time::timeout};
use tokio_util::{
    io::ReaderStream,
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    OpenError, RefUpdate,
    command::{self, Running},
    packet::{self, Commands, Received},
    payload::Push,
    report,
    repository::Repository,
};

/// How long a push may be, in bytes.
const PUSH_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// How long a request of a clone or fetch may be, in bytes, compressed or not.
const FETCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the answer to a push may be, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a client may pause in the middle of a push, in milliseconds.
const PAUSE_MS_MAX: u64 = 60_000;
/// How many tags of one push are told, as GitHub has it: of more, none is.
const TAGS_MAX: usize = 3;

/// A webhook to deliver, not signed yet.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What it is about: always `push`.
    pub event: &'static str,
    /// Its identity.
    pub id: String,
    /// The payload.
    pub body: Bytes,
}

/// What a receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Signs and sends a webhook. The error is for people.
pub type Deliver =
    Arc<dyn Fn(Delivery) -> BoxFuture<'static, Result<Answer, String>> + Send + Sync>;

/// What a remote is made with.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// The repository's name, without `.git`.
    pub name: String,
    /// The folder of the bare repository; made when it is first used.
    pub folder: PathBuf,
    /// The address that the repository has: `<endpoint>/git/<name>.git`.
    pub url: String,
}

/// A git remote with one repository; cheap to clone. When the last clone is gone, so are its
/// processes.
#[derive(Clone)]
pub struct GitServer {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

struct Inner {
    host: Host,
    settings: GitSettings,
    repository: Repository,
    deliver: Deliver,
    /// The second of the last push.
    pushed: AtomicI64,
    stop: CancellationToken,
    pushes: TaskTracker,
}

/// Why a request is not answered by git.
#[derive(Debug, thiserror::Error)]
enum GitError {
    #[error("no repository {0:?} here")]
    NoRepository(String),
    #[error("expected service=git-upload-pack or service=git-receive-pack, as git sends it")]
    Service,
    #[error("the request is too long, or it is compressed in a way that is not understood")]
    TooLong,
    #[error("the request broke off")]
    BrokenOff,
    #[error("the request is none of git's")]
    NotGit,
    #[error("git does not run on this machine")]
    NoGit(#[from] io::Error),
    #[error("the local cloud is stopping")]
    Stopping,
}

impl GitError {
    fn response(&self) -> Response {
        let status = match self {
            Self::NoRepository(_) => StatusCode::NOT_FOUND,
            Self::Service => StatusCode::FORBIDDEN,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BrokenOff | Self::NotGit => StatusCode::BAD_REQUEST,
            Self::NoGit(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        if let Self::NoGit(error) = self {
            tracing::warn!(%error, "git failed");
        }
        (status, format!("{self}\n")).into_response()
    }
}

impl GitServer {
    /// A remote. Nothing is made or started before the first request.
    ///
    /// # Errors
    /// When the name could not stand in a path and an address.
    pub fn new(host: Host, settings: GitSettings, deliver: Deliver) -> Result<Self, OpenError> {
        let plain = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
        let first = settings.name.chars().next().is_some_and(|it| it.is_ascii_alphanumeric());
        if !first || !settings.name.chars().all(plain) || settings.name.len() > 100 {
            return Err(OpenError::Name(settings.name));
        }
        let stop = CancellationToken::new();
        let inner = Inner {
            host,
            repository: Repository::new(settings.folder.clone()),
            settings,
            deliver,
            pushed: AtomicI64::new(0),
            stop: stop.clone(),
            pushes: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner), _stop: Arc::new(stop.drop_guard()) })
    }

    /// The routes below `/git/`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/git/{repository}/info/refs", get(advertise))
            .route("/git/{repository}/git-upload-pack", post(upload_pack))
            .route("/git/{repository}/git-receive-pack", post(receive_pack))
            .with_state(self.clone())
    }

    /// The address that the repository is cloned from and pushed to.
    pub fn url(&self) -> &str {
        &self.inner.settings.url
    }

    /// Ends pushes that are under way: git leaves out what it has not taken yet.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.pushes.close();
        self.inner.pushes.wait().await;
    }
}

/// Only what git itself may say: `version=2`.
fn protocol(headers: &HeaderMap) -> Option<&str> {
    let version = headers.get("git-protocol")?.to_str().ok()?;
    let plain = |it: char| it.is_ascii_alphanumeric() || "=:.-".contains(it);
    version.chars().all(plain).then_some(version)
}

fn answer(kind: String, body: Body) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache".to_owned())], body)
        .into_response()
}

/// `GET info/refs`: what there is.
async fn advertise(
    State(server): State<GitServer>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    match refs(&server, &name, &parts).await {
        Ok(response) => response,
        Err(error) => error.response(),
    }
}

async fn refs(server: &GitServer, name: &str, request: &Parts) -> Result<Response, GitError> {
    let service = match request.uri.query() {
        Some("service=git-upload-pack") => "upload-pack",
        Some("service=git-receive-pack") => "receive-pack",
        _ => return Err(GitError::Service),
    };
    let version = protocol(&request.headers);
    let repository = server.inner.repository(name).await?;
    let mut git = command::git(repository, version);
    git.args([service, "--stateless-rpc", "--advertise-refs"]).arg(repository);
    let (running, stdin, stdout) = Running::start(git)?;
    drop(stdin);
    let mut first = Vec::new();
    // The second version of the protocol does without.
    if version.is_none_or(|version| !version.split(':').any(|it| it == "version=2")) {
        first = packet::line(format!("# service=git-{service}\n").as_bytes());
        first.extend(packet::FLUSH);
    }
    let first = stream::once(async { Ok(Bytes::from(first)) });
    let body = first.chain(printed(running, stdout));
    Ok(answer(format!("application/x-git-{service}-advertisement"), Body::from_stream(body)))
}

/// What a process prints; it ends with its reader.
fn printed(
    running: Running,
    stdout: tokio::process::ChildStdout,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    stream::unfold((ReaderStream::new(stdout), Some(running)), |(mut stdout, mut running)| async {
        let next = stdout.next().await;
        if next.is_none()
            && let Some(running) = running.take()
        {
            drop(running.wait().await);
        }
        next.map(|chunk| (chunk, (stdout, running)))
    })
}

/// `POST git-upload-pack`: a clone or a fetch.
async fn upload_pack(
    State(server): State<GitServer>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    match upload(&server, &name, request).await {
        Ok(response) => response,
        Err(error) => error.response(),
    }
}

async fn upload(server: &GitServer, name: &str, request: Request) -> Result<Response, GitError> {
    let (parts, body) = request.into_parts();
    let repository = server.inner.repository(name).await?;
    let body = to_bytes(body, FETCH_BYTES_MAX).await.map_err(|_| GitError::TooLong)?;
    let body = match parts.headers.get(header::CONTENT_ENCODING).map(|it| it.as_bytes()) {
        None => body.to_vec(),
        Some(b"gzip" | b"x-gzip") => {
            let limit = u64::try_from(FETCH_BYTES_MAX).unwrap_or(u64::MAX);
            let mut whole = Vec::new();
            let mut decoder = GzDecoder::new(&*body).take(limit + 1);
            decoder.read_to_end(&mut whole).map_err(|_| GitError::NotGit)?;
            if whole.len() > FETCH_BYTES_MAX {
                return Err(GitError::TooLong);
            }
            whole
        }
        Some(_) => return Err(GitError::TooLong),
    };
    let mut git = command::git(repository, protocol(&parts.headers));
    git.args(["upload-pack", "--stateless-rpc"]).arg(repository);
    let (running, mut stdin, stdout) = Running::start(git)?;
    // Beside the answer: neither must wait for the other. It ends with the process.
    tokio::spawn(async move { stdin.write_all(&body).await });
    let body = printed(running, stdout);
    Ok(answer("application/x-git-upload-pack-result".to_owned(), Body::from_stream(body)))
}

/// `POST git-receive-pack`: a push.
async fn receive_pack(
    State(server): State<GitServer>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let inner = server.inner.clone();
    // A task of its own: what git has taken is told, even when the pusher hangs up.
    let push = server.inner.pushes.spawn(async move {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => Err(GitError::Stopping),
            answer = inner.push(&name, request) => answer,
        }
    });
    match push.await.unwrap_or(Err(GitError::Stopping)) {
        Ok(body) => answer("application/x-git-receive-pack-result".to_owned(), Body::from(body)),
        Err(error) => error.response(),
    }
}

impl Inner {
    /// The folder of the repository of that name, which is made where there is none.
    async fn repository(&self, name: &str) -> Result<&std::path::Path, GitError> {
        if name.strip_suffix(".git").unwrap_or(name) != self.settings.name {
            return Err(GitError::NoRepository(report::harmless(name)));
        }
        Ok(self.repository.path().await?)
    }

    /// Hands a push to git, tells of what git took, and gives the answer to the pusher.
    async fn push(&self, name: &str, request: Request) -> Result<Vec<u8>, GitError> {
        let repository = self.repository(name).await?;
        let (parts, body) = request.into_parts();
        if parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(GitError::TooLong);
        }
        let mut git = command::git(repository, protocol(&parts.headers));
        git.args(["receive-pack", "--stateless-rpc"]).arg(repository);
        let (running, stdin, stdout) = Running::start(git)?;
        let read =
            async { command::read(stdout, ANSWER_BYTES_MAX).await?.ok_or(GitError::TooLong) };
        let (commands, mut answer) = tokio::try_join!(feed(body, stdin), read)?;
        running.wait().await?;
        let received = Received::read(&answer).map_err(|_| GitError::NotGit)?;
        let mut updates = commands.updates();
        updates.retain(|it| it.before != it.after && received.updated.contains(&it.name));
        if updates.is_empty() {
            return Ok(answer);
        }
        let lines = self.tell(&updates).await;
        if let Some(room) = received.room {
            let told: Vec<u8> =
                lines.iter().flat_map(|line| packet::progress(&format!("{line}\n"))).collect();
            answer.splice(room..room, told);
        }
        Ok(answer)
    }

    /// Tells of each update, and gives the lines that the pusher reads.
    async fn tell(&self, updates: &[RefUpdate]) -> Vec<String> {
        let pushed = self.moment();
        let is_tag = |it: &&RefUpdate| it.name.starts_with("refs/tags/");
        let tags = updates.iter().filter(is_tag).count();
        let mut lines = Vec::new();
        if tags > TAGS_MAX {
            lines.push(format!(
                "archweld: {tags} tags at once start nothing, as with GitHub: push at most \
                 {TAGS_MAX}"
            ));
        }
        for update in updates.iter().filter(|it| tags <= TAGS_MAX || !is_tag(it)) {
            let told = match self.payload(update, updates, pushed).await {
                Ok(body) => {
                    let id = self.host.uuid().to_string();
                    (self.deliver)(Delivery { event: "push", id, body }).await
                }
                Err(error) => Err(format!("git cannot say what was pushed: {error}")),
            };
            match told {
                Ok(answer) => lines.extend(report::lines(&update.name, &answer)),
                Err(error) => {
                    let name = report::short(&update.name);
                    lines.push(report::harmless(&format!("archweld: {name}: {error}")));
                }
            }
        }
        lines
    }

    async fn payload(
        &self,
        update: &RefUpdate,
        updates: &[RefUpdate],
        pushed: Timestamp,
    ) -> io::Result<Bytes> {
        let repository = &self.repository;
        let (head, commits) = if update.is_deleted() {
            (None, Vec::new())
        } else {
            (repository.commit(&update.after).await?, repository.commits(update).await?)
        };
        let push = Push {
            name: &self.settings.name,
            url: &self.settings.url,
            default_branch: &repository.default_branch(updates).await?,
            pushed,
            update,
            forced: repository.is_forced(update).await?,
            head: head.as_ref(),
            commits: &commits,
        };
        Ok(push.payload().to_string().into())
    }

    /// When a push is made. Payloads tell it in seconds, so that of two pushes within one the
    /// second is told to be of the next: they keep their order.
    fn moment(&self) -> Timestamp {
        let now = self.host.now();
        let next = |last: i64| now.as_second().max(last + 1);
        let last =
            self.pushed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        last.ok().and_then(|last| Timestamp::from_second(next(last)).ok()).unwrap_or(now)
    }
}

/// Hands a push to git as it comes in, and reads on the way what it asks for.
async fn feed(body: Body, stdin: ChildStdin) -> Result<Commands, GitError> {
    let (mut commands, mut bytes) = (Commands::default(), 0_usize);
    let (mut body, mut stdin) = (body.into_data_stream(), Some(stdin));
    let pause = Duration::from_millis(PAUSE_MS_MAX);
    while let Some(chunk) = timeout(pause, body.next()).await.map_err(|_| GitError::BrokenOff)? {
        let chunk = chunk.map_err(|_| GitError::BrokenOff)?;
        bytes += chunk.len();
        if bytes > PUSH_BYTES_MAX {
            return Err(GitError::TooLong);
        }
        commands.read(&chunk).map_err(|_| GitError::NotGit)?;
        // Git may refuse a push before it has read all of it.
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&chunk).await.is_err()
        {
            stdin = None;
        }
    }
    Ok(commands)
}
