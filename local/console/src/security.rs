//! What every answer says to browsers, and what changes something has to say to it.
//!
//! The door that the console is mounted behind refuses names that are not this machine's and pages
//! of other origins. Here is what is left: a change has to be JSON, which no form of another page
//! can send, and the page may load nothing but what it came with.

use std::sync::LazyLock;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    assets::{SCRIPT_HASH, STYLE_HASH},
    error::Error,
};

/// <https://www.w3.org/TR/CSP3/>
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (style, script) = (&*STYLE_HASH, &*SCRIPT_HASH);
    let policy = format!(
        "default-src 'none'; script-src 'self' {script}; style-src {style}; connect-src 'self'; \
         img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Who may show an answer in a page: badges say so themselves, and the door keeps strangers from them.
pub(crate) const RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if reads || is_json(&request) {
        next.run(request).await
    } else {
        let message = "expected the content type application/json";
        Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.entry(RESOURCE_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn is_json(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}
