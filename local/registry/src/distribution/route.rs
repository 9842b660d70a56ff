//! Paths and queries of the distribution API.

use archweld_model::RepositoryName;
use axum::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{Refusal, refuse};

/// What a path below `/v2/` is about.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    Base,
    Token,
    Catalog,
    Repository(RepositoryName, Resource),
}

/// What a path below `/v2/<name>/` is about. What names it is not checked yet.
#[derive(Debug, PartialEq)]
pub(super) enum Resource {
    Manifest(String),
    Blob(String),
    Uploads,
    Upload(String),
    Tags,
    Referrers(String),
}

impl Target {
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let unknown = || refuse(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint");
        let path = percent_decode_str(path).decode_utf8().map_err(|_| unknown())?;
        let path = path.strip_prefix("/v2").ok_or_else(unknown)?;
        match path {
            "" | "/" => return Ok(Self::Base),
            "/token" => return Ok(Self::Token),
            "/_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let (name, resource) = split(path.trim_start_matches('/')).ok_or_else(unknown)?;
        let name =
            name.parse().map_err(|error| refuse(StatusCode::BAD_REQUEST, "NAME_INVALID", error))?;
        Ok(Self::Repository(name, resource))
    }
}

/// Takes a path apart from its end: names of repositories have slashes, references have none.
fn split(path: &str) -> Option<(&str, Resource)> {
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Some((name, Resource::Tags));
    }
    if let Some(name) = path.trim_end_matches('/').strip_suffix("/blobs/uploads") {
        return Some((name, Resource::Uploads));
    }
    let (path, last) = path.rsplit_once('/').filter(|(_, last)| !last.is_empty())?;
    let last = last.to_owned();
    if let Some(name) = path.strip_suffix("/blobs/uploads") {
        return Some((name, Resource::Upload(last)));
    }
    let (name, kind) = path.rsplit_once('/')?;
    match kind {
        "manifests" => Some((name, Resource::Manifest(last))),
        "blobs" => Some((name, Resource::Blob(last))),
        "referrers" => Some((name, Resource::Referrers(last))),
        _ => None,
    }
}

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first parameter of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Target, &'static str> {
        Target::parse(path).map_err(|refusal| refusal.code)
    }

    fn repository(name: &str, resource: Resource) -> Result<Target, &'static str> {
        Ok(Target::Repository(name.parse().unwrap(), resource))
    }

    #[test]
    fn names_may_have_slashes_and_the_words_of_the_api() {
        let tag = || Resource::Manifest("v1".to_owned());
        assert_eq!(parse("/v2/app/manifests/v1"), repository("app", tag()));
        assert_eq!(parse("/v2/team/app/manifests/v1"), repository("team/app", tag()));
        assert_eq!(parse("/v2/a1/manifests/b1/manifests/v1"), repository("a1/manifests/b1", tag()));
        assert_eq!(parse("/v2/app/blobs/uploads/"), repository("app", Resource::Uploads));
        assert_eq!(parse("/v2/app/blobs/uploads"), repository("app", Resource::Uploads));
        let upload = Resource::Upload("x".to_owned());
        assert_eq!(parse("/v2/app/blobs/uploads/x"), repository("app", upload));
        let blob = || Resource::Blob("sha256:0".to_owned());
        assert_eq!(parse("/v2/app/blobs/sha256:0"), repository("app", blob()));
        assert_eq!(parse("/v2/app/blobs/sha256%3A0"), repository("app", blob()));
        assert_eq!(parse("/v2/tags/list/tags/list"), repository("tags/list", Resource::Tags));
        assert_eq!(
            parse("/v2/app/referrers/sha256:0"),
            repository("app", Resource::Referrers("sha256:0".to_owned()))
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        assert_eq!(parse("/v2/"), Ok(Target::Base));
        assert_eq!(parse("/v2/_catalog"), Ok(Target::Catalog));
        assert_eq!(parse("/v2/token"), Ok(Target::Token));
        assert_eq!(parse("/v2/app"), Err("UNSUPPORTED"));
        assert_eq!(parse("/v2/app/manifests/"), Err("UNSUPPORTED"));
        assert_eq!(parse("/v2/app/manifests/a/b"), Err("UNSUPPORTED"));
        assert_eq!(parse("/v2/App/manifests/v1"), Err("NAME_INVALID"));
        assert_eq!(parse("/v2/../x/manifests/v1"), Err("NAME_INVALID"));
        assert_eq!(parse("/v2/%ff/manifests/v1"), Err("UNSUPPORTED"));
    }
}
