//! What each kind of receiver is sent, and what its answer means.

use archweld_aws::{
    http::{Answer, Post},
    secret::Secret,
};
use archweld_model::{Provider, RunState};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::story::Story;

/// What a part of a path is written with as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// GitHub takes 140 characters of a description
/// (<https://docs.github.com/en/rest/commits/statuses>), the others more.
const DESCRIPTION_CHARACTERS_MAX: usize = 140;
/// Bitbucket takes 40 characters of a key.
const KEY_CHARACTERS_MAX: usize = 40;
/// What Standard Webhooks' keys begin with.
const SIGNING_KEY_PREFIX: &str = "whsec_";
const USER_AGENT: &str = "archweld";

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The receiver knows.
    Done,
    /// It cannot know, whatever is sent.
    Nothing(String),
    /// It may be asked again.
    Later(String),
    /// It refuses.
    Refused(String),
}

/// The host and the path of a git repository.
pub(crate) fn repository(source: &str) -> Option<(String, &str)> {
    let rest = source.strip_prefix("https://").or_else(|| source.strip_prefix("http://"))?;
    let (host, path) = rest.split_once('/')?;
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!host.is_empty() && !path.is_empty()).then(|| (host.to_ascii_lowercase(), path))
}

/// A status of the run's commit. `None` where the repository's path is none of the provider's.
pub(crate) fn commit_status(
    provider: Provider,
    api: &str,
    path: &str,
    commit: &str,
    story: &Story,
    token: &Secret,
) -> Option<Post> {
    let name = format!("archweld/{}", story.image);
    let details = story.details();
    let description = if details.is_empty() { story.title() } else { details };
    let description: String = description.chars().take(DESCRIPTION_CHARACTERS_MAX).collect();
    let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    let two = || {
        let (owner, name) = path.split_once('/')?;
        (!name.contains('/')).then(|| format!("{}/{}", encoded(owner), encoded(name)))
    };
    let (url, body) = match provider {
        // https://docs.github.com/en/rest/commits/statuses#create-a-commit-status
        Provider::GitHub | Provider::Gitea => (
            format!("{api}/repos/{}/statuses/{commit}", two()?),
            json!({
                "state": match story.state {
                    RunState::Started => "pending",
                    RunState::Succeeded => "success",
                    RunState::Failed => "failure",
                    RunState::Stopped => "error",
                },
                "target_url": story.url,
                "description": description,
                "context": name,
            }),
        ),
        // https://docs.gitlab.com/api/commits/#set-commit-pipeline-status
        Provider::GitLab => (
            format!("{api}/projects/{}/statuses/{commit}", encoded(path)),
            json!({
                "state": match story.state {
                    RunState::Started => "running",
                    RunState::Succeeded => "success",
                    RunState::Failed => "failed",
                    RunState::Stopped => "canceled",
                },
                "name": name,
                "target_url": story.url,
                "description": description,
            }),
        ),
        // https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/
        Provider::Bitbucket => (
            format!("{api}/repositories/{}/commit/{commit}/statuses/build", two()?),
            json!({
                "key": key(&name),
                "state": match story.state {
                    RunState::Started => "INPROGRESS",
                    RunState::Succeeded => "SUCCESSFUL",
                    RunState::Failed => "FAILED",
                    RunState::Stopped => "STOPPED",
                },
                "name": name,
                "url": story.url,
                "description": description,
            }),
        ),
    };
    let mut headers = vec![("authorization", format!("Bearer {}", token.text()))];
    if provider == Provider::GitHub {
        headers.push(("accept", "application/vnd.github+json".to_owned()));
        headers.push(("x-github-api-version", "2022-11-28".to_owned()));
    }
    Some(post(url, headers, &body))
}

/// A key that Bitbucket takes: the same for the same name.
fn key(name: &str) -> String {
    if name.len() <= KEY_CHARACTERS_MAX {
        return name.to_owned();
    }
    hex::encode(Sha256::digest(name)).chars().take(KEY_CHARACTERS_MAX).collect()
}

/// A message to a channel of Slack's
/// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/>).
pub(crate) fn slack(url: &Secret, story: &Story) -> Post {
    // https://docs.slack.dev/messaging/formatting-message-text/#escaping
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mark = match story.state {
        RunState::Started => ":hourglass_flowing_sand:",
        RunState::Succeeded => ":white_check_mark:",
        RunState::Failed => ":x:",
        RunState::Stopped => ":black_square_for_stop:",
    };
    let mut text = format!("{mark} {}", escaped(&story.title()));
    let details = story.details();
    if !details.is_empty() {
        text += &format!("\n{}", escaped(&details));
    }
    text += &format!("\n<{}|{}>", escaped(&story.url), escaped(story.run.as_str()));
    post(url.text().to_owned(), vec![], &json!({"text": text, "unfurl_links": false}))
}

/// A request that the receiver can verify, and know again should it come twice
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
/// `now` is in seconds since 1970.
pub(crate) fn webhook(url: &str, secret: &Secret, story: &Story, now: u64) -> Post {
    let id = delivery_id(url, story);
    let body = json!({
        "type": format!("run.{}", story.state.as_str()),
        "timestamp": story.time,
        "data": data(story),
    })
    .to_string();
    let signature = sign(secret, &format!("{id}.{now}.{body}"));
    let headers = vec![
        ("webhook-id", id),
        ("webhook-timestamp", now.to_string()),
        ("webhook-signature", format!("v1,{signature}")),
    ];
    Post { body, ..post(url.to_owned(), headers, &Value::Null) }
}

/// The same for the same news, however often it is sent.
fn delivery_id(url: &str, story: &Story) -> String {
    let key = json!([url, story.execution, story.redrives, story.state.as_str()]).to_string();
    format!("msg_{}", hex::encode(&Sha256::digest(key)[..16]))
}

fn sign(secret: &Secret, text: &str) -> String {
    let key =
        secret.text().strip_prefix(SIGNING_KEY_PREFIX).and_then(|key| BASE64.decode(key).ok());
    let key = key.unwrap_or_else(|| secret.text().as_bytes().to_vec());
    let mut result = String::new();
    // HMAC takes keys of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) {
        mac.update(text.as_bytes());
        BASE64.encode_string(mac.finalize().into_bytes(), &mut result);
    }
    result
}

fn data(story: &Story) -> Value {
    json!({
        "execution": story.execution,
        "run": story.run,
        "image": story.image,
        "ref": story.git_ref,
        "commit": story.commit,
        "trigger": story.trigger,
        "state": story.state.as_str(),
        "error": story.error,
        "cause": story.cause,
        "published": story.published,
        "url": story.url,
    })
}

fn post(url: String, more: Vec<(&'static str, String)>, body: &Value) -> Post {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("user-agent", USER_AGENT.to_owned()),
    ];
    headers.extend(more);
    Post { url, headers, body: body.to_string() }
}

/// What an answer means. `provider` where it is a git server's.
pub(crate) fn verdict(answer: &Answer, provider: Option<Provider>, secret: &Secret) -> Verdict {
    let said = || {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = body.get("message").or(body.pointer("/error/message"));
        let text = match message {
            Some(Value::String(text)) => format!(": {text}"),
            Some(other) => format!(": {other}"),
            None => String::new(),
        };
        let text: String = text.chars().take(DESCRIPTION_CHARACTERS_MAX).collect();
        // A git server's own words help; what anybody else says may be anything.
        let text = if provider.is_some() { secret.scrub(&text) } else { String::new() };
        format!("HTTP {}{text}", answer.status)
    };
    match (answer.status, provider) {
        (200..=299, _) => Verdict::Done,
        // The status is what it was to become.
        (400, Some(Provider::GitLab)) if said().contains("Cannot transition status") => {
            Verdict::Nothing(said())
        }
        // The commit is not there any more, or never was.
        (422, Some(Provider::GitHub | Provider::Gitea)) => Verdict::Nothing(said()),
        (408 | 429 | 500..=599, _) => Verdict::Later(said()),
        (403, _) if answer.retry_after.is_some() || answer.is_rate_limited => {
            Verdict::Later(said())
        }
        (300..=399, _) => {
            Verdict::Refused(format!("{}, expected no redirect: give the new address", said()))
        }
        _ => Verdict::Refused(said()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_repository_is_a_host_and_a_path() {
        let of = |source| repository(source).map(|(host, path)| format!("{host} {path}"));
        assert_eq!(of("https://GitHub.com/Team/App.git").as_deref(), Some("github.com Team/App"));
        assert_eq!(
            of("https://gitlab.example:8443/a/b/c/").as_deref(),
            Some("gitlab.example:8443 a/b/c")
        );
        assert_eq!(of("git@github.com:team/app"), None);
        assert_eq!(of("https://github.com"), None);
    }

    #[test]
    fn a_key_of_bitbuckets_is_never_too_long() {
        assert_eq!(key("archweld/hello"), "archweld/hello");
        let long = key(&format!("archweld/{}", "x".repeat(40)));
        assert_eq!(long.len(), KEY_CHARACTERS_MAX);
        assert_ne!(long, key(&format!("archweld/{}y", "x".repeat(39))));
    }

    /// The vector of the specification.
    #[test]
    fn signs_as_standard_webhooks_say() {
        let secret: Secret =
            serde_json::from_value(json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signed =
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}");
        assert_eq!(signed, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_answer_is_final_or_may_change() {
        let secret: Secret = serde_json::from_value(json!("ghp_0123")).unwrap();
        let answer = |status, body: &str| Answer {
            status,
            retry_after: None,
            is_rate_limited: false,
            body: body.to_owned().into(),
        };
        let github = Some(Provider::GitHub);
        let of = |status, body: &str, provider| verdict(&answer(status, body), provider, &secret);
        assert_eq!(of(201, "", github), Verdict::Done);
        assert_eq!(
            of(401, r#"{"message":"Bad credentials ghp_0123"}"#, github),
            Verdict::Refused("HTTP 401: Bad credentials (secret)".to_owned())
        );
        assert_eq!(of(500, "<html>ghp_0123", None), Verdict::Later("HTTP 500".to_owned()));
        assert_eq!(of(404, r#"{"message":"x"}"#, None), Verdict::Refused("HTTP 404".to_owned()));
        assert!(matches!(of(302, "", None), Verdict::Refused(_)));
        assert!(matches!(of(403, "", github), Verdict::Refused(_)));
        let limited = Answer { is_rate_limited: true, ..answer(403, "") };
        assert!(matches!(verdict(&limited, github, &secret), Verdict::Later(_)));
        let asks = Answer { retry_after: Some(Duration::from_secs(1)), ..answer(403, "") };
        assert!(matches!(verdict(&asks, github, &secret), Verdict::Later(_)));
        let said = r#"{"message":"Cannot transition status via :run from :running"}"#;
        assert!(matches!(of(400, said, Some(Provider::GitLab)), Verdict::Nothing(_)));
        assert!(matches!(of(400, said, None), Verdict::Refused(_)));
    }
}
