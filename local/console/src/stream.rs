//! `GET /api/stream`: what happens, as server-sent events; `GET /api/events`: what happened lately.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    app::{App, Shared},
    hub::{Entry, Subscription},
};

/// How often a silent connection says that it is there: a page that is gone is noticed then.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How much of what happened before a page was opened is told to it.
const RECENT_MAX: usize = 400;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A page's place in what happens.
struct Reader {
    app: Arc<App>,
    ready: VecDeque<Event>,
    entries: Receiver<Arc<Entry>>,
}

impl Reader {
    fn new(app: Arc<App>, after: Option<&str>) -> Self {
        let Subscription { missed, last, entries } = app.hub.subscribe(after);
        let mut reader = Self { app, ready: VecDeque::new(), entries };
        // Says where it begins, so that even a page that was told nothing can say it again.
        let first = missed.as_deref().and_then(|missed| missed.first());
        let begin = reader.control("hello", first.map_or(last, |first| first.number - 1));
        reader.ready.push_back(begin);
        match missed {
            Some(missed) => {
                let missed: Vec<Event> = missed.iter().map(|entry| reader.event(entry)).collect();
                reader.ready.extend(missed);
            }
            None => reader.ready.push_back(reader.control("resync", last)),
        }
        reader
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        match self.entries.recv().await {
            Ok(entry) => Some(self.event(&entry)),
            Err(RecvError::Lagged(_)) => {
                self.entries = self.entries.resubscribe();
                Some(self.control("resync", self.app.hub.last()))
            }
            Err(RecvError::Closed) => None,
        }
    }

    fn event(&self, entry: &Entry) -> Event {
        Event::default().id(self.app.hub.id(entry.number)).event(entry.kind).data(&entry.data)
    }

    fn control(&self, kind: &'static str, number: u64) -> Event {
        Event::default().id(self.app.hub.id(number)).event(kind).data("{}")
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Recent {
    kind: &'static str,
    data: Box<RawValue>,
}

pub(crate) async fn recent(State(app): Shared) -> Json<Vec<Recent>> {
    // How much the logs grew is of interest to whoever reads them, and to nobody afterwards.
    let entries = app.hub.recent(RECENT_MAX, |entry| !["log", "resync"].contains(&entry.kind));
    let recent = entries.iter().filter_map(|entry| {
        let data = RawValue::from_string(entry.data.clone()).ok()?;
        Some(Recent { kind: entry.kind, data })
    });
    Json(recent.collect())
}

pub(crate) async fn stream(
    State(app): Shared,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let after = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let reader = Reader::new(app, after);
    let events =
        stream::unfold(reader, async |mut reader| Some((Ok(reader.next().await?), reader)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
