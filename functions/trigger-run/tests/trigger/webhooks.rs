//! Webhooks of every provider.

use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{self, SECRET, SOURCE, World, payload, push, put_parameter, request, sign};

/// The second of the published push.
const SECOND: u64 = 1_795_428_000;

fn images(answer: &Value, key: &str) -> Vec<String> {
    let list = answer[key].as_array().unwrap();
    list.iter().map(|entry| entry["image"].as_str().unwrap().to_owned()).collect()
}

fn already_started(answer: &Value) -> Option<&str> {
    let skipped = answer["skipped"].as_array().unwrap();
    let skipped = skipped.iter().find(|skipped| skipped["reason"] == "already started");
    skipped.and_then(|skipped| skipped["execution"].as_str())
}

#[tokio::test(start_paused = true)]
async fn a_push_of_github_starts_a_run_of_the_image_it_concerns() {
    let world = World::open().await;
    let (status, answer) = world.github("d1", &payload("github-push")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(images(&answer, "started"), ["api"]);
    assert_eq!(images(&answer, "skipped"), ["web", "worker"]);
    assert_eq!(answer["skipped"][0]["reason"], "none of its files changed");
    let executions = world.executions().await;
    let (name, (status, input, _)) = executions.first_key_value().unwrap();
    assert_eq!((executions.len(), status), (1, &ExecutionStatus::Running));
    assert!(name.starts_with("api-main-bbbbbbb-"), "{name}");
    assert!(answer["started"][0]["execution"].as_str().unwrap().ends_with(name));
    let id = hex::encode(Sha256::digest(payload("github-push").to_string()));
    let expected = json!({
        "image": "api",
        "ref": "refs/heads/main",
        "commit": "b".repeat(40),
        // The push's second, and 999 less the seconds since the commit.
        "trigger": {"kind": "push", "id": id, "sequence": SECOND * 1_000 + 989, "actor": "kim"},
    });
    assert_eq!(*input, expected);
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_the_commit_that_it_is_of() {
    let world = World::open().await;
    let (status, answer) = world.github("d1", &payload("github-tag")).await;
    assert_eq!((status, images(&answer, "started")), (200, vec!["api".to_owned()]), "{answer}");
    assert_eq!(world.running().await, ["api refs/tags/v1.2.3 bbbbbbb"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_push_is_answered_and_starts_nothing() {
    let world = World::open().await;
    let (status, answer) = world.github("d1", &payload("github-delete")).await;
    assert_eq!(
        (status, &answer["ignored"]),
        (200, &json!(["deletion of \"refs/tags/simple-tag\""]))
    );
    for event in ["ping", "issue_comment"] {
        let body = payload("github-ping").to_string();
        let signature = format!("sha256={}", sign(SECRET.as_bytes(), body.as_bytes()));
        let headers = [("x-github-event", event), ("x-hub-signature-256", &signature)];
        let (status, answer) = world.webhook(&headers, &body).await;
        assert_eq!((status, &answer["ignored"]), (200, &json!([format!("event {event:?}")])));
    }
    assert_eq!(world.executions().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn pushes_of_gitlab_are_known_by_token_or_by_signature() {
    let key = BASE64.encode("a key of GitLab's");
    let source = "source = \"https://gitlab.com/team/app\"\n";
    let config = support::IMAGES.replace("context", &format!("{source}context"));
    let world = World::with(&config).await;
    let mut push = payload("gitlab-push");
    for commit in push["commits"].as_array_mut().unwrap() {
        commit["modified"] = commit["added"].take();
        commit["added"] = json!([]);
    }
    let body = push.to_string();
    let event = ("X-Gitlab-Event", "Push Hook");
    let id = ("Idempotency-Key", "d1");
    let (status, answer) = world.webhook(&[event, id, ("X-Gitlab-Token", SECRET)], &body).await;
    assert_eq!((status, images(&answer, "started")), (200, vec!["web".to_owned()]), "{answer}");
    let executions = world.executions().await;
    let (_, input, _) = executions.values().next().unwrap();
    // The time of the newest commit: GitLab tells no other.
    assert_eq!(input["trigger"]["sequence"], 1_795_426_200_000_u64);
    assert_eq!(input["commit"], "b".repeat(40));
    let (status, _) = world.webhook(&[event, id, ("X-Gitlab-Token", "another")], &body).await;
    assert_eq!(status, 401);

    let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/signing-key";
    let world = World::with_secret(&config, arn).await;
    put_parameter(&world.cloud, "/signing-key", &format!("whsec_{key}\n")).await;
    let tag = payload("gitlab-tag").to_string();
    let signed = |timestamp: u64| {
        let text = format!("d2.{timestamp}.{tag}");
        BASE64.encode(hex::decode(sign(b"a key of GitLab's", text.as_bytes())).unwrap())
    };
    let now = 1_795_428_040;
    for (timestamp, expected) in [(now, 200), (now - 290, 200), (now - 310, 401), (now + 310, 401)]
    {
        let signatures = format!("v1,{} v2,x v1,{}", BASE64.encode([7; 32]), signed(timestamp));
        let timestamp = timestamp.to_string();
        let headers = [
            ("X-Gitlab-Event", "Tag Push Hook"),
            // A token is worth nothing beside a signature.
            ("X-Gitlab-Token", SECRET),
            ("webhook-id", "d2"),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signatures),
        ];
        let (status, answer) = world.webhook(&headers, &tag).await;
        assert_eq!(status, expected, "{timestamp}: {answer}");
    }
    assert_eq!(world.running().await, ["api refs/tags/v1.0.0 bbbbbbb"]);
}

#[tokio::test(start_paused = true)]
async fn one_delivery_of_bitbucket_may_have_several_pushes() {
    let source = "source = \"https://bitbucket.org/Team/app.git\"\n";
    let world = World::with(&support::IMAGES.replace("context", &format!("{source}context"))).await;
    let body = payload("bitbucket-push").to_string();
    let signature = format!("sha256={}", sign(SECRET.as_bytes(), body.as_bytes()));
    let headers = [
        ("X-Event-Key", "repo:push"),
        ("X-Request-UUID", "0b5b1a3c-0000-4000-8000-000000000000"),
        ("X-Hub-Signature", &signature),
    ];
    let (status, answer) = world.webhook(&headers, &body).await;
    assert_eq!(status, 200, "{answer}");
    // It tells no files.
    assert_eq!(images(&answer, "started"), ["api", "web", "worker", "api"]);
    assert_eq!(answer["ignored"], json!(["deletion of \"gone\""]));
    let executions = world.executions().await;
    let sequence = |git_ref: &str| {
        let (_, input, _) =
            executions.values().find(|(_, input, _)| input["ref"] == git_ref).unwrap();
        input["trigger"]["sequence"].as_u64().unwrap()
    };
    assert_eq!(sequence("refs/heads/main"), 1_795_427_999_000);
    assert_eq!(sequence("refs/tags/v2.0.0"), 1_795_428_030_000);
}

#[tokio::test(start_paused = true)]
async fn gitea_and_forgejo_sign_as_github_does_or_under_their_own_name() {
    let source = "source = \"https://git.example.com/team/app\"\n";
    let world = World::with(&support::IMAGES.replace("context", &format!("{source}context"))).await;
    for (event, header, prefix, delivery) in [
        ("X-Gitea-Event", "X-Hub-Signature-256", "sha256=", "d0"),
        ("X-Gitea-Event", "X-Gitea-Signature", "", "d1"),
        ("X-Forgejo-Event", "X-Forgejo-Signature", "", "d2"),
    ] {
        let mut payload = payload("gitea-push");
        payload["compare_url"] = delivery.into();
        let body = payload.to_string();
        let value = format!("{prefix}{}", sign(SECRET.as_bytes(), body.as_bytes()));
        let headers = [
            (event, "push"),
            ("X-GitHub-Event", "push"),
            ("X-Gitea-Delivery", delivery),
            (header, &value),
        ];
        let (status, answer) = world.webhook(&headers, &body).await;
        assert_eq!((status, images(&answer, "started")), (200, vec!["api".to_owned()]), "{answer}");
        let headers = [(event, "push"), (header, "00")];
        assert_eq!(world.webhook(&headers, &body).await.0, 401, "{header}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_signature_starts_nothing_and_learns_nothing() {
    let world = World::open().await;
    let body = payload("github-push").to_string();
    let good = format!("sha256={}", sign(SECRET.as_bytes(), body.as_bytes()));
    let sha1 = ("X-Hub-Signature", "sha1=0123456789012345678901234567890123456789");
    let event = ("X-GitHub-Event", "push");
    let other = format!("sha256={}", sign(b"another", body.as_bytes()));
    let unsigned: [&[(&str, &str)]; 8] = [
        &[],
        &[event],
        &[event, sha1],
        &[event, ("X-Hub-Signature-256", "")],
        &[event, ("X-Hub-Signature-256", "sha256=")],
        &[event, ("X-Hub-Signature-256", &good["sha256=".len()..])],
        &[("X-Hub-Signature-256", &good)],
        &[("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", "")],
    ];
    for headers in unsigned {
        let (status, answer) = world.webhook(headers, &body).await;
        assert_eq!((status, answer), (401, json!({"error": "unauthorized"})), "{headers:?}");
    }
    assert_eq!(world.calls("GetSecretValue"), 0, "a signature of the wrong form costs no call");
    let headers = [event, ("X-Hub-Signature-256", other.as_str())];
    for body in [body.as_str(), "not JSON", ""] {
        let (status, answer) = world.webhook(&headers, body).await;
        assert_eq!((status, answer), (401, json!({"error": "unauthorized"})));
    }
    assert_eq!(world.executions().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attacker_drives_no_calls() {
    let world = World::open().await;
    let bad = format!("sha256={}", "0".repeat(64));
    let headers = [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", bad.as_str())];
    for _ in 0..100 {
        assert_eq!(world.webhook(&headers, "{}").await.0, 401);
    }
    // One reading: the current version and the previous one.
    assert_eq!(world.calls("GetSecretValue"), 2);
    tokio::time::advance(Duration::from_secs(61)).await;
    for _ in 0..100 {
        assert_eq!(world.webhook(&headers, "{}").await.0, 401);
    }
    assert_eq!(world.calls("GetSecretValue"), 4);
}

#[tokio::test(start_paused = true)]
async fn two_secrets_are_good_while_one_takes_the_place_of_the_other() {
    let world = World::open().await;
    assert_eq!(world.github("d1", &payload("github-push")).await.0, 200);
    let input = json!({"SecretId": "webhook", "SecretString": "the new one of two"});
    world.cloud.secrets().call("PutSecretValue", input).await.unwrap();
    let body = payload("github-push").to_string();
    let signature = format!("sha256={}", sign(b"the new one of two", body.as_bytes()));
    let headers = [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str())];
    // Read again, but not within a minute.
    assert_eq!(world.webhook(&headers, &body).await.0, 401);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(world.webhook(&headers, &body).await.0, 200);
    assert_eq!(world.github("d2", &payload("github-push")).await.0, 200, "the old one");
    let input = json!({"SecretId": "webhook", "SecretString": "a newer one of two"});
    world.cloud.secrets().call("PutSecretValue", input).await.unwrap();
    tokio::time::advance(Duration::from_secs(301)).await;
    assert_eq!(world.github("d3", &payload("github-push")).await.0, 401, "the oldest one");
    assert_eq!(world.webhook(&headers, &body).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn the_old_secret_ends_a_day_after_the_new_one_came() {
    let world = World::open().await;
    let input = json!({"SecretId": "webhook", "SecretString": "the new one of two"});
    world.cloud.secrets().call("PutSecretValue", input).await.unwrap();
    let body = payload("github-push");
    tokio::time::advance(Duration::from_secs(24 * 60 * 60 - 10)).await;
    assert_eq!(world.github("d1", &body).await.0, 200);
    tokio::time::advance(Duration::from_secs(310)).await;
    assert_eq!(world.github("d1", &body).await.0, 401);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_had_is_asked_for_every_ten_seconds() {
    let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/missing";
    let world = World::with_secret(support::IMAGES, arn).await;
    for calls in [1, 2] {
        for _ in 0..20 {
            assert_eq!(world.github("d1", &payload("github-push")).await.0, 424);
        }
        assert_eq!(world.calls("GetParameter"), calls);
        tokio::time::advance(Duration::from_secs(11)).await;
    }
    put_parameter(&world.cloud, "/missing", "short").await;
    assert_eq!(world.github("d1", &payload("github-push")).await.0, 424, "it is short");
    tokio::time::advance(Duration::from_secs(11)).await;
    put_parameter(&world.cloud, "/missing", SECRET).await;
    assert_eq!(world.github("d1", &payload("github-push")).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn each_line_of_a_parameter_is_a_secret() {
    let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/hooks/webhook";
    let world = World::with_secret(support::IMAGES, arn).await;
    put_parameter(&world.cloud, "/hooks/webhook", &format!("the new one of two\n{SECRET}\n")).await;
    assert_eq!(world.github("d1", &payload("github-push")).await.0, 200);
    assert_eq!(world.github("d2", &payload("github-push")).await.0, 200);
    assert_eq!(world.calls("GetParameter"), 1);
    let signed = &world.network.lock().unwrap().signed[0];
    let is_signed = signed.starts_with("AWS4-HMAC-SHA256 Credential=")
        && signed.contains("/us-east-1/ssm/aws4_request, SignedHeaders=")
        && signed.contains("host;")
        && signed.contains(";x-amz-target, Signature=");
    assert!(is_signed, "{signed}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_had_is_no_fault_of_the_sender() {
    let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/missing";
    let world = World::with_secret(support::IMAGES, arn).await;
    let (status, answer) = world.github("d1", &payload("github-push")).await;
    assert_eq!(status, 424, "{answer}");
    assert!(!answer.to_string().contains("missing"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_comes_ten_times_at_once_starts_one_run() {
    let world = World::open().await;
    let payload = payload("github-push");
    let answers = join_all((0..10).map(|_| world.github("d1", &payload))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    let executions = world.executions().await;
    assert_eq!(executions.len(), 1);
    let (status, answer) = world.github("d1", &payload).await;
    assert_eq!((status, &answer["started"]), (200, &json!([])));
    let execution = already_started(&answer).unwrap();
    assert!(execution.ends_with(executions.first_key_value().unwrap().0));
    // Nor once the run is over.
    world.sfn.stop_execution().execution_arn(execution).send().await.unwrap();
    let (_, answer) = world.github("d1", &payload).await;
    assert_eq!(already_started(&answer), Some(execution));
    assert_eq!(world.executions().await.len(), 1);
    // The delivery's header is not signed: a captured request is the same under any.
    assert_eq!(already_started(&world.github("d2", &payload).await.1), Some(execution));
    assert_eq!(world.executions().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_newer_push_stops_the_older_run_of_its_branch_only() {
    let world = World::open().await;
    let files = ["services/worker/a", "services/web/a"];
    for (delivery, branch, after) in [("d1", "main", 'c'), ("d2", "release/1", 'd')] {
        world.github(delivery, &push(branch, 'a', after, SECOND, &files)).await;
    }
    world.github("d3", &payload("github-tag")).await;
    let (status, answer) =
        world.github("d4", &push("main", 'c', 'e', SECOND + 5, &["services/worker/a"])).await;
    assert_eq!(
        (status, images(&answer, "superseded")),
        (200, vec!["worker".to_owned()]),
        "{answer}"
    );
    let expected = [
        "api refs/tags/v1.2.3 bbbbbbb",
        "web refs/heads/main ccccccc",
        "worker refs/heads/main eeeeeee",
        "worker refs/heads/release/1 ddddddd",
    ];
    assert_eq!(world.running().await, expected);
    let executions = world.executions().await;
    let (name, (_, _, cause)) =
        executions.iter().find(|(_, (status, ..))| *status == ExecutionStatus::Aborted).unwrap();
    assert!(name.starts_with("worker-main-ccccccc-"), "{name}");
    assert!(cause.starts_with("worker-main-eeeeeee-"), "{cause}");
    assert!(cause.ends_with(" builds a newer push of refs/heads/main"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn an_older_push_that_comes_late_stops_itself_and_no_other() {
    let world = World::open().await;
    let files = ["services/api/a"];
    world.github("d2", &push("main", 'b', 'c', SECOND + 1, &files)).await;
    let (status, answer) = world.github("d1", &push("main", 'a', 'b', SECOND, &files)).await;
    assert_eq!(status, 200);
    assert!(answer["superseded"][0]["execution"].as_str().unwrap().contains("api-main-bbbbbbb"));
    assert!(answer["superseded"][0]["by"].as_str().unwrap().contains("api-main-ccccccc"));
    assert_eq!(world.running().await, ["api refs/heads/main ccccccc"]);
    // The newer run is over: the older one is built, for the tags that are its own.
    let running = world.executions().await;
    let newer = running.keys().find(|name| name.starts_with("api-main-ccccccc")).unwrap();
    let machine = &world.cloud.stack().state_machines[0].arn;
    let arn = format!("{}:{newer}", machine.replace(":stateMachine:", ":execution:"));
    world.sfn.stop_execution().execution_arn(arn).send().await.unwrap();
    let (_, answer) = world.github("d0", &push("main", '9', 'a', SECOND - 9, &files)).await;
    assert_eq!(
        (images(&answer, "started"), &answer["superseded"]),
        (vec!["api".to_owned()], &json!([]))
    );
}

#[tokio::test(start_paused = true)]
async fn pushes_that_race_leave_the_newest() {
    let world = World::open().await;
    let payloads: Vec<Value> = "123456789"
        .chars()
        .zip("23456789a".chars())
        .zip(0..)
        .map(|((before, after), second)| {
            push("main", before, after, SECOND + second, &["services/api/a"])
        })
        .collect();
    let deliveries = payloads
        .iter()
        .enumerate()
        .map(async |(index, payload)| world.github(&format!("d{index}"), payload).await);
    for (status, answer) in join_all(deliveries).await {
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(world.running().await, ["api refs/heads/main aaaaaaa"]);
}

#[tokio::test(start_paused = true)]
async fn pushes_within_one_second_are_told_apart_by_their_commits() {
    let files = ["services/api/a"];
    let at = |mut payload: Value, time: &str| {
        payload["head_commit"]["timestamp"] = time.into();
        payload
    };
    // By the age of the commits, in whatever order they come.
    let world = World::open().await;
    let newer = at(push("main", 'b', 'c', SECOND, &files), "2026-11-23T10:00:00Z");
    let older = at(push("main", 'a', 'b', SECOND, &files), "2026-11-23T09:59:58Z");
    world.github("d2", &newer).await;
    world.github("d1", &older).await;
    assert_eq!(world.running().await, ["api refs/heads/main ccccccc"]);
    // By what came before, where the commits are of one second, too.
    let world = World::open().await;
    world.github("d1", &push("main", 'a', 'b', SECOND, &files)).await;
    world.github("d2", &push("main", 'b', 'c', SECOND, &files)).await;
    assert_eq!(world.running().await, ["api refs/heads/main ccccccc"]);
}

#[tokio::test(start_paused = true)]
async fn tags_and_images_that_do_not_supersede_run_side_by_side() {
    let config = support::IMAGES.replacen("refs =", "supersede = false\nrefs =", 1);
    let world = World::with(&config).await;
    for (delivery, after, second) in [("d1", 'b', SECOND), ("d2", 'c', SECOND + 1)] {
        world.github(delivery, &push("main", 'a', after, second, &["services/api/a"])).await;
    }
    assert_eq!(world.running().await.len(), 2);
    for (delivery, seconds) in [("d3", 5), ("d4", 6)] {
        let mut tag = payload("github-tag");
        tag["repository"]["pushed_at"] = (SECOND + seconds).into();
        world.github(delivery, &tag).await;
    }
    assert_eq!(world.running().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_started_goes_on() {
    let world = World::open().await;
    let machine = &world.cloud.stack().state_machines[0].arn;
    let input = json!({"image": "api", "ref": "main", "commit": "a".repeat(40)}).to_string();
    let start = world.sfn.start_execution().state_machine_arn(machine).name("api-main-mine");
    start.input(input).send().await.unwrap();
    world.github("d1", &payload("github-push")).await;
    assert_eq!(world.running().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_files_that_may_not_be_all_builds_every_image() {
    let every = ["api", "web", "worker"];
    let mut new = push("main", '0', 'c', SECOND, &["services/api/a"]);
    new["created"] = true.into();
    let mut forced = push("main", 'b', 'c', SECOND, &["services/api/a"]);
    forced["forced"] = true.into();
    let mut capped = push("main", 'b', 'c', SECOND, &["services/api/a"]);
    capped["commits"] = vec![capped["commits"][0].clone(); 2_048].into();
    let mut none = push("main", 'b', 'c', SECOND, &[]);
    none["commits"] = json!([]);
    let mut unknown = push("main", 'b', 'c', SECOND, &[]);
    unknown["commits"][0].as_object_mut().unwrap().remove("added");
    let many: Vec<String> = (0..3_000).map(|index| format!("services/api/{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let many = push("main", 'b', 'c', SECOND, &many);
    for payload in [new, forced, capped, none, unknown, many] {
        let world = World::open().await;
        assert_eq!(images(&world.github("d1", &payload).await.1, "started"), every);
    }
    let world = World::open().await;
    let one = push("main", 'b', 'c', SECOND, &["services/web/a"]);
    assert_eq!(images(&world.github("d1", &one).await.1, "started"), ["web"]);
    let none = push("main", 'c', 'd', SECOND, &["README.md"]);
    assert_eq!(images(&world.github("d2", &none).await.1, "skipped"), every);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_names_the_field() {
    let world = World::open().await;
    let refused = async |change: fn(&mut Value)| {
        let mut payload = payload("github-push");
        change(&mut payload);
        let (status, answer) = world.github("d1", &payload).await;
        assert_eq!(status, 400, "{answer}");
        answer["error"].as_str().unwrap().to_owned()
    };
    let error = refused(|payload| payload["repository"]["pushed_at"] = (-1).into()).await;
    assert!(
        error.starts_with("repository.pushed_at: invalid type: integer `-1`, expected seconds"),
        "{error}"
    );
    let error = refused(|payload| payload["after"] = "HEAD".into()).await;
    insta::assert_snapshot!(error, @r#"after: "HEAD" is no commit, expected 40 or 64 hexadecimal digits"#);
    let error = refused(|payload| payload["ref"] = Value::Null).await;
    insta::assert_snapshot!(error, @"ref: invalid type: null, expected a string at line 1 column 11");
    let error = refused(|payload| payload["commits"] = json!([{"added": [1]}])).await;
    insta::assert_snapshot!(error, @"commits[0].added[0]: invalid type: integer `1`, expected a string at line 1 column 999");
    let error = refused(|payload| payload["repository"] = json!({"clone_url": "here"})).await;
    insta::assert_snapshot!(error, @"repository.clone_url: expected the address of a repository");
    for body in ["", "[]", "{} {}", "{\"ref\":"] {
        let signature = format!("sha256={}", sign(SECRET.as_bytes(), body.as_bytes()));
        let headers = [("x-github-event", "push"), ("x-hub-signature-256", signature.as_str())];
        let (status, answer) = world.webhook(&headers, body).await;
        assert_eq!(status, 400, "{body:?}: {answer}");
    }
    assert_eq!(world.executions().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_long_or_no_post_is_refused_before_anything() {
    let world = World::open().await;
    let long = "x".repeat(6 * 1024 * 1024 + 1);
    assert_eq!(world.webhook(&[], &long).await.0, 413);
    let mut encoded = request(&[], &BASE64.encode(&long));
    encoded["isBase64Encoded"] = true.into();
    assert_eq!(world.request(encoded).await.0, 413);
    let mut longest = request(&[], &BASE64.encode(&long[1..]));
    longest["isBase64Encoded"] = true.into();
    assert_eq!(world.request(longest).await.0, 401);
    let mut get = request(&[], "");
    get["requestContext"]["http"]["method"] = "GET".into();
    assert_eq!(world.request(get).await.0, 405);
    let mut garbage = request(&[], "?");
    garbage["isBase64Encoded"] = true.into();
    assert_eq!(world.request(garbage).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_form_and_base64_read_as_the_same_push() {
    let world = World::open().await;
    let payload = payload("github-push");
    let form: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish();
    let signature = format!("sha256={}", sign(SECRET.as_bytes(), form.as_bytes()));
    let headers = [
        ("x-github-event", "push"),
        ("x-github-delivery", "d1"),
        ("x-hub-signature-256", &signature),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let mut encoded = request(&headers, &BASE64.encode(&form));
    encoded["isBase64Encoded"] = true.into();
    let (status, answer) = world.request(request(&headers, &form)).await;
    assert_eq!((status, images(&answer, "started")), (200, vec!["api".to_owned()]), "{answer}");
    let expected = answer["started"][0]["execution"].as_str();
    let (status, answer) = world.request(encoded).await;
    assert_eq!((status, already_started(&answer)), (200, expected), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn names_that_try_to_break_out_start_nothing_and_break_nothing() {
    let world = World::with(&support::IMAGES.replace("\"main\"", "\"refs/*\"")).await;
    let long = "a".repeat(300);
    for hostile in ["$(touch x)", "a\nb", "..", "a..b", &long, "-x/", "a b", "a\u{0}b"] {
        let payload = push(hostile, 'a', 'b', SECOND, &["services/api/a"]);
        let (status, answer) = world.github("d1", &payload).await;
        assert_eq!((status, &answer["started"]), (200, &json!([])), "{answer}");
    }
    for harmless in ["größer", "$(x)", "`x`;|&", "日本語"] {
        let payload = push(harmless, 'a', 'b', SECOND, &["services/api/a"]);
        let (status, answer) = world.github("d1", &payload).await;
        assert_eq!((status, images(&answer, "started")), (200, vec!["api".to_owned()]), "{answer}");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let executions = world.executions().await;
    assert!(executions.len() == 4 && executions.keys().all(|name| name.chars().all(plain)));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_configuration_is_told_in_the_log_and_is_no_server_error() {
    let world = World::with("[[image]]\nname = 7\n").await;
    let (status, answer) = world.github("d1", &payload("github-push")).await;
    assert_eq!((status, &answer["started"]), (424, &json!([])), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_push_to_another_repository_starts_nothing() {
    let world = World::open().await;
    let mut payload = payload("github-push");
    payload["repository"]["clone_url"] = SOURCE.replace("app", "other").into();
    payload["repository"]["ssh_url"] = Value::Null;
    let (status, answer) = world.github("d1", &payload).await;
    assert_eq!((status, &answer["started"]), (200, &json!([])));
    assert_eq!(answer["skipped"][0]["reason"], "it is built from another repository");
}
