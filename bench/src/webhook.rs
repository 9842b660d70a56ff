//! Sends webhooks to the function URL of `trigger-run`, one after another, and stops the time.
//!
//! Every round sends one webhook of each kind, each when what the one before set going has come to
//! rest: on AWS that goes on elsewhere. Runs neither pile up nor end by themselves: the bench stops
//! one, or the next push supersedes it. Where an answer is another than expected there are no
//! figures.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use archweld_cloud::{Cloud, OpenError, Settings, WebhookTarget, webhook_target};
use archweld_codebuild::{Job, Outcome, Status, Worker};
use archweld_git::{Provider, signing_secret};
use archweld_local_api::ApiError;
use axum::body::{Body, Bytes, to_bytes};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cloud::settings,
    figures::{percentile, thousandth},
};

/// A push as GitHub documents it; each webhook has a branch, a commit and a time of its own.
const PAYLOAD: &str = include_str!("../../functions/trigger-run/tests/payloads/github-push.json");

/// The branches of the image that is built.
const STARTED: &str = "started";
const SUPERSEDED: &str = "superseded";
/// A branch that no image builds.
const SKIPPED: &str = "skipped";

/// The path of the bare function's URL.
const BARE_PATH: &str = "/url/Hello/";

/// How many rounds come first and do not count: they start the functions.
const WARM_ROUNDS: u32 = 10;
/// How long a run takes to start its builds, or to clean up after them, with room to spare.
const REST: Duration = Duration::from_millis(50);
/// How long an answer may be, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Measures how long `trigger-run` takes to answer a webhook when it is warm
///
/// All figures are of this machine and of the local cloud, over plain HTTP on loopback: they tell
/// what changed, and not what AWS takes. A run that a webhook starts begins while it is answered,
/// on the same processors.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the binaries
    #[arg(long, default_value = "target/release")]
    functions: PathBuf,
    /// The template that is deployed
    #[arg(long, default_value = "infra/template.yaml")]
    template: PathBuf,
    /// How many webhooks of each kind are sent
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=1000))]
    rounds: u32,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open the local cloud: {0}")]
    Open(#[from] OpenError),
    #[error("no function of the template takes webhooks")]
    NoWebhook,
    #[error("cannot {what}: {error}")]
    Call { what: &'static str, error: ApiError },
    #[error("the webhooks' secret has no text")]
    NoSecret,
    #[error("the payload is no JSON: {0}")]
    Payload(#[from] serde_json::Error),
    #[error("{kind}: the answer is another than expected: {status} {answer}")]
    Answer { kind: &'static str, status: StatusCode, answer: String },
    #[error("cannot make a request: {0}")]
    Request(#[from] http::Error),
    #[error("cannot send a request: {0}")]
    Send(#[from] hyper_util::client::legacy::Error),
    #[error("cannot read an answer: {0}")]
    Read(#[from] axum::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A kind of webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// None at all: a function that returns what it gets.
    Floor,
    /// One that nobody signed.
    Unsigned,
    /// A push to a branch that no image builds.
    Skipped,
    /// A push that starts a run.
    Started,
    /// A push that starts a run and stops that of the push before.
    Superseding,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Floor, Self::Unsigned, Self::Skipped, Self::Started, Self::Superseding];

    fn as_str(self) -> &'static str {
        match self {
            Self::Floor => "hello-lambda, for comparison",
            Self::Unsigned => "bad signature",
            Self::Skipped => "push that builds nothing",
            Self::Started => "push that starts a run",
            Self::Superseding => "push that supersedes a run",
        }
    }

    fn branch(self) -> &'static str {
        match self {
            Self::Floor | Self::Unsigned | Self::Skipped => SKIPPED,
            Self::Started => STARTED,
            Self::Superseding => SUPERSEDED,
        }
    }

    /// The status of its answer, and how many runs that tells were started, skipped and superseded.
    fn expected(self) -> (StatusCode, [usize; 3]) {
        match self {
            Self::Floor => (StatusCode::OK, [0, 0, 0]),
            Self::Unsigned => (StatusCode::UNAUTHORIZED, [0, 0, 0]),
            Self::Skipped => (StatusCode::OK, [0, 1, 0]),
            Self::Started => (StatusCode::OK, [1, 0, 0]),
            Self::Superseding => (StatusCode::OK, [1, 0, 1]),
        }
    }
}

/// Builds last until their run is stopped.
struct UntilStopped;

impl Worker for UntilStopped {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        async move {
            job.cancelled.cancelled().await;
            Outcome::from(Status::Stopped)
        }
        .boxed()
    }
}

/// The clouds, and what sends webhooks to them.
struct Bench {
    /// That of the template.
    cloud: Cloud,
    /// That of the bare function.
    bare: Cloud,
    target: WebhookTarget,
    /// The name of the function that takes webhooks.
    function: String,
    secret: String,
    payload: Value,
    client: Client<HttpConnector, Full<Bytes>>,
    /// How many webhooks were sent.
    sent: u64,
    _folder: TempDir,
}

/// What an answer took.
struct Sample {
    micros: u64,
    /// The operations of AWS APIs that the function called.
    calls: Vec<String>,
}

/// The table as text.
pub(crate) async fn bench(arguments: &Arguments) -> Result<String, Error> {
    let mut bench = Bench::open(arguments).await?;
    // The first one to supersede.
    bench.send(Kind::Started, SUPERSEDED).await?;
    let mut samples: BTreeMap<Kind, Vec<Sample>> = BTreeMap::new();
    for round in 1..=WARM_ROUNDS + arguments.rounds {
        for kind in Kind::ALL {
            let sample = bench.measure(kind).await?;
            if round > WARM_ROUNDS {
                samples.entry(kind).or_default().push(sample);
            }
        }
    }
    let Bench { cloud, bare, .. } = bench;
    tokio::join!(cloud.shutdown(), bare.shutdown());

    let mut report = format!(
        "{:<28} {:>8} {:>8} {:>8} {:>8} {:>6}\n",
        "webhook (ms)", "p50", "p90", "p99", "max", "calls"
    );
    for (kind, samples) in &samples {
        report += &line(*kind, samples);
    }
    report += &format!(
        "of {} webhooks each, in turns, to a warm function in the local cloud\n",
        arguments.rounds
    );
    Ok(report)
}

/// The figures of a kind. Its calls are those of the webhook with the median number of them.
fn line(kind: Kind, samples: &[Sample]) -> String {
    let micros: Vec<u64> = samples.iter().map(|sample| sample.micros).collect();
    let [p50, p90, p99, max] =
        [50, 90, 99, 100].map(|percent| thousandth(percentile(&micros, percent)));
    let mut calls: Vec<&[String]> = samples.iter().map(|sample| &*sample.calls).collect();
    calls.sort_by_key(|calls| calls.len());
    let calls = calls.get(calls.len() / 2).copied().unwrap_or_default();
    let line = format!(
        "{:<28} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2} {:>6}  {}",
        kind.as_str(),
        calls.len(),
        calls.join(", ")
    );
    format!("{}\n", line.trim_end())
}

impl Bench {
    async fn open(arguments: &Arguments) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let image = format!(
            "[[image]]\nname = \"app\"\nrepository = \"app\"\n\
             platforms = [\"linux/amd64\", \"linux/arm64\"]\nrefs = [{STARTED:?}, {SUPERSEDED:?}]\n",
        );
        fs::write(folder.path().join("archweld.toml"), image)?;
        let payload: Value = serde_json::from_str(PAYLOAD)?;
        let source = payload["repository"]["clone_url"].as_str().unwrap_or_default().to_owned();
        let cloud = Cloud::open(Settings {
            parameters: BTreeMap::from([("SourceLocation".to_owned(), source)]),
            layers: BTreeMap::from([("ConfigLayer".to_owned(), folder.path().to_owned())]),
            ..settings(&arguments.template, &arguments.functions, UntilStopped)
        })
        .await?;
        let template = folder.path().join("bare.json");
        fs::write(&template, bare_template().to_string())?;
        let bare = Cloud::open(settings(&template, &arguments.functions, UntilStopped)).await?;

        let target = webhook_target(cloud.stack()).ok_or(Error::NoWebhook)?;
        let function = of_target(&cloud, &target).ok_or(Error::NoWebhook)?;
        let secret = secret(&cloud, &target.secret).await?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            cloud,
            bare,
            target,
            function,
            secret,
            payload,
            client,
            sent: 0,
            _folder: folder,
        })
    }

    /// Sends one webhook to a branch, a second after the one before as it says.
    async fn send(&mut self, kind: Kind, branch: &str) -> Result<(Sample, Value), Error> {
        self.sent += 1;
        let body = Bytes::from(self.payload(branch).to_string());
        let secret = if kind == Kind::Unsigned { "another secret" } else { &self.secret };
        let delivery = self.sent.to_string();
        let headers = Provider::GitHub.headers("push", &delivery, secret.as_bytes(), &body);
        let (endpoint, path) = match kind {
            Kind::Floor => (self.bare.endpoint(), BARE_PATH),
            _ => (self.cloud.endpoint(), &*self.target.path),
        };
        let request = Request::post(format!("{endpoint}{path}"));
        let request = headers.into_iter().fold(request, |it, (name, value)| it.header(name, value));
        let request = request.body(Full::new(body))?;

        let began = Instant::now();
        let (parts, body) = self.client.request(request).await?.into_parts();
        let answer = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await?;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);

        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let counts = ["started", "skipped", "superseded"]
            .map(|what| answer[what].as_array().map_or(0, Vec::len));
        if (parts.status, counts) != kind.expected() {
            let (kind, status, answer) = (kind.as_str(), parts.status, answer.to_string());
            return Err(Error::Answer { kind, status, answer });
        }
        let calls = if kind == Kind::Floor { Vec::new() } else { self.calls_of_last() };
        Ok((Sample { micros, calls }, answer))
    }

    /// Sends one webhook, once what others set going has come to rest.
    async fn measure(&mut self, kind: Kind) -> Result<Sample, Error> {
        tokio::time::sleep(REST).await;
        let (sample, answer) = self.send(kind, kind.branch()).await?;
        if kind == Kind::Started {
            tokio::time::sleep(REST).await;
            self.stop(&answer["started"][0]["execution"]).await?;
        }
        Ok(sample)
    }

    fn payload(&self, branch: &str) -> Value {
        let mut payload = self.payload.clone();
        let commit = format!("{:040x}", self.sent);
        let pushed_at = payload["repository"]["pushed_at"].as_u64().unwrap_or_default();
        payload["ref"] = format!("refs/heads/{branch}").into();
        payload["repository"]["pushed_at"] = (pushed_at + self.sent).into();
        payload["after"] = commit.as_str().into();
        payload["head_commit"]["id"] = commit.as_str().into();
        payload["commits"][0]["id"] = commit.into();
        payload
    }

    /// What the function called to answer the last webhook. Reading a secret is not among it: only
    /// calls of the SDK's clients say who makes them, and those of runs come at the same time.
    fn calls_of_last(&self) -> Vec<String> {
        let is_webhook = |operation: &str| operation == "InvokeFunctionUrl";
        let calls = self.cloud.calls();
        let mut calls: Vec<String> = (calls.into_iter().rev())
            .skip_while(|call| !is_webhook(&call.operation))
            .skip(1)
            .take_while(|call| !is_webhook(&call.operation))
            .filter(|call| call.caller.as_ref() == Some(&self.function))
            .map(|call| call.operation)
            .collect();
        calls.reverse();
        calls
    }

    async fn stop(&self, execution: &Value) -> Result<(), Error> {
        let stopped = self.cloud.step_functions();
        let stopped = stopped.call("StopExecution", json!({ "executionArn": execution })).await;
        stopped.map(drop).map_err(|error| Error::Call { what: "stop a run", error })
    }
}

/// A template of nothing but the bare function with a URL.
fn bare_template() -> Value {
    json!({
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {
            "Hello": {
                "Type": "AWS::Serverless::Function",
                "Properties": {
                    "CodeUri": "bin/hello-lambda",
                    "Runtime": "provided.al2023",
                    "FunctionUrlConfig": {"AuthType": "NONE"},
                },
            },
        },
    })
}

/// The name of the function whose URL it is.
fn of_target(cloud: &Cloud, target: &WebhookTarget) -> Option<String> {
    let functions = &cloud.stack().functions;
    let found = functions.iter().find(|function| {
        let url = cloud.function_url(&function.logical_id);
        url.is_some_and(|url| url.ends_with(&target.path))
    });
    found.map(|function| function.name.clone())
}

async fn secret(cloud: &Cloud, arn: &str) -> Result<String, Error> {
    let found = cloud.secrets().call("GetSecretValue", json!({ "SecretId": arn })).await;
    let found = found.map_err(|error| Error::Call { what: "read the secret", error })?;
    let secret = found["SecretString"].as_str().and_then(signing_secret);
    secret.map(str::to_owned).ok_or(Error::NoSecret)
}
