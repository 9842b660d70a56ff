//! Webhooks: a request of a function URL's becomes a delivery, once its signature is verified.

mod bitbucket;
mod github;
mod gitlab;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{
    headers::Headers,
    push::Delivery,
    secret::Secret,
    signature::{Provider, Signature},
};

/// How long a body may be, in bytes: as long as a function URL's request
/// (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>).
pub(crate) const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// How far ahead of the time of its delivery a commit's own time may be to be believed. It orders
/// runs where nothing else does, and one from the year 2099 would be the newest for long.
const AHEAD_MAX: Duration = Duration::from_secs(60 * 60);

/// A request of a function URL's, payload version 2.0
/// (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    #[serde(default)]
    headers: Headers,
    request_context: Context,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct Context {
    http: Http,
}

#[derive(Deserialize)]
struct Http {
    method: String,
}

/// Why a request is not acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not a POST.
    Method,
    /// Too long.
    TooLong,
    /// No signature of a known secret. It is never told what is wrong with it.
    Unauthorized,
    /// Signed, and malformed all the same.
    Malformed(String),
}

/// What a webhook is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A push.
    Push(Delivery),
    /// Something that starts nothing, and what.
    Ignored(String),
}

/// A request that has a signature of the right form, not verified yet.
pub(crate) struct Received {
    provider: Provider,
    headers: Headers,
    body: Vec<u8>,
    signature: Signature,
}

impl Request {
    /// Takes a request apart, without looking into its body.
    pub(crate) fn receive(self) -> Result<Received, Refusal> {
        if self.request_context.http.method != "POST" {
            return Err(Refusal::Method);
        }
        let body = self.body.unwrap_or_default();
        let bytes = if self.is_base64_encoded { body.len() / 4 * 3 } else { body.len() };
        // Two bytes of three may be padding.
        if bytes > BODY_BYTES_MAX + 2 {
            return Err(Refusal::TooLong);
        }
        let body = if self.is_base64_encoded {
            BASE64.decode(body).map_err(|error| Refusal::Malformed(format!("body: {error}")))?
        } else {
            body.into_bytes()
        };
        if body.len() > BODY_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let provider = Provider::of(&self.headers).ok_or(Refusal::Unauthorized)?;
        let signature = Signature::of(provider, &self.headers).ok_or(Refusal::Unauthorized)?;
        Ok(Received { provider, headers: self.headers, body, signature })
    }
}

impl Received {
    /// The provider that it says it is from.
    pub(crate) fn provider(&self) -> Provider {
        self.provider
    }

    /// Whether one of the secrets signed it.
    pub(crate) fn is_by(&self, secrets: &[Secret], now: Timestamp) -> bool {
        let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
        self.signature.is_by(secrets, &self.body, now)
    }

    /// Reads it; only ever after [`Received::is_by`].
    pub(crate) fn read(&self, now: Timestamp) -> Result<Message, Refusal> {
        let latest = now.checked_add(AHEAD_MAX).unwrap_or(Timestamp::MAX);
        match self.provider {
            Provider::GitHub | Provider::Gitea => github::read(self, latest),
            Provider::GitLab => gitlab::read(self, latest),
            Provider::Bitbucket => bitbucket::read(self, latest),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The identity of the delivery: a header's, or where there is none, the body's.
    fn id(&self, names: &[&str]) -> String {
        let id = names.iter().find_map(|name| self.header(name)).unwrap_or_default();
        let is_plain = (1..=128).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_graphic());
        if is_plain { id.to_owned() } else { hex::encode(Sha256::digest(&self.body)) }
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        // GitHub and Gitea put JSON in a form where they are not told otherwise.
        let content_type = self.header("content-type").unwrap_or_default();
        if content_type.starts_with("application/x-www-form-urlencoded") {
            let mut fields = form_urlencoded::parse(&self.body);
            let payload = fields.find(|(name, _)| name == "payload");
            let (_, payload) = payload.ok_or_else(|| {
                Refusal::Malformed("payload: expected a form with this field".to_owned())
            })?;
            return parse(payload.as_bytes());
        }
        parse(&self.body)
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| malformed(&error.path().to_string(), error.inner()))?;
    deserializer.end().map_err(|error| malformed(".", &error))?;
    Ok(value)
}

fn malformed(field: &str, problem: impl ToString) -> Refusal {
    Refusal::Malformed(format!("{field}: {}", crate::push::short(&problem.to_string())))
}

/// A commit's own time, where it may be believed.
fn believable(time: Option<Timestamp>, latest: Timestamp) -> Option<Timestamp> {
    time.filter(|time| *time <= latest)
}
