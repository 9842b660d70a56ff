//! Every event and every call of one run, beside what AWS sends and is asked.
//!
//! The shapes are those of captured events and of the guides: CodeBuild's
//! (<https://docs.aws.amazon.com/codebuild/latest/userguide/sample-build-notifications.html>), Step
//! Functions' (<https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html>)
//! and ECR's (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>).
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use archweld_cloud::Call;
use archweld_events::Notice;
use archweld_model::variable;
use archweld_tests::{Behaviour, Door, Ended, World};
use aws_sdk_sfn::types::ExecutionStatus;
use regex::Regex;
use serde_json::{Value, json};

const STATE_CHANGE: &str = "CodeBuild Build State Change";
const PHASE_CHANGE: &str = "CodeBuild Build Phase Change";
const STATUS_CHANGE: &str = "Step Functions Execution Status Change";
const IMAGE_ACTION: &str = "ECR Image Action";
const RESULT: &str = "Archweld Run State Change";

/// What was seen of a run.
struct Recording {
    events: Vec<Value>,
    calls: Vec<Call>,
    /// The binary of each function, by the function's name.
    functions: BTreeMap<String, String>,
    ended: Ended,
}

/// Runs an image of two platforms to its end.
async fn record(behaviours: &[(&str, Behaviour)]) -> Recording {
    let world = World::open(Door::InProcess).await;
    for (target, behaviour) in behaviours {
        world.builds.behave(target, behaviour.clone());
    }
    let mut notices = world.cloud.bus().subscribe();
    let ended = world.run("r1", json!({"ref": "main"})).await;
    // Time is paused: it moves on when nothing is left to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = std::iter::from_fn(|| notices.try_recv().ok()).filter_map(|notice| match notice {
        Notice::Event(event) => Some(json!(*event)),
        _ => None,
    });
    let functions = world.cloud.stack().functions.iter();
    let recording = Recording {
        events: events.collect(),
        calls: world.cloud.calls(),
        functions: functions.map(|of| (of.name.clone(), of.binary.clone())).collect(),
        ended,
    };
    world.cloud.shutdown().await;
    recording
}

impl Recording {
    fn of_type(&self, detail_type: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["detail-type"] == detail_type).collect()
    }

    /// The events of a type about builds of a project.
    fn of_project(&self, detail_type: &str, project: &str) -> Vec<&Value> {
        let events = self.of_type(detail_type).into_iter();
        events.filter(|event| event["detail"]["project-name"] == project).collect()
    }
}

/// Asserts that an event is as its snapshot, whatever the order of its keys: that depends on which
/// other packages are built with this one.
fn assert_shape(name: &str, event: &Value) {
    let mut settings = insta::Settings::clone_current();
    settings.set_sort_maps(true);
    settings.bind(|| insta::assert_json_snapshot!(name, redacted(event)));
}

/// The event without what differs from run to run, and without its build's task token.
fn redacted(event: &Value) -> Value {
    let event = without_tokens(event).to_string();
    let uuid = Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    let digest = Regex::new("sha256:[0-9a-f]{64}").unwrap();
    let event = uuid.replace_all(&event, "[uuid]");
    serde_json::from_str(&digest.replace_all(&event, "sha256:[digest]")).unwrap()
}

/// The event without the values of task tokens where they belong, in a build's variables.
fn without_tokens(event: &Value) -> Value {
    let mut event = event.clone();
    let variables = "/detail/additional-information/environment/environment-variables";
    let variables = event.pointer_mut(variables).and_then(Value::as_array_mut);
    for each in variables.into_iter().flatten().filter(|each| each["name"] == variable::TASK_TOKEN)
    {
        each["value"] = json!("[token]");
    }
    event
}

fn fields(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn variables(event: &Value) -> BTreeMap<&str, &str> {
    let information = &event["detail"]["additional-information"];
    let variables = information["environment"]["environment-variables"].as_array().unwrap();
    let pairs = variables.iter().map(|each| {
        assert_eq!(each["type"], "PLAINTEXT", "{each}");
        (each["name"].as_str().unwrap(), each["value"].as_str().unwrap())
    });
    pairs.collect()
}

#[tokio::test(start_paused = true)]
async fn every_event_is_in_the_envelope_of_eventbridge() {
    let recording = record(&[]).await;
    assert_eq!(recording.ended.status, ExecutionStatus::Succeeded, "{:?}", recording.ended);
    let mut ids = BTreeSet::new();
    for event in &recording.events {
        assert_eq!(
            fields(event),
            BTreeSet::from([
                "account",
                "detail",
                "detail-type",
                "id",
                "region",
                "resources",
                "source",
                "time",
                "version",
            ])
        );
        assert_eq!(event["version"], "0");
        assert_eq!(
            (&event["account"], &event["region"]),
            (&json!("123456789012"), &json!("us-east-1"))
        );
        assert!(ids.insert(event["id"].as_str().unwrap()), "{event}");
    }
    let sources: BTreeSet<_> = recording
        .events
        .iter()
        .map(|event| (event["source"].as_str().unwrap(), event["detail-type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("archweld", RESULT),
        ("aws.codebuild", PHASE_CHANGE),
        ("aws.codebuild", STATE_CHANGE),
        ("aws.ecr", IMAGE_ACTION),
        ("aws.states", STATUS_CHANGE),
    ];
    assert_eq!(sources, BTreeSet::from(expected));
}

#[tokio::test(start_paused = true)]
async fn a_build_tells_its_beginning_without_phases_and_its_end_with_all() {
    let recording = record(&[]).await;
    assert_eq!(recording.of_type(STATE_CHANGE).len(), 2 * 3);
    for project in ["archweld-amd64", "archweld-arm64", "archweld-manifest"] {
        let [began, over] = recording.of_project(STATE_CHANGE, project)[..] else {
            panic!("{project} does not tell of a beginning and an end")
        };
        for event in [began, over] {
            let arn = format!("arn:aws:codebuild:us-east-1:123456789012:build/{project}:");
            let id = event["detail"]["build-id"].as_str().unwrap();
            assert!(id.starts_with(&arn), "{id}");
            assert_eq!(event["resources"], json!([id]));
        }
        assert_eq!(began["detail"]["build-id"], over["detail"]["build-id"]);

        assert_eq!(began["detail"]["build-status"], "IN_PROGRESS");
        assert_eq!(began["detail"]["current-phase"], "SUBMITTED");
        let information = &began["detail"]["additional-information"];
        assert_eq!(information["build-complete"], false);
        for absent in ["build-number", "phases", "source-version"] {
            assert_eq!(information.get(absent), None, "{absent}");
        }
        assert_eq!(fields(&information["logs"]), BTreeSet::from(["deep-link"]));

        assert_eq!(over["detail"]["build-status"], "SUCCEEDED");
        assert_eq!(over["detail"]["current-phase"], "COMPLETED");
        let information = &over["detail"]["additional-information"];
        assert_eq!(
            (&information["build-complete"], &information["build-number"]),
            (&json!(true), &json!(1))
        );
        assert_eq!(information["logs"]["group-name"], format!("/aws/codebuild/{project}"));
        let id = over["detail"]["build-id"].as_str().unwrap();
        assert!(id.ends_with(information["logs"]["stream-name"].as_str().unwrap()));
        let (last, phases) = information["phases"].as_array().unwrap().split_last().unwrap();
        for phase in phases {
            assert_eq!(phase["phase-status"], "SUCCEEDED", "{phase}");
            assert!(phase["end-time"].is_string() && phase["duration-in-seconds"].is_number());
            assert!(phase["phase-context"].is_array());
        }
        assert_eq!(fields(last), BTreeSet::from(["phase-type", "start-time"]));
        assert_eq!(last["phase-type"], "COMPLETED");
    }
    assert_shape("build_began", recording.of_project(STATE_CHANGE, "archweld-arm64")[0]);
    assert_shape("build_succeeded", recording.of_project(STATE_CHANGE, "archweld-manifest")[1]);
}

#[tokio::test(start_paused = true)]
async fn a_build_tells_of_each_phase_that_ends() {
    let recording = record(&[]).await;
    let events = recording.of_project(PHASE_CHANGE, "archweld-amd64");
    let detail = |event: &Value, field| event["detail"][field].as_str().unwrap().to_owned();
    let phases: Vec<_> = events.iter().map(|event| detail(event, "completed-phase")).collect();
    assert_eq!(
        phases,
        [
            "SUBMITTED",
            "QUEUED",
            "PROVISIONING",
            "DOWNLOAD_SOURCE",
            "INSTALL",
            "PRE_BUILD",
            "BUILD",
            "POST_BUILD",
            "UPLOAD_ARTIFACTS",
            "FINALIZING",
        ]
    );
    let state = recording.of_project(STATE_CHANGE, "archweld-amd64")[0];
    for event in &events {
        assert_eq!(detail(event, "completed-phase-status"), "SUCCEEDED");
        assert_eq!(event["detail"]["build-id"], state["detail"]["build-id"]);
        assert!(event["detail"]["completed-phase-duration-seconds"].is_number());
    }
    let mut build = events[6].clone();
    build["detail"]["additional-information"] = json!("as in the state change");
    assert_shape("phase_ended", &build);
}

#[tokio::test(start_paused = true)]
async fn a_builds_events_carry_what_it_was_started_with() {
    let recording = record(&[]).await;
    for (project, platform, arch, tag) in [
        ("archweld-amd64", "linux/amd64", "amd64", "r1-amd64"),
        ("archweld-arm64", "linux/arm64", "arm64v8", "r1-arm64v8"),
    ] {
        for event in recording.of_project(STATE_CHANGE, project) {
            let variables = variables(event);
            assert_eq!(variables[variable::RUN], "r1");
            assert_eq!(variables[variable::IMAGE_PLATFORM], platform);
            assert_eq!(variables[variable::IMAGE_ARCH], arch);
            assert_eq!(variables[variable::IMAGE_REPO_NAME], "hello");
            assert_eq!(variables[variable::IMAGE_TAG], tag);
            assert_eq!(variables["AWS_ACCOUNT_ID"], "123456789012");
            assert!(!variables[variable::TASK_TOKEN].is_empty());
        }
    }
    for event in recording.of_project(STATE_CHANGE, "archweld-manifest") {
        assert!(variables(event)[variable::IMAGE_SOURCES].contains("linux/arm64=sha256:"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_execution_tells_when_it_runs_and_when_it_is_over() {
    let recording = record(&[]).await;
    let [running, over] = recording.of_type(STATUS_CHANGE)[..] else {
        panic!("the execution does not tell of a beginning and an end")
    };
    let of_aws = [
        "executionArn",
        "stateMachineArn",
        "name",
        "status",
        "startDate",
        "stopDate",
        "input",
        "inputDetails",
        "output",
        "outputDetails",
    ];
    for event in [running, over] {
        let detail = &event["detail"];
        assert!(fields(detail).is_superset(&BTreeSet::from(of_aws)), "{detail}");
        assert_eq!(event["resources"], json!([detail["executionArn"]]));
        assert_eq!(detail["name"], "r1");
        assert_eq!(detail["input"], r#"{"ref":"main"}"#);
        assert_eq!(detail["inputDetails"], json!({"included": true}));
        // 2026-11-23T10:00:00Z, in milliseconds.
        assert_eq!(detail["startDate"], 1_795_428_000_000_u64);
    }
    let absent = [&running["detail"]["stopDate"], &running["detail"]["output"]];
    assert_eq!(absent, [&Value::Null; 2]);
    assert_eq!(running["detail"]["status"], "RUNNING");
    assert_eq!(over["detail"]["status"], "SUCCEEDED");
    assert!(over["detail"]["stopDate"].as_u64() >= over["detail"]["startDate"].as_u64());
    let output: Value = serde_json::from_str(over["detail"]["output"].as_str().unwrap()).unwrap();
    assert_eq!(output, recording.ended.output);
    assert_shape("execution_running", running);
}

#[tokio::test(start_paused = true)]
async fn every_push_is_an_image_action() {
    let recording = record(&[]).await;
    let actions = recording.of_type(IMAGE_ACTION);
    for event in &actions {
        assert_eq!(event["resources"], json!([]));
        let of_aws = ["action-type", "image-digest", "image-tag", "repository-name", "result"];
        let newer = ["artifact-media-type", "manifest-media-type"];
        let known = fields(&event["detail"]);
        assert!(known.is_superset(&BTreeSet::from(of_aws)), "{event}");
        let beyond: BTreeSet<_> = known.difference(&BTreeSet::from(of_aws)).copied().collect();
        assert!(beyond.is_subset(&BTreeSet::from(newer)), "{event}");
        assert_eq!(event["detail"]["action-type"], "PUSH");
        assert_eq!(event["detail"]["result"], "SUCCESS");
        assert_eq!(event["detail"]["repository-name"], "hello");
    }
    let mut tags: Vec<_> = actions.iter().map(|event| &event["detail"]["image-tag"]).collect();
    tags.sort_by_key(|tag| tag.to_string());
    let marker = tags.remove(0).as_str().unwrap();
    assert!(marker.starts_with("archweld.latest."), "{marker}");
    assert_eq!(tags, ["latest", "r1", "r1-amd64", "r1-arm64v8"]);
    let last = actions.last().unwrap();
    assert_eq!(last["detail"]["image-tag"], "latest");
    assert_eq!(last["detail"]["image-digest"], recording.ended.output["digest"]);
    assert_shape("image_pushed", last);
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_run_is_an_event_of_archweld() {
    let recording = record(&[]).await;
    let [result] = recording.of_type(RESULT)[..] else { panic!("a run has one result") };
    assert_eq!(result["source"], "archweld");
    assert_eq!(result["detail"]["status"], "SUCCEEDED");
    assert_eq!(result["detail"]["published"], recording.ended.output);
    assert_shape("run_succeeded", result);
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_tells_whose_failure_it_is() {
    let message = "Error while executing command: make. Reason: exit status 2";
    let failing = ("linux/arm64", Behaviour::Fail(message.to_owned()));
    let recording = record(&[("linux/amd64", Behaviour::Hang), failing]).await;

    let failed = recording.of_project(STATE_CHANGE, "archweld-arm64")[1];
    assert_eq!(failed["detail"]["build-status"], "FAILED");
    let phases = failed["detail"]["additional-information"]["phases"].as_array().unwrap();
    let build = phases.iter().find(|phase| phase["phase-type"] == "BUILD").unwrap();
    assert_eq!(build["phase-status"], "FAILED");
    let context = format!("COMMAND_EXECUTION_ERROR: {message}");
    assert_eq!(build["phase-context"], json!([context]));
    let stopped = recording.of_project(STATE_CHANGE, "archweld-amd64")[1];
    assert_eq!(stopped["detail"]["build-status"], "STOPPED");

    let over = recording.of_type(STATUS_CHANGE)[1];
    assert_eq!(over["detail"]["status"], "FAILED");
    assert_eq!(
        (&over["detail"]["output"], &over["detail"]["outputDetails"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(over["detail"]["error"], "Build.Failed");
    let [result] = recording.of_type(RESULT)[..] else { panic!("a run has one result") };
    assert_eq!(result["detail"]["status"], "FAILED");
    assert_eq!(result["detail"]["cause"], recording.ended.cause);
    assert!(recording.ended.cause.contains(&context), "{}", recording.ended.cause);
    assert_eq!(recording.of_type(IMAGE_ACTION), Vec::<&Value>::new());
    assert_shape("build_failed", failed);
    assert_shape("run_failed", result);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_two_platforms_makes_no_call_too_many() {
    let recording = record(&[]).await;
    let mut made = BTreeMap::<_, usize>::new();
    for call in &recording.calls {
        // The test itself calls without a name.
        let Some(caller) = &call.caller else { continue };
        assert!(call.status.is_success(), "{call:?}");
        let operation = format!("{}:{}", call.service, call.operation);
        *made.entry((recording.functions[caller].clone(), operation)).or_default() += 1;
    }
    let made: Vec<_> = made
        .iter()
        .map(|((function, operation), times)| (function.as_str(), operation.as_str(), *times))
        .collect();
    let expected = [
        ("build-events", "ecr:BatchGetImage", 3),
        ("build-events", "states:SendTaskSuccess", 3),
        ("publish", "ecr:BatchGetImage", 1),
        // The configs, and the layers with the programs.
        ("publish", "ecr:GetDownloadUrlForLayer", 4),
        // Before and after the tag is moved.
        ("publish", "ecr:ListImages", 2),
        // The marker and the tag.
        ("publish", "ecr:PutImage", 2),
        // In a pass that finds the run before any build.
        ("reconcile", "codebuild:ListBuildsForProject", 3),
        // In that pass, and at the run's end.
        ("reconcile", "ecr:ListImages", 2),
        ("reconcile", "states:ListExecutions", 1),
        ("start-build", "codebuild:StartBuild", 3),
    ];
    assert_eq!(made, expected);
}

#[tokio::test(start_paused = true)]
async fn a_task_token_is_in_its_builds_variables_and_nowhere_else() {
    let recording = record(&[]).await;
    let state_changes = recording.of_type(STATE_CHANGE);
    let tokens: BTreeSet<_> =
        state_changes.iter().map(|event| variables(event)[variable::TASK_TOKEN]).collect();
    assert_eq!(tokens.len(), 3);
    for event in &recording.events {
        let said = without_tokens(event).to_string();
        assert!(tokens.iter().all(|token| !said.contains(token)), "{said}");
    }
}
