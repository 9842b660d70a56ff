//! The operations of CloudWatch Logs on the logs of builds.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use archweld_codebuild::{
    CodeBuild, Environment, EnvironmentType, Job, LOG_LINE_BYTES_MAX, LOG_WINDOW_BYTES_MAX, Notice,
    Outcome, Project, Settings, Source, SourceType, Status, Worker,
};
use archweld_local_api::Host;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Logs as many lines as the variable `LINES` says, one a second.
struct Talker;

impl Worker for Talker {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        async move {
            let lines: u32 = job.variable("LINES").unwrap().parse().unwrap();
            for line in 0..lines {
                job.reporter.log(&format!("build {} line {line}", job.number));
                sleep(Duration::from_secs(1)).await;
            }
            Status::Succeeded.into()
        }
        .boxed()
    }
}

/// 1970-01-01T00:00:01Z, so that every time is positive.
const BEGIN_MS: i64 = 1000;
const GROUP: &str = "/aws/codebuild/app";

async fn with_builds(folder: Option<&std::path::Path>, lines: &[u32]) -> (CodeBuild, Vec<String>) {
    let origin = jiff::Timestamp::from_millisecond(BEGIN_MS).unwrap();
    let host = Host::seeded("123456789012", "us-east-1", origin, 7);
    let settings = Settings { folder: folder.map(Into::into), ..Settings::default() };
    let codebuild = CodeBuild::open(host, settings, Arc::new(Talker), Arc::new(drop)).unwrap();
    let environment =
        Environment::new(EnvironmentType::LinuxContainer, "image", "BUILD_GENERAL1_SMALL");
    let source = Source::none(SourceType::NoSource);
    let mut project = Project::new("app", source, environment);
    project.timeout_in_minutes = 2160;
    codebuild.create_project(project).unwrap();
    let mut notices = codebuild.subscribe();
    let mut streams = Vec::new();
    for lines in lines {
        let variables = json!([{"name": "LINES", "value": lines.to_string()}]);
        let input = json!({"projectName": "app", "environmentVariablesOverride": variables});
        let started = codebuild.call("StartBuild", input).await.unwrap();
        streams.push(started["build"]["logs"]["streamName"].as_str().unwrap().to_owned());
    }
    let mut running = lines.len();
    while running > 0 {
        if let Notice::Finished { .. } = notices.recv().await.unwrap() {
            running -= 1;
        }
    }
    (codebuild, streams)
}

fn messages(output: &Value) -> Vec<String> {
    let events = output["events"].as_array().unwrap().iter();
    events.map(|event| event["message"].as_str().unwrap().trim_end().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_read_in_pages_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [None, Some(folder.path())] {
        let (codebuild, streams) = with_builds(folder, &[5]).await;
        let get = async |mut input: Value| {
            input["logGroupName"] = json!(GROUP);
            input["logStreamName"] = json!(streams[0]);
            codebuild.call_logs("GetLogEvents", input).await.unwrap()
        };
        let head = get(json!({"startFromHead": true, "limit": 2})).await;
        assert_eq!(messages(&head), ["build 1 line 0", "build 1 line 1"]);
        assert_eq!(head["events"][1]["timestamp"], BEGIN_MS + 1000);
        let more = get(json!({"nextToken": head["nextForwardToken"], "limit": 2})).await;
        assert_eq!(messages(&more), ["build 1 line 2", "build 1 line 3"]);
        let last = get(json!({"nextToken": more["nextForwardToken"]})).await;
        assert_eq!(messages(&last), ["build 1 line 4"]);
        let end = get(json!({"nextToken": last["nextForwardToken"]})).await;
        assert_eq!(messages(&end), Vec::<String>::new());
        assert_eq!(end["nextForwardToken"], last["nextForwardToken"]);

        let tail = get(json!({"limit": 2})).await;
        assert_eq!(messages(&tail), ["build 1 line 3", "build 1 line 4"]);
        let before = get(json!({"nextToken": tail["nextBackwardToken"], "limit": 2})).await;
        assert_eq!(messages(&before), ["build 1 line 1", "build 1 line 2"]);
        let span = json!({"startTime": BEGIN_MS + 1000, "endTime": BEGIN_MS + 3000});
        assert_eq!(messages(&get(span).await), ["build 1 line 1", "build 1 line 2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_several_builds_are_found_in_order_of_time() {
    let (codebuild, streams) = with_builds(None, &[3, 3]).await;
    let filter = async |mut input: Value| {
        input["logGroupName"] = json!(GROUP);
        codebuild.call_logs("FilterLogEvents", input).await.unwrap()
    };
    let mut input = json!({"limit": 4});
    let mut found = Vec::new();
    loop {
        let page = filter(input.clone()).await;
        found.extend(messages(&page));
        match page.get("nextToken") {
            Some(token) => input["nextToken"] = token.clone(),
            None => break,
        }
    }
    let mut by_line = found.clone();
    by_line.sort_by_key(|message| message.chars().last());
    assert_eq!(found, by_line);
    by_line.sort();
    by_line.dedup();
    assert_eq!(by_line.len(), 6);

    let input = json!({"logStreamNames": [streams[1]], "filterPattern": "line -1"});
    assert_eq!(messages(&filter(input).await), ["build 2 line 0", "build 2 line 2"]);
    let input = json!({"logStreamNamePrefix": &streams[0][..8], "startTime": BEGIN_MS + 2000});
    assert_eq!(messages(&filter(input).await), ["build 1 line 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_log_is_searched_from_the_time_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (codebuild, _) = with_builds(Some(folder.path()), &[30_000]).await;
    for line in [0, 1, 9_999, 29_999] {
        let input = json!({
            "logGroupIdentifier": format!("arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}:*"),
            "startTime": BEGIN_MS + line * 1000,
            "limit": 1,
        });
        let found = codebuild.call_logs("FilterLogEvents", input).await.unwrap();
        assert_eq!(messages(&found), [format!("build 1 line {line}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_described() {
    let (codebuild, mut streams) = with_builds(None, &[1, 3]).await;
    let describe = async |mut input: Value| {
        input["logGroupName"] = json!(GROUP);
        let described = codebuild.call_logs("DescribeLogStreams", input).await.unwrap();
        let found = described["logStreams"].as_array().unwrap().clone();
        let names = found.iter().map(|stream| stream["logStreamName"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), found, described["nextToken"].clone())
    };
    let newest = json!({"orderBy": "LastEventTime", "descending": true});
    let (names, found, _) = describe(newest).await;
    assert_eq!(names, [streams[1].clone(), streams[0].clone()]);
    assert_eq!(found[0]["firstEventTimestamp"], BEGIN_MS);
    assert_eq!(found[0]["lastEventTimestamp"], BEGIN_MS + 2000);
    streams.sort();
    let (names, _, token) = describe(json!({"limit": 1})).await;
    assert_eq!(names, streams[..1]);
    let (names, _, token) = describe(json!({"limit": 1, "nextToken": token})).await;
    assert_eq!(names, streams[1..]);
    assert_eq!(token, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn wrong_requests_are_told_apart() {
    let (codebuild, streams) = with_builds(None, &[1]).await;
    let cases = [
        (
            "GetLogEvents",
            json!({"logGroupName": "/other", "logStreamName": "x"}),
            "ResourceNotFoundException: The specified log group does not exist.",
        ),
        (
            "GetLogEvents",
            json!({"logGroupName": GROUP, "logStreamName": "x"}),
            "ResourceNotFoundException: The specified log stream does not exist.",
        ),
        (
            "GetLogEvents",
            json!({"logGroupName": GROUP, "logStreamName": streams[0], "nextToken": "x/1"}),
            "InvalidParameterException: The specified nextToken is invalid.",
        ),
        (
            "GetLogEvents",
            json!({"logGroupName": GROUP, "logStreamName": streams[0], "limit": 10_001}),
            "InvalidParameterException: limit is 10001, not 1 to 10000.",
        ),
        (
            "FilterLogEvents",
            json!({"logGroupName": GROUP, "filterPattern": "{ $.a = 1 }"}),
            "InvalidParameterException: filterPattern \"{ $.a = 1 }\" is not made of terms, the only kind served here.",
        ),
        (
            "FilterLogEvents",
            json!({"logGroupName": GROUP, "nextToken": "1/2"}),
            "InvalidParameterException: The specified nextToken is invalid.",
        ),
        (
            "DescribeLogStreams",
            json!({}),
            "InvalidParameterException: Give one of logGroupName and logGroupIdentifier.",
        ),
        (
            "PutLogEvents",
            json!({}),
            "UnknownOperationException: archweld's local cloud does not serve PutLogEvents",
        ),
    ];
    for (operation, input, expected) in cases {
        let error = codebuild.call_logs(operation, input).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn any_part_of_a_log_is_read_by_its_lines_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [None, Some(folder.path())] {
        let (codebuild, streams) = with_builds(folder, &[600]).await;
        let check = |codebuild: &CodeBuild| {
            let id = format!("app:{}", streams[0]);
            let length = codebuild.log_length(&id).unwrap().unwrap();
            assert_eq!(length.lines, 600);
            for (first, count, expected) in
                [(0, 2, 2), (255, 3, 3), (256, 300, 300), (598, 10, 2), (600, 1, 0), (9_999, 1, 0)]
            {
                let window = codebuild.log_window(&id, first, count).unwrap().unwrap();
                assert_eq!((window.first, window.length), (first, length));
                assert_eq!(window.lines.len(), expected, "{first} {count}");
                for (line, number) in window.lines.iter().zip(first..) {
                    assert_eq!(line.text, format!("build 1 line {number}"));
                    let ms = BEGIN_MS + 1000 * i64::try_from(number).unwrap();
                    assert_eq!(line.time.unwrap().as_millisecond(), ms);
                }
            }
            assert_eq!(codebuild.log_window("app:none", 0, 1).unwrap(), None);
        };
        check(&codebuild);
        codebuild.shutdown().await;
        if let Some(folder) = folder {
            let host = Host::real("123456789012", "us-east-1");
            let settings = Settings { folder: Some(folder.into()), ..Settings::default() };
            check(&CodeBuild::open(host, settings, Arc::new(Talker), Arc::new(drop)).unwrap());
        }
    }
}

/// Logs lines as long as lines may be.
struct Verbose;

impl Worker for Verbose {
    fn run(&self, job: Job) -> BoxFuture<'_, Outcome> {
        async move {
            for _ in 0..100 {
                job.reporter.log(&"x".repeat(2 * LOG_LINE_BYTES_MAX));
            }
            Status::Succeeded.into()
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_long_lines_ends_early_and_goes_on_after_its_last() {
    let host = Host::real("123456789012", "us-east-1");
    let codebuild =
        CodeBuild::open(host, Settings::default(), Arc::new(Verbose), Arc::new(drop)).unwrap();
    let environment =
        Environment::new(EnvironmentType::LinuxContainer, "image", "BUILD_GENERAL1_SMALL");
    let project = Project::new("app", Source::none(SourceType::NoSource), environment);
    codebuild.create_project(project).unwrap();
    let mut notices = codebuild.subscribe();
    let started = codebuild.call("StartBuild", json!({"projectName": "app"})).await.unwrap();
    let id = started["build"]["id"].as_str().unwrap();
    while !matches!(notices.recv().await.unwrap(), Notice::Finished { .. }) {}
    let mut read = 0;
    while read < 100 {
        let window = codebuild.log_window(id, read, 100).unwrap().unwrap();
        let bytes: usize = window.lines.iter().map(|line| line.text.len()).sum();
        assert!((1..=LOG_WINDOW_BYTES_MAX).contains(&bytes), "{bytes}");
        read += u64::try_from(window.lines.len()).unwrap();
    }
    assert_eq!(read, 100);
}
