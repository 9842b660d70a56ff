//! Tells git servers, channels and other systems how runs stand.
//!
//! It listens to the events of runs and stands beside them: whatever becomes of it, a run goes on.
//! Events come twice and out of order. A status of a commit is the same however often it is set, and
//! never goes back to pending: whoever sets it to pending looks once more whether the run is over.
//! A message is sent for one event of each state, and not again by the same instance.

mod event;
mod executions;
mod receiver;
mod secret;
mod story;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use archweld_aws::{
    http::{self, Post},
    secret::Secret,
};
use archweld_model::{
    Config, ErrorName, ExecutionInput, ImageConfig, Named, Notify, Provider, Published, Receiver,
    Run, RunState, SecretRef, TriggerKind, is_url,
};
use archweld_runtime::{
    CallError, ConfigFileError, Malformed, StartError, about_run, metrics, read_config, variable,
};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use serde::Serialize;

use event::{Notice, Status, Told};
use executions::{Execution, describe};
use receiver::Verdict;
use secret::Secrets;
use story::Story;

/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(8);
/// How often a request is sent, and how long a receiver may have it wait in between. Lambda tries
/// the event again after that, minutes later.
const ATTEMPTS_MAX: u32 = 4;
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much of what was sent an instance remembers.
const REMEMBERED_MAX: usize = 1_000;
/// How long before its execution a push can have been made: what is older is a commit's time.
const PUSH_AGE_SECONDS_MAX: f64 = 60.0 * 60.0;

/// What the function is deployed with.
#[derive(Debug, Clone)]
pub struct Settings {
    config: Result<Config, ConfigFileError>,
    source: String,
}

/// What the function reaches others with, and what it remembers.
#[derive(Debug)]
pub struct Clients {
    config: SdkConfig,
    secrets: Secrets,
    time: SharedTimeSource,
    remembered: Mutex<VecDeque<String>>,
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reported {
    /// How many receivers were told.
    pub told: usize,
}

/// Why somebody was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An event of no known shape.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// A call to AWS failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A secret cannot be read.
    #[error("{reference}: {error}")]
    Secret {
        /// Where it is kept.
        reference: SecretRef,
        /// What went wrong.
        error: CallError,
    },
    /// There is nothing in a secret.
    #[error("{0}: the secret is empty")]
    EmptySecret(SecretRef),
    /// A secret is no address that a message could be sent to. What it is, is not told.
    #[error("{0}: the secret is no URL, expected https://HOST/PATH")]
    NoUrl(SecretRef),
    /// A receiver refuses.
    #[error("{receiver}: {reason}")]
    Refused {
        /// Who.
        receiver: &'static str,
        /// What it says.
        reason: String,
    },
    /// A git server refuses the token.
    #[error("{receiver}: {reason}: the token at {token} is not valid, or may not set statuses")]
    Unauthorized {
        /// Who.
        receiver: &'static str,
        /// What it says.
        reason: String,
        /// Where the token is kept.
        token: SecretRef,
    },
    /// A receiver does not answer, or wants to be asked later.
    #[error("{receiver}: {reason}")]
    Unavailable {
        /// Who.
        receiver: &'static str,
        /// What it says.
        reason: String,
    },
}

impl Named for Error {
    fn name(&self) -> ErrorName {
        match self {
            Self::Malformed(error) => error.name(),
            Self::Config(error) => error.name(),
            Self::Call(error) | Self::Secret { error, .. } => error.name(),
            Self::EmptySecret(_) | Self::NoUrl(_) | Self::Refused { .. } => {
                ErrorName::ReportRefused
            }
            Self::Unauthorized { .. } => ErrorName::ReportUnauthorized,
            Self::Unavailable { .. } => ErrorName::ServiceUnavailable,
        }
    }
}

impl Settings {
    /// Reads the environment that the template gives the function.
    ///
    /// A wrong `archweld.toml` is no failure to start: each event is told of it.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self, StartError> {
        Ok(Self::new(variable("ARCHWELD_CONFIG")?.as_ref(), variable("SOURCE_LOCATION")?))
    }

    /// Settings with the configuration at `path`, for images from `source` unless they say otherwise.
    pub fn new(path: &Path, source: String) -> Self {
        Self { config: read_config(path), source }
    }
}

impl Clients {
    /// Clients of one configuration.
    pub fn new(config: &SdkConfig) -> Self {
        let time =
            config.time_source().unwrap_or_else(|| SharedTimeSource::new(SystemTimeSource::new()));
        Self {
            config: config.clone(),
            secrets: Secrets::new(config, time.clone()),
            time,
            remembered: Mutex::default(),
        }
    }

    fn remembers(&self, key: &str) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.iter().any(|known| known == key)
    }

    fn remember(&self, key: String) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() == REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(key);
    }
}

/// Tells everybody concerned how a run stands.
///
/// # Errors
/// When somebody could not be told, after everybody else was: `Report.Unauthorized` and
/// `Report.Refused` by a receiver that no retry moves, `Service.Unavailable` by one that may answer
/// later. Lambda tries the event again, and tells the dead letters of it in the end.
pub async fn handle(
    payload: serde_json::Value,
    settings: &Settings,
    clients: &Clients,
) -> Result<Reported, Error> {
    let notice = Notice::read(payload)?;
    about_run(Run::of_execution(notice.execution.rsplit(':').next().unwrap_or_default()));
    let config = settings.config.as_ref().map_err(Clone::clone)?;
    if config.notify().is_empty() && !notice.told.is_measured() {
        return Ok(Reported::default());
    }
    let Some(execution) = describe(&notice.execution, &clients.config).await? else {
        return Ok(Reported::default());
    };
    let input = execution.input.as_deref().and_then(|input| serde_json::from_str(input).ok());
    let input = input.and_then(|input| ExecutionInput::parse(input).ok()).unwrap_or_default();
    let image = match &input.image {
        Some(name) => config.image(name),
        None => {
            Some(config.images()).and_then(|images| images.first().filter(|_| images.len() == 1))
        }
    };
    measure(&notice, &execution, &input, image, clients);
    // An input that names no image never made a plan.
    let Some(image) = image else { return Ok(Reported::default()) };
    let mut story = story_of(&notice, &execution, input, image, settings, clients);

    let mut reported = Reported::default();
    let mut result = tell_all(config.notify(), &story, &notice, clients, &mut reported).await;
    if story.state == RunState::Started
        && let Some(now) = describe(&notice.execution, &clients.config).await?
        && now.status.state() != RunState::Started
    {
        // Over meanwhile: whoever told of that may have been quicker.
        tell_of_end(&mut story, &now);
        let statuses = config.notify().iter().filter(|notify| is_status(notify));
        let again = tell_each(statuses, &story, clients, &mut reported).await;
        result = result.and(again);
    }
    result.map(|()| reported)
}

/// Records how runs end, once for each by the same instance.
fn measure(
    notice: &Notice,
    execution: &Execution,
    input: &ExecutionInput,
    image: Option<&ImageConfig>,
    clients: &Clients,
) {
    let Told::Change(status) = notice.told else { return };
    let key = format!("{} {} {}", notice.execution, execution.redrive_count, status.as_str());
    let Some(stop) = execution.stop_date else { return };
    if !notice.told.is_measured() || clients.remembers(&key) {
        return;
    }
    clients.remember(key);
    metrics::RUNS.record(1.0, [status.as_str()]);
    metrics::RUN_DURATION.record(stop - execution.start_date, [status.as_str()]);
    let trigger = input.trigger.as_ref();
    let kind = trigger.and_then(|trigger| trigger.kind.as_deref());
    if let Some(image) = image
        && status == Status::Succeeded
        && kind == Some(TriggerKind::Push.as_str())
    {
        let sequence = trigger.and_then(|trigger| trigger.sequence).map(u64::from);
        let pushed = sequence.map(|sequence| Duration::from_millis(sequence).as_secs_f64());
        let is_near =
            |pushed: &f64| (0.0..PUSH_AGE_SECONDS_MAX).contains(&(execution.start_date - pushed));
        let pushed = pushed.filter(is_near).unwrap_or(execution.start_date);
        metrics::PUSH_TO_IMAGE.record(stop - pushed, [image.name.as_str()]);
    }
}

fn story_of(
    notice: &Notice,
    execution: &Execution,
    input: ExecutionInput,
    image: &ImageConfig,
    settings: &Settings,
    clients: &Clients,
) -> Story {
    let source = image.source.as_ref().map_or(settings.source.as_str(), |source| source.as_str());
    let mut story = Story {
        execution: notice.execution.clone(),
        time: notice.time.clone(),
        run: Run::of_execution(&execution.name),
        image: image.name.clone(),
        source: source.to_owned(),
        git_ref: input.git_ref,
        commit: input.commit,
        trigger: input.trigger,
        state: RunState::Started,
        redrives: execution.redrive_count,
        error: None,
        cause: None,
        published: None,
        url: story::execution_url(&notice.execution, clients.config.endpoint_url()),
    };
    match &notice.told {
        Told::Result { state, error, cause, published } => {
            story.state = *state;
            story.error.clone_from(error);
            story.cause.clone_from(cause);
            story.published.clone_from(published);
        }
        Told::Change(_) => tell_of_end(&mut story, execution),
    }
    story
}

/// What the execution itself says of its end, if it is over.
fn tell_of_end(story: &mut Story, execution: &Execution) {
    story.state = execution.status.state();
    story.redrives = execution.redrive_count;
    story.error.clone_from(&execution.error);
    story.cause.clone_from(&execution.cause);
    if execution.status == Status::TimedOut && story.error.is_none() {
        story.error = Some("States.Timeout".to_owned());
    }
    let output = execution.output.as_deref();
    let published = output.and_then(|output| serde_json::from_str::<Published>(output).ok());
    story.published = published.map(Box::new);
}

fn is_status(notify: &Notify) -> bool {
    matches!(notify.receiver, Receiver::CommitStatus { .. })
}

/// Tells those whom an event concerns. Of how a run ends, the state machine itself tells first, and
/// Step Functions second: the first is for messages, unless there was none.
async fn tell_all(
    all: &[Notify],
    story: &Story,
    notice: &Notice,
    clients: &Clients,
    reported: &mut Reported,
) -> Result<(), Error> {
    let is_second = matches!(notice.told, Told::Change(Status::Succeeded | Status::Failed));
    // Late news of a start is none once the run is over.
    let is_late =
        matches!(notice.told, Told::Change(Status::Running)) && story.state != RunState::Started;
    let concerned = all.iter().filter(|notify| {
        let of_image = notify.images.is_empty() || notify.images.contains(&story.image);
        let wanted = notify.on.contains(&story.state);
        of_image && wanted && (is_status(notify) || !is_second && !is_late)
    });
    tell_each(concerned, story, clients, reported).await
}

async fn tell_each(
    receivers: impl Iterator<Item = &Notify>,
    story: &Story,
    clients: &Clients,
    reported: &mut Reported,
) -> Result<(), Error> {
    let sends = receivers.map(|notify| tell(&notify.receiver, story, clients));
    let mut result = Ok(());
    for told in futures_util::future::join_all(sends.collect::<Vec<_>>()).await {
        match told {
            Ok(told) => reported.told += usize::from(told),
            // What may pass by itself is worth another try, whatever else there is.
            Err(error) => {
                if result.is_ok() || error.name() == ErrorName::ServiceUnavailable {
                    result = Err(error);
                }
            }
        }
    }
    result
}

/// Tells one receiver, unless it knows. Answers whether it was told.
async fn tell(receiver: &Receiver, story: &Story, clients: &Clients) -> Result<bool, Error> {
    let kind = kind(receiver);
    let key = format!("{} {} {:?} {receiver:?}", story.execution, story.redrives, story.state);
    if clients.remembers(&key) {
        return Ok(false);
    }
    let told = match receiver {
        Receiver::CommitStatus { provider, host, api, token } => {
            let Some((at, path)) = receiver::repository(&story.source) else { return Ok(false) };
            // The token is for that host alone.
            let Some(commit) = story.commit.as_ref().filter(|it| at == *host && it.is_whole())
            else {
                return Ok(false);
            };
            let secret = clients.secrets.get(token).await?;
            let Some(post) =
                receiver::commit_status(*provider, api, path, commit.as_str(), story, &secret)
            else {
                let reason = format!("{path:?} is no path of a repository, expected OWNER/NAME");
                return Err(Error::Refused { receiver: kind, reason });
            };
            let sent = send(post, kind, Some(*provider), &secret, clients).await;
            if let Err(Error::Refused { reason, .. }) = &sent
                && (reason.starts_with("HTTP 401") || reason.starts_with("HTTP 403"))
            {
                clients.secrets.forget(token);
                let (reason, token) = (reason.clone(), token.clone());
                return Err(Error::Unauthorized { receiver: kind, reason, token });
            }
            sent?
        }
        Receiver::Slack { url } => {
            let secret = clients.secrets.get(url).await?;
            if !is_url(secret.text()) {
                return Err(Error::NoUrl(url.clone()));
            }
            send(receiver::slack(&secret, story), kind, None, &secret, clients).await?
        }
        Receiver::Webhook { url, secret } => {
            let secret = clients.secrets.get(secret).await?;
            let now = clients.time.now().duration_since(SystemTime::UNIX_EPOCH);
            let post = receiver::webhook(url, &secret, story, now.unwrap_or_default().as_secs());
            send(post, kind, None, &secret, clients).await?
        }
        Receiver::Sns { topic } => {
            publish(topic, story, &clients.config).await?;
            true
        }
    };
    clients.remember(key);
    if told {
        tracing::info!(
            receiver.kind = kind,
            receiver.state = story.state.as_str(),
            image.name = %story.image,
            "receiver told"
        );
    }
    Ok(told)
}

fn kind(receiver: &Receiver) -> &'static str {
    match receiver {
        Receiver::CommitStatus { provider, .. } => match provider {
            Provider::GitHub => "github",
            Provider::GitLab => "gitlab",
            Provider::Bitbucket => "bitbucket",
            Provider::Gitea => "gitea",
        },
        Receiver::Slack { .. } => "slack",
        Receiver::Webhook { .. } => "webhook",
        Receiver::Sns { .. } => "sns",
    }
}

/// Sends a request until its receiver takes it, refuses it, or wants to wait for too long.
async fn send(
    post: Post,
    receiver: &'static str,
    provider: Option<Provider>,
    secret: &Secret,
    clients: &Clients,
) -> Result<bool, Error> {
    // Plain HTTP is for a machine that has its AWS at plain HTTP, too.
    let is_local = clients.config.endpoint_url().is_some_and(|url| url.starts_with("http://"));
    if !post.url.starts_with("https://") && !is_local {
        let reason = "expected an address of https".to_owned();
        return Err(Error::Refused { receiver, reason });
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        let asked =
            http::post(&clients.config, receiver, post.clone(), REQUEST_MAX, ANSWER_BYTES_MAX);
        let (verdict, wait) = match asked.await {
            Ok(answer) => (receiver::verdict(&answer, provider, secret), answer.retry_after),
            Err(error) => (Verdict::Later(CallError::new("request", &error).to_string()), None),
        };
        match verdict {
            Verdict::Done => return Ok(true),
            Verdict::Nothing(reason) => {
                tracing::warn!(
                    receiver.kind = receiver,
                    error.message = reason,
                    "receiver has nothing to be told"
                );
                return Ok(false);
            }
            Verdict::Refused(reason) => return Err(Error::Refused { receiver, reason }),
            Verdict::Later(reason) => {
                let wait = wait.unwrap_or_else(|| Duration::from_secs(1 << (attempt - 1)));
                if attempt == ATTEMPTS_MAX || wait > WAIT_MAX {
                    return Err(Error::Unavailable { receiver, reason });
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Publishes a message that people can read
/// (<https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>).
async fn publish(topic: &str, story: &Story, config: &SdkConfig) -> Result<(), CallError> {
    let message = format!("{}\n{}\n{}\n", story.title(), story.details(), story.url);
    // A subject is of ASCII, and of less than 100 characters.
    let subject: String = story.title().chars().filter(char::is_ascii).take(99).collect();
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "Publish")
        .append_pair("Version", "2010-03-31")
        .append_pair("TopicArn", topic)
        .append_pair("Subject", &subject)
        .append_pair("Message", &message)
        .append_pair("MessageAttributes.entry.1.Name", "state")
        .append_pair("MessageAttributes.entry.1.Value.DataType", "String")
        .append_pair("MessageAttributes.entry.1.Value.StringValue", story.state.as_str())
        .append_pair("MessageAttributes.entry.2.Name", "image")
        .append_pair("MessageAttributes.entry.2.Value.DataType", "String")
        .append_pair("MessageAttributes.entry.2.Value.StringValue", story.image.as_str())
        .finish();
    archweld_aws::signed(config, "sns", "Publish", &archweld_aws::origin(config, "sns"))
        .serializer(move |()| {
            let mut request = aws_smithy_runtime_api::client::orchestrator::HttpRequest::new(
                SdkBody::from(body.clone()),
            );
            request.set_method("POST")?;
            request.set_uri("/")?;
            request.headers_mut().insert("content-type", "application/x-www-form-urlencoded");
            Ok(request)
        })
        .deserializer::<(), archweld_aws::ServiceError>(|response| {
            if response.status().is_success() {
                return Ok(());
            }
            let body = String::from_utf8_lossy(response.body().bytes().unwrap_or_default());
            let text = |name: &str| {
                let (_, rest) = body.split_once(&format!("<{name}>"))?;
                rest.split_once(&format!("</{name}>")).map(|(text, _)| text.to_owned())
            };
            let code = text("Code").unwrap_or_else(|| format!("HTTP {}", response.status()));
            let message = text("Message").unwrap_or_else(|| "no message".to_owned());
            Err(OrchestratorError::operation(archweld_aws::ServiceError::new(code, message)))
        })
        .build()
        .invoke(())
        .await
        .map_err(|error| CallError::new("sns:Publish", &error))
}
