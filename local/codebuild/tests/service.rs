//! The service with a simulated worker, under virtual time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archweld_codebuild::{
    CodeBuild, Environment, EnvironmentType, EnvironmentVariable, ExportedVariable, Job, Notice,
    Outcome, PhaseContext, PhaseType, Project, Settings, Source, SourceType, Status,
    WORKER_END_MS_MAX, Worker,
};
use archweld_local_api::{Event, Host};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Builds for as many seconds as the variable `SECONDS` says, and ends as `ENDS` says.
struct Simulated {
    /// Whether it ends when it is told to.
    obedient: bool,
    jobs: Mutex<Vec<String>>,
}

impl Worker for Simulated {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        self.jobs.lock().unwrap().push(job.id.clone());
        async move {
            let number = |name| job.variable(name).map_or(0, |value| value.parse().unwrap());
            job.reporter.begin(PhaseType::DownloadSource);
            job.reporter.source_resolved("0123456789abcdef0123456789abcdef01234567");
            job.reporter.end(Status::Succeeded, Vec::new());
            job.reporter.begin(PhaseType::Build);
            job.reporter.log("building\nstill building");
            let done = sleep(Duration::from_secs(number("SECONDS")));
            if self.obedient {
                tokio::select! {
                    () = done => {}
                    () = job.cancelled.cancelled() => return Status::Stopped.into(),
                }
            } else {
                done.await;
            }
            if job.variable("ENDS") == Some("FAILED") {
                let context = PhaseContext::new("COMMAND_EXECUTION_ERROR", "exit status 1");
                job.reporter.end(Status::Failed, vec![context]);
                return Status::Failed.into();
            }
            Outcome {
                status: Status::Succeeded,
                exported: vec![ExportedVariable {
                    name: "DIGEST".into(),
                    value: "sha256:0".into(),
                }],
                retries_max: None,
            }
        }
        .boxed()
    }
}

struct Cloud {
    codebuild: CodeBuild,
    events: Arc<Mutex<Vec<Event>>>,
    worker: Arc<Simulated>,
}

fn host(seed: u64) -> Host {
    Host::seeded("123456789012", "us-east-1", "2017-09-01T16:12:29Z".parse().unwrap(), seed)
}

fn project(name: &str) -> Project {
    let source = Source::git(SourceType::GitHub, "https://github.com/example/app.git");
    let mut environment = Environment::new(
        EnvironmentType::LinuxContainer,
        "aws/codebuild/amazonlinux-x86_64-standard:5.0",
        "BUILD_GENERAL1_SMALL",
    );
    environment.environment_variables = vec![EnvironmentVariable::plaintext("SECONDS", "60")];
    Project::new(name, source, environment)
}

/// A service that keeps its records and logs below a folder.
fn settings_in(folder: &Path) -> Settings {
    Settings { folder: Some(folder.join("codebuild")), ..Settings::default() }
}

impl Cloud {
    fn new() -> Self {
        Self::with(Settings { concurrent_builds_max: 2, queued_builds_max: 2, folder: None }, true)
    }

    fn with(settings: Settings, obedient: bool) -> Self {
        Self::on(host(7), settings, obedient)
    }

    fn on(host: Host, settings: Settings, obedient: bool) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let worker = Arc::new(Simulated { obedient, jobs: Mutex::default() });
        let codebuild = CodeBuild::open(
            host,
            settings,
            Arc::clone(&worker) as Arc<dyn Worker>,
            Arc::new(move |event| sink.lock().unwrap().push(event)),
        )
        .unwrap();
        codebuild.create_project(project("app")).unwrap();
        Self { codebuild, events, worker }
    }

    async fn call(&self, operation: &str, input: Value) -> Value {
        self.codebuild.call(operation, input).await.unwrap()
    }

    async fn error(&self, operation: &str, input: Value) -> String {
        self.codebuild.call(operation, input).await.unwrap_err().to_string()
    }

    async fn start(&self, variables: &[(&str, &str)]) -> String {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let input = json!({"projectName": "app", "environmentVariablesOverride": variables});
        self.call("StartBuild", input).await["build"]["id"].as_str().unwrap().to_owned()
    }

    async fn build(&self, id: &str) -> Value {
        self.call("BatchGetBuilds", json!({"ids": [id]})).await["builds"][0].clone()
    }

    async fn finished(&self, id: &str) -> Value {
        let mut notices = self.codebuild.subscribe();
        loop {
            let build = self.build(id).await;
            if build["buildComplete"] == true {
                return build;
            }
            notices.recv().await.unwrap();
        }
    }

    fn events(&self, detail_type: &str) -> Vec<Value> {
        let events = self.events.lock().unwrap();
        let of_type = events.iter().filter(|event| event.detail_type == detail_type);
        of_type.map(|event| serde_json::to_value(event).unwrap()).collect()
    }
}

/// Holds a value against its snapshot, whatever the order of its keys: that depends on which other
/// packages are built with this one.
fn assert_shape(name: &str, value: &Value) {
    let mut settings = insta::Settings::clone_current();
    settings.set_sort_maps(true);
    settings.bind(|| insta::assert_json_snapshot!(name, value));
}

#[tokio::test(start_paused = true)]
async fn a_build_goes_through_its_phases() {
    let cloud = Cloud::new();
    let id = cloud.start(&[]).await;
    let build = cloud.build(&id).await;
    assert_eq!(build["buildStatus"], "IN_PROGRESS");
    assert_eq!(build["currentPhase"], "QUEUED");
    assert_eq!(build["startTime"], json!(1_504_282_349.0));

    let build = cloud.finished(&id).await;
    assert_shape("finished_build", &build);
}

#[tokio::test(start_paused = true)]
async fn a_build_links_to_where_it_can_be_looked_at_and_nowhere_else() {
    let cloud = Cloud::new();
    let id = cloud.start(&[]).await;
    assert_eq!(cloud.finished(&id).await["logs"].get("deepLink"), None);
    cloud.codebuild.show_builds_at("http://localhost/#/builds/".to_owned());
    let id = cloud.start(&[]).await;
    let link = format!("http://localhost/#/builds/{id}");
    assert_eq!(cloud.finished(&id).await["logs"]["deepLink"], link);
}

#[tokio::test(start_paused = true)]
async fn events_are_shaped_as_those_of_aws() {
    let cloud = Cloud::new();
    cloud.codebuild.show_builds_at("https://builds.example/".to_owned());
    let id = cloud.start(&[("ARCHWELD_TASK_TOKEN", "a-token")]).await;
    cloud.finished(&id).await;

    let states = cloud.events("CodeBuild Build State Change");
    assert_eq!(states.len(), 2);
    assert_shape("state_change_in_progress", &states[0]);
    assert_shape("state_change_succeeded", &states[1]);

    let phases = cloud.events("CodeBuild Build Phase Change");
    let completed: Vec<_> =
        phases.iter().map(|event| event["detail"]["completed-phase"].as_str().unwrap()).collect();
    assert_eq!(completed, ["SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "BUILD"]);
    let mut last = phases[4].clone();
    last["detail"]["additional-information"] = json!("as in the state change");
    assert_shape("phase_change", &last);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_by_its_phase() {
    let cloud = Cloud::new();
    let id = cloud.start(&[("ENDS", "FAILED")]).await;
    let build = cloud.finished(&id).await;
    assert_eq!(build["buildStatus"], "FAILED");
    let states = cloud.events("CodeBuild Build State Change");
    let detail = &states[1]["detail"];
    assert_eq!(detail["build-status"], "FAILED");
    let phases = detail["additional-information"]["phases"].as_array().unwrap();
    assert_eq!(phases[4]["phase-type"], "BUILD");
    assert_eq!(phases[4]["phase-status"], "FAILED");
    assert_eq!(phases[4]["phase-context"], json!(["COMMAND_EXECUTION_ERROR: exit status 1"]));
    let ended = cloud.events("CodeBuild Build Phase Change");
    assert_eq!(
        ended[4]["detail"]["completed-phase-context"],
        "[COMMAND_EXECUTION_ERROR: exit status 1]"
    );
}

#[tokio::test(start_paused = true)]
async fn a_build_out_of_time_is_timed_out() {
    let cloud = Cloud::new();
    let started = Instant::now();
    let input = json!({
        "projectName": "app",
        "timeoutInMinutesOverride": 5,
        "environmentVariablesOverride": [{"name": "SECONDS", "value": "100000"}],
    });
    let id = cloud.call("StartBuild", input).await["build"]["id"].as_str().unwrap().to_owned();
    let build = cloud.finished(&id).await;
    assert_eq!(started.elapsed().as_secs(), 5 * 60);
    assert_eq!(build["buildStatus"], "TIMED_OUT");
    assert_eq!(build["phases"][4]["phaseType"], "BUILD");
    assert_eq!(build["phases"][4]["phaseStatus"], "TIMED_OUT");
    assert_eq!(build["phases"][4]["contexts"][0]["statusCode"], "BUILD_TIMED_OUT");
    let states = cloud.events("CodeBuild Build State Change");
    assert_eq!(states[1]["detail"]["build-status"], "TIMED_OUT");
}

#[tokio::test(start_paused = true)]
async fn builds_wait_for_their_turn_and_not_for_ever() {
    let cloud = Cloud::new();
    let mut project = project("app");
    project.queued_timeout_in_minutes = 5;
    cloud.codebuild.create_project(project).unwrap();
    let long = [("SECONDS", "3000")];
    let first = cloud.start(&long).await;
    let second = cloud.start(&[("SECONDS", "120")]).await;
    let third = cloud.start(&long).await;
    let fourth = cloud.start(&long).await;
    let error = cloud.error("StartBuild", json!({"projectName": "app"})).await;
    assert_eq!(
        error,
        "AccountLimitExceededException: Cannot have more than 2 builds in queue for the account"
    );

    cloud.finished(&second).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cloud.build(&third).await["currentPhase"], "BUILD");
    let started = Instant::now();
    let build = cloud.finished(&fourth).await;
    assert_eq!(started.elapsed().as_secs(), 5 * 60 - 120 - 1);
    assert_eq!(build["buildStatus"], "TIMED_OUT");
    assert_eq!(build["phases"][1]["phaseType"], "QUEUED");
    assert_eq!(build["phases"][1]["phaseStatus"], "TIMED_OUT");
    assert_eq!(*cloud.worker.jobs.lock().unwrap(), [first, second, third]);
}

#[tokio::test(start_paused = true)]
async fn a_projects_own_limit_refuses_builds() {
    let cloud = Cloud::new();
    let mut project = project("app");
    project.concurrent_build_limit = Some(1);
    cloud.codebuild.create_project(project).unwrap();
    let first = cloud.start(&[]).await;
    let error = cloud.error("StartBuild", json!({"projectName": "app"})).await;
    assert_eq!(
        error,
        "AccountLimitExceededException: Cannot have more than 1 active builds for the project"
    );
    cloud.finished(&first).await;
    cloud.start(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_build_is_over_at_once_and_once() {
    let cloud = Cloud::new();
    let id = cloud.start(&[]).await;
    sleep(Duration::from_secs(1)).await;
    let stopped = cloud.call("StopBuild", json!({"id": id})).await["build"].clone();
    assert_eq!(stopped["buildStatus"], "STOPPED");
    assert_eq!(stopped["phases"][4]["phaseStatus"], "STOPPED");
    assert_eq!(stopped["currentPhase"], "COMPLETED");
    sleep(Duration::from_secs(100)).await;
    assert_eq!(cloud.call("StopBuild", json!({"id": id})).await["build"], stopped);
    assert_eq!(cloud.events("CodeBuild Build State Change").len(), 2);

    let finished = cloud.start(&[]).await;
    let finished = cloud.finished(&finished).await;
    let arn = finished["arn"].clone();
    assert_eq!(cloud.call("StopBuild", json!({"id": arn})).await["build"], finished);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_end_is_left_after_its_time() {
    let settings = Settings { concurrent_builds_max: 1, ..Settings::default() };
    let cloud = Cloud::with(settings, false);
    let first = cloud.start(&[]).await;
    let second = cloud.start(&[]).await;
    sleep(Duration::from_secs(1)).await;
    cloud.call("StopBuild", json!({"id": first})).await;
    sleep(Duration::from_millis(WORKER_END_MS_MAX - 100)).await;
    assert_eq!(cloud.build(&second).await["currentPhase"], "QUEUED");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(cloud.build(&second).await["currentPhase"], "BUILD");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_all_within_two_seconds_and_refuses_more() {
    let cloud = Cloud::with(Settings::default(), false);
    let id = cloud.start(&[]).await;
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    cloud.codebuild.shutdown().await;
    assert!(started.elapsed() <= Duration::from_secs(2));
    assert_eq!(cloud.build(&id).await["buildStatus"], "FAULT");
    let error = cloud.error("StartBuild", json!({"projectName": "app"})).await;
    assert_eq!(error, "ServiceUnavailableException: CodeBuild is ending");
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_token_counts_for_five_minutes() {
    let cloud = Cloud::new();
    let input = |seconds: &str| {
        json!({
            "projectName": "app",
            "idempotencyToken": "token",
            "environmentVariablesOverride": [{"name": "SECONDS", "value": seconds}],
        })
    };
    let first = cloud.call("StartBuild", input("1")).await["build"]["id"].clone();
    sleep(Duration::from_secs(299)).await;
    let again = cloud.call("StartBuild", input("1")).await["build"].clone();
    assert_eq!(again["id"], first);
    assert_eq!(again["buildStatus"], "SUCCEEDED");
    let error = cloud.error("StartBuild", input("2")).await;
    assert!(error.starts_with("InvalidInputException: Parameters do not match"), "{error}");
    sleep(Duration::from_secs(1)).await;
    assert_ne!(cloud.call("StartBuild", input("2")).await["build"]["id"], first);
}

#[tokio::test(start_paused = true)]
async fn overrides_are_recorded_and_the_projects_stay() {
    let cloud = Cloud::new();
    let input = json!({
        "projectName": "app",
        "sourceVersion": "main",
        "sourceTypeOverride": "GITLAB",
        "sourceLocationOverride": "https://gitlab.com/example/app.git",
        "gitCloneDepthOverride": 1,
        "buildspecOverride": "other.yml",
        "environmentTypeOverride": "ARM_CONTAINER",
        "imageOverride": "aws/codebuild/amazonlinux-aarch64-standard:4.0",
        "computeTypeOverride": "BUILD_GENERAL1_LARGE",
        "privilegedModeOverride": true,
        "serviceRoleOverride": "arn:aws:iam::123456789012:role/other",
        "timeoutInMinutesOverride": 2160,
        "queuedTimeoutInMinutesOverride": 480,
        "environmentVariablesOverride": [{"name": "A", "value": "1", "type": "PLAINTEXT"}],
        "cacheOverride": {"type": "NO_CACHE"},
    });
    let build = cloud.call("StartBuild", input).await["build"].clone();
    assert_eq!(
        build["source"],
        json!({
            "type": "GITLAB",
            "location": "https://gitlab.com/example/app.git",
            "gitCloneDepth": 1,
            "buildspec": "other.yml",
            "reportBuildStatus": false,
        })
    );
    assert_eq!(
        build["environment"],
        json!({
            "type": "ARM_CONTAINER",
            "image": "aws/codebuild/amazonlinux-aarch64-standard:4.0",
            "computeType": "BUILD_GENERAL1_LARGE",
            "environmentVariables": [
                {"name": "SECONDS", "value": "60", "type": "PLAINTEXT"},
                {"name": "A", "value": "1", "type": "PLAINTEXT"},
            ],
            "privilegedMode": true,
            "imagePullCredentialsType": "CODEBUILD",
        })
    );
    assert_eq!(build["sourceVersion"], "main");
    assert_eq!(build["timeoutInMinutes"], 2160);
    let next = cloud.start(&[]).await;
    assert_eq!(cloud.build(&next).await["source"]["type"], "GITHUB");
}

#[tokio::test(start_paused = true)]
async fn wrong_inputs_are_told_by_field() {
    let cloud = Cloud::new();
    let variable = |name: &str, value: &str, kind: &str| {
        json!({
            "projectName": "app",
            "environmentVariablesOverride": [{"name": name, "value": value, "type": kind}],
        })
    };
    let cases = [
        ("StartBuild", json!({})),
        ("StartBuild", json!({"projectName": 5})),
        ("StartBuild", json!({"projectName": "nothing"})),
        ("StartBuild", json!({"projectName": "app", "timeoutInMinutesOverride": 4})),
        ("StartBuild", json!({"projectName": "app", "queuedTimeoutInMinutesOverride": 481})),
        ("StartBuild", json!({"projectName": "app", "environmentTypeOverride": "LINUX"})),
        ("StartBuild", json!({"projectName": "app", "idempotencyToken": "x".repeat(65)})),
        ("StartBuild", variable("A", "/a", "PARAMETER_STORE")),
        ("StartBuild", variable("A", "a", "SECRETS_MANAGER")),
        ("StartBuild", variable("A", "a", "OTHER")),
        ("StartBuild", variable("A=B", "a", "PLAINTEXT")),
        ("StartBuild", variable("A", "a\0b", "PLAINTEXT")),
        ("StopBuild", json!({"id": "app:nothing"})),
        ("BatchGetBuilds", json!({"ids": []})),
        ("BatchGetBuilds", json!({"ids": ["a", 5]})),
        ("ListBuilds", json!({"nextToken": "x"})),
        ("ListBuildsForProject", json!({"projectName": "nothing"})),
        ("ListBuilds", json!({"sortOrder": "UP"})),
        ("DeleteProject", json!({"name": "app"})),
    ];
    let mut told = Vec::new();
    for (operation, input) in cases {
        told.push(format!("{operation}: {}", cloud.error(operation, input).await));
    }
    insta::assert_snapshot!(told.join("\n"));
    assert!(cloud.events.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn wrong_projects_are_refused() {
    let cloud = Cloud::new();
    let create = |change: fn(&mut Project)| {
        let mut project = project("other");
        change(&mut project);
        cloud.codebuild.create_project(project).map_err(|error| error.code)
    };
    let refused = Err("InvalidInputException".to_owned());
    assert_eq!(create(|_| {}), Ok(()));
    assert_eq!(create(|project| project.name = "a".into()), refused);
    assert_eq!(create(|project| project.name = "-app".into()), refused);
    assert_eq!(create(|project| project.name = "../app".into()), refused);
    assert_eq!(create(|project| project.timeout_in_minutes = 4), refused);
    assert_eq!(create(|project| project.queued_timeout_in_minutes = 481), refused);
    assert_eq!(create(|project| project.concurrent_build_limit = Some(0)), refused);
}

#[tokio::test(start_paused = true)]
async fn builds_are_found_and_listed_in_pages() {
    let settings = Settings { concurrent_builds_max: 200, ..Settings::default() };
    let cloud = Cloud::with(settings, true);
    cloud.codebuild.create_project(project("other")).unwrap();
    cloud.call("StartBuild", json!({"projectName": "other"})).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(cloud.start(&[]).await);
    }
    let list = |input: Value| cloud.call("ListBuildsForProject", input);
    let ascending = json!({"projectName": "app", "sortOrder": "ASCENDING"});
    assert_eq!(list(ascending.clone()).await, json!({"ids": ids}));
    ids.push(cloud.start(&[]).await);
    let error = cloud.error("ListBuildsForProject", ascending).await;
    assert!(error.starts_with("InvalidInputException: Invalid sortOrder"), "{error}");

    let first = list(json!({"projectName": "app"})).await;
    let newest: Vec<_> = ids.iter().rev().take(100).collect();
    assert_eq!(first["ids"], json!(newest));
    // A build started meanwhile does not shift the next page.
    cloud.start(&[]).await;
    let next = list(json!({"projectName": "app", "nextToken": first["nextToken"]})).await;
    assert_eq!(next, json!({"ids": [ids[0]]}));

    let all = cloud.call("ListBuilds", json!({})).await;
    assert_eq!(all["ids"].as_array().unwrap().len(), 100);
    let rest = cloud.call("ListBuilds", json!({"nextToken": all["nextToken"]})).await;
    assert_eq!(rest["ids"].as_array().unwrap().len(), 3);

    let arn = cloud.build(&ids[0]).await["arn"].clone();
    let got = cloud.call("BatchGetBuilds", json!({"ids": [arn, "app:nothing"]})).await;
    assert_eq!(got["builds"][0]["id"], json!(ids[0]));
    assert_eq!(got["builds"][0]["buildNumber"], 1);
    assert_eq!(got["buildsNotFound"], json!(["app:nothing"]));
}

#[tokio::test(start_paused = true)]
async fn projects_are_found_and_listed() {
    let cloud = Cloud::new();
    cloud.codebuild.create_project(project("another")).unwrap();
    let listed = cloud.call("ListProjects", json!({})).await;
    assert_eq!(listed, json!({"projects": ["another", "app"]}));
    let by_time = json!({"sortBy": "CREATED_TIME", "sortOrder": "DESCENDING"});
    assert_eq!(cloud.call("ListProjects", by_time).await["projects"].as_array().unwrap().len(), 2);
    let found = cloud.call("BatchGetProjects", json!({"names": ["app", "nothing"]})).await;
    assert_eq!(found["projectsNotFound"], json!(["nothing"]));
    assert_shape("project", &found["projects"][0]);
}

#[tokio::test(start_paused = true)]
async fn subscribers_hear_of_a_build_in_order() {
    let cloud = Cloud::new();
    let mut notices = cloud.codebuild.subscribe();
    let id = cloud.start(&[("IMAGE_PLATFORM", "linux/arm64")]).await;
    let mut heard = Vec::new();
    loop {
        let notice = notices.recv().await.unwrap();
        heard.push(match &notice {
            Notice::Queued { build } => {
                assert_eq!(build.variable("IMAGE_PLATFORM"), Some("linux/arm64"));
                format!("queued {}", build.number)
            }
            Notice::PhaseBegan { phase, .. } => format!("began {phase}"),
            Notice::PhaseEnded { phase, status, .. } => format!("ended {phase} {status}"),
            Notice::Log { line, .. } => format!("log {line}"),
            Notice::Finished { build, status } => {
                assert_eq!(build.id, id);
                heard.push(format!("finished {status}"));
                break;
            }
        });
    }
    assert_eq!(
        heard,
        [
            "queued 1",
            "ended QUEUED SUCCEEDED",
            "began PROVISIONING",
            "ended PROVISIONING SUCCEEDED",
            "began DOWNLOAD_SOURCE",
            "ended DOWNLOAD_SOURCE SUCCEEDED",
            "began BUILD",
            "log building",
            "log still building",
            "ended BUILD SUCCEEDED",
            "finished SUCCEEDED",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn records_and_logs_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || settings_in(folder.path());
    let cloud = Cloud::with(settings(), true);
    let done = cloud.start(&[]).await;
    let done = cloud.finished(&done).await;
    let cut_off = cloud.start(&[]).await;
    sleep(Duration::from_secs(1)).await;
    drop(cloud);

    let cloud = Cloud::on(host(8), settings(), true);
    assert_eq!(cloud.build(done["id"].as_str().unwrap()).await, done);
    assert_eq!(cloud.build(&cut_off).await["buildStatus"], "IN_PROGRESS");
    assert_eq!(cloud.codebuild.recover(), std::slice::from_ref(&cut_off));
    assert_eq!(cloud.codebuild.recover(), Vec::<String>::new());
    let build = cloud.build(&cut_off).await;
    assert_eq!(build["buildStatus"], "FAULT");
    assert_eq!(build["buildComplete"], true);
    let [event] = cloud.events("CodeBuild Build State Change").try_into().unwrap();
    let event = &event["detail"];
    assert_eq!(event["build-status"], "FAULT");
    let phases = event["additional-information"]["phases"].as_array().unwrap();
    let fault = phases.iter().find(|phase| phase["phase-status"] == "FAULT").unwrap();
    assert_eq!(fault["phase-type"], "BUILD");
    let why = "INTERNAL_ERROR: the local CodeBuild ended while the build ran";
    assert_eq!(fault["phase-context"], json!([why]));
    let next = cloud.start(&[]).await;
    assert_eq!(cloud.build(&next).await["buildNumber"], 3);
    let input = json!({
        "logGroupName": "/aws/codebuild/app",
        "logStreamName": done["logs"]["streamName"],
        "startFromHead": true,
    });
    let events = cloud.codebuild.call_logs("GetLogEvents", input).await.unwrap();
    assert_eq!(events["events"][1]["message"], "still building\n");
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_take_of_a_build_is_written_once_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || settings_in(folder.path());
    let cloud = Cloud::with(settings(), true);
    let parts = ["builds", "logs"].map(|part| folder.path().join("codebuild").join(part));
    let away = parts.clone().map(|part| part.with_extension("away"));
    let rename = |from: &[PathBuf], to: &[PathBuf]| {
        from.iter().zip(to).for_each(|(from, to)| std::fs::rename(from, to).unwrap());
    };
    rename(&parts, &away);
    let id = cloud.start(&[]).await;
    let build = cloud.finished(&id).await;
    let log = json!({
        "logGroupName": "/aws/codebuild/app",
        "logStreamName": build["logs"]["streamName"],
        "startFromHead": true,
    });
    let lines = cloud.codebuild.call_logs("GetLogEvents", log.clone()).await.unwrap();
    assert_eq!(lines["events"][1]["message"], "still building\n");
    rename(&away, &parts);
    sleep(Duration::from_secs(2)).await;
    drop(cloud);

    let cloud = Cloud::on(host(8), settings(), true);
    assert_eq!(cloud.build(&id).await, build);
    assert_eq!(cloud.codebuild.call_logs("GetLogEvents", log).await.unwrap(), lines);
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_build_that_was_cut_off_says_so_after_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || settings_in(folder.path());
    let cloud = Cloud::with(settings(), true);
    let id = cloud.start(&[]).await;
    sleep(Duration::from_secs(1)).await;
    let log = cloud.codebuild.log_file(&id).unwrap();
    drop(cloud);
    let whole = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 3]).unwrap();

    let cloud = Cloud::on(host(8), settings(), true);
    cloud.codebuild.recover();
    let input = json!({
        "logGroupName": "/aws/codebuild/app",
        "logStreamName": id.rsplit_once(':').unwrap().1,
        "startFromHead": true,
    });
    let events = cloud.codebuild.call_logs("GetLogEvents", input).await.unwrap();
    let last = events["events"].as_array().unwrap().last().unwrap()["message"].clone();
    assert_eq!(last, "[Container] the local CodeBuild ended while the build ran\n");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_build_that_was_cut_off_before_its_first_line_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || settings_in(folder.path());
    let cloud = Cloud::with(settings(), true);
    let id = cloud.start(&[]).await;
    drop(cloud);

    let cloud = Cloud::on(host(8), settings(), true);
    cloud.codebuild.recover();
    let log = std::fs::read_to_string(cloud.codebuild.log_file(&id).unwrap()).unwrap();
    assert!(log.ends_with("[Container] the local CodeBuild ended while the build ran\n"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_token_counts_after_a_restart_for_as_long_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || settings_in(folder.path());
    let cloud = Cloud::with(settings(), true);
    let start = json!({"projectName": "app", "idempotencyToken": "once"});
    let first = cloud.call("StartBuild", start.clone()).await["build"]["id"].clone();
    drop(cloud);

    let cloud = Cloud::on(host(8), settings(), true);
    cloud.codebuild.recover();
    let again = cloud.call("StartBuild", start.clone()).await["build"].clone();
    assert_eq!((&again["id"], &again["buildStatus"]), (&first, &json!("FAULT")));
    let other = json!({"projectName": "app", "idempotencyToken": "once", "sourceVersion": "other"});
    assert!(cloud.error("StartBuild", other).await.contains("do not match"));
    sleep(Duration::from_secs(301)).await;
    assert_ne!(cloud.call("StartBuild", start).await["build"]["id"], first);
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_history() {
    async fn history() -> Vec<Event> {
        let cloud = Cloud::new();
        let ids = [cloud.start(&[]).await, cloud.start(&[("ENDS", "FAILED")]).await];
        for id in &ids {
            cloud.finished(id).await;
        }
        std::mem::take(&mut cloud.events.lock().unwrap())
    }
    assert_eq!(history().await, history().await);
}
