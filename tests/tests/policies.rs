//! Every action that a function asks for, recorded: what its role has to allow, and nothing beyond.
//!
//! `tests/deployment` holds the roles of the template against this record.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{collections::BTreeSet, time::Duration};

use archweld_tests::{
    Asked, Behaviour, CONFIG, Door, Push, Resource, TestImage, World, commit, repository, root,
    template,
};
use aws_sdk_ecr::types::ImageTagMutability;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::json;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Before the clock of the cloud begins.
const PUSHED_AT: u64 = 1_795_427_000;

/// Time is paused: it moves on when nothing is left to do.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

async fn close(world: World) -> BTreeSet<Asked> {
    settle().await;
    world.cloud.shutdown().await;
    world.recorder.asked()
}

async fn runs() -> BTreeSet<Asked> {
    let world = World::open(Door::InProcess).await;
    for (run, input) in [
        ("built", json!({"commit": COMMIT})),
        ("reused", json!({"commit": COMMIT})),
        ("forced", json!({"commit": COMMIT, "force": true, "publisher": "lambda"})),
    ] {
        let ended = world.run(run, input).await;
        assert_eq!(ended.status, ExecutionStatus::Succeeded, "{ended:?}");
    }
    // A tag that names another image and may not move.
    let put = world.ecr.put_image_tag_mutability().repository_name("hello");
    put.image_tag_mutability(ImageTagMutability::Immutable).send().await.unwrap();
    let ended = world.run("immutable", json!({"commit": COMMIT, "force": true})).await;
    assert_eq!(ended.error, "Publish.TagImmutable", "{ended:?}");
    close(world).await
}

async fn failures() -> BTreeSet<Asked> {
    let world = World::open(Door::InProcess).await;
    for (failing, other) in [("linux/amd64", "linux/arm64"), ("linux/arm64", "linux/amd64")] {
        world.builds.behave(failing, Behaviour::Fail("no".to_owned()));
        world.builds.behave(other, Behaviour::Hang);
        let ended = world.run(&failing.replace('/', "-"), json!({})).await;
        assert_eq!(ended.error, "Build.Failed", "{ended:?}");
        settle().await;
        world.builds.behave(other, Behaviour::Push);
        world.builds.behave(failing, Behaviour::Push);
    }
    world.builds.behave("manifest", Behaviour::Hang);
    let execution = world.start("manifest", json!({})).await;
    while world.builds.started().last().unwrap() != "manifest" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stop = world.sfn.stop_execution().execution_arn(&execution);
    stop.send().await.unwrap();
    // Builds that somebody starts by hand carry no task token.
    for project in ["archweld-amd64", "archweld-arm64", "archweld-manifest"] {
        world.builds.behave("manifest", Behaviour::PushNothing);
        world.codebuild.start_build().project_name(project).send().await.unwrap();
    }
    close(world).await
}

async fn repair() -> BTreeSet<Asked> {
    let world = World::open(Door::InProcess).await;
    let older = world.run("older", json!({"trigger": {"sequence": 1}})).await;
    let newer = world.start("newer", json!({"trigger": {"sequence": 2}})).await;
    world.ended(&newer).await;
    settle().await;
    let image = world.tagged("older").await.unwrap();
    assert_eq!(image.digest.to_string(), older.output["digest"]);
    let described = world.sfn.describe_execution().execution_arn(&newer).send().await.unwrap();
    let event = json!({"detail-type": "Step Functions Execution Status Change", "detail": {
        "executionArn": newer, "name": "newer", "status": "SUCCEEDED", "input": described.input,
        "startDate": described.start_date.to_millis().unwrap(),
    }});
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("archweld.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let settings = reconcile::Settings::new(vec![], world.state_machine(), &config);
    let clients =
        reconcile::Clients::new(&world.recorder.of("reconcile", &world.cloud.sdk_config()));
    let pass = json!({"scheduled_time": world.cloud.host().now()});
    // The tag is put back before the news of the run's end arrives a second time, and before a pass.
    for payload in [event, pass] {
        let text = String::from_utf8(image.bytes.to_vec()).unwrap();
        let put = world.ecr.put_image().repository_name("hello").image_tag("latest");
        let put = put.image_manifest(text).image_manifest_media_type(&image.media_type);
        put.send().await.unwrap();
        reconcile::handle(payload, &settings, &clients).await.unwrap();
        assert_ne!(world.tagged("latest").await.unwrap().digest, image.digest);
    }
    close(world).await
}

/// Runs whose events are all lost: `reconcile` does on its schedule what others could not.
async fn lost_events() -> BTreeSet<Asked> {
    let template = std::fs::read_to_string(template()).unwrap();
    let template = template.replace("anything-but: IN_PROGRESS", "NEVER");
    let world = World::with(Door::InProcess, CONFIG, &template).await;
    assert_eq!(world.run("built", json!({})).await.status, ExecutionStatus::Succeeded);
    world.builds.behave("linux/arm64", Behaviour::Fail("no".to_owned()));
    assert_eq!(world.run("failed", json!({})).await.error, "Build.Failed");
    close(world).await
}

async fn triggers() -> BTreeSet<Asked> {
    let config = CONFIG.replace(
        "tags =",
        "schedule = \"nightly\"\nbase_images = [\"base:3\"]\nonly_if_base_changed = true\ntags =",
    );
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, &config, &template).await;
    world.builds.behave("linux/amd64", Behaviour::Hang);
    for number in 1..=2 {
        let push = Push::of(&commit(number), PUSHED_AT + number);
        let (status, answer) = world.deliver(&format!("delivery-{number}"), &push.payload()).await;
        assert_eq!(status, 200, "{answer}");
        world.builds.behave("linux/amd64", Behaviour::Push);
        settle().await;
    }
    let slot = "2026-11-24T03:00:00Z".parse().unwrap();
    world.cloud.scheduler().fire("archweld-nightly", slot).await.unwrap();
    settle().await;
    let base = "base".parse().unwrap();
    world.cloud.ensure_repository(&base).await.unwrap();
    let image = TestImage::of("linux/amd64".parse().unwrap(), "a base image");
    image.push(world.cloud.registry(), &base, Some(&"3".parse().unwrap())).await;
    close(world).await
}

async fn reports() -> BTreeSet<Asked> {
    let notify = r#"
[[notify]]
kind = "github"
token = "secretsmanager:archweld/git"

[[notify]]
kind = "slack"
url = "ssm:/archweld/slack"

[[notify]]
kind = "sns"
topic = "arn:aws:sns:us-east-1:123456789012:archweld-people"
"#;
    let template = std::fs::read_to_string(template()).unwrap();
    let world = World::with(Door::InProcess, &format!("{CONFIG}{notify}"), &template).await;
    world.run("reported", json!({"commit": COMMIT})).await;
    close(world).await
}

/// The line of the record: names that differ from run to run are left out.
fn line(asked: &Asked, state_machine: &str) -> String {
    let arn = |service: &str, resource: &str| {
        format!("arn:aws:{service}:us-east-1:123456789012:{resource}")
    };
    let resource = match &asked.resource {
        Resource::Arn(execution) if execution.contains(":execution:") => {
            let (of_all, _) = execution.rsplit_once(':').unwrap();
            format!("{of_all}:run")
        }
        Resource::Arn(arn) => arn.clone(),
        Resource::Project(name) => arn("codebuild", &format!("project/{name}")),
        Resource::Repository(name) => arn("ecr", &format!("repository/{name}")),
        // https://github.com/aws/aws-cdk/pull/8486: what IAM is asked about, whatever it documents.
        Resource::TaskToken => state_machine.to_owned(),
    };
    format!("{} {} {resource}", asked.function, asked.action)
}

#[tokio::test(start_paused = true)]
async fn every_call_of_every_function_is_on_record() {
    let world = World::open(Door::InProcess).await;
    let state_machine = world.state_machine();
    let mut asked = close(world).await;
    for more in [
        runs().await,
        failures().await,
        repair().await,
        lost_events().await,
        triggers().await,
        reports().await,
    ] {
        asked.extend(more);
    }
    assert!(asked.iter().any(|asked| asked.resource == Resource::Repository(repository().into())));
    let lines: BTreeSet<String> = asked.iter().map(|asked| line(asked, &state_machine)).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root().join("tests/deployment"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("calls", lines.join("\n")));
}
