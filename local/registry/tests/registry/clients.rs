//! Real clients against the registry over a socket, where they are installed.

use std::{fs, path::Path, process::Output, time::Duration};

use archweld_registry::{Options, Storage};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

use crate::fixture::{Fixture, OCI_INDEX, OCI_MANIFEST, app, descriptor, image, index, options};

/// A registry behind a socket.
struct Server {
    env: Fixture,
    address: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(folder: &Path, bytes_max: Option<u64>) -> Self {
        let storage = Storage::Folder(folder.to_owned());
        let env = Fixture::new(Options { bytes_max, ..options(storage) }).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        env.registry.set_address(&*address);
        let router = env.registry.router();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { env, address, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs a program; `None` where it is not installed.
async fn run(program: &str, arguments: &[&str], config: &Path) -> Option<Output> {
    let output = Command::new(program).args(arguments).env("DOCKER_CONFIG", config).output().await;
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        output => Some(output.unwrap()),
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// The password in the registry's credential.
fn password(server: &Server) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let token = BASE64_STANDARD.decode(server.env.registry.authorization_token()).unwrap();
    String::from_utf8(token).unwrap().strip_prefix("AWS:").unwrap().to_owned()
}

/// Writes an OCI layout with an index of two images, and returns that index.
fn write_layout(folder: &Path) -> Value {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let write = |content: &str| {
        let digest = archweld_model::Digest::of(content.as_bytes()).to_string();
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), content).unwrap();
    };
    let child = |architecture: &str| {
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [archweld_model::Digest::of(b"layer")]},
        });
        let mut manifest = image(&config.to_string(), "layer");
        manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
        write(&config.to_string());
        write(&manifest.to_string());
        let mut child = descriptor(OCI_MANIFEST, &manifest.to_string());
        child["platform"] = json!({"architecture": architecture, "os": "linux"});
        child
    };
    let index = index(&[child("amd64"), child("arm64")]);
    write("layer");
    write(&index.to_string());
    let mut root = descriptor(OCI_INDEX, &index.to_string());
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let layout = json!({"schemaVersion": 2, "manifests": [root]});
    fs::write(folder.join("index.json"), layout.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_copies_an_index_in_and_out_with_equal_digests() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    if run("skopeo", &["--version"], folder.path()).await.is_none() {
        eprintln!("skipped: skopeo is not installed");
        return;
    }
    let server = Server::start(&path("registry"), None).await;
    let index = write_layout(&path("in"));
    let source = format!("oci:{}:v1", path("in").display());
    let image = format!("docker://{}/app:v1", server.address);
    let copy = [
        "--insecure-policy",
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    let skopeo = async |arguments: &[&str]| run("skopeo", arguments, folder.path()).await.unwrap();

    let stranger = skopeo(&[&copy[..], &["--dest-no-creds", &source, &image]].concat()).await;
    assert!(!stranger.status.success(), "{}", text(&stranger));
    let credential = format!("AWS:{}", password(&server));
    let pushed =
        skopeo(&[&copy[..], &["--dest-creds", &credential, &source, &image]].concat()).await;
    assert!(pushed.status.success(), "{}", text(&pushed));
    let tags = server.env.registry.tags(&app()).unwrap();
    assert_eq!(
        tags.values().map(ToString::to_string).collect::<Vec<_>>(),
        [crate::fixture::digest(&index)]
    );

    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &image]).await;
    assert_eq!(text(&raw), index.to_string());
    let out = format!("oci:{}:v1", path("out").display());
    let pulled = skopeo(&[&copy[..], &["--src-no-creds", &image, &out]].concat()).await;
    assert!(pulled.status.success(), "{}", text(&pulled));
    let blobs = |name: &str| {
        let entries = fs::read_dir(path(name).join("blobs/sha256")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(blobs("out"), blobs("in"));
}

/// A registry and a Docker engine with an image for it.
struct Docker {
    folder: tempfile::TempDir,
    server: Server,
    image: String,
}

impl Docker {
    /// `None` where no engine answers.
    async fn start(bytes_max: Option<u64>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let version = run("docker", &["version"], folder.path()).await;
        if !version.is_some_and(|output| output.status.success()) {
            eprintln!("skipped: no Docker engine answers");
            return None;
        }
        let server = Server::start(&folder.path().join("registry"), bytes_max).await;
        let image = format!("{}/app:v1", server.address);
        let docker = Self { folder, server, image };
        let layer = docker.folder.path().join("layer.tar");
        fs::write(&layer, [0; 10240]).unwrap();
        docker.succeed(&["import", &layer.display().to_string(), &docker.image]).await;
        Some(docker)
    }

    async fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = run("docker", arguments, self.folder.path()).await.unwrap();
        (output.status.success(), text(&output))
    }

    async fn succeed(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments).await;
        assert!(success, "{text}");
        text
    }

    async fn fail(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments).await;
        assert!(!success, "{text}");
        text
    }

    async fn log_in(&self, password: &str) -> (bool, String) {
        self.run(&["login", "-u", "AWS", "-p", password, &self.server.address]).await
    }

    /// Leaves nothing behind in the engine.
    async fn finish(self) {
        self.succeed(&["rmi", &self.image]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_pushes_after_a_login_and_pulls_without_one() {
    let Some(docker) = Docker::start(None).await else { return };
    docker.fail(&["push", &docker.image]).await;
    assert!(!docker.log_in("wrong").await.0);
    assert!(docker.log_in(&password(&docker.server)).await.0);
    let pushed = docker.succeed(&["push", &docker.image]).await;
    let digest = docker.server.env.registry.tags(&app()).unwrap().into_values().next().unwrap();
    assert!(pushed.contains(&digest.to_string()), "{pushed}");

    docker.succeed(&["logout", &docker.server.address]).await;
    docker.succeed(&["rmi", &docker.image]).await;
    let pulled = docker.succeed(&["pull", &docker.image]).await;
    assert!(pulled.contains(&digest.to_string()), "{pulled}");
    docker.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_says_at_once_that_the_registry_is_full() {
    let Some(docker) = Docker::start(Some(10)).await else { return };
    assert!(docker.log_in(&password(&docker.server)).await.0);
    let push = ["push", &*docker.image];
    let pushed = tokio::time::timeout(Duration::from_secs(30), docker.fail(&push)).await.unwrap();
    assert!(pushed.contains("its limit of 10 bytes"), "{pushed}");
    assert_eq!(docker.server.env.registry.total_bytes(), 0);
    docker.finish().await;
}
