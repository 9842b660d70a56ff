//! One sequence of requests against this registry and against Debian's `docker-registry`: they
//! must answer alike.
//!
//! Left out is where that one (2.8) departs from the specification, by taking chunks in any order,
//! and where ECR does: its repositories exist before they are pushed to, its tags may be immutable,
//! and an image is not deleted while an index needs it.

use std::{path::Path, process::Stdio};

use archweld_model::Digest;
use archweld_registry::{Options, Storage};
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::fixture::{
    DOCKER_LIST, DOCKER_MANIFEST, Fixture, OCI_INDEX, OCI_MANIFEST, descriptor, digest, image,
    index, options,
};

/// The headers that must be equal, where one of them sends them.
const HEADERS: [&str; 5] =
    ["docker-content-digest", "range", "content-range", "link", "docker-distribution-api-version"];

/// What is comparable of an answer.
#[derive(Debug, PartialEq)]
struct Reply {
    request: String,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

struct Client {
    address: String,
    authorization: String,
    replies: Vec<Reply>,
}

impl Client {
    /// Sends a request, notes the answer, and returns its `Location`.
    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = axum::http::Request::builder().method(method).uri(path);
        let own = [("host", &*self.address), ("authorization", &*self.authorization)];
        for (name, value) in own.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();

        let header = |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
        let mut body: Value =
            serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        if let Some(errors) = body.get("errors") {
            body = errors[0]["code"].clone();
        }
        if method == "GET" && path.contains("manifests") && parts.status.is_success() {
            body = json!([body, header("content-type")]);
        }
        self.replies.push(Reply {
            request: format!(
                "{} {method} {}",
                self.replies.len(),
                path.split('?').next().unwrap().split("uploads/").next().unwrap()
            ),
            status: parts.status.as_u16(),
            headers: HEADERS.iter().filter_map(|name| Some((*name, header(name)?))).collect(),
            body,
        });
        let location = header("location").unwrap_or_default();
        location.trim_start_matches("http://").trim_start_matches(&*self.address).to_owned()
    }

    async fn begin(&mut self) -> String {
        self.send("POST", "/v2/app/blobs/uploads/", &[], "").await
    }

    /// Puts a blob in one chunk and an end.
    async fn push_blob(&mut self, content: &str) {
        let upload = self.begin().await;
        let upload = self.send("PATCH", &upload, &[], content).await;
        let end = with_digest(&upload, &Digest::of(content.as_bytes()));
        self.send("PUT", &end, &[], "").await;
    }

    async fn put_manifest(&mut self, reference: &str, manifest: &Value) {
        let path = format!("/v2/app/manifests/{reference}");
        let media_type = manifest["mediaType"].as_str().unwrap();
        self.send("PUT", &path, &[("content-type", media_type)], &manifest.to_string()).await;
    }

    async fn get_manifest(&mut self, method: &str, reference: &str) {
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(",");
        let path = format!("/v2/app/manifests/{reference}");
        self.send(method, &path, &[("accept", &accept)], "").await;
    }

    async fn walk(&mut self) {
        self.send("GET", "/v2/", &[], "").await;

        let upload = self.begin().await;
        self.send("GET", &upload, &[], "").await;
        let upload = self.send("PATCH", &upload, &[("content-range", "0-3")], "cont").await;
        self.send("GET", &upload, &[], "").await;
        let blob = Digest::of(b"content");
        self.send("PUT", &with_digest(&upload, &blob), &[], "ent").await;
        let path = format!("/v2/app/blobs/{blob}");
        self.send("GET", &path, &[], "").await;
        self.send("HEAD", &path, &[], "").await;
        self.send("GET", &path, &[("range", "bytes=1-3")], "").await;
        self.send("GET", &path, &[("range", "bytes=4-")], "").await;

        let upload = self.begin().await;
        self.send("PUT", &with_digest(&upload, &Digest::of(b"other")), &[], "content").await;
        let upload = self.begin().await;
        self.send("DELETE", &upload, &[], "").await;
        self.send("GET", &upload, &[], "").await;
        let mount = format!("/v2/other/blobs/uploads/?mount={blob}&from=app");
        self.send("POST", &mount, &[], "").await;
        self.send("GET", &format!("/v2/other/blobs/{blob}"), &[], "").await;
        self.send("GET", &format!("/v2/app/blobs/{}", Digest::of(b"none")), &[], "").await;

        for (image_type, index_type) in [(OCI_MANIFEST, OCI_INDEX), (DOCKER_MANIFEST, DOCKER_LIST)]
        {
            let (config, layer) =
                (format!("config of {image_type}"), format!("layer of {image_type}"));
            let mut image = image(&config, &layer);
            image["mediaType"] = json!(image_type);
            self.put_manifest("early", &image).await;
            self.push_blob(&config).await;
            self.push_blob(&layer).await;
            let mut child = descriptor(image_type, &image.to_string());
            child["platform"] = json!({"architecture": "arm64", "os": "linux"});
            let mut index = index(&[child]);
            index["mediaType"] = json!(index_type);
            self.put_manifest("early", &index).await;
            self.put_manifest(&Digest::of(b"wrong").to_string(), &image).await;
            self.put_manifest(&digest(&image), &image).await;
            for tag in ["v1", "v1", "v2"] {
                self.put_manifest(tag, &index).await;
            }
            for reference in ["v1", &digest(&image), "none"] {
                self.get_manifest("GET", reference).await;
                self.get_manifest("HEAD", reference).await;
            }
        }
        self.send("GET", "/v2/app/tags/list", &[], "").await;
        self.send("GET", "/v2/_catalog", &[], "").await;
        self.send("DELETE", &path, &[], "").await;
        self.send("GET", &path, &[], "").await;
        self.send("DELETE", &path, &[], "").await;
    }
}

fn with_digest(upload: &str, digest: &Digest) -> String {
    let separator = if upload.contains('?') { '&' } else { '?' };
    format!("{upload}{separator}digest={digest}")
}

/// Debian's registry and its address; it is killed when dropped. `None` where not installed.
async fn start_other(folder: &Path) -> Option<(Child, String)> {
    let config = json!({
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": folder}, "delete": {"enabled": true}},
        "http": {"addr": "127.0.0.1:0"},
    });
    let path = folder.join("config.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = match command.kill_on_drop(true).spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        child => child.unwrap(),
    };
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let address = rest.split(['"', ',']).next().unwrap().to_owned();
            // Its log must be read for it to go on.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some((child, address));
        }
    }
    panic!("docker-registry ended without saying where it listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_as_debians_registry_does() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_other, address)) = start_other(folder.path()).await else {
        eprintln!("skipped: docker-registry is not installed");
        return;
    };
    let authorization = String::new();
    let mut theirs = Client { address, authorization, replies: Vec::new() };
    theirs.walk().await;

    let create_on_push = Options { create_on_push: true, ..options(Storage::Memory) };
    let env = Fixture::new(create_on_push).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = env.registry.router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let authorization = format!("Basic {}", env.registry.authorization_token());
    let mut ours = Client { address, authorization, replies: Vec::new() };
    ours.walk().await;
    server.abort();

    let pairs = ours.replies.iter().zip(&theirs.replies);
    let different: Vec<_> = pairs.filter(|(ours, theirs)| ours != theirs).collect();
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!(ours.replies.len(), theirs.replies.len());
}
