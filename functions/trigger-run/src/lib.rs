//! Starts the runs that a push, a schedule or a new base image asks for.
//!
//! A webhook is not looked into before its signature is verified. There is no memory but the state
//! machine's own: an execution is named after what asked for it, so that the same event, however
//! often it comes, starts it once.

mod address;
mod badge;
mod event;
#[cfg(test)]
mod fuzz;
mod git;
mod headers;
mod outcome;
mod push;
mod rebuild;
mod run;
mod secret;
mod select;
mod signature;
mod webhook;

use std::{collections::BTreeMap, path::Path, time::Duration};

use archweld_model::{Config, ErrorName, Named, TriggerKind};
use archweld_runtime::{CallError, ConfigFileError, Malformed, StartError, read_config, variable};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use event::{Event, Notice, Reference};
use git::Git;
pub use outcome::{Outcome, Skipped, Started, Superseded};
use push::{Changed, Delivery, Push, object, sequence, short};
use run::{Ask, Executions};
pub use secret::SecretError;
use secret::Secrets;
use webhook::{Message, Received, Refusal, Request};

/// How long one attempt of a call may take, and the call with all its retries: a webhook is
/// answered within the 10 seconds that GitHub and Bitbucket wait.
const CALL_ATTEMPT_MAX: Duration = Duration::from_secs(2);
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long a webhook may take.
const WEBHOOK_MAX: Duration = Duration::from_secs(9);

/// What the function is deployed with.
#[derive(Debug, Clone)]
pub struct Settings {
    config: Result<Config, ConfigFileError>,
    state_machine: String,
    source: String,
    webhook_secret: secret::Reference,
    git_token: Option<secret::Reference>,
    badges: bool,
}

/// Settings that the function cannot start with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A variable is missing.
    #[error(transparent)]
    Missing(#[from] StartError),
    /// Not an ARN. What it is may be a secret, and is not told.
    #[error(
        "{0} is no ARN of a secret of Secrets Manager's (arn:aws:secretsmanager:…:secret:…) or of \
         an SSM parameter (arn:aws:ssm:…:parameter/…)"
    )]
    NoSecret(&'static str),
}

/// The clients of the services that the function calls.
#[derive(Debug)]
pub struct Clients {
    sfn: aws_sdk_sfn::Client,
    config: SdkConfig,
    secrets: Secrets,
    git: Git,
    time: SharedTimeSource,
    badges: badge::Kept,
}

/// What the function answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Output {
    /// To a request of the function URL's.
    Answer(Answer),
    /// To an event.
    Outcome(Outcome),
}

/// An answer to a request of the function URL's
/// (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The HTTP status.
    pub status_code: u16,
    /// The headers.
    pub headers: BTreeMap<&'static str, &'static str>,
    /// JSON.
    pub body: String,
}

/// Why an event started nothing, or not everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An event of no known shape.
    #[error(
        "event: expected a request of a function URL's (with `requestContext`), a schedule's time \
         (`schedule` and `scheduled_time`), or an event of `source` aws.codecommit or aws.ecr with \
         its `detail-type`"
    )]
    UnknownEvent,
    /// A field that is missing or wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A commit that is none.
    #[error("payload: detail.{field}: {problem}")]
    Commit {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A server took all the time there was.
    #[error(
        "a git server, or AWS, did not answer in time: the same event again goes on from there"
    )]
    TooLong,
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::UnknownEvent | Self::Malformed(_) | Self::Commit { .. } => {
                ErrorName::EventMalformed
            }
            Self::Config(error) => error.name(),
            Self::Secret(error) => error.name(),
            Self::Call(error) => error.name(),
            Self::TooLong => ErrorName::ServiceUnavailable,
        }
    }
}

impl Settings {
    /// Reads the environment that the template gives the function.
    ///
    /// A wrong `archweld.toml` is no failure to start: each event is told of it.
    ///
    /// # Errors
    /// When a variable is missing or names no secret.
    pub fn from_environment() -> Result<Self, SettingsError> {
        let settings = Self::new(
            variable("ARCHWELD_CONFIG")?.as_ref(),
            variable("STATE_MACHINE_ARN")?,
            variable("SOURCE_LOCATION")?,
            &variable("WEBHOOK_SECRET")?,
            variable("GIT_TOKEN_SECRET").ok().as_deref(),
        )?;
        let badges = variable("STATUS_BADGES").is_ok_and(|badges| badges == "true");
        Ok(settings.with_badges(badges))
    }

    /// The same, with status badges for everybody or for nobody.
    #[must_use]
    pub fn with_badges(self, badges: bool) -> Self {
        Self { badges, ..self }
    }

    /// Settings with the configuration at `path`. The secrets are ARNs.
    ///
    /// # Errors
    /// When an ARN names no secret.
    pub fn new(
        path: &Path,
        state_machine: String,
        source: String,
        webhook_secret: &str,
        git_token: Option<&str>,
    ) -> Result<Self, SettingsError> {
        let reference =
            |name, arn| secret::Reference::parse(arn).ok_or(SettingsError::NoSecret(name));
        Ok(Self {
            config: read_config(path),
            state_machine,
            source,
            webhook_secret: reference("WEBHOOK_SECRET", webhook_secret)?,
            git_token: git_token
                .filter(|arn| !arn.is_empty())
                .map(|arn| reference("GIT_TOKEN_SECRET", arn))
                .transpose()?,
            badges: false,
        })
    }

    fn config(&self) -> Result<&Config, Error> {
        self.config.as_ref().map_err(|error| error.clone().into())
    }
}

impl Clients {
    /// Clients with the patience that a webhook allows.
    pub fn new(config: &SdkConfig) -> Self {
        let git = Git::new(config);
        let time =
            config.time_source().unwrap_or_else(|| SharedTimeSource::new(SystemTimeSource::new()));
        let mut config = config.clone().into_builder();
        config.set_timeout_config(Some(
            TimeoutConfig::builder()
                .operation_attempt_timeout(CALL_ATTEMPT_MAX)
                .operation_timeout(CALL_MAX)
                .build(),
        ));
        let config = config.build();
        Self {
            sfn: aws_sdk_sfn::Client::new(&config),
            secrets: Secrets::new(&config, time.clone()),
            git,
            time,
            config,
            badges: badge::Kept::default(),
        }
    }

    fn executions<'a>(&'a self, settings: &'a Settings) -> Executions<'a> {
        Executions { sfn: &self.sfn, state_machine: &settings.state_machine }
    }

    fn now(&self) -> Timestamp {
        self.time.now().try_into().unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Starts the runs that an event asks for. The same event again starts nothing more.
///
/// # Errors
/// `Event.Malformed`, `Plan.Invalid` where the configuration is wrong, `Service.Unavailable` and
/// `Service.Rejected`; never for a webhook, which is answered instead.
pub async fn handle(event: Value, settings: &Settings, clients: &Clients) -> Result<Output, Error> {
    // Boxed, since the compiler counts how deep futures are within each other.
    match Event::read(event)? {
        Event::Webhook(request) => {
            Ok(Output::Answer(Box::pin(answer(request, settings, clients)).await))
        }
        Event::CodeCommit(notice) => {
            let mut outcome = Outcome::default();
            if let Some(delivery) = of_codecommit(notice, &mut outcome)? {
                Box::pin(pushed(&delivery, settings, clients, &mut outcome)).await?;
            }
            Ok(Output::Outcome(outcome))
        }
        Event::Image(notice) => {
            Box::pin(rebuild::based_on(notice, settings, clients)).await.map(Output::Outcome)
        }
        Event::Schedule(slot) => {
            Box::pin(rebuild::scheduled(slot, settings, clients)).await.map(Output::Outcome)
        }
    }
}

/// Answers a webhook. A provider takes every status but 2xx for a failure of the hook's: there are
/// others only where the sender, the deployment or another delivery can do something about it.
async fn answer(request: Request, settings: &Settings, clients: &Clients) -> Answer {
    if let Some(asked) = request.badge().filter(|_| settings.badges) {
        return badge(asked, settings, clients).await;
    }
    let mut outcome = Outcome::default();
    let answered =
        tokio::time::timeout(WEBHOOK_MAX, webhook(request, settings, clients, &mut outcome));
    match answered.await {
        Ok(Ok(())) => json_answer(200, json!(outcome)),
        Ok(Err(Stop::Refused(refusal))) => {
            let (status, error) = match refusal {
                Refusal::Method => (405, "expected a POST".to_owned()),
                Refusal::TooLong => {
                    (413, format!("expected at most {} bytes", webhook::BODY_BYTES_MAX))
                }
                Refusal::Unauthorized => (401, "unauthorized".to_owned()),
                Refusal::Malformed(problem) => (400, problem),
            };
            json_answer(status, json!({"error": error}))
        }
        Ok(Err(Stop::Failed(error))) => {
            tracing::error!(
                error.name = %error.name(),
                error.message = %error,
                "webhook failed"
            );
            // Bitbucket retries a server error, and no other: one that no retry mends is none.
            let (status, message) = match error.name() {
                ErrorName::ServiceUnavailable => (503, "AWS cannot answer now: deliver it again"),
                _ => (424, "the deployment is not in order; the function's log says more"),
            };
            let mut body = json!(outcome);
            body["error"] = message.into();
            json_answer(status, body)
        }
        Err(_) => {
            tracing::error!("webhook took too long");
            json_answer(503, json!({"error": "AWS cannot answer in time: deliver it again"}))
        }
    }
}

async fn badge(asked: badge::Asked, settings: &Settings, clients: &Clients) -> Answer {
    let executions = clients.executions(settings);
    let answered = match settings.config() {
        Ok(config) => {
            let now = clients.time.now();
            badge::answer(asked, config, executions, &clients.badges, now)
                .await
                .map_err(Error::from)
        }
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| {
        tracing::error!(error.name = %error.name(), error.message = %error, "badge failed");
        json_answer(503, json!({"error": "AWS cannot answer now"}))
    })
}

/// Why a webhook is not answered with what became of it.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn webhook(
    request: Request,
    settings: &Settings,
    clients: &Clients,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    let received = request.receive()?;
    let now = clients.now();
    if !is_signed(&received, now, settings, clients).await? {
        tracing::warn!(webhook.provider = received.provider().as_str(), "signature refused");
        return Err(Refusal::Unauthorized.into());
    }
    match received.read(now)? {
        Message::Ignored(what) => outcome.ignored.push(what),
        Message::Push(delivery) => {
            pushed(&delivery, settings, clients, outcome).await?;
            tracing::info!(
                webhook.provider = received.provider().as_str(),
                trigger.id = delivery.id,
                runs.started = outcome.started.len(),
                runs.skipped = outcome.skipped.len(),
                runs.superseded = outcome.superseded.len(),
                "webhook answered"
            );
        }
    }
    Ok(())
}

async fn is_signed(
    received: &Received,
    now: Timestamp,
    settings: &Settings,
    clients: &Clients,
) -> Result<bool, SecretError> {
    let reference = &settings.webhook_secret;
    if received.is_by(&clients.secrets.get(reference).await?, now) {
        return Ok(true);
    }
    // The secret may have changed a minute ago.
    Ok(received.is_by(&clients.secrets.refresh(reference).await?, now))
}

/// Starts the runs of a delivery's pushes.
async fn pushed(
    delivery: &Delivery,
    settings: &Settings,
    clients: &Clients,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    outcome.ignored.extend_from_slice(&delivery.ignored);
    let mut asks = Vec::new();
    for push in &delivery.pushes {
        for image in settings.config()?.images() {
            match select::select(image, &settings.source, &delivery.addresses, push) {
                Ok(git_ref) => asks.push(Ask {
                    image,
                    git_ref,
                    commit: Some(push.commit.clone()),
                    before: push.before.clone(),
                    kind: TriggerKind::Push,
                    identity: delivery.id.clone(),
                    id: delivery.id.clone(),
                    sequence: push.sequence,
                    actor: delivery.actor.clone(),
                    note: None,
                }),
                Err(reason) => outcome.skip(&image.name, reason),
            }
        }
    }
    Ok(clients.executions(settings).start_all(asks, outcome).await?)
}

/// A push to CodeCommit, which tells of no files and of no message.
fn of_codecommit(
    notice: Notice<Reference>,
    outcome: &mut Outcome,
) -> Result<Option<Delivery>, Error> {
    let detail = notice.detail;
    if !["referenceCreated", "referenceUpdated"].contains(&detail.event.as_str()) {
        let what = format!("{} of {:?}", short(&detail.event), short(&detail.reference_full_name));
        outcome.ignored.push(what);
        return Ok(None);
    }
    let commit = |field, text: Option<&str>| {
        text.map_or(Ok(None), object).map_err(|problem| Error::Commit { field, problem })
    };
    let pushed = commit("commitId", detail.commit_id.as_deref())?.ok_or_else(|| Error::Commit {
        field: "commitId",
        problem: "expected the commit that was pushed".to_owned(),
    })?;
    let push = Push {
        before: commit("oldCommitId", detail.old_commit_id.as_deref())?,
        git_ref: detail.reference_full_name,
        commit: pushed,
        sequence: sequence(notice.time),
        message: None,
        changed: Changed::Everything,
    };
    let address = address::Address::of_codecommit(&notice.region, &detail.repository_name);
    Ok(Some(Delivery {
        id: short(&notice.id),
        addresses: address.into_iter().collect(),
        actor: detail.caller_user_arn.as_deref().map(short),
        pushes: vec![push],
        ignored: vec![],
    }))
}

fn json_answer(status_code: u16, body: Value) -> Answer {
    let headers = BTreeMap::from([("content-type", "application/json")]);
    Answer { status_code, headers, body: body.to_string() }
}
