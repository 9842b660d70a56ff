//! The page itself: files of `assets/`, compiled in.
//!
//! Style and theme stand in the page, and modules are loaded after the first paint: it waits for
//! one answer of the server.

use std::sync::LazyLock;

use archweld_model::Digest;
use axum::{
    extract::Path,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! assets {
    ($($name:literal: $media_type:expr),+ $(,)?) => {
        [$(Asset {
            name: $name,
            media_type: $media_type,
            bytes: include_bytes!(concat!("../assets/", $name)),
        }),+]
    };
}

static ASSETS: &[Asset] = &assets![
    "api.js": JAVASCRIPT,
    "app.js": JAVASCRIPT,
    "dom.js": JAVASCRIPT,
    "events.js": JAVASCRIPT,
    "format.js": JAVASCRIPT,
    "graph.js": JAVASCRIPT,
    "history.js": JAVASCRIPT,
    "icon-failed.svg": SVG,
    "icon-idle.svg": SVG,
    "icon-ok.svg": SVG,
    "icon-running.svg": SVG,
    "icon-stopped.svg": SVG,
    "images.js": JAVASCRIPT,
    "layout.js": JAVASCRIPT,
    "log.js": JAVASCRIPT,
    "run.js": JAVASCRIPT,
    "runs.js": JAVASCRIPT,
    "schedules.js": JAVASCRIPT,
    "start.js": JAVASCRIPT,
    "timeline.js": JAVASCRIPT,
    "ui.js": JAVASCRIPT,
    "virtual.js": JAVASCRIPT,
];

const STYLE: &str = include_str!("../assets/app.css");
const SCRIPT: &str = include_str!("../assets/first.js");

/// The page, with its style and its first script in it.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("../assets/index.html")
        .replace("<style></style>", &format!("<style>{STYLE}</style>"))
        .replace("<script></script>", &format!("<script>{SCRIPT}</script>"))
});

/// What the policy knows the style and the script in the page by
/// (<https://www.w3.org/TR/CSP3/#grammardef-hash-source>).
pub(crate) static STYLE_HASH: LazyLock<String> = LazyLock::new(|| hash(STYLE));
pub(crate) static SCRIPT_HASH: LazyLock<String> = LazyLock::new(|| hash(SCRIPT));

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(Sha256::digest(text)))
}

/// Changes with any of the files; browsers keep them until then.
static ETAG: LazyLock<String> = LazyLock::new(|| {
    let files = ASSETS.iter().flat_map(|asset| asset.bytes);
    let all: Vec<u8> = files.chain(PAGE.as_bytes()).copied().collect();
    format!("\"{}\"", Digest::of(&all))
});

pub(crate) async fn page(headers: HeaderMap) -> Response {
    serve(HTML, PAGE.as_bytes(), &headers)
}

pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => serve(asset.media_type, asset.bytes, &headers),
        None => Error::not_found("file").into_response(),
    }
}

fn serve(media_type: &'static str, bytes: &'static [u8], headers: &HeaderMap) -> Response {
    let caching = [(header::ETAG, ETAG.as_str()), (header::CACHE_CONTROL, "no-cache")];
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == ETAG.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, media_type)], bytes).into_response()
}
