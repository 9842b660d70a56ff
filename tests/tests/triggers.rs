//! From a push, a schedule or a base image to runs: the whole workflow, over both doors.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::time::Duration;

use archweld_tests::{
    Behaviour, CONFIG, Door, Push, TestImage, World, commit, over_both_doors, template,
};
use aws_sdk_sfn::types::ExecutionStatus;
use futures_util::future::join_all;
use serde_json::{Value, json};

/// When the first push of a test was made: before the clock of the cloud in process.
const PUSHED_AT: u64 = 1_795_427_000;

over_both_doors! {
    a_push_becomes_an_image,
    a_delivery_that_comes_ten_times_at_once_starts_one_execution,
    a_newer_push_stops_the_older_run_and_its_builds,
    an_older_push_that_arrives_late_stops_nothing_and_moves_no_tag,
    a_bad_signature_starts_nothing_and_learns_nothing,
}

/// The executions that an answer says were started.
fn started(answer: &Value) -> Vec<String> {
    let started = answer["started"].as_array().unwrap().iter();
    started.map(|started| started["execution"].as_str().unwrap().to_owned()).collect()
}

/// The executions of the state machine.
async fn executions(world: &World) -> Vec<String> {
    let list = world.sfn.list_executions().state_machine_arn(world.state_machine());
    let executions = list.send().await.unwrap().executions;
    executions.into_iter().map(|execution| execution.execution_arn).collect()
}

/// Delivers a push that starts one run; gives its execution.
async fn push(world: &World, delivery: &str, push: &Push) -> String {
    let (status, answer) = world.deliver(delivery, &push.payload()).await;
    assert_eq!(status, 200, "{answer}");
    let [execution] = &started(&answer)[..] else { panic!("{answer}") };
    execution.clone()
}

async fn a_push_becomes_an_image(door: Door) {
    let world = World::open(door).await;
    let execution = push(&world, "delivery-1", &Push::of(&commit(1), PUSHED_AT)).await;
    let ended = world.ended(&execution).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let tags = ended.output["tags"].as_array().unwrap();
    assert_eq!(tags[1..], [json!(&commit(1)[..7]), json!("latest")]);
    world.cloud.shutdown().await;
}

async fn a_delivery_that_comes_ten_times_at_once_starts_one_execution(door: Door) {
    let world = World::open(door).await;
    let payload = Push::of(&commit(1), PUSHED_AT).payload();
    let answers = join_all((0..10).map(|_| world.deliver("delivery-1", &payload))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    let [execution] = &executions(&world).await[..] else { panic!("one execution") };
    let ended = world.ended(execution).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let (status, answer) = world.deliver("delivery-1", &payload).await;
    assert_eq!(status, 200);
    assert_eq!(started(&answer), [""; 0]);
    assert!(answer["skipped"][0]["reason"].as_str().unwrap().contains("already"), "{answer}");
    assert_eq!(executions(&world).await.len(), 1);
    world.cloud.shutdown().await;
}

async fn a_newer_push_stops_the_older_run_and_its_builds(door: Door) {
    let world = World::open(door).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    let mut notices = world.cloud.codebuild().subscribe();
    let older = push(&world, "delivery-1", &Push::of(&commit(1), PUSHED_AT)).await;
    let mut building = 0;
    while building < 2 {
        if let archweld_codebuild::Notice::PhaseBegan { phase, .. } = notices.recv().await.unwrap()
            && phase == archweld_codebuild::PhaseType::Build
        {
            building += 1;
        }
    }
    world.builds.behave("linux/amd64", Behaviour::Push);
    let newer = push(&world, "delivery-2", &Push::of(&commit(2), PUSHED_AT + 5)).await;
    assert_eq!(world.ended(&older).await.status, ExecutionStatus::Aborted);
    let ended = world.ended(&newer).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    let latest = world.tagged("latest").await.unwrap().digest.to_string();
    assert_eq!(ended.output["digest"], latest);
    // Four builds and a manifest build; those of the older run ended by themselves or were stopped.
    loop {
        let ids = world.codebuild.list_builds().send().await.unwrap().ids.unwrap();
        let builds = world.codebuild.batch_get_builds().set_ids(Some(ids)).send().await.unwrap();
        let is_over = |build: &aws_sdk_codebuild::types::Build| build.build_complete();
        if builds.builds().len() == 5 && builds.builds().iter().all(is_over) {
            break;
        }
        notices.recv().await.unwrap();
    }
    world.cloud.shutdown().await;
}

async fn an_older_push_that_arrives_late_stops_nothing_and_moves_no_tag(door: Door) {
    let world = World::open(door).await;
    let newer = push(&world, "delivery-2", &Push::of(&commit(2), PUSHED_AT + 5)).await;
    let newer = world.ended(&newer).await;
    assert_eq!(newer.status, ExecutionStatus::Succeeded, "{newer:?}");
    let older = push(&world, "delivery-1", &Push::of(&commit(1), PUSHED_AT)).await;
    let older = world.ended(&older).await;
    assert_eq!(older.status, ExecutionStatus::Succeeded, "{older:?}");
    assert_eq!(older.output["tags_ahead"], json!(["latest"]));
    let latest = world.tagged("latest").await.unwrap().digest.to_string();
    assert_eq!(newer.output["digest"], latest);
    let fixed = world.tagged(&commit(1)[..7]).await.unwrap().digest.to_string();
    assert_eq!(older.output["digest"], fixed);
    world.cloud.shutdown().await;
}

async fn a_bad_signature_starts_nothing_and_learns_nothing(door: Door) {
    let world = World::open(door).await;
    let payload = Push::of(&commit(1), PUSHED_AT).payload();
    let (status, answer) = world.deliver_signed("a guess", "delivery-1", &payload).await;
    assert_eq!(status, 401);
    let said = answer.to_string();
    for word in ["hello", "main", "secret", "archweld"] {
        assert!(!said.contains(word), "{said}");
    }
    assert_eq!(executions(&world).await, [""; 0]);
    world.cloud.shutdown().await;
}

const MONOREPO: &str = r#"
[[image]]
name = "api"
context = "services/api"
platforms = ["linux/amd64"]
publisher = "lambda"
[[image]]
name = "web"
context = "services/web"
paths = ["libs/common"]
platforms = ["linux/amd64"]
publisher = "lambda"
[[image]]
name = "worker"
context = "services/worker"
platforms = ["linux/amd64"]
publisher = "lambda"
"#;

#[tokio::test(start_paused = true)]
async fn a_push_builds_the_images_that_it_touches_and_all_where_the_list_is_cut() {
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, MONOREPO, &template).await;
    for image in ["api", "web", "worker"] {
        world.cloud.ensure_repository(&image.parse().unwrap()).await.unwrap();
    }
    let cases = [
        (&["services/web/index.html"][..], 1, &["web"][..]),
        (&["libs/common/log.rs"], 1, &["web"]),
        (&["services/api/main.rs", "services/worker/main.rs"], 1, &["api", "worker"]),
        (&["README.md"], 1, &[]),
        // GitHub cuts the list here.
        (&["README.md"], 2_048, &["api", "web", "worker"]),
    ];
    for (number, (modified, commits, expected)) in (1..).zip(cases) {
        let mut push = Push::of(&commit(number), PUSHED_AT + number);
        push.modified = modified.iter().map(ToString::to_string).collect();
        push.commits = commits;
        let (status, answer) = world.deliver(&format!("delivery-{number}"), &push.payload()).await;
        assert_eq!(status, 200, "{answer}");
        let images = answer["started"].as_array().unwrap().iter();
        let images: Vec<&str> = images.map(|it| it["image"].as_str().unwrap()).collect();
        assert_eq!(images, expected, "{modified:?}");
        for execution in started(&answer) {
            let ended = world.ended(&execution).await;
            assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
        }
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn names_that_try_to_break_out_end_up_harmless() {
    let config = CONFIG.replace(
        "tags = [\"{sha7}\"",
        "refs = [\"*\", \"refs/tags/*\"]\ntags = [\"b-{branch}-{sha7}\"",
    );
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, &config, &template).await;
    let long = "b".repeat(100);
    for (number, branch, starts) in [
        (1, "$(touch${IFS}x)", true),
        (2, "`id`;id", true),
        (3, "größe/日本", true),
        (4, &*long, true),
        (5, "a\nb", false),
        (6, "../../etc", false),
        (7, "$(touch x)", false),
        (8, &"b".repeat(300), false),
    ] {
        let mut push = Push::of(&commit(number), PUSHED_AT + number);
        push.git_ref = format!("refs/heads/{branch}");
        let (status, answer) = world.deliver(&format!("delivery-{number}"), &push.payload()).await;
        assert_eq!(status, 200, "{answer}");
        let started = started(&answer);
        assert_eq!(started.len(), usize::from(starts), "{branch:?}: {answer}");
        for execution in started {
            let name = execution.rsplit(':').next().unwrap();
            let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(name.len() <= 80 && name.chars().all(harmless), "{name}");
            let ended = world.ended(&execution).await;
            assert_eq!(ended.status, ExecutionStatus::Succeeded, "{branch:?}: {ended:?}");
        }
    }
    let ids = world.codebuild.list_builds().send().await.unwrap().ids.unwrap();
    let builds = world.codebuild.batch_get_builds().set_ids(Some(ids)).send().await.unwrap();
    let harmless = |c: char| c.is_ascii_alphanumeric() || " -_.:/=@".contains(c);
    for build in builds.builds() {
        for variable in build.environment().unwrap().environment_variables() {
            let value = variable.value();
            assert!(value.chars().all(harmless), "{}={value}", variable.name());
        }
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_fires_twice_starts_one_execution_that_builds_everything() {
    let config = CONFIG.replace("tags =", "schedule = \"nightly\"\ntags =");
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, &config, &template).await;
    let slot = "2026-11-23T03:00:00Z".parse().unwrap();
    for _ in 0..2 {
        world.cloud.scheduler().fire("archweld-nightly", slot).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let [execution] = &executions(&world).await[..] else { panic!("one execution") };
    let ended = world.ended(execution).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    assert_eq!(world.builds.started().len(), 3);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_base_image_rebuilds_those_that_are_built_on_it_and_no_run_rebuilds_itself() {
    let config = CONFIG.replace("tags =", "base_images = [\"base:3\"]\ntags =");
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, &config, &template).await;
    let base = "base".parse().unwrap();
    world.cloud.ensure_repository(&base).await.unwrap();
    let image = TestImage::of("linux/amd64".parse().unwrap(), "a base image");
    for (tag, expected) in [("2", 0), ("3", 1)] {
        image.push(world.cloud.registry(), &base, Some(&tag.parse().unwrap())).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(executions(&world).await.len(), expected, "base:{tag}");
    }
    let [execution] = &executions(&world).await[..] else { panic!("one execution") };
    let ended = world.ended(execution).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(executions(&world).await.len(), 1);
    world.cloud.shutdown().await;
}
