//! Events: CodeCommit's and ECR's, and the times of schedules.

use std::time::Duration;

use archweld_model::{Config, ErrorName, Named as _, built_tag};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use trigger_run::{Settings, SettingsError};

use crate::support::{SOURCE, TOKEN, World, payload};

const ONE: &str = "1111111111111111111111111111111111111111";
const NIGHTLY: &str = r#"
[[image]]
name = "api"
platforms = ["linux/arm64"]
schedule = "nightly"
base_images = ["base"]
refs = ["main"]
"#;

/// Where git asks what the refs of a source are.
fn refs_of(source: &str) -> String {
    format!("{source}/info/refs?service=git-upload-pack")
}

/// A git server whose `main` is at a commit.
fn serve(world: &World, commit: &str) {
    let frame = |line: String| format!("{:04x}{line}", line.len() + 4);
    let body = frame("# service=git-upload-pack\n".to_owned())
        + "0000"
        + &frame(format!("{commit} HEAD\0agent=git\n"))
        + &frame(format!("{commit} refs/heads/main\n"))
        + "0000";
    world.network.lock().unwrap().answers.insert(refs_of(SOURCE), (200, body));
}

fn slot(time: &str) -> Value {
    json!({"schedule": "nightly", "scheduled_time": time})
}

/// Puts an image, and gives its digest.
async fn put(world: &World, repository: &str, tag: &str, content: &str) -> String {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
        "annotations": {"content": content},
    });
    let ecr = aws_sdk_ecr::Client::new(&world.sdk);
    let put = ecr.put_image().repository_name(repository).image_tag(tag);
    let put = put.image_manifest(manifest.to_string()).send().await.unwrap();
    put.image().unwrap().image_id().unwrap().image_digest().unwrap().to_owned()
}

fn pushed(tag: &str, digest: &str, time: &str, id: &str) -> Value {
    let mut event = payload("ecr");
    event["detail"]["image-tag"] = tag.into();
    event["detail"]["image-digest"] = digest.into();
    event["time"] = time.into();
    event["id"] = id.into();
    event
}

#[tokio::test(start_paused = true)]
async fn a_push_to_codecommit_starts_a_run_once() {
    let source = "source = \"https://git-codecommit.us-east-1.amazonaws.com/v1/repos/app\"\n";
    let world = World::with(&NIGHTLY.replace("platforms", &format!("{source}platforms"))).await;
    let outcome = world.event(payload("codecommit")).await.unwrap();
    assert_eq!(outcome["started"][0]["image"], "api", "{outcome}");
    let executions = world.executions().await;
    let (_, input, _) = executions.values().next().unwrap();
    assert_eq!(input["trigger"]["sequence"], 1_795_428_000_000_u64);
    assert_eq!(input["trigger"]["actor"], "arn:aws:iam::123456789012:user/kim");
    let outcome = world.event(payload("codecommit")).await.unwrap();
    assert_eq!(outcome["skipped"][0]["reason"], "already started");
    let mut deleted = payload("codecommit");
    deleted["detail"]["event"] = "referenceDeleted".into();
    deleted["detail"].as_object_mut().unwrap().remove("commitId");
    let outcome = world.event(deleted).await.unwrap();
    assert_eq!(outcome["ignored"], json!(["referenceDeleted of \"refs/heads/main\""]));
    assert_eq!(world.executions().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_starts_one_run_of_the_newest_commit_for_each_time() {
    let world = World::with(NIGHTLY).await;
    serve(&world, ONE);
    let outcome = world.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    let execution = outcome["started"][0]["execution"].clone();
    assert!(execution.as_str().unwrap().contains(":api-main-schedule-"), "{outcome}");
    let executions = world.executions().await;
    let (_, input, _) = executions.values().next().unwrap();
    let expected = json!({
        "image": "api",
        "ref": "main",
        "commit": ONE,
        "trigger": {
            "kind": "schedule",
            "id": "nightly 2026-11-23T02:00:00Z",
            "sequence": 1_795_399_200_000_u64,
        },
    });
    assert_eq!(*input, expected);
    // The same time again, though the branch has moved meanwhile, and in another spelling.
    serve(&world, &"2".repeat(40));
    let outcome = world.event(slot("2026-11-23T03:00:00+01:00")).await.unwrap();
    assert_eq!(
        (&outcome["started"], &outcome["skipped"][0]["execution"]),
        (&json!([]), &execution)
    );
    let outcome = world.event(slot("2026-11-24T02:00:00Z")).await.unwrap();
    assert_eq!(outcome["started"][0]["image"], "api", "the next time");
    assert_eq!(world.running().await.len(), 2, "a schedule stops nothing");
    let mut other = slot("2026-11-23T02:00:00Z");
    other["schedule"] = "weekly".into();
    let outcome = world.event(other).await.unwrap();
    assert_eq!(outcome["ignored"], json!(["no image names schedule \"weekly\""]));
}

#[tokio::test(start_paused = true)]
async fn the_token_goes_to_the_source_and_to_no_other_host() {
    let image = "[[image]]\nname = \"other\"\nplatforms = [\"linux/arm64\"]\nschedule = \"nightly\"\n\
                 source = \"https://elsewhere.example/team/app\"\n";
    let world = World::with(&format!("{NIGHTLY}{image}")).await;
    let moved = "https://github.com/team/moved.git";
    serve(&world, ONE);
    {
        let answers = &mut world.network.lock().unwrap().answers;
        let advertisement = answers.remove(&refs_of(SOURCE)).unwrap();
        answers.insert(refs_of(moved), advertisement);
        answers.insert(refs_of(SOURCE), (301, refs_of(moved)));
        let elsewhere = refs_of("https://elsewhere.example/team/app");
        answers.insert(elsewhere, (302, refs_of(SOURCE)));
    }
    let outcome = world.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    assert_eq!(outcome["started"][0]["image"], "api");
    let note = "started from main: the source has moved to another host";
    assert_eq!(outcome["started"][1]["note"], note, "{outcome}");
    assert_eq!(world.running().await, ["api main 1111111", "other main -"]);
    let credentials = format!("x-token-auth:{TOKEN}");
    let authorization = Some(format!("Basic {}", BASE64.encode(credentials)));
    let mut asked = world.network.lock().unwrap().asked.clone();
    asked.sort();
    let expected = [
        (refs_of("https://elsewhere.example/team/app"), None),
        (refs_of(SOURCE), authorization.clone()),
        (refs_of(moved), authorization),
    ];
    assert_eq!(asked, expected);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_asked_is_left_to_the_build_or_tried_again() {
    let world = World::with(NIGHTLY).await;
    // The server wants credentials that CodeBuild may have.
    let outcome = world.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    let note = "started from main: the source's server says 404 Not Found";
    assert_eq!(outcome["started"][0]["note"], note);
    let image = "[[image]]\nname = \"other\"\nplatforms = [\"linux/arm64\"]\nschedule = \"nightly\"\n\
                 source = \"https://elsewhere.example/team/app\"\n";
    let world = World::with(&format!("{NIGHTLY}{image}")).await;
    world.network.lock().unwrap().answers.insert(refs_of(SOURCE), (503, String::new()));
    let error = world.event(slot("2026-11-24T02:00:00Z")).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::ServiceUnavailable);
    assert_eq!(
        error.to_string(),
        "git ls-remote failed: HTTP 503: the source's server cannot answer now"
    );
    assert_eq!(world.running().await, ["other main -"], "one keeps no other from its run");
    let gone = World::with(&NIGHTLY.replace("\"main\"", "\"gone\"")).await;
    serve(&gone, ONE);
    let outcome = gone.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    assert_eq!(outcome["skipped"][0]["reason"], "its source has no gone");
    let long = "x".repeat(33 * 1024 * 1024);
    gone.network.lock().unwrap().answers.insert(refs_of(SOURCE), (200, long));
    let outcome = gone.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    let note = "started from gone: the source's server says 413 Payload Too Large";
    assert_eq!(outcome["started"][0]["note"], note);
}

#[tokio::test(start_paused = true)]
async fn servers_that_hang_keep_no_other_from_its_run_and_end_within_the_function_s_time() {
    let image = |name: &str| {
        format!(
            "[[image]]\nname = {name:?}\nplatforms = [\"linux/arm64\"]\nschedule = \"nightly\"\n\
             source = \"https://{name}.hangs.example/app\"\n"
        )
    };
    let world =
        World::with(&format!("{}{}{}{NIGHTLY}", image("a1"), image("b2"), image("c3"))).await;
    serve(&world, ONE);
    let silent = vec!["https://a1.", "https://b2.", "https://c3."];
    world.network.lock().unwrap().silent = silent;
    let began = tokio::time::Instant::now();
    let error = world.event(slot("2026-11-23T02:00:00Z")).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::ServiceUnavailable, "{error}");
    assert!(began.elapsed() < Duration::from_secs(55), "{:?}", began.elapsed());
    assert_eq!(world.running().await, ["api main 1111111"]);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_ends_early_where_neither_source_nor_base_image_moved() {
    let config = format!("{NIGHTLY}only_if_base_changed = true\n");
    let world = World::with(&config).await;
    serve(&world, ONE);
    let image = &Config::parse(&config).unwrap().images()[0].clone();
    let record = |commit: &str| {
        let commit = Some(commit.parse().unwrap());
        built_tag(image, &commit, None).unwrap().unwrap().to_string()
    };
    let reason = async |time: &str| {
        let outcome = world.event(slot(time)).await.unwrap();
        outcome["skipped"][0]["reason"].as_str().unwrap_or("started").to_owned()
    };
    put(&world, "base", "3", "the base").await;
    assert_eq!(reason("2026-11-23T02:00:00Z").await, "started", "it was never published");
    // Within the time that a run may take, it may have been built on the base image before.
    put(&world, "api", &record(ONE), "the first").await;
    assert_eq!(reason("2026-11-24T02:00:00Z").await, "started");
    tokio::time::advance(Duration::from_secs(3 * 60 * 60)).await;
    put(&world, "api", &record(ONE), "the second").await;
    let unmoved = reason("2026-11-25T02:00:00Z").await;
    assert!(
        unmoved.starts_with("neither its source nor a base image has moved since 2026-11-23T13:"),
        "{unmoved}"
    );
    serve(&world, &"2".repeat(40));
    assert_eq!(reason("2026-11-26T02:00:00Z").await, "started", "the source has moved");
    serve(&world, ONE);
    put(&world, "base", "4", "a new base").await;
    assert_eq!(reason("2026-11-27T02:00:00Z").await, "started", "the base image has moved");
}

#[tokio::test(start_paused = true)]
async fn a_schedule_has_the_sequence_of_the_push_that_it_builds_again() {
    let world = World::with(NIGHTLY).await;
    serve(&world, ONE);
    let image = &Config::parse(NIGHTLY).unwrap().images()[0].clone();
    let record = built_tag(image, &Some(ONE.parse().unwrap()), None).unwrap().unwrap();
    for tag in [record.as_str(), "archweld.latest.1795000000000", "archweld.1.1-2-3-1794000000000"]
    {
        put(&world, "api", tag, "an index").await;
    }
    let outcome = world.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    assert_eq!(outcome["started"][0]["image"], "api");
    let executions = world.executions().await;
    let (_, input, _) = executions.values().next().unwrap();
    assert_eq!(input["trigger"]["sequence"], 1_795_000_000_000_u64);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_a_commit_that_nobody_published_follows_what_the_moving_tags_are() {
    let tags = "tags = [\"{sha}\", \"{branch}\", \"stable@main\", \"nightly-{date}\"]\n";
    let world = World::with(&format!("{NIGHTLY}{tags}")).await;
    serve(&world, ONE);
    let digest = put(&world, "api", "main", "an index").await;
    for tag in ["archweld.main.1795000000000", "archweld.other.1795000000009_7"] {
        assert_eq!(put(&world, "api", tag, "an index").await, digest);
    }
    for tag in ["stable", "archweld.stable.1794000000000"] {
        put(&world, "api", tag, "an older one").await;
    }
    world.event(slot("2026-11-23T02:00:00Z")).await.unwrap();
    let executions = world.executions().await;
    let (_, input, _) = executions.values().next().unwrap();
    assert_eq!(input["trigger"]["sequence"], 1_795_000_000_009_u64);
}

#[tokio::test(start_paused = true)]
async fn a_base_image_rebuilds_what_is_built_on_it_once() {
    let world = World::with(NIGHTLY).await;
    serve(&world, ONE);
    let digest = format!("sha256:{}", "7".repeat(64));
    let time = "2026-11-23T10:00:01Z";
    let outcome = world.event(pushed("3", &digest, time, "e1")).await.unwrap();
    assert_eq!(outcome["started"][0]["image"], "api", "{outcome}");
    let executions = world.executions().await;
    let (_, input, _) = executions.values().next().unwrap();
    assert_eq!(input["commit"], ONE);
    let trigger = json!({"kind": "base-image", "id": "e1", "sequence": 1_795_428_001_000_u64});
    assert_eq!(input["trigger"], trigger);
    for (tag, time, id) in [("3", time, "e1"), ("latest", "2026-11-23T10:00:02Z", "e2")] {
        let outcome = world.event(pushed(tag, &digest, time, id)).await.unwrap();
        assert_eq!(outcome["skipped"][0]["reason"], "already started", "{tag}");
    }
    for tag in ["archweld.latest.7", "r1-arm64v8"] {
        let outcome =
            world.event(pushed(tag, &digest, "2026-11-24T10:00:00Z", "e3")).await.unwrap();
        assert_eq!(outcome["ignored"], json!(["no image is built on base"]), "{tag}");
    }
    let mut own = pushed("latest", &digest, time, "e4");
    own["detail"]["repository-name"] = "api".into();
    let outcome = world.event(own).await.unwrap();
    assert_eq!(outcome["ignored"], json!(["no image is built on api"]));
    let mut deleted = pushed("3", &digest, "2026-11-24T10:00:00Z", "e5");
    deleted["detail"]["action-type"] = "DELETE".into();
    assert_eq!(world.event(deleted).await.unwrap()["ignored"], json!(["no image was pushed"]));
    assert_eq!(world.executions().await.len(), 1);
    // The tag may go back to an image that it was before.
    let outcome = world.event(pushed("3", &digest, "2026-11-24T10:00:00Z", "e6")).await.unwrap();
    assert_eq!(outcome["started"][0]["image"], "api");
}

#[tokio::test(start_paused = true)]
async fn one_base_image_under_two_configured_tags_is_one_run() {
    let world = World::with(&NIGHTLY.replace("\"base\"", "\"base:3\", \"base:latest\"")).await;
    serve(&world, ONE);
    let digest = format!("sha256:{}", "7".repeat(64));
    for (tag, started) in [("3", 1), ("latest", 0)] {
        let event = pushed(tag, &digest, "2026-11-23T10:00:01Z", tag);
        let outcome = world.event(event).await.unwrap();
        assert_eq!(outcome["started"].as_array().unwrap().len(), started, "{tag}: {outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_none_of_ours_says_what_was_expected() {
    let world = World::open().await;
    for event in
        [json!({}), json!([]), json!(null), json!({"source": "aws.s3", "detail-type": "x"})]
    {
        let error = world.event(event).await.unwrap_err();
        assert_eq!(error.name(), ErrorName::EventMalformed);
        assert!(error.to_string().starts_with("event: expected a request"), "{error}");
    }
    let message = async |event: Value| world.event(event).await.unwrap_err().to_string();
    insta::assert_snapshot!(message(slot("tonight")).await, @"payload: scheduled_time: failed to parse four digit integer as year: invalid digit, expected 0-9 but got t");
    let mut event = payload("codecommit");
    event["detail"]["commitId"] = "main".into();
    insta::assert_snapshot!(message(event).await, @r#"payload: detail.commitId: "main" is no commit, expected 40 or 64 hexadecimal digits"#);
    let mut event = payload("ecr");
    event["detail"].as_object_mut().unwrap().remove("image-digest");
    insta::assert_snapshot!(message(event).await, @"payload: detail: missing field `image-digest`");
}

#[tokio::test(start_paused = true)]
async fn a_secret_in_clear_is_refused_and_never_shown() {
    let world = World::open().await;
    let path = world.folder.path().join("archweld.toml");
    let settings = |secret: &str, token: Option<&str>| {
        Settings::new(&path, String::new(), SOURCE.to_owned(), secret, token)
    };
    let error = settings("hunter2", None).unwrap_err();
    assert_eq!(error, SettingsError::NoSecret("WEBHOOK_SECRET"));
    assert!(!error.to_string().contains("hunter2"));
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:webhook";
    assert_eq!(
        settings(arn, Some("hunter2")).unwrap_err(),
        SettingsError::NoSecret("GIT_TOKEN_SECRET")
    );
    assert!(settings(arn, Some("")).is_ok(), "no token");
}
