//! Webhooks: a request of a function URL's becomes a delivery, once its signature is verified.

mod bitbucket;
mod github;
mod gitlab;

use std::time::Duration;

use archweld_aws::secret::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{
    badge::Asked,
    headers::Headers,
    push::Delivery,
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
    raw_path: String,
    #[serde(default)]
    raw_query_string: String,
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
    /// The badge that it asks for, if it does.
    pub(crate) fn badge(&self) -> Option<Asked> {
        let is_get = self.request_context.http.method == "GET";
        is_get.then(|| Asked::read(&self.raw_path, &self.raw_query_string))?
    }

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
        if is_plain { id.to_owned() } else { self.body_id() }
    }

    /// The identity of a delivery whose signature is of the body alone: a captured request cannot
    /// be sent again under another.
    fn body_id(&self) -> String {
        hex::encode(Sha256::digest(&self.body))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::push::{Changed, Push};

    /// Each provider's headers, and the payload that it publishes.
    const PUBLISHED: [(&str, &str, &str); 5] = [
        ("x-github-event", "push", include_str!("../tests/payloads/github-push.json")),
        ("x-gitlab-event", "Push Hook", include_str!("../tests/payloads/gitlab-push.json")),
        ("x-gitlab-event", "Tag Push Hook", include_str!("../tests/payloads/gitlab-tag.json")),
        ("x-event-key", "repo:push", include_str!("../tests/payloads/bitbucket-push.json")),
        ("x-gitea-event", "push", include_str!("../tests/payloads/gitea-push.json")),
    ];

    /// Reads a body as if its signature were good.
    fn read(header: &str, event: &str, body: &[u8], encode: bool) -> Result<Message, Refusal> {
        let hash = "0".repeat(64);
        let body = if encode {
            BASE64.encode(body)
        } else {
            String::from_utf8(body.to_vec()).expect("a function URL hands text over as such")
        };
        let request = json!({
            "headers": {
                header: event,
                "x-delivery": "1",
                "x-hub-signature-256": format!("sha256={hash}"),
                "x-hub-signature": format!("sha256={hash}"),
                "x-gitlab-token": "token",
                "idempotency-key": "1", "x-github-delivery": "1", "x-gitea-delivery": "1",
                "x-request-uuid": "1",
            },
            "requestContext": {"http": {"method": "POST"}},
            "body": body,
            "isBase64Encoded": encode,
        });
        let request: Request = serde_json::from_value(request).unwrap();
        request.receive()?.read("2026-11-23T10:00:40Z".parse().unwrap())
    }

    /// Puts something in the place of a value somewhere within another.
    fn replace(value: &mut Value, place: &mut usize, with: &Value) {
        if *place == 0 {
            *value = with.clone();
        }
        *place = place.wrapping_sub(1);
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, place, with)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| replace(field, place, with));
            }
            _ => {}
        }
    }

    /// The same JSON with the fields of each object in another order, and white space between.
    fn rewrite(value: &Value, order: usize, space: &str) -> String {
        let parts = |parts: Vec<String>, open, close| {
            format!("{space}{open}{}{space}{close}", parts.join(&format!("{space},{space}")))
        };
        match value {
            Value::Array(items) => {
                parts(items.iter().map(|item| rewrite(item, order, space)).collect(), '[', ']')
            }
            Value::Object(fields) => {
                let mut fields: Vec<String> = fields
                    .iter()
                    .map(|(name, field)| {
                        format!("{}{space}:{}", json!(name), rewrite(field, order, space))
                    })
                    .collect();
                let count = fields.len().max(1);
                fields.rotate_left(order % count);
                parts(fields, '{', '}')
            }
            other => format!("{space}{other}{space}"),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[0-9a-f]{40}".prop_map(Value::from),
            "(refs/heads/)?.{0,20}".prop_map(Value::from),
            "20[0-9]{2}-1[0-2]-2[0-9]T10:0[0-9]:00(Z|\\+14:00|\\+99:99)".prop_map(Value::from),
            Just(json!([])),
            Just(json!({})),
            Just(json!([{"added": [], "modified": [], "removed": ["x"]}])),
        ]
    }

    fn pushed(header: &str, event: &str, payload: &Value) -> Push {
        match read(header, event, payload.to_string().as_bytes(), false) {
            Ok(Message::Push(mut delivery)) => delivery.pushes.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_of_commits_that_ends_early_says_nothing_of_files() {
        const GITLAB: usize = 1;
        const GITEA: usize = 4;
        let files = |index: usize, change: &dyn Fn(&mut Value)| {
            let (header, event, body) = PUBLISHED[index];
            let mut payload: Value = serde_json::from_str(body).unwrap();
            change(&mut payload);
            match pushed(header, event, &payload).changed {
                Changed::Files(files) => Some(files.len()),
                Changed::Everything => None,
            }
        };
        let modify = |payload: &mut Value| {
            for commit in payload["commits"].as_array_mut().unwrap() {
                commit["modified"] = commit["added"].take();
                commit["added"] = json!([]);
            }
        };
        assert_eq!(files(GITLAB, &modify), Some(2));
        assert_eq!(files(GITLAB, &|_| {}), None, "what is added may have been elsewhere");
        let many_of = |count: usize| {
            let (header, event, body) = PUBLISHED[GITLAB];
            let mut payload: Value = serde_json::from_str(body).unwrap();
            modify(&mut payload);
            payload["commits"] = vec![payload["commits"][0].clone(); count].into();
            payload["total_commits_count"] = count.into();
            pushed(header, event, &payload).changed
        };
        assert!(matches!(many_of(19), Changed::Files(_)));
        assert_eq!(many_of(20), Changed::Everything);
        assert_eq!(
            files(GITLAB, &|payload| {
                modify(payload);
                payload["total_commits_count"] = 3.into();
            }),
            None
        );
        let new = |payload: &mut Value| payload["before"] = "0".repeat(40).into();
        assert_eq!(
            files(GITLAB, &|payload| {
                modify(payload);
                new(payload);
            }),
            None
        );
        assert_eq!(files(GITEA, &|_| {}), Some(1));
        assert_eq!(files(GITEA, &|payload| payload["total_commits"] = 6.into()), None);
        assert_eq!(files(GITEA, &|payload| payload["total_commits"] = Value::Null), None);
        assert_eq!(files(GITEA, &new), None);
    }

    #[test]
    fn gitea_orders_pushes_by_what_came_before_though_commits_are_old() {
        let (header, event, body) = PUBLISHED[4];
        let sequence = |updated: &str, written: &str| {
            let mut payload: Value = serde_json::from_str(body).unwrap();
            payload["repository"]["updated_at"] = updated.into();
            payload["head_commit"]["timestamp"] = written.into();
            pushed(header, event, &payload).sequence
        };
        let first = sequence("2026-11-20T10:00:00Z", "2026-11-23T09:00:00Z");
        let rebased = sequence("2026-11-23T09:00:05Z", "2026-11-21T10:00:00Z");
        assert!(first < rebased, "{first:?} {rebased:?}");
    }

    /// Bodies that broke somebody's reader, or might: add what a longer search finds.
    #[test]
    fn the_corpus_is_read_or_refused() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let body = std::fs::read(entry.path()).unwrap();
            for (header, event, _) in PUBLISHED {
                match read(header, event, &body, true) {
                    Ok(Message::Push(delivery)) => {
                        assert!(delivery.pushes.iter().all(|push| push.commit.is_whole()));
                    }
                    Err(Refusal::Malformed(problem)) => assert!(problem.chars().count() < 400),
                    other => panic!("{:?}: {other:?}", entry.path()),
                }
            }
            count += 1;
        }
        assert!(count > 20, "only {count}");
    }

    #[test]
    fn a_deletion_is_no_push() {
        let zeros = "0".repeat(40);
        for index in [0, 1, 4] {
            let (header, event, body) = PUBLISHED[index];
            let mut payload: Value = serde_json::from_str(body).unwrap();
            payload["after"] = zeros.as_str().into();
            payload["head_commit"] = Value::Null;
            payload["checkout_sha"] = Value::Null;
            let body = payload.to_string();
            let Ok(Message::Push(delivery)) = read(header, event, body.as_bytes(), false) else {
                panic!("a deletion is understood");
            };
            assert_eq!(delivery.pushes, []);
            assert_eq!(delivery.ignored, ["deletion of \"refs/heads/main\""]);
        }
    }

    #[test]
    fn a_commit_from_the_future_has_no_time() {
        let (header, event, body) = PUBLISHED[1];
        for (time, is_believed) in [("2026-11-23T11:00:40Z", true), ("2026-11-23T11:00:41Z", false)]
        {
            let body = body.replace("2026-11-23T10:30:00+01:00", time);
            let Ok(Message::Push(delivery)) = read(header, event, body.as_bytes(), false) else {
                panic!("a push");
            };
            assert_eq!(delivery.pushes[0].sequence.is_some(), is_believed, "{time}");
        }
    }

    proptest! {
        #![proptest_config(crate::fuzz::config())]
        #[test]
        fn any_body_is_read_or_refused(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                any_value().prop_map(|value| value.to_string().into_bytes()),
            ],
        ) {
            for (header, event, _) in PUBLISHED {
                prop_assert!(matches!(read(header, event, &body, true), Err(Refusal::Malformed(_))));
            }
        }

        #[test]
        fn any_value_anywhere_in_a_payload_is_read_or_refused(
            provider in 0..PUBLISHED.len(),
            place in 0..120_usize,
            with in any_value(),
        ) {
            let (header, event, body) = PUBLISHED[provider];
            let mut payload: Value = serde_json::from_str(body).unwrap();
            replace(&mut payload, &mut { place }, &with);
            match read(header, event, payload.to_string().as_bytes(), false) {
                Ok(Message::Push(delivery)) => {
                    prop_assert!(delivery.pushes.iter().all(|push| push.commit.is_whole()));
                }
                Err(Refusal::Malformed(problem)) => prop_assert!(problem.chars().count() < 400),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn equal_payloads_are_read_equally(
            provider in 0..PUBLISHED.len(),
            place in 0..120_usize,
            with in any_value(),
            order in 0..20_usize,
            space in "[ \t\r\n]{0,2}",
        ) {
            let (header, event, body) = PUBLISHED[provider];
            let mut payload: Value = serde_json::from_str(body).unwrap();
            replace(&mut payload, &mut { place }, &with);
            // GitHub's and Gitea's identity is of the bytes.
            let without_id = |read| match read {
                Ok(Message::Push(delivery)) => {
                    Ok(Message::Push(Delivery { id: String::new(), ..delivery }))
                }
                other => other,
            };
            let plain = without_id(read(header, event, payload.to_string().as_bytes(), false));
            let rewritten = rewrite(&payload, order, &space);
            for encode in [false, true] {
                let read = without_id(read(header, event, rewritten.as_bytes(), encode));
                // Which field is wrong first depends on their order.
                match (&plain, &read) {
                    (Err(Refusal::Malformed(_)), Err(Refusal::Malformed(_))) => {}
                    _ => prop_assert_eq!(&read, &plain),
                }
            }
        }
    }
}
