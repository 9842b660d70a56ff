//! What `archweld.toml` says of results: who is told how runs end.

use std::{fmt, ops::Range};

use serde::Deserialize;
use toml::Spanned;

use crate::{ConfigError, ImageName};

/// A `[[notify]]` of `archweld.toml`, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Who is told.
    pub receiver: Receiver,
    /// Of what.
    pub on: Vec<RunState>,
    /// Of which images; of all where there is none.
    pub images: Vec<ImageName>,
}

/// Who is told of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// The provider of the git repository, by a status of the commit.
    CommitStatus {
        /// Whose API it speaks.
        provider: Provider,
        /// The host of the git repositories, such as `github.com`.
        host: String,
        /// The address of the API, without a slash at its end.
        api: String,
        /// The token.
        token: SecretRef,
    },
    /// A channel of Slack's, by an incoming webhook, whose address is a secret.
    Slack {
        /// The address.
        url: SecretRef,
    },
    /// Anybody, by a signed request.
    Webhook {
        /// The address.
        url: String,
        /// What requests are signed with.
        secret: SecretRef,
    },
    /// An SNS topic, by its ARN.
    Sns {
        /// The ARN.
        topic: String,
    },
}

/// Whose API sets statuses of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// GitHub and GitHub Enterprise.
    GitHub,
    /// GitLab, anybody's.
    GitLab,
    /// Bitbucket Cloud.
    Bitbucket,
    /// Gitea and Forgejo.
    Gitea,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It has begun.
    Started,
    /// Its image is published.
    Succeeded,
    /// It failed, or ran out of time.
    Failed,
    /// It was stopped, by a person or by a newer push.
    Stopped,
}

impl RunState {
    /// Its name in `archweld.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Where a secret is kept. A secret itself has no place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum SecretRef {
    /// The name of a secret of Secrets Manager's.
    SecretsManager(String),
    /// The name of a parameter of Systems Manager's.
    Parameter(String),
}

impl TryFrom<String> for SecretRef {
    type Error = &'static str;

    /// What is no reference may be the secret, and is not repeated.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_name = |name: &str| {
            (1..=512).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c))
        };
        match text.split_once(':') {
            Some(("secretsmanager", name)) if is_name(name) => {
                Ok(Self::SecretsManager(name.to_owned()))
            }
            Some(("ssm", name)) if is_name(name) && name.starts_with('/') => {
                Ok(Self::Parameter(name.to_owned()))
            }
            _ => {
                Err("expected where the secret is kept, `secretsmanager:NAME` or `ssm:/NAME`, and \
                      not the secret itself")
            }
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretsManager(name) => write!(f, "secretsmanager:{name}"),
            Self::Parameter(name) => write!(f, "ssm:{name}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    GitHub,
    GitLab,
    Bitbucket,
    Gitea,
    Slack,
    Webhook,
    Sns,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Bitbucket => "bitbucket",
            Self::Gitea => "gitea",
            Self::Slack => "slack",
            Self::Webhook => "webhook",
            Self::Sns => "sns",
        }
    }

    /// The provider, and where its repositories are by default.
    fn provider(self) -> Option<(Provider, Option<&'static str>)> {
        match self {
            Self::GitHub => Some((Provider::GitHub, Some("github.com"))),
            Self::GitLab => Some((Provider::GitLab, Some("gitlab.com"))),
            Self::Bitbucket => Some((Provider::Bitbucket, Some("bitbucket.org"))),
            Self::Gitea => Some((Provider::Gitea, None)),
            Self::Slack | Self::Webhook | Self::Sns => None,
        }
    }

    /// The keys that it has beside those of every kind.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::GitHub | Self::GitLab | Self::Bitbucket | Self::Gitea => {
                &["token", "host", "api"]
            }
            Self::Slack => &["url", "on"],
            Self::Webhook => &["url", "secret", "on"],
            Self::Sns => &["topic", "on"],
        }
    }
}

/// A `[[notify]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    kind: Spanned<Kind>,
    on: Option<Spanned<Vec<RunState>>>,
    images: Option<Vec<Spanned<ImageName>>>,
    token: Option<Spanned<SecretRef>>,
    host: Option<Spanned<String>>,
    api: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    secret: Option<Spanned<SecretRef>>,
    topic: Option<Spanned<String>>,
}

const ON_DEFAULT: [RunState; 2] = [RunState::Succeeded, RunState::Failed];
const ON_ALL: [RunState; 4] =
    [RunState::Started, RunState::Succeeded, RunState::Failed, RunState::Stopped];

type Fail<'a> = &'a dyn Fn(Range<usize>, String) -> ConfigError;

impl Table {
    /// Fills in defaults; `known` are the images that there are.
    pub(crate) fn check(self, known: &[&ImageName], fail: Fail<'_>) -> Result<Notify, ConfigError> {
        let kind = *self.kind.get_ref();
        self.check_keys(kind, fail)?;
        let images = self.images.unwrap_or_default();
        if let Some(image) = images.iter().find(|image| !known.contains(&image.get_ref())) {
            return Err(fail(image.span(), format!("no image {:?}", image.get_ref().as_str())));
        }
        let images = images.into_iter().map(Spanned::into_inner).collect();
        let missing = |key: &str, what: &str| {
            let message = format!("`kind = \"{}\"` needs `{key}`, {what}", kind.as_str());
            fail(self.kind.span(), message)
        };
        let on = self.on.map_or_else(|| ON_DEFAULT.to_vec(), Spanned::into_inner);
        let (receiver, on) = if let Some((provider, default)) = kind.provider() {
            let token = self.token.ok_or_else(|| missing("token", "where the token is kept"))?;
            let host = match (self.host, default) {
                (Some(host), _) => checked_host(host, fail)?,
                (None, Some(host)) => host.to_owned(),
                (None, None) => return Err(missing("host", "the host of the git repositories")),
            };
            let api = match self.api {
                Some(api) => checked_url(api, fail)?.trim_end_matches('/').to_owned(),
                None => provider.api(&host),
            };
            let token = token.into_inner();
            (Receiver::CommitStatus { provider, host, api, token }, ON_ALL.to_vec())
        } else if kind == Kind::Sns {
            let what = "the ARN of the topic";
            let topic = self.topic.ok_or_else(|| missing("topic", what))?;
            (Receiver::Sns { topic: checked_topic(topic, fail)? }, on)
        } else {
            let what = if kind == Kind::Slack {
                "where the address of the incoming webhook is kept"
            } else {
                "the address that is told"
            };
            let url = self.url.ok_or_else(|| missing("url", what))?;
            if kind == Kind::Slack {
                let span = url.span();
                let url = SecretRef::try_from(url.into_inner());
                let url = url.map_err(|error| fail(span, format!("url: {error}")))?;
                (Receiver::Slack { url }, on)
            } else {
                let what = "where the secret is kept that requests are signed with";
                let secret = self.secret.ok_or_else(|| missing("secret", what))?.into_inner();
                (Receiver::Webhook { url: checked_url(url, fail)?, secret }, on)
            }
        };
        Ok(Notify { receiver, on, images })
    }

    /// Refuses keys that are of another kind.
    fn check_keys(&self, kind: Kind, fail: Fail<'_>) -> Result<(), ConfigError> {
        let given = [
            ("token", self.token.as_ref().map(Spanned::span)),
            ("host", self.host.as_ref().map(Spanned::span)),
            ("api", self.api.as_ref().map(Spanned::span)),
            ("url", self.url.as_ref().map(Spanned::span)),
            ("secret", self.secret.as_ref().map(Spanned::span)),
            ("topic", self.topic.as_ref().map(Spanned::span)),
            ("on", self.on.as_ref().map(Spanned::span)),
        ];
        let mut foreign = given.into_iter().filter(|(key, _)| !kind.keys().contains(key));
        match foreign.find_map(|(key, span)| Some((key, span?))) {
            None => Ok(()),
            Some((key, span)) => {
                let expected = kind.keys().join("`, `");
                let message = format!(
                    "`{key}` has no meaning for `kind = \"{}\"`, expected `{expected}` or `images`",
                    kind.as_str()
                );
                Err(fail(span, message))
            }
        }
    }
}

impl Provider {
    /// Where the API of a host's is.
    fn api(self, host: &str) -> String {
        match self {
            Self::GitHub if host == "github.com" => "https://api.github.com".to_owned(),
            Self::GitHub => format!("https://{host}/api/v3"),
            Self::GitLab => format!("https://{host}/api/v4"),
            Self::Bitbucket => "https://api.bitbucket.org/2.0".to_owned(),
            Self::Gitea => format!("https://{host}/api/v1"),
        }
    }
}

fn checked_host(host: Spanned<String>, fail: Fail<'_>) -> Result<String, ConfigError> {
    let text = host.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_ascii_lowercase());
    }
    let message =
        format!("host {text:?} is not valid, expected a name such as \"git.example.com\"");
    Err(fail(host.span(), message))
}

fn checked_url(url: Spanned<String>, fail: Fail<'_>) -> Result<String, ConfigError> {
    if is_url(url.get_ref()) {
        return Ok(url.into_inner());
    }
    let message = "expected `https://HOST/PATH` without a user or password; plain HTTP is for \
                   loopback alone";
    Err(fail(url.span(), format!("url {:?} is not valid, {message}", url.get_ref())))
}

/// Whether requests may be sent there: by TLS, or to this very machine.
pub fn is_url(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{|}@#".contains(c);
    let (is_secure, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return false,
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let is_loopback = host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    !host.is_empty() && text.chars().all(plain) && (is_secure || is_loopback)
}

fn checked_topic(topic: Spanned<String>, fail: Fail<'_>) -> Result<String, ConfigError> {
    let text = topic.get_ref();
    let parts: Vec<&str> = text.split(':').collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if let ["arn", _, "sns", _, _, name] = parts[..]
        && !name.is_empty()
        && name.chars().all(plain)
    {
        return Ok(topic.into_inner());
    }
    let message =
        format!("topic {text:?} is not valid, expected `arn:aws:sns:REGION:ACCOUNT:NAME`");
    Err(fail(topic.span(), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn notify(rest: &str) -> Result<Notify, ConfigError> {
        let image = "[[image]]\nname = \"hello\"\nplatforms = [\"linux/amd64\"]\n";
        let config = Config::parse(&format!("{image}[[notify]]\n{rest}"))?;
        Ok(config.notify()[0].clone())
    }

    #[test]
    fn a_provider_is_known_by_its_kind() {
        let api = |rest: &str| match notify(rest).unwrap().receiver {
            Receiver::CommitStatus { host, api, .. } => format!("{host} {api}"),
            other => panic!("{other:?}"),
        };
        let token = "token = \"secretsmanager:archweld/git\"\n";
        assert_eq!(
            api(&format!("kind = \"github\"\n{token}")),
            "github.com https://api.github.com"
        );
        let enterprise = format!("kind = \"github\"\nhost = \"Git.example.com\"\n{token}");
        assert_eq!(api(&enterprise), "git.example.com https://git.example.com/api/v3");
        let gitlab = format!("kind = \"gitlab\"\n{token}");
        assert_eq!(api(&gitlab), "gitlab.com https://gitlab.com/api/v4");
        let bitbucket = format!("kind = \"bitbucket\"\n{token}");
        assert_eq!(api(&bitbucket), "bitbucket.org https://api.bitbucket.org/2.0");
        let gitea = format!(
            "kind = \"gitea\"\nhost = \"git.example\"\napi = \"http://127.0.0.1:1/api/v1/\"\n{token}"
        );
        assert_eq!(api(&gitea), "git.example http://127.0.0.1:1/api/v1");
    }

    #[test]
    fn messages_tell_of_ends_unless_they_are_to_tell_of_more() {
        let slack = "kind = \"slack\"\nurl = \"ssm:/archweld/slack\"\n";
        let told = notify(slack).unwrap();
        assert_eq!(told.on, ON_DEFAULT);
        let url = SecretRef::Parameter("/archweld/slack".to_owned());
        assert_eq!(told.receiver, Receiver::Slack { url });
        let told = notify(&format!("{slack}on = [\"started\", \"stopped\"]\nimages = [\"hello\"]"));
        assert_eq!(told.unwrap().on, [RunState::Started, RunState::Stopped]);
    }

    #[test]
    fn says_where_and_what_was_expected() {
        let message = |rest: &str| notify(rest).unwrap_err().to_string();
        let secret = "secret = \"secretsmanager:s\"\n";
        insta::assert_snapshot!(message("kind = \"irc\""), @"5:8: unknown variant `irc`, expected one of `github`, `gitlab`, `bitbucket`, `gitea`, `slack`, `webhook`, `sns`");
        insta::assert_snapshot!(message("kind = \"github\""), @r#"5:8: `kind = "github"` needs `token`, where the token is kept"#);
        insta::assert_snapshot!(message("kind = \"github\"\ntoken = \"ghp_0123\""), @"6:9: expected where the secret is kept, `secretsmanager:NAME` or `ssm:/NAME`, and not the secret itself");
        insta::assert_snapshot!(message("kind = \"gitea\"\ntoken = \"ssm:/t\""), @r#"5:8: `kind = "gitea"` needs `host`, the host of the git repositories"#);
        insta::assert_snapshot!(message("kind = \"slack\"\nurl = \"https://hooks.slack.com/services/T/B/x\""), @"6:7: url: expected where the secret is kept, `secretsmanager:NAME` or `ssm:/NAME`, and not the secret itself");
        insta::assert_snapshot!(message("kind = \"slack\"\nurl = \"ssm:/u\"\ntoken = \"ssm:/t\""), @r#"7:9: `token` has no meaning for `kind = "slack"`, expected `url`, `on` or `images`"#);
        insta::assert_snapshot!(message("kind = \"github\"\ntoken = \"ssm:/t\"\non = []"), @r#"7:6: `on` has no meaning for `kind = "github"`, expected `token`, `host`, `api` or `images`"#);
        insta::assert_snapshot!(message("kind = \"webhook\"\nurl = \"https://a.example/\""), @r#"5:8: `kind = "webhook"` needs `secret`, where the secret is kept that requests are signed with"#);
        insta::assert_snapshot!(message(&format!("kind = \"webhook\"\nurl = \"http://10.0.0.1/\"\n{secret}")), @r#"6:7: url "http://10.0.0.1/" is not valid, expected `https://HOST/PATH` without a user or password; plain HTTP is for loopback alone"#);
        insta::assert_snapshot!(message("kind = \"sns\"\ntopic = \"results\""), @r#"6:9: topic "results" is not valid, expected `arn:aws:sns:REGION:ACCOUNT:NAME`"#);
        insta::assert_snapshot!(message("kind = \"sns\"\ntopic = \"arn:aws:sns:r:1:t\"\nimages = [\"other\"]"), @r#"7:11: no image "other""#);
        insta::assert_snapshot!(message("kind = \"sns\"\ntopic = \"arn:aws:sns:r:1:t\"\non = [\"ended\"]"), @"7:7: unknown variant `ended`, expected one of `started`, `succeeded`, `failed`, `stopped`");
    }

    #[test]
    fn plain_http_goes_to_loopback_alone() {
        for good in [
            "https://a.example/x?y=1",
            "http://localhost:1/x",
            "http://[::1]:80/",
            "http://127.1.2.3",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "http://localhost.evil.example/",
            "http://127.0.0.1@evil.example/",
            "https://u:p@a.example/",
            "https://",
            "https:///x",
            "ftp://a/",
            "http://169.254.169.254/latest",
            "https://a.example/ x",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
