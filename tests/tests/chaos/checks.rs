//! The invariants, from outside: what anybody sees who pulls.

use std::collections::{BTreeMap, BTreeSet};

use archweld_model::Digest;
use aws_sdk_sfn::{
    operation::describe_execution::DescribeExecutionOutput,
    types::{ExecutionStatus, HistoryEvent},
};
use serde_json::Value;

use crate::machine::{IMAGES, Machine};

const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];
/// How a run may end that published nothing: each says what was done to it.
const FAILURES: [&str; 4] =
    ["Build.Failed", "Build.RetriesExhausted", "Service.Unavailable", "Runtime.ExitError"];

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    image: String,
    sequence: u64,
    /// The digest of the index, and the tags, of a run that published them.
    index: Option<(String, Vec<String>)>,
    /// `SUCCEEDED`, or error and cause.
    pub(crate) ended: String,
    /// Each attempt that failed: error and cause.
    pub(crate) failures: String,
}

impl Run {
    pub(crate) fn new(described: &DescribeExecutionOutput, history: &[HistoryEvent]) -> Self {
        let input: Value = serde_json::from_str(described.input().unwrap()).unwrap();
        let error = described.error().unwrap_or(described.status().as_str());
        let (index, ended) = if described.status() == &ExecutionStatus::Succeeded {
            let output: Value = serde_json::from_str(described.output().unwrap()).unwrap();
            let tags = output["tags"].as_array().unwrap().iter();
            let tags = tags.map(|tag| tag.as_str().unwrap().to_owned()).collect();
            let digest = output["digest"].as_str().unwrap().to_owned();
            (Some((digest, tags)), "SUCCEEDED".to_owned())
        } else {
            (None, format!("{error}: {}", described.cause().unwrap_or_default()))
        };
        let failed = history.iter().filter_map(HistoryEvent::task_failed_event_details);
        let failures = failed
            .map(|failed| {
                let (error, cause) = (failed.error(), failed.cause());
                format!("{}: {}\n", error.unwrap_or_default(), cause.unwrap_or_default())
            })
            .collect();
        Self {
            name: described.name().unwrap().to_owned(),
            image: input["image"].as_str().unwrap().to_owned(),
            sequence: input["trigger"]["sequence"].as_u64().unwrap(),
            index,
            ended,
            failures,
        }
    }

    pub(crate) fn published(&self) -> bool {
        self.index.is_some()
    }
}

/// The runs so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    runs: Vec<Run>,
}

impl Checks {
    pub(crate) fn add(&mut self, run: Run) {
        if !run.published() {
            let (error, cause) = run.ended.split_once(": ").unwrap();
            assert!(FAILURES.contains(&error), "{} ended otherwise: {}", run.name, run.ended);
            assert!(!cause.is_empty(), "{} does not say why: {}", run.name, run.ended);
        }
        self.runs.push(run);
    }

    pub(crate) fn published(&self) -> usize {
        self.runs.iter().filter(|run| run.published()).count()
    }

    /// Every invariant that can be seen.
    pub(crate) async fn hold(&self, machine: &Machine) {
        for image in IMAGES {
            let tags = tags(machine, image).await;
            // Of each run's own tag and of each moving or fixed one: invariants 1, 2 and 3.
            let mut runs = BTreeMap::new();
            for (tag, digest) in &tags {
                if let Some(run) = whole(machine, image, tag, digest).await {
                    runs.insert(digest.clone(), run);
                }
            }
            let of_image = || self.runs.iter().filter(|run| run.image == image);
            for run in of_image() {
                let Some((digest, published)) = &run.index else { continue };
                assert!(runs.contains_key(digest), "{}: its index {digest} is lost", run.name);
                // What was published stays: a fixed tag never moves (4).
                for tag in published.iter().filter(|tag| *tag != "latest") {
                    assert_eq!(tags.get(tag), Some(digest), "{}: {tag}", run.name);
                }
            }
            // Newest wins (5).
            let newest = of_image().filter_map(|run| Some((run.sequence, &run.index.as_ref()?.0)));
            let newest = newest.max().map(|(_, digest)| digest);
            assert_eq!(
                tags.get("latest"),
                newest,
                "{image}:latest is at the newest run that published"
            );
        }
        // One delivery, one execution an image (8).
        let names: BTreeSet<&str> = self.runs.iter().map(|run| &*run.name).collect();
        assert_eq!(names.len(), self.runs.len());
    }
}

async fn tags(machine: &Machine, image: &str) -> BTreeMap<String, String> {
    let described = machine.ecr().describe_images().repository_name(image);
    let described = described.into_paginator().items().send().try_collect().await.unwrap();
    let mut tags = BTreeMap::new();
    for detail in described {
        for tag in detail.image_tags() {
            let digest = detail.image_digest().unwrap().to_owned();
            assert_eq!(tags.insert(tag.clone(), digest), None, "{tag} is in two places");
        }
    }
    tags
}

/// Checks what a tag points at, down to each byte: an image of a build, or an index of exactly the
/// platforms, all of one run, which it gives.
async fn whole(machine: &Machine, image: &str, tag: &str, digest: &str) -> Option<String> {
    let manifest = manifest(machine, image, digest).await;
    let Some(children) = manifest["manifests"].as_array() else {
        // A build's own tag, `<run>-<arch>`.
        let is_build = ["-amd64", "-arm64v8"].iter().any(|end| tag.ends_with(end));
        assert!(is_build, "{image}:{tag} is no index");
        check_image(machine, image, &manifest).await;
        return None;
    };
    let mut platforms = Vec::new();
    let mut runs = BTreeSet::new();
    for child in children {
        let child_manifest =
            self::manifest(machine, image, child["digest"].as_str().unwrap()).await;
        let (platform, run) = check_image(machine, image, &child_manifest).await;
        let of = &child["platform"];
        let stated =
            format!("{}/{}", of["os"].as_str().unwrap(), of["architecture"].as_str().unwrap());
        assert_eq!(platform, stated, "{image}:{tag}");
        platforms.push(platform);
        runs.insert(run);
    }
    assert_eq!(platforms, PLATFORMS, "{image}:{tag}");
    assert_eq!(runs.len(), 1, "{image}:{tag} mixes runs: {runs:?}");
    runs.pop_first()
}

/// Checks every blob of an image; gives the platform and the run of its config.
async fn check_image(machine: &Machine, image: &str, manifest: &Value) -> (String, String) {
    for layer in manifest["layers"].as_array().unwrap() {
        blob(machine, image, layer).await;
    }
    let config: Value =
        serde_json::from_slice(&blob(machine, image, &manifest["config"]).await).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let platform = format!("{}/{}", text(&config["os"]), text(&config["architecture"]));
    (platform, text(&config["config"]["Labels"]["run"]))
}

async fn manifest(machine: &Machine, image: &str, digest: &str) -> Value {
    let body = content(machine, &format!("/v2/{image}/manifests/{digest}"), digest).await;
    serde_json::from_slice(&body).unwrap()
}

async fn blob(machine: &Machine, image: &str, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let body = content(machine, &format!("/v2/{image}/blobs/{digest}"), digest).await;
    assert_eq!(descriptor["size"].as_u64(), Some(body.len() as u64), "{digest}");
    body
}

async fn content(machine: &Machine, path: &str, digest: &str) -> Vec<u8> {
    let answer = machine.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    assert_eq!(Digest::of(&answer.body).to_string(), digest, "{path}");
    answer.body
}
