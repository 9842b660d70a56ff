//! Functions by themselves, against the services that they call.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use archweld_codebuild::Notice;
use archweld_model::variable;
use archweld_tests::{Behaviour, CONFIG, Door, World};
use aws_sdk_codebuild::types::{EnvironmentVariable, EnvironmentVariableType, StatusType};
use serde_json::{Value, json};

const EXECUTION: &str = "arn:aws:states:us-east-1:123456789012:execution:multi-arch-build:r9";

const STATE_MACHINE: &str =
    "arn:aws:states:us-east-1:123456789012:stateMachine:archweld-multi-arch-build";

/// What the state machine sends to `reconcile`.
fn order() -> Value {
    json!({"execution": EXECUTION, "start_time": "2026-11-23T10:00:00.000Z"})
}

async fn after_a_run() -> World {
    let world = World::open(Door::InProcess).await;
    let ended = world.run("r1", json!({"publisher": "lambda"})).await;
    assert_eq!(ended.error, "", "{ended:?}");
    world
}

#[tokio::test(start_paused = true)]
async fn only_the_running_builds_of_the_execution_are_stopped_however_many_are_newer() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    world.builds.behave("manifest", Behaviour::PushNothing);
    let ours = start(&world, &[(variable::EXECUTION, EXECUTION), BUILDS_AMD64]).await;
    let others = start(&world, &[(variable::EXECUTION, "another"), BUILDS_AMD64]).await;
    let mut notices = world.cloud.codebuild().subscribe();
    for _ in 0..110 {
        let quick = start(&world, &[(variable::EXECUTION, EXECUTION)]).await;
        while !matches!(notices.recv().await.unwrap(), Notice::Finished { build, .. } if build.id == quick)
        {
        }
    }
    let projects = ["archweld-arm64", "archweld-amd64"].map(str::to_owned).to_vec();
    let settings = settings(projects);
    let clients = reconcile::Clients::new(&world.cloud.sdk_config());
    let order = order();
    let stopped = reconcile::handle(order.clone(), &settings, &clients).await.unwrap();
    assert_eq!(stopped.stopped, [ours.as_str()]);
    while !matches!(notices.recv().await.unwrap(), Notice::Finished { build, .. } if build.id == ours)
    {
    }
    let stopped = reconcile::handle(order, &settings, &clients).await.unwrap();
    assert_eq!(stopped.stopped, [""; 0]);
    assert_eq!(status(&world, &others).await, StatusType::InProgress);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reconcile_reads_orders_and_events_and_nothing_else() {
    let world = World::open(Door::InProcess).await;
    let settings = settings(vec!["archweld-amd64".to_owned()]);
    let clients = reconcile::Clients::new(&world.cloud.sdk_config());
    let handle = async |payload: Value| {
        reconcile::handle(payload, &settings, &clients).await.map_err(|error| error.to_string())
    };
    let change = |status: &str| {
        json!({"detail-type": "Step Functions Execution Status Change",
               "detail": {"executionArn": EXECUTION, "name": "r9", "status": status, "startDate": 1_551_225_146_847_u64,
                          "input": "{}", "output": null}})
    };
    for payload in [order(), change("RUNNING"), change("ABORTED")] {
        assert_eq!(handle(payload).await, Ok(reconcile::Reconciled::default()));
    }
    for (payload, message) in [
        (json!({}), "missing field `execution`"),
        (json!({"executions": []}), "executions: unknown field"),
        (json!({"execution": EXECUTION, "start_time": "now"}), "start_time: "),
        (json!({"scheduled_time": 5}), "scheduled_time: invalid type"),
        (
            json!({"detail-type": "x", "detail": {"status": "FAILED"}}),
            "detail: missing field `executionArn`",
        ),
    ] {
        let error = handle(payload).await.unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn late_repeated_and_foreign_build_events_are_no_errors() {
    let world = after_a_run().await;
    let clients = build_events::Clients::new(&world.cloud.sdk_config());
    let ids = world.codebuild.list_builds().send().await.unwrap().ids.unwrap();
    let event = |id: &str, status: &str| {
        let arn = format!("arn:aws:codebuild:us-east-1:123456789012:build/{id}");
        serde_json::from_value(json!({"detail": {"build-status": status, "build-id": arn}}))
            .unwrap()
    };
    for (id, status, handled) in [
        (&*ids[0], "IN_PROGRESS", build_events::Handled::NotOver),
        // The event carries no variables: the token is asked for, and its task is over.
        (&ids[0], "SUCCEEDED", build_events::Handled::NotWaitedFor),
        (&ids[0], "FAILED", build_events::Handled::NotWaitedFor),
        (&start(&world, &[]).await, "SUCCEEDED", build_events::Handled::NotOurs),
        (
            "archweld-amd64:00000000-0000-0000-0000-000000000000",
            "FAILED",
            build_events::Handled::NotOurs,
        ),
    ] {
        assert_eq!(
            build_events::handle(event(id, status), &clients).await,
            Ok(handled),
            "{status}"
        );
    }
    world.cloud.shutdown().await;
}

const BUILDS_AMD64: (&str, &str) = (variable::IMAGE_PLATFORM, "linux/amd64");

fn settings(projects: Vec<String>) -> reconcile::Settings {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("archweld.toml");
    std::fs::write(&config, CONFIG).unwrap();
    reconcile::Settings::new(projects, STATE_MACHINE.to_owned(), &config)
}

/// Starts a build by hand; gives its identity.
async fn start(world: &World, variables: &[(&str, &str)]) -> String {
    let variables = variables.iter().map(|(name, value)| {
        let variable = EnvironmentVariable::builder().name(*name).value(*value);
        variable.r#type(EnvironmentVariableType::Plaintext).build().unwrap()
    });
    let start = world.codebuild.start_build().project_name("archweld-amd64");
    let start = start.set_environment_variables_override(Some(variables.collect()));
    start.send().await.unwrap().build_value.unwrap().id.unwrap()
}

async fn status(world: &World, build: &str) -> StatusType {
    let answer = world.codebuild.batch_get_builds().ids(build).send().await.unwrap();
    answer.builds()[0].build_status().unwrap().clone()
}
