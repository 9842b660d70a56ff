//! Functions by themselves, against the services that they call.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use archweld_codebuild::Notice;
use archweld_model::{
    BuildOutcome, Built, Config, Digest, Execution, ExecutionInput, Index, Named as _, Plan,
    Projects, TimingSeconds, variable,
};
use archweld_tests::{Behaviour, CONFIG, Door, World};
use aws_sdk_codebuild::types::{EnvironmentVariable, EnvironmentVariableType, StatusType};
use aws_sdk_ecr::types::ImageTagMutability;
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const EXECUTION: &str = "arn:aws:states:us-east-1:123456789012:execution:multi-arch-build:r9";

/// The plan of another run than any that the state machine made.
fn plan(run: &str) -> Plan {
    let execution = Execution {
        arn: EXECUTION.to_owned(),
        name: run.to_owned(),
        start_time: "2026-11-23T10:00:00.000Z".to_owned(),
    };
    let projects = Projects {
        amd64: "archweld-amd64".to_owned(),
        arm64: "archweld-arm64".to_owned(),
        manifest: "archweld-manifest".to_owned(),
    };
    let input = ExecutionInput::parse(json!({"commit": COMMIT, "publisher": "lambda"})).unwrap();
    Plan::new(&Config::parse(CONFIG).unwrap(), input, execution, "registry.example", &projects)
        .unwrap()
}

/// What a build reports that pushed `tag`.
async fn outcome(world: &World, target: &str, tag: &str) -> BuildOutcome {
    let image = world.tagged(tag).await.unwrap();
    BuildOutcome {
        target: target.to_owned(),
        built: Built {
            digest: image.digest,
            media_type: image.media_type,
            manifest_bytes: image.bytes.len() as u64,
            size_bytes: 1,
        },
        build_id: "archweld-amd64:1".to_owned(),
        log: None,
        timing: TimingSeconds::new(),
    }
}

/// A request of `publish`, with the images that the run `r1` built.
async fn request(world: &World, run: &str) -> publish::Request {
    let images = vec![
        outcome(world, "linux/amd64", "r1-amd64").await,
        outcome(world, "linux/arm64", "r1-arm64v8").await,
    ];
    publish::Request { plan: plan(run), images, index: None }
}

async fn after_a_run() -> World {
    let world = World::open(Door::InProcess).await;
    let ended = world.run("r1", json!({"publisher": "lambda"})).await;
    assert_eq!(ended.error, "", "{ended:?}");
    world
}

#[tokio::test(start_paused = true)]
async fn a_repeated_publish_finds_its_work_done() {
    let world = after_a_run().await;
    let first = publish::handle(request(&world, "r9").await, &world.ecr).await.unwrap();
    let tags = world.tags();
    let second = publish::handle(request(&world, "r9").await, &world.ecr).await.unwrap();
    assert_eq!(second, first);
    assert_eq!(world.tags(), tags);
    let names: Vec<&str> = first.tags.iter().map(|tag| tag.as_str()).collect();
    assert_eq!(names, ["r9", "0123456", "latest"]);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_publish_is_done_in_an_immutable_repository_too() {
    let world = after_a_run().await;
    world
        .ecr
        .batch_delete_image()
        .repository_name("hello")
        .image_ids(tag("latest"))
        .send()
        .await
        .unwrap();
    immutable(&world).await;
    let first = publish::handle(request(&world, "r9").await, &world.ecr).await.unwrap();
    let second = publish::handle(request(&world, "r9").await, &world.ecr).await.unwrap();
    assert_eq!(second, first);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_moving_tag_that_may_not_move_is_named() {
    let world = after_a_run().await;
    let mut other = request(&world, "r9").await;
    // Another index than the first run's, of the same images.
    other.plan.platforms.reverse();
    immutable(&world).await;
    let error = publish::handle(other, &world.ecr).await.unwrap_err();
    assert_eq!(error.name().as_str(), "Publish.TagImmutable");
    let message = "tag latest of repository hello is immutable and names another image";
    assert_eq!(error.to_string(), message);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_not_complete_touches_no_tag() {
    let world = after_a_run().await;
    let tags = world.tags();
    let mut missing = request(&world, "r9").await;
    missing.images.pop();
    let mut absent = request(&world, "r9").await;
    absent.index = Some(absent.images[0].clone());
    absent.index.as_mut().unwrap().built.digest = Digest::of(b"never pushed");
    let mut image = request(&world, "r9").await;
    image.index = Some(image.images[0].clone());
    for (request, name, message) in [
        (missing, "Image.NotFound", "no image of linux/arm64 was built"),
        (absent, "Image.NotFound", "is not in repository hello"),
        (image, "Index.Mismatch", "hello:r9: not an index"),
    ] {
        let error = publish::handle(request, &world.ecr).await.unwrap_err();
        assert_eq!(error.name().as_str(), name);
        assert!(error.to_string().contains(message), "{error}");
    }
    assert_eq!(world.tags(), tags);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_states_no_media_type_is_published_as_what_was_pushed() {
    let world = after_a_run().await;
    let mut request = request(&world, "r9").await;
    let built: Vec<_> = (request.plan.platforms.iter().zip(&request.images))
        .map(|(planned, image)| (planned.platform, image.built.clone()))
        .collect();
    let mut index = json!(Index::assemble(&built).unwrap());
    let kind = index.as_object_mut().unwrap().remove("mediaType").unwrap();
    let put = world.ecr.put_image().repository_name("hello").image_tag("r9");
    let put =
        put.image_manifest(index.to_string()).image_manifest_media_type(kind.as_str().unwrap());
    put.send().await.unwrap();
    request.index = Some(outcome(&world, "manifest", "r9").await);
    let published = publish::handle(request, &world.ecr).await.unwrap();
    assert_eq!(published.media_type, kind);
    assert_eq!(world.tagged("latest").await.unwrap().digest, published.digest);
    world.cloud.shutdown().await;
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
    let settings = reconcile::Settings::new(projects);
    let order = json!({"execution": EXECUTION});
    let stopped = reconcile::handle(order.clone(), &settings, &world.codebuild).await.unwrap();
    assert_eq!(stopped.builds, [ours.as_str()]);
    while !matches!(notices.recv().await.unwrap(), Notice::Finished { build, .. } if build.id == ours)
    {
    }
    let stopped = reconcile::handle(order, &settings, &world.codebuild).await.unwrap();
    assert_eq!(stopped.builds, [""; 0]);
    assert_eq!(status(&world, &others).await, StatusType::InProgress);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reconcile_reads_orders_and_events_and_nothing_else() {
    let world = World::open(Door::InProcess).await;
    let settings = reconcile::Settings::new(vec!["archweld-amd64".to_owned()]);
    let handle = async |payload: Value| {
        reconcile::handle(payload, &settings, &world.codebuild)
            .await
            .map_err(|error| error.to_string())
    };
    let change = |status: &str| {
        json!({"detail-type": "Step Functions Execution Status Change",
               "detail": {"executionArn": EXECUTION, "status": status, "output": null}})
    };
    for payload in [json!({"execution": EXECUTION}), change("RUNNING"), change("ABORTED")] {
        assert_eq!(handle(payload).await, Ok(reconcile::Stopped::default()));
    }
    for (payload, message) in [
        (json!({}), "missing field `execution`"),
        (json!({"executions": []}), "executions: unknown field"),
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

fn tag(tag: &str) -> aws_sdk_ecr::types::ImageIdentifier {
    aws_sdk_ecr::types::ImageIdentifier::builder().image_tag(tag).build()
}

async fn immutable(world: &World) {
    let put = world.ecr.put_image_tag_mutability().repository_name("hello");
    put.image_tag_mutability(ImageTagMutability::Immutable).send().await.unwrap();
}
