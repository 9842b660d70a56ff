//! `archweld trigger` against a local cloud whose function says what it got.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
};

use archweld_cloud::{Builds, Cloud, Functions, Settings};
use archweld_codebuild::{Job, Outcome, Status, Worker};
use archweld_git::Provider;
use archweld_lambda::{InProcessHandler, Invocation};
use archweld_local_api::Host;
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

struct NoBuilds;

impl Worker for NoBuilds {
    fn run(&self, _: Job) -> BoxFuture<'_, Outcome> {
        async { Outcome::from(Status::Fault) }.boxed()
    }
}

fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/template.yaml")
}

/// Answers the headers and the body that it got; 401 where a delivery says so.
fn hook() -> InProcessHandler {
    Arc::new(|Invocation { payload, .. }| {
        async move {
            let body = json!({"headers": payload["headers"], "body": payload["body"]}).to_string();
            let refused = payload["headers"]["x-github-delivery"] == "refused";
            Ok(json!({"statusCode": if refused { 401 } else { 202 }, "body": body}))
        }
        .boxed()
    })
}

async fn cloud() -> Cloud {
    let settings = Settings {
        host: Host::real("000000000000", "us-east-1"),
        template: template(),
        stack_name: "archweld".to_owned(),
        parameters: BTreeMap::new(),
        layers: BTreeMap::new(),
        state: None,
        port: Some(0),
        registry_bytes_max: None,
        git: None,
        functions: Functions::InProcess(Box::new(|_, _, _| hook())),
        builds: Builds::Worker(Arc::new(NoBuilds)),
    };
    Cloud::open(settings).await.unwrap()
}

/// A folder with a payload and a secret.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("payload.json"), "{\"ref\":  1}\n").unwrap();
    fs::write(folder.path().join("secret"), "\nother\nold\n").unwrap();
    fs::write(folder.path().join("empty"), " \n").unwrap();
    folder
}

async fn archweld(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_archweld"));
    command.current_dir(folder.path()).args(["trigger", "--payload", "payload.json"]);
    command.args(arguments).output().await.unwrap()
}

fn port(cloud: &Cloud) -> String {
    cloud.address().rsplit_once(':').unwrap().1.to_owned()
}

#[tokio::test]
async fn every_providers_webhook_is_signed_with_the_local_secret() {
    let (cloud, folder, template) = (cloud().await, files(), template());
    let (port, template) = (port(&cloud), template.to_str().unwrap());
    for provider in Provider::ALL {
        let local = ["--port", &port, "--template", template, "--delivery", "d1"];
        let output =
            archweld(&folder, &[&["--provider", provider.as_str()], &local[..]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let got: Value = serde_json::from_slice(&output.stdout).unwrap();
        let body = got["body"].as_str().unwrap();
        assert_eq!(body, "{\"ref\":  1}\n", "the payload is sent as it is");
        for (name, value) in provider.headers("push", "d1", b"hunter2", body.as_bytes()) {
            assert_eq!(got["headers"][name], value, "{provider} {name}");
        }
    }
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_given_url_gets_what_the_given_secret_signs() {
    let (cloud, folder) = (cloud().await, files());
    let url = cloud.function_url("Hook").unwrap();
    let github = ["--provider", "github", "--url", &url, "--event", "ping"];
    let output = archweld(&folder, &[&github[..], &["--secret-file", "secret"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(got["headers"]["x-github-event"], "ping");
    let delivery = got["headers"]["x-github-delivery"].as_str().unwrap();
    assert_eq!(delivery.len(), 36);
    let body = got["body"].as_str().unwrap().as_bytes();
    let signed = Provider::GitHub.headers("ping", delivery, b"other", body);
    assert!(signed.iter().any(|(_, value)| got["headers"]["x-hub-signature-256"] == *value));

    // Without a secret nothing is sent to a foreign URL.
    assert_eq!(archweld(&folder, &github).await.status.code(), Some(2));
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_refusal_is_printed_and_is_a_failure() {
    let (cloud, folder) = (cloud().await, files());
    let url = cloud.function_url("Hook").unwrap();
    let arguments = |secret, url| {
        ["--provider", "github", "--delivery", "refused", "--secret-file", secret, "--url", url]
    };
    let output = archweld(&folder, &arguments("secret", &url)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["headers"].is_object());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("answered 401") && !said.contains("other"), "{said}");
    cloud.shutdown().await;

    // Nobody listens there any more.
    let output = archweld(&folder, &arguments("secret", &url)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&url), "{output:?}");
    for (secret, url) in [("empty", &*url), ("missing", &*url), ("secret", "not a url")] {
        let output = archweld(&folder, &arguments(secret, url)).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let unknown = archweld(&folder, &["--provider", "sourceforge"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("github, gitlab, bitbucket, gitea"));
}
