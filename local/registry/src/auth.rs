//! Who may pull, and who may push.
//!
//! One secret a registry: it is the password that `GetAuthorizationToken` hands out. Kept beside
//! the images, it keeps a `docker login` valid across restarts.

use std::{fs, io, path::Path};

use archweld_local_api::Host;
use axum::http::{HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq as _;

use crate::blobs::write_atomically;

/// The user name that ECR's credentials have.
const USER: &str = "AWS";

/// The bearer token of somebody who has not logged in.
const ANONYMOUS: &str = "anonymous";

/// What a credential allows, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// No credential came at all: such a request may read, too.
    None,
    Pull,
    Push,
}

/// A credential that is not this registry's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongCredential;

/// The registry's password.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    pub(crate) fn generate(host: &Host) -> Self {
        let words: [u64; 4] = std::array::from_fn(|_| host.random());
        Self(words.map(|word| format!("{word:016x}")).concat())
    }

    /// The secret in the file at `path`, which is made when absent.
    pub(crate) fn open(path: &Path, uploads: &Path, host: &Host) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(secret) if !secret.is_empty() => Ok(Self(secret)),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is empty, expected a secret; delete it to get one", path.display()),
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = Self::generate(host);
                write_atomically(uploads, path, secret.0.as_bytes())?;
                Ok(secret)
            }
            Err(error) => Err(error),
        }
    }

    /// `AWS:<password>` in base64: what ECR calls an authorization token.
    pub(crate) fn authorization_token(&self) -> String {
        BASE64_STANDARD.encode(format!("{USER}:{}", self.0))
    }

    /// The bearer token of somebody with that access.
    pub(crate) fn bearer(&self, access: Access) -> &str {
        match access {
            Access::Push => &self.0,
            Access::None | Access::Pull => ANONYMOUS,
        }
    }

    /// What the `Authorization` header of a request allows.
    pub(crate) fn access(&self, headers: &HeaderMap) -> Result<Access, WrongCredential> {
        let Some(credential) = headers.get(header::AUTHORIZATION) else { return Ok(Access::None) };
        let credential = credential.to_str().map_err(|_| WrongCredential)?;
        let (scheme, value) = credential.split_once(' ').ok_or(WrongCredential)?;
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => {
                let decoded = BASE64_STANDARD.decode(value.trim()).map_err(|_| WrongCredential)?;
                let separator = decoded.iter().position(|&byte| byte == b':');
                let (user, password) = decoded.split_at(separator.ok_or(WrongCredential)?);
                match (user, &password[1..]) {
                    // What a client sends that was asked for a credential and has none.
                    (b"", b"") => Ok(Access::Pull),
                    (user, password) if user == USER.as_bytes() => self.check(password),
                    _ => Err(WrongCredential),
                }
            }
            "bearer" if value.trim() == ANONYMOUS => Ok(Access::Pull),
            "bearer" => self.check(value.trim().as_bytes()),
            _ => Err(WrongCredential),
        }
    }

    fn check(&self, password: &[u8]) -> Result<Access, WrongCredential> {
        let equal = password.ct_eq(self.0.as_bytes());
        if equal.into() { Ok(Access::Push) } else { Err(WrongCredential) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn only_the_registrys_own_credential_may_push() {
        let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
        let secret = Secret::generate(&host);
        let access = |credential: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, credential.parse().unwrap());
            secret.access(&headers)
        };
        let basic = |text: &str| access(&format!("Basic {}", BASE64_STANDARD.encode(text)));

        assert_eq!(secret.access(&HeaderMap::new()), Ok(Access::None));
        assert_eq!(access(&format!("Basic {}", secret.authorization_token())), Ok(Access::Push));
        assert_eq!(access(&format!("bearer {}", secret.0)), Ok(Access::Push));
        assert_eq!(basic(":"), Ok(Access::Pull));
        assert_eq!(access("Bearer anonymous"), Ok(Access::Pull));

        assert_eq!(basic(&format!("root:{}", secret.0)), Err(WrongCredential));
        assert_eq!(basic(&format!("AWS:{}x", secret.0)), Err(WrongCredential));
        for wrong in ["Basic", "Basic !", "Bearer", "Bearer x", "Digest x"] {
            assert_eq!(access(wrong), Err(WrongCredential), "{wrong}");
        }
        for wrong in ["AWS", "AWS:", "AWS:anonymous", ":x"] {
            assert_eq!(basic(wrong), Err(WrongCredential), "{wrong}");
        }
    }
}
