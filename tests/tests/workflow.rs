//! The workflow, over both doors: each behaviour is written once.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::time::Duration;

use archweld_model::{Index, variable};
use archweld_tests::{Behaviour, CONFIG, Door, World, over_both_doors, template};
use aws_sdk_codebuild::types::{Build, EnvironmentVariable, StatusType};
use aws_sdk_sfn::{
    operation::send_task_failure::SendTaskFailureError,
    types::{ExecutionRedriveStatus, ExecutionStatus, HistoryEventType},
};
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

over_both_doors! {
    publishes_one_index_of_every_platform_under_every_tag,
    the_lambda_publisher_needs_no_manifest_build,
    a_failing_platform_stops_its_siblings_and_moves_no_tag,
    a_stopped_execution_leaves_no_build_running,
    a_build_that_pushed_nothing_is_named,
    an_index_with_other_images_moves_no_tag,
    a_wrong_input_is_refused_by_the_plan,
    another_run_of_the_same_commit_leaves_the_fixed_tag,
    what_was_published_is_not_built_again,
    images_with_attestations_keep_them,
    an_image_of_another_platform_moves_no_tag,
    a_console_start_needs_no_input,
}

async fn publishes_one_index_of_every_platform_under_every_tag(door: Door) {
    let world = World::open(door).await;
    let ended = world.run("r1", json!({"commit": COMMIT, "ref": "main"})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    assert_eq!(world.builds.started().len(), 3);
    assert_eq!(world.tags(), ["0123456", "latest", "r1", "r1-amd64", "r1-arm64v8"]);

    let run = world.tagged("r1").await.unwrap();
    for tag in ["0123456", "latest"] {
        assert_eq!(world.tagged(tag).await.unwrap().digest, run.digest);
    }
    assert_eq!(ended.output["digest"], run.digest.to_string());
    let index = Index::parse(std::str::from_utf8(&run.bytes).unwrap()).unwrap();
    assert_eq!(index.media_type(), Some(archweld_model::media_type::OCI_INDEX));
    for (platform, tag) in [("linux/amd64", "r1-amd64"), ("linux/arm64", "r1-arm64v8")] {
        let image = world.tagged(tag).await.unwrap();
        let text = std::str::from_utf8(&run.bytes).unwrap();
        assert!(text.contains(&image.digest.to_string()), "{platform} is in the index");
    }
    world.cloud.shutdown().await;
}

async fn the_lambda_publisher_needs_no_manifest_build(door: Door) {
    let world = World::open(door).await;
    let ended = world.run("r1", json!({"publisher": "lambda"})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let mut started = world.builds.started();
    started.sort();
    assert_eq!(started, ["linux/amd64", "linux/arm64"]);
    let latest = world.tagged("latest").await.unwrap();
    assert_eq!(world.tagged("r1").await.unwrap(), latest);
    world.cloud.shutdown().await;
}

async fn a_failing_platform_stops_its_siblings_and_moves_no_tag(door: Door) {
    let world = World::open(door).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    let message = "Error while executing command: make. Reason: exit status 2";
    world.builds.behave("linux/arm64", Behaviour::Fail(message.to_owned()));
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.status, ExecutionStatus::Failed);
    assert_eq!(ended.error, "Build.Failed");
    let cause = &ended.cause;
    assert!(cause.starts_with("linux/arm64: BUILD failed: COMMAND_EXECUTION_ERROR: "), "{cause}");
    assert!(cause.contains(message) && cause.contains("; log: https://"), "{cause}");
    assert_eq!(world.tags(), Vec::<String>::new());
    assert_eq!(statuses(&world).await, ["FAILED", "STOPPED"]);
    assert_eq!(world.builds.started().len(), 2, "a failing build is never retried");
    world.cloud.shutdown().await;
}

async fn a_stopped_execution_leaves_no_build_running(door: Door) {
    let world = World::open(door).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let mut notices = world.cloud.codebuild().subscribe();
    let execution = world.start("r1", json!({})).await;
    let mut building = 0;
    while building < 2 {
        if let archweld_codebuild::Notice::PhaseBegan { phase, .. } = notices.recv().await.unwrap()
            && phase == archweld_codebuild::PhaseType::Build
        {
            building += 1;
        }
    }
    world.sfn.stop_execution().execution_arn(&execution).send().await.unwrap();
    let mut finished = 0;
    while finished < 2 {
        if let archweld_codebuild::Notice::Finished { .. } = notices.recv().await.unwrap() {
            finished += 1;
        }
    }
    assert_eq!(world.ended(&execution).await.status, ExecutionStatus::Aborted);
    assert_eq!(statuses(&world).await, ["STOPPED", "STOPPED"]);
    world.cloud.shutdown().await;
}

async fn a_build_that_pushed_nothing_is_named(door: Door) {
    let world = World::open(door).await;
    world.builds.behave("linux/arm64", Behaviour::PushNothing);
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.error, "Image.NotFound");
    let expected = "linux/arm64: the build succeeded without pushing hello:r1-arm64v8";
    assert!(ended.cause.starts_with(expected), "{}", ended.cause);
    world.cloud.shutdown().await;
}

async fn an_index_with_other_images_moves_no_tag(door: Door) {
    let world = World::open(door).await;
    world.builds.behave("manifest", Behaviour::PushWrongIndex);
    let ended = world.run("r1", json!({"commit": COMMIT})).await;
    assert_eq!(ended.error, "Index.Mismatch");
    assert!(ended.cause.contains("the index holds linux/amd64=sha256:"), "{}", ended.cause);
    assert_eq!(world.tags(), ["r1", "r1-amd64", "r1-arm64v8"]);
    world.cloud.shutdown().await;
}

async fn a_wrong_input_is_refused_by_the_plan(door: Door) {
    let world = World::open(door).await;
    let ended = world.run("r1", json!({"platfroms": []})).await;
    assert_eq!(ended.error, "Plan.Invalid");
    assert!(
        ended.cause.starts_with("execution input: platfroms: unknown field"),
        "{}",
        ended.cause
    );
    assert_eq!(world.builds.started(), Vec::<String>::new());
    world.cloud.shutdown().await;
}

async fn another_run_of_the_same_commit_leaves_the_fixed_tag(door: Door) {
    let world = World::open(door).await;
    let first = world.run("r1", json!({"commit": COMMIT})).await;
    let second = world.run("r2", json!({"commit": COMMIT, "force": true})).await;
    assert_eq!(second.status, ExecutionStatus::Succeeded, "{second:?}");
    let digest =
        |ended: &archweld_tests::Ended| ended.output["digest"].as_str().unwrap().to_owned();
    assert_ne!(digest(&first), digest(&second));
    let fixed = world.tagged("0123456").await.unwrap();
    assert_eq!(fixed.digest.to_string(), digest(&first));
    let moving = world.tagged("latest").await.unwrap();
    assert_eq!(moving.digest.to_string(), digest(&second));
    assert_eq!(second.output["tags_kept"], json!(["0123456"]));
    world.cloud.shutdown().await;
}

async fn what_was_published_is_not_built_again(door: Door) {
    let world = World::open(door).await;
    let platforms = |ended: &archweld_tests::Ended| -> Vec<(String, bool)> {
        let platforms = ended.output["platforms"].as_array().unwrap();
        let reused = |platform: &Value| platform["reused"].as_bool().unwrap();
        let name = |platform: &Value| platform["platform"].as_str().unwrap().to_owned();
        platforms.iter().map(|platform| (name(platform), reused(platform))).collect()
    };
    let first = world.run("r1", json!({"commit": COMMIT})).await;
    assert_eq!(first.status, ExecutionStatus::Succeeded, "{first:?}");
    assert_eq!(world.builds.started().len(), 3);
    // Both platforms were published, and so was the index.
    let second = world.run("r2", json!({"commit": COMMIT})).await;
    assert_eq!(second.status, ExecutionStatus::Succeeded, "{second:?}");
    assert!(platforms(&second).iter().all(|(_, reused)| *reused));
    assert_eq!(second.output["digest"], first.output["digest"]);
    assert_eq!(second.output["tags"], json!(["r2", "0123456", "latest"]));
    assert_eq!(world.builds.started().len(), 3);
    // Of three platforms, two were published, and the index has to be made, in order.
    let more = ["linux/386", "linux/amd64", "linux/arm64"];
    let third = world.run("r3", json!({"commit": COMMIT, "platforms": more})).await;
    assert_eq!(third.status, ExecutionStatus::Succeeded, "{third:?}");
    let expected = more.map(|name| (name.to_owned(), name != "linux/386"));
    assert_eq!(platforms(&third), expected);
    assert_eq!(third.output["platforms"][1]["digest"], first.output["platforms"][0]["digest"]);
    assert_eq!(world.builds.started()[3..], ["linux/386", "manifest"]);
    let index = world.tagged("r3").await.unwrap();
    let index = Index::parse(std::str::from_utf8(&index.bytes).unwrap()).unwrap();
    let order: Vec<String> =
        index.images().unwrap().iter().map(|image| image.platform.to_string()).collect();
    assert_eq!(order, more);

    for input in [
        json!({"commit": COMMIT, "force": true}),
        json!({"commit": COMMIT, "trigger": {"kind": "schedule"}}),
        json!({"commit": COMMIT.replace('0', "f")}),
    ] {
        let before = world.builds.started().len();
        let ended = world.run(&format!("r{before}"), input.clone()).await;
        assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
        assert_eq!(world.builds.started().len() - before, 3, "{input}");
    }
    world.cloud.shutdown().await;
}

async fn images_with_attestations_keep_them(door: Door) {
    let world = World::open(door).await;
    world.builds.behave("linux/amd64", Behaviour::PushAttested);
    world.builds.behave("linux/arm64", Behaviour::PushAttested);
    let ended = world.run("r1", json!({"publisher": "lambda"})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let index = world.tagged("latest").await.unwrap();
    let index = Index::parse(std::str::from_utf8(&index.bytes).unwrap()).unwrap();
    let images = index.images().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|image| image.attestations.len() == 1), "{images:?}");
    // A manifest build gets the images themselves, which any tool can weld.
    let ended = world.run("r2", json!({"publisher": "build"})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    world.cloud.shutdown().await;
}

async fn an_image_of_another_platform_moves_no_tag(door: Door) {
    let world = World::open(door).await;
    let amd64 = "linux/amd64".parse().unwrap();
    for (run, behaviour) in
        [("r1", Behaviour::PushImageOf(amd64)), ("r2", Behaviour::PushProgramOf(amd64))]
    {
        world.builds.behave("linux/arm64", behaviour);
        let ended = world.run(run, json!({"commit": COMMIT})).await;
        assert_eq!(ended.error, "Image.WrongPlatform", "{ended:?}");
        assert!(ended.cause.contains("was built for linux/arm64, but "), "{}", ended.cause);
    }
    let tags = ["r1", "r1-amd64", "r1-arm64v8", "r2", "r2-amd64", "r2-arm64v8"];
    assert_eq!(world.tags(), tags);
    world.cloud.shutdown().await;
}

async fn a_console_start_needs_no_input(door: Door) {
    let world = World::open(door).await;
    let ended = world.run("console", json!({})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    assert_eq!(world.tags(), ["console", "console-amd64", "console-arm64v8", "latest"]);
    world.cloud.shutdown().await;
}

/// The statuses of all builds, in alphabetical order.
async fn statuses(world: &World) -> Vec<String> {
    let mut statuses: Vec<String> = builds(world).await.iter().map(status).collect();
    statuses.sort();
    statuses
}

fn status(build: &Build) -> String {
    build.build_status().map(StatusType::as_str).unwrap().to_owned()
}

/// All builds, the newest first.
async fn builds(world: &World) -> Vec<Build> {
    let ids = world.codebuild.list_builds().send().await.unwrap().ids.unwrap();
    let builds = world.codebuild.batch_get_builds().set_ids(Some(ids)).send().await.unwrap();
    builds.builds.unwrap_or_default()
}

fn task_token(build: &Build) -> String {
    let variables = build.environment().unwrap().environment_variables();
    let token = variables.iter().find(|variable| variable.name() == variable::TASK_TOKEN);
    token.unwrap().value().to_owned()
}

async fn redrive(world: &World, execution: &str) {
    world.sfn.redrive_execution().execution_arn(execution).send().await.unwrap();
}

async fn stop(world: &World, execution: &str) {
    world.sfn.stop_execution().execution_arn(execution).send().await.unwrap();
}

/// Asserts that nothing is waiting for what a build would send.
async fn assert_nobody_waits_for(build: &Build, world: &World) {
    let late = world.sfn.send_task_failure().task_token(task_token(build)).error("Build.Failed");
    let error = late.send().await.unwrap_err().into_service_error();
    assert!(matches!(error, SendTaskFailureError::TaskTimedOut(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_that_is_redriven_builds_what_was_missing_and_publishes() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let execution = world.start("r1", json!({"commit": COMMIT})).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(statuses(&world).await, ["IN_PROGRESS", "SUCCEEDED"]);
    stop(&world, &execution).await;
    assert_eq!(world.ended(&execution).await.status, ExecutionStatus::Aborted);
    // At once: the event of the stop comes to `reconcile` when the run goes on already.
    world.builds.behave("linux/arm64", Behaviour::Push);
    redrive(&world, &execution).await;
    let ended = world.ended(&execution).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");

    let mut started = world.builds.started();
    started.sort();
    assert_eq!(started, ["linux/amd64", "linux/arm64", "linux/arm64", "manifest"]);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(statuses(&world).await, ["STOPPED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]);
    assert_eq!(world.tags(), ["0123456", "latest", "r1", "r1-amd64", "r1-arm64v8"]);
    let run = world.tagged("r1").await.unwrap();
    assert_eq!(world.tagged("latest").await.unwrap().digest, run.digest);
    let index = Index::parse(std::str::from_utf8(&run.bytes).unwrap()).unwrap();
    for (image, tag) in index.images().unwrap().iter().zip(["r1-amd64", "r1-arm64v8"]) {
        assert_eq!(image.digest, world.tagged(tag).await.unwrap().digest);
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn builds_of_an_earlier_attempt_do_a_redriven_run_no_harm() {
    let template = std::fs::read_to_string(template()).unwrap();
    let ended = "anything-but: RUNNING";
    assert!(template.contains(ended));
    // Nobody hears of the stop, so that the builds go on.
    let world = World::with(Door::InProcess, CONFIG, &template.replace(ended, "NEVER")).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let execution = world.start("r1", json!({})).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    stop(&world, &execution).await;
    redrive(&world, &execution).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let all = builds(&world).await;
    let (now, before) = all.split_at(2);
    assert_eq!(all.len(), 4);
    for build in before {
        assert!(!now.iter().any(|new| task_token(new) == task_token(build)));
        assert_nobody_waits_for(build, &world).await;
    }
    // One of the older builds ends. Events and passes of `reconcile` tell of it, to nobody.
    world.codebuild.stop_build().id(before[0].id().unwrap()).send().await.unwrap();
    tokio::time::sleep(Duration::from_mins(15)).await;
    let describe = world.sfn.describe_execution().execution_arn(&execution).send();
    let described = describe.await.unwrap();
    assert_eq!(described.status, ExecutionStatus::Running, "{described:?}");
    assert_eq!(statuses(&world).await, ["IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "STOPPED"]);

    // A second redrive, an hour later, when passes have stopped what was left.
    stop(&world, &execution).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(statuses(&world).await, ["STOPPED"; 4]);
    for platform in ["linux/amd64", "linux/arm64"] {
        world.builds.behave(platform, Behaviour::Push);
    }
    redrive(&world, &execution).await;
    let ended = world.ended(&execution).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    assert_eq!(world.builds.started().len(), 2 + 2 + 3);
    assert_eq!(world.tags(), ["latest", "r1", "r1-amd64", "r1-arm64v8"]);
    world.cloud.shutdown().await;
}

/// It ended in its Fail state, and a Fail state is all that a redrive runs again.
#[tokio::test(start_paused = true)]
async fn a_failed_run_that_is_redriven_fails_again_and_builds_nothing() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/arm64", Behaviour::Fail("exit status 2".to_owned()));
    let execution = world.start("r1", json!({})).await;
    let failed = world.ended(&execution).await;
    assert_eq!(failed.error, "Build.Failed");
    let describe = || world.sfn.describe_execution().execution_arn(&execution).send();
    let redrivable = Some(ExecutionRedriveStatus::Redrivable);
    assert_eq!(describe().await.unwrap().redrive_status, redrivable);
    world.builds.behave("linux/arm64", Behaviour::Push);
    redrive(&world, &execution).await;
    let again = world.ended(&execution).await;
    assert_eq!((again.error, again.cause), (failed.error, failed.cause));
    assert_eq!(describe().await.unwrap().redrive_count, Some(1));
    assert_eq!(world.builds.started().len(), 2);
    // The same input, started again, publishes.
    let input = describe().await.unwrap().input.unwrap();
    let rerun = world.run("r2", serde_json::from_str(&input).unwrap()).await;
    assert_eq!(rerun.status, ExecutionStatus::Succeeded, "{rerun:?}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_infrastructure_error_is_retried_and_then_given_up() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/arm64", Behaviour::Fault(2));
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let tries = world.builds.started().iter().filter(|target| *target == "linux/arm64").count();
    assert_eq!(tries, 3);

    world.builds.behave("linux/arm64", Behaviour::Fault(u32::MAX));
    let ended = world.run("r2", json!({})).await;
    assert_eq!(ended.error, "Build.RetriesExhausted", "{ended:?}");
    assert!(ended.cause.starts_with("linux/arm64: PROVISIONING failed"), "{}", ended.cause);
    let tries = world.builds.started().iter().filter(|target| *target == "linux/arm64").count();
    assert_eq!(tries, 3 + 3);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_that_exports_its_digest_needs_no_tag() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/amd64", Behaviour::ExportDigest);
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    assert_eq!(world.tags(), ["latest", "r1", "r1-arm64v8"]);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_of_two_platforms_is_refused_for_one() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/amd64", Behaviour::PushTwoPlatforms);
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.error, "Image.WrongPlatform", "{ended:?}");
    let expected = "linux/amd64: hello: r1-amd64 is an index of linux/amd64, linux/386, expected an \
                    image of linux/amd64; log: ";
    assert!(ended.cause.starts_with(expected), "{}", ended.cause);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_platform_has_an_index_too() {
    let world = World::open(Door::InProcess).await;
    let ended = world.run("r1", json!({"platforms": ["linux/arm64"]})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    assert_eq!(world.builds.started(), ["linux/arm64", "manifest"]);
    assert_eq!(ended.output["platforms"].as_array().unwrap().len(), 1);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_build_says_reaches_the_cause_even_where_it_looks_like_a_functions_error() {
    let world = World::open(Door::InProcess).await;
    let message = r#"{"errorMessage": "no"}"#;
    world.builds.behave("linux/amd64", Behaviour::Fail(message.to_owned()));
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.error, "Build.Failed");
    assert!(ended.cause.contains(message), "{}", ended.cause);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_looked_up_fails_the_run_at_once() {
    let config = CONFIG.replace("[[image]]", "[[image]]\nrepository = \"absent\"");
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, &config, &template).await;
    world.builds.behave("linux/amd64", Behaviour::PushNothing);
    world.builds.behave("linux/arm64", Behaviour::Hang);
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.error, "Service.Rejected");
    let expected = "linux/amd64: ecr:BatchGetImage failed: RepositoryNotFoundException: ";
    assert!(ended.cause.starts_with(expected), "{}", ended.cause);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_succeeded_leaves_no_stray_build_running() {
    let world = World::open(Door::InProcess).await;
    world.builds.behave("linux/386", Behaviour::Hang);
    let mut notices = world.cloud.codebuild().subscribe();
    let execution = world.start("r1", json!({})).await;
    // As `start-build` leaves one whose answer was lost on the way.
    let variables = [(variable::EXECUTION, &*execution), (variable::IMAGE_PLATFORM, "linux/386")];
    let variables = variables.map(|(name, value)| {
        let variable = EnvironmentVariable::builder().name(name).value(value);
        variable.build().unwrap()
    });
    let start = world.codebuild.start_build().project_name("archweld-amd64");
    let start = start.set_environment_variables_override(Some(variables.to_vec()));
    let stray = start.send().await.unwrap().build_value.unwrap().id.unwrap();
    assert_eq!(world.ended(&execution).await.status, ExecutionStatus::Succeeded);
    loop {
        match notices.recv().await.unwrap() {
            archweld_codebuild::Notice::Finished { build, .. } if build.id == stray => break,
            _ => {}
        }
    }
    assert!(statuses(&world).await.contains(&"STOPPED".to_owned()));
    world.cloud.shutdown().await;
}

/// The template, in which `reconcile` completes no build whose event was lost.
fn template_without_passes() -> String {
    let template = std::fs::read_to_string(template()).unwrap();
    let every_five_minutes = "ScheduleExpression: rate(5 minutes)";
    assert!(template.contains(every_five_minutes));
    template.replace(every_five_minutes, "ScheduleExpression: rate(30 days)")
}

#[tokio::test(start_paused = true)]
async fn a_manifest_build_whose_event_is_lost_times_out_by_name() {
    let without_rule = template_without_passes().replacen(
        "                  - !Ref Arm64Project\n                  - !Ref ManifestProject\n                # CodeBuild",
        "                  - !Ref Arm64Project\n                # CodeBuild",
        1,
    );
    let world = World::with(Door::InProcess, CONFIG, &without_rule).await;
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.error, "Build.TimedOut", "{ended:?}");
    assert_eq!(ended.cause, "manifest: no build reported its end within 7800 seconds");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_whose_event_is_lost_times_out_by_name_and_is_stopped() {
    let without_rule =
        template_without_passes().replace("source: [aws.codebuild]", "source: [nobody]");
    let world = World::with(Door::InProcess, CONFIG, &without_rule).await;
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.error, "Build.TimedOut", "{ended:?}");
    assert!(ended.cause.contains("no build reported its end within 7800 seconds"), "{ended:?}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_pattern_in_the_template_changes_the_wiring() {
    let only_amd64 = template_without_passes().replacen(
        "                  - !Ref Amd64Project\n                  - !Ref Arm64Project\n                  - !Ref ManifestProject\n                # CodeBuild",
        "                  - !Ref Amd64Project\n                # CodeBuild",
        1,
    );
    let world = World::with(Door::InProcess, CONFIG, &only_amd64).await;
    let ended = world.run("r1", json!({"platforms": ["linux/amd64"], "publisher": "lambda"})).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let ended = world.run("r2", json!({"platforms": ["linux/arm64"], "publisher": "lambda"})).await;
    assert_eq!(ended.error, "Build.TimedOut", "{ended:?}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_environment_in_the_template_changes_the_function() {
    let other = std::fs::read_to_string(template()).unwrap().replacen(
        "IMAGE_REGISTRY: !Select [0, !Split [\"/\", !GetAtt Repository.RepositoryUri]]",
        "IMAGE_REGISTRY: registry.example",
        1,
    );
    let world = World::with(Door::InProcess, CONFIG, &other).await;
    let ended = world.run("r1", json!({})).await;
    assert_eq!(ended.output["repository_uri"], "registry.example/hello", "{ended:?}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_of_two_platforms_takes_at_most_ten_transitions() {
    let world = World::open(Door::InProcess).await;
    let execution = world.start("r1", json!({})).await;
    world.ended(&execution).await;
    let history = world.sfn.get_execution_history().execution_arn(&execution);
    let events = history.max_results(1000).send().await.unwrap().events;
    let entered = events.iter().filter(|event| {
        let kind: &HistoryEventType = event.r#type();
        kind.as_str().ends_with("StateEntered")
    });
    let transitions = entered.count();
    assert!((5..=10).contains(&transitions), "{transitions}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_token_appears_in_a_cause_an_output_or_a_tag() {
    let world = World::open(Door::InProcess).await;
    let execution = world.start("r1", json!({})).await;
    let ended = world.ended(&execution).await;
    let ids = world.codebuild.list_builds().send().await.unwrap().ids.unwrap();
    let builds = world.codebuild.batch_get_builds().set_ids(Some(ids)).send().await.unwrap();
    let tokens: Vec<&str> = builds
        .builds()
        .iter()
        .flat_map(|build| build.environment().unwrap().environment_variables())
        .filter(|known| known.name() == variable::TASK_TOKEN)
        .map(|token| token.value())
        .collect();
    assert_eq!(tokens.len(), 3);
    let said = format!("{ended:?} {:?}", world.tags());
    assert!(tokens.iter().all(|token| !said.contains(token)));
    world.cloud.shutdown().await;
}
