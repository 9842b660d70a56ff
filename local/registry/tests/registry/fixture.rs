//! A registry to test, and images to put into it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use archweld_local_api::{Event, Host};
use archweld_model::{Digest, RepositoryName};
use archweld_registry::{OpenError, Options, Registry, Storage, TagMutability};
use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A registry with one repository, `app`, and what it told its event sink.
pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    events: Arc<Mutex<Vec<Event>>>,
    _folder: Option<tempfile::TempDir>,
}

/// An answer of the distribution API.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) fn options(storage: Storage) -> Options {
    Options {
        storage,
        address: "localhost:4577".to_owned(),
        bytes_max: None,
        create_on_push: false,
    }
}

pub(crate) fn host() -> Host {
    Host::seeded("000000000000", "us-east-1", "2026-11-23T12:00:00Z".parse().unwrap(), 7)
}

pub(crate) fn open(folder: &Path) -> Result<Registry, OpenError> {
    Registry::open(host(), options(Storage::Folder(folder.to_owned())), Arc::new(|_| ()))
}

pub(crate) fn app() -> RepositoryName {
    "app".parse().unwrap()
}

impl Fixture {
    pub(crate) async fn in_memory() -> Self {
        Self::new(options(Storage::Memory)).await
    }

    /// Both kinds of store, for a behaviour that must not depend on it.
    pub(crate) async fn both() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut on_disk = Self::new(options(Storage::Folder(folder.path().to_owned()))).await;
        on_disk._folder = Some(folder);
        [on_disk, Self::in_memory().await]
    }

    pub(crate) async fn new(options: Options) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let sink = Arc::new(move |event| sink.lock().unwrap().push(event));
        let registry = Registry::open(host(), options, sink).unwrap();
        registry.create_repository(&app(), TagMutability::Mutable).await.unwrap();
        Self { registry, events, _folder: None }
    }

    /// The details of the events since the last call.
    pub(crate) fn take_events(&self) -> Vec<Value> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        let detail = |event: Event| {
            assert_eq!((&*event.source, &*event.detail_type), ("aws.ecr", "ECR Image Action"));
            assert!(event.resources.is_empty());
            event.detail
        };
        events.into_iter().map(detail).collect()
    }

    /// Calls the ECR API.
    pub(crate) async fn call(&self, operation: &str, input: Value) -> Result<Value, String> {
        self.registry.call(operation, input).await.map_err(|error| error.code)
    }

    /// A request by somebody who has logged in.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let authorization = format!("Basic {}", self.registry.authorization_token());
        let headers = [headers, &[("authorization", &*authorization)]].concat();
        self.send_as_is(method, path, &headers, body).await
    }

    /// A request with those headers only.
    pub(crate) async fn send_as_is(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.registry.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Body::empty()).await
    }

    /// Begins an upload and returns where it goes on.
    pub(crate) async fn begin_upload(&self) -> String {
        let reply = self.send("POST", "/v2/app/blobs/uploads/", &[], Body::empty()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        reply.header("location").to_owned()
    }

    /// Puts a manifest by tag or digest.
    pub(crate) async fn put_manifest(&self, reference: &str, manifest: &Value) -> Reply {
        let path = format!("/v2/app/manifests/{reference}");
        let media_type = manifest["mediaType"].as_str().unwrap();
        let headers = [("content-type", media_type)];
        self.send("PUT", &path, &headers, manifest.to_string()).await
    }

    /// Puts an image whose config and layer are made of `content` into `app`; says its descriptor.
    pub(crate) async fn push_image(&self, content: &str, tag: Option<&str>) -> Value {
        let manifest = self.push_layers(content).await;
        let tag = tag.map(|tag| tag.parse().unwrap());
        let bytes = manifest.to_string();
        let digest =
            self.registry.put_manifest(&app(), tag.as_ref(), None, bytes.clone()).await.unwrap();
        assert_eq!(digest, Digest::of(bytes.as_bytes()));
        descriptor(OCI_MANIFEST, &bytes)
    }

    /// Puts the config and the layer of an image, and returns its manifest.
    pub(crate) async fn push_layers(&self, content: &str) -> Value {
        let (config, layer) = (format!("config of {content}"), format!("layer of {content}"));
        self.registry.put_blob(&app(), config.clone()).await.unwrap();
        self.registry.put_blob(&app(), layer.clone()).await.unwrap();
        image(&config, &layer)
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and code of an error.
    pub(crate) fn error(&self) -> (u16, String) {
        assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/json");
        let error = self.json();
        assert!(error["errors"][0]["message"].as_str().is_some_and(|message| !message.is_empty()));
        (self.status.as_u16(), error["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

pub(crate) fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

pub(crate) fn descriptor(media_type: &str, content: &str) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(content.as_bytes()),
        "size": content.len(),
    })
}

pub(crate) fn image(config: &str, layer: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
    })
}

pub(crate) fn index(children: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
}

/// The digest of a manifest as the tests send it.
pub(crate) fn digest(manifest: &Value) -> String {
    Digest::of(manifest.to_string().as_bytes()).to_string()
}

pub(crate) fn epoch(time: &str) -> f64 {
    time.parse::<Timestamp>().unwrap().as_second() as f64
}
