//! Calls that wait until the test lets them through: every order of them can be tried.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use archweld_model::Digest;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_types::SdkConfig;
use serde_json::Value;
use tokio::sync::oneshot;

/// The gates of all actors.
#[derive(Clone, Default)]
pub struct Gates(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    heard: BTreeMap<&'static str, BTreeMap<String, Digest>>,
}

/// A call that waits.
struct Waiting {
    actor: &'static str,
    call: String,
    go: oneshot::Sender<Go>,
}

/// How a call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    /// To its answer.
    Answered,
    /// It takes effect, and nobody hears of it.
    Unheard,
}

/// The client of one actor.
#[derive(Clone)]
struct Gated {
    actor: &'static str,
    gates: Gates,
    inner: SharedHttpClient,
}

#[derive(Debug)]
struct GatedConnector {
    client: Gated,
    inner: SharedHttpConnector,
}

impl Gates {
    /// A configuration for an actor, all whose calls to the ECR API wait here. Downloads do not: what
    /// they read never changes.
    pub fn gate(&self, actor: &'static str, config: &SdkConfig) -> SdkConfig {
        let inner = config.http_client().unwrap();
        let client = Gated { actor, gates: self.clone(), inner };
        let mut builder = config.clone().into_builder();
        builder.set_http_client(Some(SharedHttpClient::new(client)));
        builder.build()
    }

    /// The calls that wait, by actor and call.
    pub fn waiting(&self) -> Vec<(&'static str, String)> {
        let mut waiting: Vec<_> =
            self.state().waiting.iter().map(|call| (call.actor, call.call.clone())).collect();
        waiting.sort();
        waiting
    }

    /// What an actor has heard so far: its state, as it decides by nothing else.
    pub fn heard(&self, actor: &str) -> Vec<(String, Digest)> {
        let state = self.state();
        let heard = state.heard.get(actor).into_iter().flatten();
        heard.map(|(call, answer)| (call.clone(), *answer)).collect()
    }

    /// Lets a call through, with its answer or without.
    pub fn let_through(&self, actor: &str, call: &str, heard: bool) {
        let mut state = self.state();
        let at = state.waiting.iter().position(|known| known.actor == actor && known.call == call);
        let waiting = state.waiting.remove(at.unwrap());
        let go = if heard { Go::Answered } else { Go::Unheard };
        waiting.go.send(go).unwrap();
    }

    /// Forgets the calls of an actor that is no more.
    pub fn forget(&self, actor: &str) {
        self.state().waiting.retain(|call| call.actor != actor);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names a call so that no other of its actor has the name.
    fn name(&self, actor: &'static str, request: &HttpRequest) -> Option<String> {
        let target = request.headers().get("x-amz-target")?;
        let (_, operation) = target.rsplit_once('.')?;
        if operation == "GetDownloadUrlForLayer" {
            return None;
        }
        let body: Value = serde_json::from_slice(request.body().bytes()?).ok()?;
        let tag = body["imageTag"].as_str().unwrap_or_default();
        let state = self.state();
        let known = |name: &str| {
            state.waiting.iter().any(|call| call.actor == actor && call.call == name)
                || state.heard.get(actor).is_some_and(|heard| heard.contains_key(name))
        };
        (1..).map(|time| format!("{operation} {tag} {time}")).find(|name| !known(name))
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gated({})", self.actor)
    }
}

impl HttpClient for Gated {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(GatedConnector { client: self.clone(), inner })
    }
}

impl HttpConnector for GatedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Gated { actor, gates, .. } = self.client.clone();
        let Some(call) = gates.name(actor, &request) else { return self.inner.call(request) };
        let (go, gone) = oneshot::channel();
        gates.state().waiting.push(Waiting { actor, call: call.clone(), go });
        let inner = self.inner.clone();
        HttpConnectorFuture::new(async move {
            let go = gone.await.map_err(|_| ConnectorError::other("forgotten".into(), None))?;
            let answer: HttpResponse = inner.call(request).await?;
            if go == Go::Unheard {
                return std::future::pending().await;
            }
            let body = Digest::of(answer.body().bytes().unwrap_or_default());
            gates.state().heard.entry(actor).or_default().insert(call, body);
            Ok(answer)
        })
    }
}

/// A client whose every request takes a while.
#[derive(Debug, Clone)]
struct Delayed {
    delay: Duration,
    inner: SharedHttpClient,
}

#[derive(Debug)]
struct DelayedConnector {
    delay: Duration,
    inner: SharedHttpConnector,
}

/// A configuration whose every request takes this long: what it takes altogether then tells how many
/// of them had to wait for one another.
pub fn delayed(config: &SdkConfig, delay: Duration) -> SdkConfig {
    let inner = config.http_client().unwrap();
    let mut builder = config.clone().into_builder();
    builder.set_http_client(Some(SharedHttpClient::new(Delayed { delay, inner })));
    builder.build()
}

impl HttpClient for Delayed {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(DelayedConnector { delay: self.delay, inner })
    }
}

impl HttpConnector for DelayedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (delay, inner) = (self.delay, self.inner.clone());
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(delay).await;
            inner.call(request).await
        })
    }
}
