//! What a branch or tag is now, asked of a git server.
//!
//! The server's advertisement of refs is all that is read of git's smart protocol
//! (<https://git-scm.com/docs/http-protocol#_smart_clients>), in its versions 0 and 1, which every
//! server speaks to a client that asks for no other.

use std::time::Duration;

use archweld_aws::{
    ServiceError,
    http::{Bounded, split},
    operation,
    secret::Secret,
};
use archweld_model::{Commit, GitRef};
use archweld_runtime::CallError;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, OrchestratorError};
use aws_smithy_types::{body::SdkBody, timeout::TimeoutConfig};
use aws_types::SdkConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::StatusCode;

use crate::address::Address;

/// How long an advertisement may be, in bytes: about 400,000 refs.
const ADVERTISEMENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long it may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
const CALL_MAX: Duration = Duration::from_secs(25);
/// How often a server may say that the repository is elsewhere, at the same server.
const REDIRECTS_MAX: usize = 3;
/// Who a token is for, where it does not say: GitHub and GitLab take any name, Bitbucket this one.
const TOKEN_USER: &str = "x-token-auth";

/// A git client.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    config: SdkConfig,
}

/// What a ref is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// This commit.
    Commit(Commit),
    /// Nothing: the repository has no such ref.
    Missing,
    /// It cannot be told from here, and why. CodeBuild, which has credentials of its own, may.
    Unknown(String),
}

/// An answer of a server's, as far as it matters.
#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

impl Git {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self { config: config.clone() }
    }

    /// The commit that a branch or tag is at. The token goes to no other host than the source's, and
    /// to none over plain HTTP.
    ///
    /// # Errors
    /// When the server does not answer: later, it may.
    pub(crate) async fn resolve(
        &self,
        source: &str,
        git_ref: &GitRef,
        token: Option<&Secret>,
    ) -> Result<Resolved, CallError> {
        if Address::parse(source).is_some_and(|address| address.is_codecommit()) {
            let reason = "CodeCommit is not asked for commits: the build takes the newest";
            return Ok(Resolved::Unknown(reason.to_owned()));
        }
        let mut url = format!("{}/info/refs?service=git-upload-pack", source.trim_end_matches('/'));
        for _ in 0..=REDIRECTS_MAX {
            let Some((origin, path)) = split(&url) else {
                return Ok(Resolved::Unknown("the source is no address of HTTP".to_owned()));
            };
            let token = token.filter(|_| origin.starts_with("https://"));
            let answer = self.get(origin, path, token).await?;
            match answer.status {
                StatusCode::OK => {
                    return Ok(advertised(&answer.body, git_ref).unwrap_or_else(|| {
                        Resolved::Unknown("the source is no git server".to_owned())
                    }));
                }
                status if status.is_redirection() => {
                    let to = answer.location.unwrap_or_default();
                    let to = if to.starts_with('/') { format!("{origin}{to}") } else { to };
                    if split(&to).is_none_or(|(there, _)| !there.eq_ignore_ascii_case(origin)) {
                        let reason = "the source has moved to another host";
                        return Ok(Resolved::Unknown(reason.to_owned()));
                    }
                    url = to;
                }
                status => {
                    return Ok(Resolved::Unknown(format!("the source's server says {status}")));
                }
            }
        }
        Ok(Resolved::Unknown("the source has moved too often".to_owned()))
    }

    /// Asks once; what a retry may mend is retried.
    async fn get(
        &self,
        origin: &str,
        path: &str,
        token: Option<&Secret>,
    ) -> Result<Answer, CallError> {
        const WHAT: &str = "git ls-remote";
        let authorization = token.map(|token| {
            let text = token.text();
            let credentials =
                if text.contains(':') { text.to_owned() } else { format!("{TOKEN_USER}:{text}") };
            format!("Basic {}", BASE64.encode(credentials))
        });
        let path = path.to_owned();
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_MAX)
            .operation_timeout(CALL_MAX)
            .build();
        let mut operation = operation(&self.config, "git", WHAT, origin, timeouts).no_auth();
        if let Some(client) = self.config.http_client() {
            operation =
                operation.http_client(Bounded { client, body_bytes_max: ADVERTISEMENT_BYTES_MAX });
        }
        operation
            .serializer(move |()| {
                let mut request = HttpRequest::new(SdkBody::empty());
                request.set_uri(path.as_str())?;
                // Some servers speak the smart protocol to those alone who call themselves git.
                request.headers_mut().try_insert("user-agent", "git/archweld")?;
                if let Some(authorization) = &authorization {
                    request.headers_mut().try_insert("authorization", authorization.clone())?;
                }
                Ok(request)
            })
            .deserializer::<Answer, ServiceError>(|response| {
                let status = response.status().as_u16();
                if status == 429 || status >= 500 {
                    let message = "the source's server cannot answer now";
                    let error = ServiceError::new(format!("HTTP {status}"), message);
                    return Err(OrchestratorError::operation(error));
                }
                Ok(Answer {
                    status: StatusCode::from_u16(status).map_err(OrchestratorError::other)?,
                    location: response.headers().get("location").map(str::to_owned),
                    body: response.body().bytes().unwrap_or_default().to_vec(),
                })
            })
            .build()
            .invoke(())
            .await
            .map_err(|error| CallError::new(WHAT, &error))
    }
}

/// What an advertisement says of a ref; `None` where it is no advertisement.
fn advertised(body: &[u8], git_ref: &GitRef) -> Option<Resolved> {
    let full = match (git_ref.branch(), git_ref.tag()) {
        (Some(branch), _) => format!("refs/heads/{branch}"),
        (None, tag) => format!("refs/tags/{}", tag?),
    };
    // What an annotated tag is of comes after the tag.
    let peeled = format!("{full}^{{}}");
    let mut lines = pkt_lines(body);
    if lines.next()? != Some(b"# service=git-upload-pack") {
        return None;
    }
    let mut found = Resolved::Missing;
    for line in lines.flatten() {
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let Some((id, name)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        if name == full || name == peeled {
            let commit: Commit = id.parse().ok()?;
            found = Resolved::Commit(Some(commit).filter(Commit::is_whole)?);
        }
    }
    Some(found)
}

/// The lines of git's framing, `None` for a flush; ends at the first thing that is no frame
/// (<https://git-scm.com/docs/protocol-common#_pkt_line_format>).
fn pkt_lines(mut bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_at_checked(4)?;
        let length = std::str::from_utf8(length).ok()?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            bytes = rest;
            return Some(None);
        }
        let (line, rest) = rest.split_at_checked(length.checked_sub(4)?)?;
        bytes = rest;
        Some(Some(line.strip_suffix(b"\n").unwrap_or(line)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn frame(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }

    fn advertisement(refs: &[(&str, &str)]) -> String {
        let mut text = frame("# service=git-upload-pack\n") + "0000";
        for (index, (id, name)) in refs.iter().enumerate() {
            let capabilities =
                if index == 0 { "\0multi_ack symref=HEAD:refs/heads/main" } else { "" };
            text += &frame(&format!("{id} {name}{capabilities}\n"));
        }
        text + "0000"
    }

    fn resolve(body: &str, git_ref: &str) -> Option<Resolved> {
        advertised(body.as_bytes(), &git_ref.parse().unwrap())
    }

    #[test]
    fn a_ref_is_the_commit_that_the_server_advertises() {
        let body = advertisement(&[
            (ONE, "HEAD"),
            (ONE, "refs/heads/main"),
            (TWO, "refs/heads/maintenance"),
            (ONE, "refs/tags/v1"),
            (TWO, "refs/tags/v1^{}"),
        ]);
        let commit = |id: &str| Some(Resolved::Commit(id.parse().unwrap()));
        assert_eq!(resolve(&body, "main"), commit(ONE));
        assert_eq!(resolve(&body, "refs/heads/maintenance"), commit(TWO));
        assert_eq!(resolve(&body, "refs/tags/v1"), commit(TWO), "the commit, not the tag");
        assert_eq!(resolve(&body, "next"), Some(Resolved::Missing));
        let body = body.replacen("0000", &format!("0000{}", frame("version 1\n")), 1);
        assert_eq!(resolve(&body, "main"), commit(ONE));
    }

    #[test]
    fn what_is_no_advertisement_says_nothing() {
        for body in ["", "<html>", "0000", "001e# service=git-upload-pac", "zzzz"] {
            assert_eq!(resolve(body, "main"), None, "{body}");
        }
        let body = advertisement(&[("short", "refs/heads/main")]);
        assert_eq!(resolve(&body, "main"), None);
    }

    proptest! {
        #![proptest_config(crate::fuzz::config())]
        #[test]
        fn any_bytes_are_an_advertisement_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            cut in 0..200_usize,
        ) {
            let git_ref: GitRef = "main".parse().unwrap();
            prop_assert_ne!(advertised(&bytes, &git_ref), Some(Resolved::Missing));
            let mut body = advertisement(&[(ONE, "HEAD"), (TWO, "refs/heads/main")]).into_bytes();
            body.truncate(cut);
            body.extend(&bytes);
            if let Some(Resolved::Commit(commit)) = advertised(&body, &git_ref) {
                prop_assert!(commit.is_whole());
            }
        }
    }
}
