//! The OCI distribution API, `/v2/`, as `docker` and other clients speak it to ECR.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>
//!
//! Anybody may read; whoever changes something must present the registry's credential. ECR
//! challenges with `Basic`. Docker Engine's classic image store, once challenged so, does not even
//! try to read without a login, so the challenge here is `Bearer`, whose token endpoint gives
//! everybody a token to read; `Basic` credentials are taken everywhere all the same.

mod route;

use std::{ops::Range, time::Duration};

use archweld_model::{Digest, RepositoryName};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::route::{Query, Resource, Target};
use crate::{
    Reference, Registry, RegistryError,
    auth::{Access, WrongCredential},
    manifest::{MANIFEST_BYTES_MAX, Manifest},
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// How long a bearer token is said to last, as ECR's credentials do; in truth it never ends.
const TOKEN_SECONDS: u32 = 12 * 60 * 60;

/// How long the rest of a refused body is read, as long as nginx's `lingering_time`.
const DRAIN: Duration = Duration::from_secs(30);

/// A refusal in the API's own shape
/// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes>).
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

type Answer = Result<Response, Refusal>;

impl Registry {
    /// The distribution API, for requests below `/v2/`. It is a tower service as well, so it can
    /// be called without a socket.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v2", any(answer))
            .route("/v2/", any(answer))
            .route("/v2/{*rest}", any(answer))
            .with_state(self.clone())
    }
}

async fn answer(State(registry): State<Registry>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let mut response = match dispatch(&registry, &parts, &mut body).await {
        Ok(response) => response,
        Err(refusal) => {
            drain(body).await;
            refusal.into_response(&parts.method)
        }
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    response
}

/// Reads what is left of a refused body, for a while. An answer that comes before the body's end,
/// and with it the end of the connection, resets what the client still sends: it would tell of a
/// broken pipe instead of the refusal.
async fn drain(mut body: Body) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(DRAIN, all).await;
}

async fn dispatch(registry: &Registry, parts: &Parts, body: &mut Body) -> Answer {
    let target = Target::parse(parts.uri.path())?;
    let query = Query::parse(parts.uri.query());
    authorize(registry, parts, &target)?;
    let (name, resource) = match target {
        Target::Base => return allow(&parts.method, &[Method::GET, Method::HEAD], || Ok(base())),
        Target::Token => {
            return allow(&parts.method, &[Method::GET], || token(registry, &parts.headers));
        }
        Target::Catalog => {
            return allow(&parts.method, &[Method::GET], || catalog(registry, &query));
        }
        Target::Repository(name, resource) => (name, resource),
    };
    match (parts.method.as_str(), resource) {
        ("GET" | "HEAD", Resource::Manifest(reference)) => {
            get_manifest(registry, parts, &name, &reference).await
        }
        ("PUT", Resource::Manifest(reference)) => {
            put_manifest(registry, parts, &name, &reference, body).await
        }
        ("DELETE", Resource::Manifest(reference)) => {
            registry.delete_reference(&name, parse_reference(&reference)?).await?;
            respond(StatusCode::ACCEPTED, [], Body::empty())
        }
        ("GET" | "HEAD", Resource::Blob(digest)) => {
            get_blob(registry, parts, &name, &parse_digest(&digest)?).await
        }
        ("DELETE", Resource::Blob(digest)) => {
            registry.delete_blob(&name, parse_digest(&digest)?).await?;
            respond(StatusCode::ACCEPTED, [], Body::empty())
        }
        ("POST", Resource::Uploads) => post_upload(registry, &name, &query, body).await,
        ("GET", Resource::Upload(id)) => {
            let bytes = registry.upload_bytes(&name, &id).await?;
            upload_status(StatusCode::NO_CONTENT, &name, &id, bytes)
        }
        ("PATCH", Resource::Upload(id)) => {
            let offset = chunk_offset(&parts.headers)?;
            let appended = registry.append_upload(&name, &id, offset, body).await;
            let bytes = resumable(&name, &id, appended)?;
            upload_status(StatusCode::ACCEPTED, &name, &id, bytes)
        }
        ("PUT", Resource::Upload(id)) => {
            let digest = parse_digest(query.get("digest").ok_or_else(digest_missing)?)?;
            let offset = chunk_offset(&parts.headers)?;
            let appended = registry.append_upload(&name, &id, offset, body).await;
            resumable(&name, &id, appended)?;
            registry.finish_upload(&name, &id, digest).await?;
            blob_created(&name, &digest)
        }
        ("DELETE", Resource::Upload(id)) => {
            registry.cancel_upload(&name, &id).await?;
            respond(StatusCode::NO_CONTENT, [], Body::empty())
        }
        ("GET", Resource::Tags) => tags(registry, &name, &query),
        ("GET", Resource::Referrers(digest)) => {
            referrers(registry, &name, &parse_digest(&digest)?, &query).await
        }
        (method, _) => Err(method_not_allowed(method)),
    }
}

/// Refuses a request that its credential does not allow. Asked for the base without any, it
/// challenges, which is how clients learn where to get a token.
fn authorize(registry: &Registry, parts: &Parts, target: &Target) -> Result<(), Refusal> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let (wanted, scope) = match target {
        Target::Base => (Access::Pull, None),
        Target::Token | Target::Catalog => (Access::None, None),
        Target::Repository(name, Resource::Upload(_)) => (Access::Push, Some((name, "pull,push"))),
        Target::Repository(name, _) if reads => (Access::None, Some((name, "pull"))),
        Target::Repository(name, _) => (Access::Push, Some((name, "pull,push"))),
    };
    let scope = scope.map(|(name, actions)| format!(",scope=\"repository:{name}:{actions}\""));
    let scope = scope.unwrap_or_default();
    let message = match registry.inner.secret.access(&parts.headers) {
        Ok(access) if access >= wanted => return Ok(()),
        Ok(_) => "a push needs the credential that GetAuthorizationToken returns",
        Err(WrongCredential) => "the credential is not one of this registry",
    };
    // The client reached this registry under that name, so it will reach the token endpoint, too.
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let address = host.map_or_else(|| registry.address(), ToOwned::to_owned);
    let challenge = format!("Bearer realm=\"http://{address}/v2/token\",service=\"ecr\"{scope}");
    Err(refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        .with(header::WWW_AUTHENTICATE, challenge))
}

fn allow(method: &Method, allowed: &[Method], answer: impl FnOnce() -> Answer) -> Answer {
    if allowed.contains(method) { answer() } else { Err(method_not_allowed(method.as_str())) }
}

fn base() -> Response {
    json_response(&json!({}))
}

/// Exchanges a `Basic` credential for a bearer token; without one, the token allows to read
/// (<https://distribution.github.io/distribution/spec/auth/token/>).
fn token(registry: &Registry, headers: &HeaderMap) -> Answer {
    let secret = &registry.inner.secret;
    let access = secret.access(headers).map_err(|WrongCredential| {
        let message = "the credential is not one of this registry";
        refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    })?;
    let token = secret.bearer(access);
    Ok(json_response(&json!({"token": token, "access_token": token, "expires_in": TOKEN_SECONDS})))
}

async fn get_manifest(
    registry: &Registry,
    parts: &Parts,
    name: &RepositoryName,
    reference: &str,
) -> Answer {
    let reference = parse_reference(reference).map_err(|refusal| match refusal.code {
        // What cannot be a tag is no image's tag.
        "TAG_INVALID" => refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", refusal.message),
        _ => refusal,
    })?;
    let image = registry.manifest(name, reference).await?;
    let headers = [
        (header::CONTENT_TYPE, image.media_type),
        (header::CONTENT_LENGTH, image.bytes.len().to_string()),
        (CONTENT_DIGEST, image.digest.to_string()),
    ];
    let reads = parts.method == Method::GET;
    let body = if reads { Body::from(image.bytes) } else { Body::empty() };
    respond(StatusCode::OK, headers, body)
}

async fn put_manifest(
    registry: &Registry,
    parts: &Parts,
    name: &RepositoryName,
    reference: &str,
    body: &mut Body,
) -> Answer {
    let reference = parse_reference(reference)?;
    let media_type = parts.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map(HeaderValue::to_str).transpose().map_err(|_| {
        refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "Content-Type is not a media type")
    })?;
    let media_type = media_type.map(|value| value.split(';').next().unwrap_or(value).trim());
    let bytes = collect_manifest(body).await?;
    let (tag, expected) = match reference {
        Reference::Tag(tag) => (Some(tag), None),
        Reference::Digest(digest) => (None, Some(digest)),
    };
    let put = registry.put(name, tag.as_ref(), media_type, bytes, expected).await?;
    let mut headers = vec![
        (header::LOCATION, format!("/v2/{name}/manifests/{}", put.digest)),
        (CONTENT_DIGEST, put.digest.to_string()),
    ];
    headers.extend(put.manifest.subject.map(|subject| (OCI_SUBJECT, subject.to_string())));
    respond(StatusCode::CREATED, headers, Body::empty())
}

async fn collect_manifest(body: &mut Body) -> Result<Bytes, RegistryError> {
    match Limited::new(body, MANIFEST_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(RegistryError::ManifestTooLarge { bytes_max: MANIFEST_BYTES_MAX })
        }
        Err(error) => Err(RegistryError::UploadInterrupted(error.to_string())),
    }
}

async fn get_blob(
    registry: &Registry,
    parts: &Parts,
    name: &RepositoryName,
    digest: &Digest,
) -> Answer {
    let blob = registry.find_blob(name, digest)?;
    let total = blob.bytes();
    let reads = parts.method == Method::GET;
    let part = if reads { requested_part(&parts.headers, total)? } else { None };
    let range = part.clone().unwrap_or(0..total);
    let mut headers = vec![
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let status = match part {
        Some(Range { start, end }) => {
            headers.push((header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", end - 1)));
            StatusCode::PARTIAL_CONTENT
        }
        None => StatusCode::OK,
    };
    let body =
        if reads { blob.body(range).await.map_err(RegistryError::from)? } else { Body::empty() };
    respond(status, headers, body)
}

/// The one range that a request asks for. One that makes no sense, or several, may be ignored
/// (<https://www.rfc-editor.org/rfc/rfc9110.html#section-14.2>).
fn requested_part(headers: &HeaderMap, total: u64) -> Result<Option<Range<u64>>, Refusal> {
    use http_range_header::{RangeUnsatisfiableError, parse_range_header};
    let Some(header) = headers.get(header::RANGE).and_then(|range| range.to_str().ok()) else {
        return Ok(None);
    };
    match parse_range_header(header).and_then(|ranges| ranges.validate(total)) {
        Ok(ranges) => match ranges.as_slice() {
            [one] => Ok(Some(*one.start()..one.end() + 1)),
            _ => Ok(None),
        },
        Err(RangeUnsatisfiableError::Unsatisfiable) => {
            let message = format!("the blob has {total} bytes");
            let refusal = refuse(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message);
            Err(refusal.with(header::CONTENT_RANGE, format!("bytes */{total}")))
        }
        Err(_) => Ok(None),
    }
}

/// Begins an upload, mounts a blob of another repository, or takes a whole blob at once.
async fn post_upload(
    registry: &Registry,
    name: &RepositoryName,
    query: &Query,
    body: &mut Body,
) -> Answer {
    if let Some(digest) = query.get("mount") {
        let digest = parse_digest(digest)?;
        if let Some(Ok(from)) = query.get("from").map(str::parse)
            && registry.mount_blob(name, &from, digest).await?
        {
            return blob_created(name, &digest);
        }
    }
    let whole = query.get("digest").map(parse_digest).transpose()?;
    let id = registry.begin_upload(name).await?;
    let Some(digest) = whole else {
        return upload_status(StatusCode::ACCEPTED, name, &id, 0);
    };
    if let Err(error) = registry.append_upload(name, &id, None, body).await {
        // The client was never told the upload's id, so it cannot resume.
        if matches!(error, RegistryError::UploadInterrupted(_)) {
            registry.cancel_upload(name, &id).await?;
        }
        return Err(error.into());
    }
    registry.finish_upload(name, &id, digest).await?;
    blob_created(name, &digest)
}

/// Where a chunk begins by its `Content-Range`, which is `<first>-<last>` here.
fn chunk_offset(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let invalid = |expected| {
        let message = format!("Content-Range is not {expected}");
        refuse(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    };
    let numbers = range.to_str().ok().and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    });
    let (first, last) = numbers.ok_or_else(|| invalid("`<first>-<last>`"))?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| first.checked_add(length) != last.checked_add(1)) {
        return Err(invalid("as long as the body"));
    }
    Ok(Some(first))
}

/// Tells a client whose chunk did not fit where to go on.
fn resumable(
    name: &RepositoryName,
    id: &str,
    appended: Result<u64, RegistryError>,
) -> Result<u64, Refusal> {
    appended.map_err(|error| match error {
        RegistryError::UploadOffset { expected, .. } => {
            let mut refusal = Refusal::from(error);
            refusal.headers.extend(upload_headers(name, id, expected));
            refusal
        }
        error => error.into(),
    })
}

fn upload_headers(name: &RepositoryName, id: &str, bytes: u64) -> [(HeaderName, String); 3] {
    [
        (header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
        (header::RANGE, format!("0-{}", bytes.saturating_sub(1))),
        (UPLOAD_ID, id.to_owned()),
    ]
}

fn upload_status(status: StatusCode, name: &RepositoryName, id: &str, bytes: u64) -> Answer {
    respond(status, upload_headers(name, id, bytes), Body::empty())
}

fn blob_created(name: &RepositoryName, digest: &Digest) -> Answer {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    respond(StatusCode::CREATED, headers, Body::empty())
}

fn tags(registry: &Registry, name: &RepositoryName, query: &Query) -> Answer {
    let tags = registry.tags(name)?.into_keys().map(String::from);
    let (tags, link) = page(tags, query, &format!("/v2/{name}/tags/list"))?;
    Ok(with_link(json_response(&json!({"name": name, "tags": tags})), link))
}

fn catalog(registry: &Registry, query: &Query) -> Answer {
    let names = registry.repositories().into_iter().map(String::from);
    let (names, link) = page(names, query, "/v2/_catalog")?;
    Ok(with_link(json_response(&json!({"repositories": names})), link))
}

/// The names after `last`, at most `n`, and a link to those that follow.
fn page(
    names: impl Iterator<Item = String>,
    query: &Query,
    path: &str,
) -> Result<(Vec<String>, Option<HeaderValue>), Refusal> {
    let count = query.get("n").map(str::parse::<usize>).transpose().map_err(|_| {
        refuse(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "n is not a number")
    })?;
    let last = query.get("last").unwrap_or_default();
    let mut names = names.filter(|name| name.as_str() > last);
    let Some(count) = count else { return Ok((names.collect(), None)) };
    let page: Vec<String> = names.by_ref().take(count).collect();
    let link = match page.last() {
        Some(last) if names.next().is_some() => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            let query = query.append_pair("n", &count.to_string()).append_pair("last", last);
            HeaderValue::try_from(format!("<{path}?{}>; rel=\"next\"", query.finish())).ok()
        }
        _ => None,
    };
    Ok((page, link))
}

fn with_link(mut response: Response, link: Option<HeaderValue>) -> Response {
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers>
async fn referrers(
    registry: &Registry,
    name: &RepositoryName,
    subject: &Digest,
    query: &Query,
) -> Answer {
    let wanted = query.get("artifactType");
    let mut manifests = Vec::new();
    for (digest, manifest) in registry.referrers(name, subject)? {
        if wanted.is_none() || wanted == manifest.artifact_type.as_deref() {
            let annotations = Manifest::annotations(&registry.read(&digest).await?);
            manifests.push(json!({
                "mediaType": manifest.media_type,
                "digest": digest,
                "size": manifest.bytes,
                "artifactType": manifest.artifact_type,
                "annotations": annotations,
            }));
        }
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    let mut response = json_response(&index);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if wanted.is_some() {
        let applied = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS_APPLIED, applied);
    }
    Ok(response)
}

fn parse_reference(text: &str) -> Result<Reference, Refusal> {
    if text.contains(':') {
        return Ok(Reference::Digest(parse_digest(text)?));
    }
    match text.parse() {
        Ok(tag) => Ok(Reference::Tag(tag)),
        Err(error) => Err(refuse(StatusCode::BAD_REQUEST, "TAG_INVALID", error)),
    }
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error| refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error))
}

fn digest_missing() -> Refusal {
    refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the query lacks the blob's digest")
}

fn method_not_allowed(method: &str) -> Refusal {
    let message = format!("{method} is not supported here");
    refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
}

fn refuse(status: StatusCode, code: &'static str, message: impl ToString) -> Refusal {
    Refusal { status, code, message: message.to_string(), headers: Vec::new() }
}

fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn respond(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: Body,
) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        let value = HeaderValue::try_from(value).map_err(|error| {
            tracing::error!(header.name = %name, %error, "failed to build a response");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the response has a bad header")
        })?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

impl Refusal {
    fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    fn into_response(self, method: &Method) -> Response {
        let error = json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut response = json_response(&error);
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let (status, code) = match &error {
            E::RepositoryNotFound(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            E::ImageNotFound { .. } => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            E::BlobNotFound { .. } => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            E::UploadNotFound(_) => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            E::TagImmutable { .. } => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            E::LayersNotFound(_) | E::ReferencedImagesNotFound(_) => {
                (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN")
            }
            E::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            E::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            E::UploadInterrupted(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            E::UploadOffset { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            E::ManifestTooLarge { .. } | E::LayerTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID")
            }
            E::TooManyUploads(_) => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            // Docker repeats an upload that failed in most other ways, for over a minute, and
            // shows no message that comes with a status of 500 or above.
            E::Full { .. } | E::DiskFull(_) => (StatusCode::FORBIDDEN, "DENIED"),
            E::RepositoryExists(_)
            | E::RepositoryNotEmpty(_)
            | E::TooManyTags { .. }
            | E::ReferencedByIndex { .. }
            | E::ReferencedByImage { .. } => (StatusCode::FORBIDDEN, "DENIED"),
            E::Store(source) => {
                tracing::error!(error = %source, "registry's store failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
            }
        };
        refuse(status, code, error)
    }
}
