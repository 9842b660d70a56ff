//! The clients that people use, boto3 and the AWS CLI, against the cloud over HTTP.
//!
//! What is claimed is in the scripts of `tests/clients/`; this starts the cloud and them.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::process::{Output, Stdio};

use archweld_events::Notice;
use archweld_tests::{Behaviour, Door, World, root};
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::json;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_every_answer_and_models_every_error() {
    if !answers("python3", &["-c", "import boto3"]).await {
        eprintln!("skipped: the python3 on PATH has no boto3; `make test` installs it");
        return;
    }
    passes("boto3_client.py", "boto3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_reads_every_answer_and_names_every_error() {
    if !answers("python3", &["--version"]).await || !answers("aws", &["--version"]).await {
        eprintln!("skipped: no python3 or no aws on PATH; `make test` installs the latter");
        return;
    }
    passes("aws_cli.py", "cli").await;
}

/// Whether a command is there and works.
async fn answers(command: &str, arguments: &[&str]) -> bool {
    let output = Command::new(command).args(arguments).stdin(Stdio::null()).output().await;
    output.is_ok_and(|output| output.status.success())
}

/// Runs a script of `tests/clients/` against a cloud as the script's `support.py` describes it.
async fn passes(script: &str, client: &str) {
    let world = World::open(Door::Http).await;
    let published = world.run("published", json!({})).await;
    assert_eq!(published.status, ExecutionStatus::Succeeded, "{published:?}");
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let mut notices = world.cloud.bus().subscribe();

    let output = run(&world, script).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} fails:\n{said}");

    let put = std::iter::from_fn(|| notices.try_recv().ok()).find_map(|notice| match notice {
        Notice::Event(event) if event.source == "clients.test" => Some(event.detail.clone()),
        _ => None,
    });
    assert_eq!(put, Some(json!({"client": client})), "the event that the client put");
    let list = world.sfn.list_executions().state_machine_arn(world.state_machine());
    let running = list.status_filter(ExecutionStatus::Running).send().await.unwrap();
    assert_eq!(running.executions, [], "{script} leaves no execution running");
    world.cloud.shutdown().await;
}

async fn run(world: &World, script: &str) -> Output {
    let functions = &world.cloud.stack().functions;
    let plan_build = functions.iter().find(|function| function.binary == "plan-build").unwrap();
    Command::new("python3")
        .arg("-B")
        .arg(root().join("tests/clients").join(script))
        .env("AWS_ENDPOINT_URL", world.cloud.endpoint())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("STATE_MACHINE", world.state_machine())
        .env("PLAN_BUILD_FUNCTION", &plan_build.name)
        // Nothing of whoever runs the tests counts, and no error is tried again.
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_PAGER", "")
        .env("AWS_DEFAULT_OUTPUT", "json")
        .env("no_proxy", "localhost")
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_REGION")
        .env_remove("AWS_SESSION_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}
