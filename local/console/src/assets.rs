//! The page itself: files of `assets/`, compiled in.

use std::sync::LazyLock;

use archweld_model::Digest;
use axum::{
    extract::Path,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};

use crate::error::Error;

struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
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
    "index.html": HTML,
    "api.js": JAVASCRIPT,
    "app.css": CSS,
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
    "theme.js": JAVASCRIPT,
    "timeline.js": JAVASCRIPT,
    "ui.js": JAVASCRIPT,
    "virtual.js": JAVASCRIPT,
];

/// Changes with any of the files; browsers keep them until then.
static ETAG: LazyLock<String> = LazyLock::new(|| {
    let all: Vec<u8> = ASSETS.iter().flat_map(|asset| asset.bytes).copied().collect();
    format!("\"{}\"", Digest::of(&all))
});

pub(crate) async fn page(headers: HeaderMap) -> Response {
    serve("index.html", &headers)
}

pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Error::not_found("file").into_response();
    };
    let caching = [(header::ETAG, ETAG.as_str()), (header::CACHE_CONTROL, "no-cache")];
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == ETAG.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, asset.media_type)], asset.bytes).into_response()
}
