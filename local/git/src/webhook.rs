//! The headers that a provider sends with a webhook, its signature among them.

use std::{fmt, str::FromStr};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// A provider of git repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// GitHub.
    GitHub,
    /// GitLab.
    GitLab,
    /// Bitbucket Cloud.
    Bitbucket,
    /// Gitea and Forgejo.
    Gitea,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Bitbucket, Self::Gitea];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Bitbucket => "bitbucket",
            Self::Gitea => "gitea",
        }
    }

    /// The headers of a webhook, by their names in lower case. `event` is the provider's own name
    /// for it; `push` and `tag_push` are every provider's.
    pub fn headers(
        self,
        event: &str,
        delivery: &str,
        secret: &[u8],
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let signature = || hex::encode(hmac(secret, body));
        let prefixed = || format!("sha256={}", signature());
        let event = self.event(event).to_owned();
        let delivery = delivery.to_owned();
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(match self {
            Self::GitHub => vec![
                ("user-agent", "GitHub-Hookshot/archweld".to_owned()),
                ("x-github-event", event),
                ("x-github-delivery", delivery),
                ("x-hub-signature-256", prefixed()),
            ],
            Self::GitLab => vec![
                ("user-agent", "GitLab/archweld".to_owned()),
                ("x-gitlab-event", event),
                ("x-gitlab-event-uuid", delivery.clone()),
                ("idempotency-key", delivery),
                // GitLab sends the secret itself.
                ("x-gitlab-token", String::from_utf8_lossy(secret).into_owned()),
            ],
            Self::Bitbucket => vec![
                ("user-agent", "Bitbucket-Webhooks/2.0".to_owned()),
                ("x-event-key", event),
                ("x-request-uuid", delivery),
                ("x-attempt-number", "1".to_owned()),
                ("x-hub-signature", prefixed()),
            ],
            Self::Gitea => vec![
                ("user-agent", "Go-http-client/1.1".to_owned()),
                ("x-gitea-event", event.clone()),
                ("x-gitea-delivery", delivery.clone()),
                ("x-gitea-signature", signature()),
                ("x-github-event", event),
                ("x-github-delivery", delivery),
                ("x-hub-signature-256", prefixed()),
            ],
        });
        headers
    }

    fn event(self, event: &str) -> &str {
        match (self, event) {
            (Self::GitLab, "push") => "Push Hook",
            (Self::GitLab, "tag_push") => "Tag Push Hook",
            (Self::Bitbucket, "push" | "tag_push") => "repo:push",
            (Self::GitHub | Self::Gitea, "tag_push") => "push",
            (_, event) => event,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str() == text)
            .ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

fn hmac(secret: &[u8], body: &[u8]) -> impl AsRef<[u8]> + use<> {
    // A key of any length is good: the error is of the trait, not of HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return Default::default();
    };
    mac.update(body);
    mac.finalize().into_bytes()
}

/// The secret that signs, of a text that may hold several during a rotation: its first line.
pub fn signing_secret(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(provider: Provider, event: &str, name: &str) -> String {
        let headers =
            provider.headers(event, "d1", b"It's a Secret to Everybody", b"Hello, World!");
        headers.into_iter().find(|(it, _)| *it == name).unwrap().1
    }

    #[test]
    fn signs_githubs_documented_example() {
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signature = header(Provider::GitHub, "push", "x-hub-signature-256");
        assert_eq!(signature, format!("sha256={hex}"));
        assert_eq!(header(Provider::Bitbucket, "push", "x-hub-signature"), signature);
        assert_eq!(header(Provider::Gitea, "push", "x-gitea-signature"), hex);
        let token = header(Provider::GitLab, "push", "x-gitlab-token");
        assert_eq!(token, "It's a Secret to Everybody");
    }

    #[test]
    fn a_push_has_every_providers_name() {
        assert_eq!(header(Provider::GitHub, "ping", "x-github-event"), "ping");
        assert_eq!(header(Provider::GitLab, "tag_push", "x-gitlab-event"), "Tag Push Hook");
        assert_eq!(header(Provider::Bitbucket, "push", "x-event-key"), "repo:push");
        assert_eq!(header(Provider::Gitea, "push", "x-gitea-event"), "push");
    }

    #[test]
    fn the_first_line_of_several_secrets_signs() {
        assert_eq!(signing_secret("\n new \nold\n"), Some("new"));
        assert_eq!(signing_secret(" \n"), None);
    }
}
