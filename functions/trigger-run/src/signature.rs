//! Who sent a webhook: its signature, over the bytes as they were sent.

use std::time::Duration;

use archweld_aws::secret::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::headers::Headers;

/// How far the clocks of a sender of signed time and of AWS may be apart: what the specification's
/// own libraries allow (<https://github.com/standard-webhooks/standard-webhooks>).
const CLOCKS_APART_MAX: Duration = Duration::from_secs(5 * 60);
/// How many signatures a webhook may bear: one for each key during a rotation, and room.
const SIGNATURES_MAX: usize = 8;
/// What Standard Webhooks' keys begin with, GitLab's among them.
const SIGNING_KEY_PREFIX: &str = "whsec_";

/// A provider of git repositories, known by the headers of its webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Bitbucket Cloud.
    Bitbucket,
    /// Gitea and Forgejo.
    Gitea,
    /// GitHub.
    GitHub,
    /// GitLab.
    GitLab,
}

impl Provider {
    /// The provider that a request is from. Gitea and Forgejo send GitHub's headers, too.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        let is_from = |names: &[&str]| names.iter().any(|name| headers.get(name).is_some());
        if is_from(&["x-gitea-event", "x-forgejo-event"]) {
            Some(Self::Gitea)
        } else if is_from(&["x-github-event"]) {
            Some(Self::GitHub)
        } else if is_from(&["x-gitlab-event"]) {
            Some(Self::GitLab)
        } else if is_from(&["x-event-key"]) {
            Some(Self::Bitbucket)
        } else {
            None
        }
    }

    /// Its name in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bitbucket => "bitbucket",
            Self::Gitea => "gitea",
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
        }
    }
}

/// The signature of a request, not verified yet.
pub(crate) enum Signature {
    /// HMAC-SHA256 of the body.
    Body([u8; 32]),
    /// The secret itself.
    Token(Vec<u8>),
    /// HMAC-SHA256 of identity, time and body, by any of the sender's keys
    /// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
    Standard {
        /// `webhook-id`
        id: String,
        /// `webhook-timestamp`, in seconds since 1970.
        timestamp: String,
        /// `webhook-signature`
        signatures: Vec<[u8; 32]>,
    },
}

impl Signature {
    /// The signature in a request's headers, where there is one of the right form.
    ///
    /// Where GitLab signs, its token does not count: a signature is never passed by.
    pub(crate) fn of(provider: Provider, headers: &Headers) -> Option<Self> {
        let prefixed = |name: &str| hash(headers.get(name)?.strip_prefix("sha256=")?);
        match provider {
            Provider::GitHub => prefixed("x-hub-signature-256").map(Self::Body),
            Provider::Bitbucket => prefixed("x-hub-signature").map(Self::Body),
            Provider::Gitea => match headers.get("x-hub-signature-256") {
                Some(_) => prefixed("x-hub-signature-256").map(Self::Body),
                // Releases of before 2022 sign under their own name only.
                None => headers
                    .get("x-gitea-signature")
                    .or_else(|| headers.get("x-forgejo-signature"))
                    .and_then(hash)
                    .map(Self::Body),
            },
            Provider::GitLab => match headers.get("webhook-signature") {
                Some(signatures) => Some(Self::Standard {
                    id: headers.get("webhook-id")?.to_owned(),
                    timestamp: headers.get("webhook-timestamp")?.to_owned(),
                    signatures: signatures
                        .split(' ')
                        .filter_map(|signature| signature.strip_prefix("v1,"))
                        .filter_map(|text| BASE64.decode(text).ok()?.try_into().ok())
                        .take(SIGNATURES_MAX)
                        .collect(),
                }),
                None => headers
                    .get("x-gitlab-token")
                    .filter(|token| !token.is_empty())
                    .map(|token| Self::Token(token.as_bytes().to_vec())),
            },
        }
    }

    /// Whether one of the secrets made it, in a time that does not depend on how much of it is
    /// right.
    pub(crate) fn is_by(&self, secrets: &[Secret], body: &[u8], now: Duration) -> bool {
        secrets.iter().fold(false, |found, secret| self.is_by_one(secret, body, now) | found)
    }

    fn is_by_one(&self, secret: &Secret, body: &[u8], now: Duration) -> bool {
        match self {
            Self::Body(signature) => hmac(secret.text().as_bytes(), &[body])
                .is_some_and(|mac| mac.verify_slice(signature).is_ok()),
            // Hashes are of one length, whatever the lengths of the tokens.
            Self::Token(token) => {
                Sha256::digest(token).ct_eq(&Sha256::digest(secret.text().as_bytes())).into()
            }
            Self::Standard { id, timestamp, signatures } => {
                let Some(time) = timestamp.parse().ok().map(Duration::from_secs) else {
                    return false;
                };
                let Some(key) = signing_key(secret) else { return false };
                let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
                let Some(mac) = hmac(&key, &signed) else { return false };
                let is_one_of = signatures.iter().fold(false, |found, signature| {
                    mac.clone().verify_slice(signature).is_ok() | found
                });
                is_one_of && now.abs_diff(time) <= CLOCKS_APART_MAX
            }
        }
    }
}

/// The key of Standard Webhooks that a secret is, if it is one.
fn signing_key(secret: &Secret) -> Option<Vec<u8>> {
    let key = secret.text().strip_prefix(SIGNING_KEY_PREFIX)?;
    BASE64.decode(key).ok().filter(|key| !key.is_empty())
}

fn hash(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The secret and the body of the vector that GitHub documents
    /// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const HASH: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    const NOW: Duration = Duration::from_secs(1_614_265_330);

    fn is_by(
        headers: &[(&str, &str)],
        secrets: &[&str],
        body: &[u8],
        now: Duration,
    ) -> Option<bool> {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers = Headers::from(headers);
        let signature = Signature::of(Provider::of(&headers)?, &headers)?;
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
        Some(signature.is_by(&secrets, body, now))
    }

    #[test]
    fn githubs_documented_signature_is_good_and_no_other() {
        let signature = format!("sha256={HASH}");
        let headers = [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str())];
        assert_eq!(is_by(&headers, &[SECRET], BODY, NOW), Some(true));
        assert_eq!(is_by(&headers, &["old", SECRET], BODY, NOW), Some(true));
        assert_eq!(is_by(&headers, &[SECRET], b"Hello, World", NOW), Some(false));
        assert_eq!(is_by(&headers, &["another"], BODY, NOW), Some(false));
        assert_eq!(is_by(&headers, &[], BODY, NOW), Some(false));
        let headers = [("X-Event-Key", "repo:push"), ("X-Hub-Signature", signature.as_str())];
        assert_eq!(is_by(&headers, &[SECRET], BODY, NOW), Some(true), "Bitbucket");
        let headers = [("X-Gitea-Event", "push"), ("X-Gitea-Signature", HASH)];
        assert_eq!(is_by(&headers, &[SECRET], BODY, NOW), Some(true), "Gitea");
    }

    /// The example of the specification's libraries.
    #[test]
    fn standard_webhooks_documented_signature_is_good_for_five_minutes() {
        let secrets = ["plain text is no key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
        let body = br#"{"test": 2432232314}"#;
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let is_good = |signatures: &str, now| {
            let headers = [
                ("X-Gitlab-Event", "Push Hook"),
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", signatures),
            ];
            is_by(&headers, &secrets, body, now)
        };
        assert_eq!(is_good(good, NOW), Some(true));
        assert_eq!(is_good(&format!("v1a,x v1, v1,AAAA {good}"), NOW), Some(true));
        assert_eq!(is_good(good, NOW + CLOCKS_APART_MAX), Some(true));
        assert_eq!(is_good(good, NOW + CLOCKS_APART_MAX + Duration::from_secs(1)), Some(false));
        assert_eq!(is_good(good, NOW - CLOCKS_APART_MAX - Duration::from_secs(1)), Some(false));
        assert_eq!(is_good(&good.replace("v1,", "v2,"), NOW), Some(false));
        assert_eq!(is_good("", NOW), Some(false));
    }

    #[test]
    fn sha1_is_no_signature() {
        let sha1 = "sha1=0123456789012345678901234567890123456789";
        for name in ["X-Hub-Signature", "X-Hub-Signature-256"] {
            let headers = [("X-GitHub-Event", "push"), (name, sha1)];
            assert_eq!(is_by(&headers, &[SECRET], BODY, NOW), None, "{name}");
        }
    }

    proptest! {
        #![proptest_config(crate::fuzz::config())]
        #[test]
        fn no_signature_but_the_right_one_is_good(
            signature in prop_oneof!["[0-9a-f]{64}", "(sha256=|sha1=|v1,)?.{0,70}"],
            header in prop::sample::select(vec![
                "x-hub-signature-256", "x-hub-signature", "x-gitea-signature", "x-gitlab-token",
                "webhook-signature",
            ]),
            event in prop::sample::select(vec![
                "x-github-event", "x-gitea-event", "x-gitlab-event", "x-event-key",
            ]),
            timestamp in "[0-9]{0,21}",
            body in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let prefixed = format!("sha256={signature}");
            for signature in [signature.as_str(), prefixed.as_str()] {
                let headers = [
                    (event, "push"), (header, signature), ("webhook-id", "1"),
                    ("webhook-timestamp", &timestamp),
                ];
                let is_by = is_by(&headers, &[SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], &body, NOW);
                prop_assert_ne!(is_by, Some(true));
            }
        }

        #[test]
        fn a_signature_is_good_for_its_body_and_key_alone(
            key in "[ -~]{1,20}",
            body in prop::collection::vec(any::<u8>(), 0..64),
            position: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            let signature = hex::encode(hmac(key.as_bytes(), &[&body]).unwrap().finalize().into_bytes());
            let signature = format!("sha256={signature}");
            let headers = [("x-github-event", "push"), ("x-hub-signature-256", signature.as_str())];
            prop_assert_eq!(is_by(&headers, &[&key], &body, NOW), Some(true));
            prop_assert_eq!(is_by(&headers, &[&format!("{key}x")], &body, NOW), Some(false));
            if !body.is_empty() {
                let mut other = body.clone();
                other[position.index(body.len())] ^= 1 << bit;
                prop_assert_eq!(is_by(&headers, &[&key], &other, NOW), Some(false));
            }
        }
    }
}
