//! What `reconcile` puts right when EventBridge delivers nothing.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::time::Duration;

use archweld_cloud::Call;
use archweld_tests::{Behaviour, CONFIG, Door, World, template};
use aws_sdk_codebuild::types::StatusType;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

/// The schedule's period.
const PERIOD: Duration = Duration::from_mins(5);

/// A cloud whose rules of that event match nothing: every event is lost.
async fn deaf_to(pattern: &str) -> World {
    let template = std::fs::read_to_string(template()).unwrap();
    assert!(template.contains(pattern), "{pattern}");
    World::with(Door::InProcess, CONFIG, &template.replace(pattern, "NEVER")).await
}

const BUILDS_ENDED: &str = "anything-but: IN_PROGRESS";
const EXECUTIONS_ENDED: &str = "anything-but: RUNNING";

fn calls_of_reconcile(world: &World) -> Vec<Call> {
    let functions = &world.cloud.stack().functions;
    let function = functions.iter().find(|function| function.binary == "reconcile").unwrap();
    let calls = world.cloud.calls().into_iter();
    calls.filter(|call| call.caller.as_ref() == Some(&function.name)).collect()
}

async fn builds_running(world: &World) -> usize {
    let ids = world.codebuild.list_builds().send().await.unwrap().ids;
    let builds = world.codebuild.batch_get_builds().set_ids(ids).send().await.unwrap();
    let running = |status| status == Some(&StatusType::InProgress);
    builds.builds().iter().filter(|build| running(build.build_status())).count()
}

#[tokio::test(start_paused = true)]
async fn a_pass_where_nothing_runs_is_one_call() {
    let world = World::open(Door::InProcess).await;
    tokio::time::sleep(PERIOD * 2).await;
    let operations: Vec<String> =
        calls_of_reconcile(&world).into_iter().map(|call| call.operation).collect();
    assert_eq!(operations, ["ListExecutions"; 2]);

    // An hour after a run, too.
    world.run("r1", json!({})).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let before = calls_of_reconcile(&world).len();
    tokio::time::sleep(PERIOD * 10).await;
    assert_eq!(calls_of_reconcile(&world).len(), before + 10);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_build_events_are_all_lost_ends_as_it_would_have() {
    let world = deaf_to(BUILDS_ENDED).await;
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    world.builds.behave("linux/arm64", Behaviour::Fail("exit status 2".to_owned()));
    let ended = world.run("r2", json!({})).await;
    assert_eq!(ended.error, "Build.Failed", "{ended:?}");
    assert!(ended.cause.starts_with("linux/arm64: BUILD failed: "), "{}", ended.cause);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_builds_of_a_stopped_execution_end_within_one_period_when_its_event_is_lost() {
    let world = deaf_to(EXECUTIONS_ENDED).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let execution = world.start("r1", json!({})).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(builds_running(&world).await, 2);
    world.sfn.stop_execution().execution_arn(execution).send().await.unwrap();
    tokio::time::sleep(PERIOD + Duration::from_secs(1)).await;
    assert_eq!(builds_running(&world).await, 0);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_fell_behind_is_moved_when_the_event_of_the_end_is_lost() {
    let world = deaf_to(EXECUTIONS_ENDED).await;
    let older = world.run("older", json!({"trigger": {"sequence": 1}})).await;
    world.run("newer", json!({"trigger": {"sequence": 2}})).await;
    let newest = world.tagged("latest").await.unwrap();
    // Whatever wrote it there: the run of `newer` has ended, and nobody hears of it.
    let image = world.tagged("older").await.unwrap();
    assert_eq!(image.digest.to_string(), older.output["digest"]);
    let text = String::from_utf8(image.bytes.to_vec()).unwrap();
    let put = world.ecr.put_image().repository_name("hello").image_tag("latest");
    put.image_manifest(text).image_manifest_media_type(image.media_type).send().await.unwrap();
    tokio::time::sleep(PERIOD + Duration::from_secs(1)).await;
    assert_eq!(world.tagged("latest").await.unwrap(), newest);

    // Who moves a tag by hand later than half an hour after the run is left alone.
    tokio::time::sleep(Duration::from_mins(31)).await;
    let text = String::from_utf8(world.tagged("older").await.unwrap().bytes.to_vec()).unwrap();
    let put = world.ecr.put_image().repository_name("hello").image_tag("latest");
    put.image_manifest(text).send().await.unwrap();
    tokio::time::sleep(PERIOD * 3).await;
    assert_ne!(world.tagged("latest").await.unwrap(), newest);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_passes_at_once_do_what_one_does() {
    let world = deaf_to(BUILDS_ENDED).await;
    let execution = world.start("r1", json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("archweld.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let projects = ["amd64", "arm64", "manifest"].map(|name| format!("archweld-{name}")).to_vec();
    let settings = reconcile::Settings::new(projects, world.state_machine(), &config);
    let clients = reconcile::Clients::new(&world.cloud.sdk_config());
    tokio::time::sleep(Duration::from_mins(2)).await;
    let pass = || {
        let payload: Value = json!({"scheduled_time": "2026-11-23T10:02:00Z"});
        reconcile::handle(payload, &settings, &clients)
    };
    let (first, second) = tokio::join!(pass(), pass());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.completed.len() + second.completed.len(), 2, "{first:?} {second:?}");
    // Nothing is left to do.
    assert_eq!(pass().await, Ok(reconcile::Reconciled::default()));
    assert_eq!(world.ended(&execution).await.status, ExecutionStatus::Succeeded);
    world.cloud.shutdown().await;
}
