//! The bus as its users see it: rules, deliveries, retries and the API.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archweld_events::{
    Bus, Deliver, DeliveryError, ExhaustedRetry, Input, JsonPath, Notice, Pattern, RetryPolicy,
    Rule, RuleError, Target,
};
use archweld_local_api::Host;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

/// What a target answers to its n-th payload.
type Answer = fn(usize) -> Result<(), DeliveryError>;

struct Setup {
    bus: Bus,
    deliver: Deliver,
    notices: Receiver<Notice>,
    received: Arc<Mutex<Vec<(String, Value, Instant)>>>,
}

fn setup(answer: Answer) -> Setup {
    let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
    let received = Arc::new(Mutex::new(Vec::new()));
    let deliver: Deliver = {
        let received = Arc::clone(&received);
        Arc::new(move |arn, payload| {
            let mut received = received.lock().unwrap();
            received.push((arn, payload, Instant::now()));
            let answer = answer(received.len());
            async move { answer }.boxed()
        })
    };
    let bus = Bus::new(host, Bus::DEFAULT, deliver.clone());
    let notices = bus.subscribe();
    Setup { bus, deliver, notices, received }
}

/// A bus on a folder with one rule, which has gone on with what it found.
fn reopened(folder: &Path, answer: Answer) -> Setup {
    let mut setup = setup(answer);
    let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
    setup.bus = Bus::open(host, Bus::DEFAULT, setup.deliver.clone(), folder).unwrap();
    setup.notices = setup.bus.subscribe();
    let mut rule = rule("all", json!({"source": ["archweld"]}));
    rule.targets.push(target("second"));
    setup.bus.create_rule(rule).unwrap();
    setup.bus.recover().unwrap();
    setup
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(start_paused = true)]
async fn an_event_outlives_the_process_until_all_its_targets_took_it() {
    let folder = tempfile::tempdir().unwrap();
    // The first target takes it, the second does not.
    let first = |n| if n == 1 { Ok(()) } else { failing(n) };
    let mut setup = reopened(folder.path(), first);
    put(&setup.bus, json!({"n": 1})).await;
    assert!(matches!(next(&mut setup.notices).await, Notice::Delivered(_)));
    assert!(matches!(next(&mut setup.notices).await, Notice::Retrying { .. }));
    setup.bus.shutdown().await;
    // What is put on a bus that stops is delivered by the next one.
    put(&setup.bus, json!({"n": 2})).await;
    assert_eq!(files(folder.path()), 2);

    let mut again = reopened(folder.path(), |_| Ok(()));
    for _ in 0..4 {
        assert!(matches!(next(&mut again.notices).await, Notice::Delivered(_)));
    }
    let received = again.received.lock().unwrap().clone();
    let details: Vec<&Value> =
        received.iter().map(|(_, payload, _)| &payload["detail"]["n"]).collect();
    assert_eq!(details, [1, 1, 2, 2]);
    assert_eq!(received[0].1["id"], setup.received.lock().unwrap()[0].1["id"]);
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_given_up_or_that_no_rule_matches_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = reopened(folder.path(), |_| {
        Err(DeliveryError { code: "GONE".into(), message: "no".into(), retryable: false })
    });
    let other = json!({"Source": "other", "DetailType": "Result", "Detail": "{}"});
    setup.bus.call("PutEvents", json!({"Entries": [other]})).await.unwrap();
    put(&setup.bus, json!({})).await;
    for _ in 0..2 {
        assert!(matches!(next(&mut setup.notices).await, Notice::DeadLetter { .. }));
    }
    assert_eq!(files(folder.path()), 0);
}

fn failing(_: usize) -> Result<(), DeliveryError> {
    Err(DeliveryError { code: "THROTTLING".into(), message: "later".into(), retryable: true })
}

fn rule(name: &str, pattern: Value) -> Rule {
    Rule {
        name: name.into(),
        pattern: Some(Pattern::parse(&pattern).unwrap()),
        enabled: true,
        targets: vec![target("target")],
    }
}

fn target(id: &str) -> Target {
    Target {
        id: id.into(),
        arn: format!("arn:{id}"),
        input: Input::Whole,
        retry: RetryPolicy::default(),
        dead_letter_arn: None,
    }
}

fn entry(detail: &Value) -> Value {
    json!({"Source": "archweld", "DetailType": "Result", "Detail": detail.to_string()})
}

async fn put(bus: &Bus, detail: Value) {
    let answer = bus.call("PutEvents", json!({"Entries": [entry(&detail)]})).await.unwrap();
    assert_eq!(answer["FailedEntryCount"], 0);
}

/// The next notice that is not an event.
async fn next(notices: &mut Receiver<Notice>) -> Notice {
    loop {
        match notices.recv().await.unwrap() {
            Notice::Event(_) => {}
            notice => return notice,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delivers_only_to_the_rules_that_match() {
    let mut setup = setup(|_| Ok(()));
    setup.bus.create_rule(rule("ok", json!({"detail": {"status": ["SUCCEEDED"]}}))).unwrap();
    let mut other = rule("failed", json!({"detail": {"status": ["FAILED"]}}));
    other.targets = vec![
        target("first"),
        Target {
            input: Input::Path(JsonPath::parse("$.detail.status").unwrap()),
            ..target("second")
        },
    ];
    setup.bus.create_rule(other.clone()).unwrap();
    setup.bus.create_rule(Rule { name: "off".into(), enabled: false, ..other.clone() }).unwrap();
    setup.bus.create_rule(Rule { name: "timed".into(), pattern: None, ..other }).unwrap();

    put(&setup.bus, json!({"status": "FAILED"})).await;
    for _ in 0..2 {
        assert!(matches!(next(&mut setup.notices).await, Notice::Delivered(_)));
    }
    let received = setup.received.lock().unwrap();
    let (arns, payloads): (Vec<_>, Vec<_>) =
        received.iter().map(|(arn, payload, _)| (arn.as_str(), payload)).unzip();
    assert_eq!(arns, ["arn:first", "arn:second"]);
    assert_eq!(payloads[0]["detail-type"], "Result");
    assert_eq!(payloads[0]["account"], "000000000000");
    assert_eq!(payloads[1], "FAILED");
}

#[tokio::test(start_paused = true)]
async fn retries_with_growing_waits_until_the_target_takes_it() {
    let mut setup = setup(|attempt| if attempt < 5 { failing(attempt) } else { Ok(()) });
    setup.bus.create_rule(rule("all", json!({"source": ["archweld"]}))).unwrap();
    put(&setup.bus, json!({})).await;
    let delivered = loop {
        match next(&mut setup.notices).await {
            Notice::Delivered(delivery) => break delivery,
            Notice::Retrying { error, .. } => assert_eq!(error.code, "THROTTLING"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delivered.attempts, 5);
    let received = setup.received.lock().unwrap();
    for (doublings, pair) in received.windows(2).enumerate() {
        let (wait, step) = (pair[1].2 - pair[0].2, Duration::from_secs(1 << doublings));
        assert!(
            wait >= step / 2 && wait <= step + Duration::from_millis(1),
            "{wait:?} of {step:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn gives_up_after_the_attempts_or_the_age_of_the_policy() {
    let cases = [
        (
            RetryPolicy { attempts_max: 2, ..RetryPolicy::default() },
            ExhaustedRetry::MaximumRetryAttempts,
        ),
        (
            RetryPolicy { age_max: RetryPolicy::AGE_MIN, ..RetryPolicy::default() },
            ExhaustedRetry::MaximumEventAgeInSeconds,
        ),
        (RetryPolicy::default(), ExhaustedRetry::MaximumRetryAttempts),
    ];
    for (retry, expected) in cases {
        let mut setup = setup(failing);
        let mut rule = rule("all", json!({"source": ["archweld"]}));
        rule.targets[0].retry = retry;
        rule.targets[0].dead_letter_arn = Some("arn:queue".into());
        setup.bus.create_rule(rule).unwrap();
        let start = Instant::now();
        put(&setup.bus, json!({})).await;
        let (delivery, exhausted, queue) = loop {
            if let Notice::DeadLetter { delivery, exhausted, queue_arn, .. } =
                next(&mut setup.notices).await
            {
                break (delivery, exhausted, queue_arn);
            }
        };
        assert_eq!((exhausted, queue.as_deref()), (expected, Some("arn:queue")));
        assert!(delivery.attempts <= retry.attempts_max + 1);
        assert!(start.elapsed() <= retry.age_max);
    }
}

#[tokio::test(start_paused = true)]
async fn does_not_retry_what_cannot_be_mended() {
    let mut setup = setup(|_| {
        Err(DeliveryError { code: "NO_PERMISSIONS".into(), message: "no".into(), retryable: false })
    });
    setup.bus.create_rule(rule("all", json!({"source": ["archweld"]}))).unwrap();
    put(&setup.bus, json!({})).await;
    let Notice::DeadLetter { delivery, exhausted, .. } = next(&mut setup.notices).await else {
        panic!("expected a dead letter")
    };
    assert_eq!((delivery.attempts, exhausted), (1, ExhaustedRetry::NotRetryable));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_pending_retries() {
    let mut setup = setup(failing);
    setup.bus.create_rule(rule("all", json!({"source": ["archweld"]}))).unwrap();
    put(&setup.bus, json!({})).await;
    assert!(matches!(next(&mut setup.notices).await, Notice::Retrying { .. }));
    assert_eq!(setup.bus.deliveries_pending(), 1);
    setup.bus.shutdown().await;
    assert_eq!(setup.bus.deliveries_pending(), 0);
}

#[tokio::test]
async fn put_events_answers_for_each_entry() {
    let mut setup = setup(|_| Ok(()));
    let answer = setup
        .bus
        .call("PutEvents", json!({"Entries": [
            {"Source": "archweld", "DetailType": "Result", "Detail": "{}", "Time": 86400.5, "Resources": ["arn:x"], "EventBusName": "default"},
            {"DetailType": "Result", "Detail": "{}"},
            {"Source": "archweld", "DetailType": "Result", "Detail": "[1]"},
            {"Source": "archweld", "DetailType": "Result", "Detail": "{"},
            {"Source": "aws.codebuild", "DetailType": "Result", "Detail": "{}"},
            {"Source": "archweld", "DetailType": "Result", "Detail": "{}", "EventBusName": "other"},
        ]}))
        .await
        .unwrap();
    assert_eq!(answer["FailedEntryCount"], 5);
    let codes: Vec<_> = answer["Entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["ErrorCode"].as_str().unwrap_or("none"))
        .collect();
    assert_eq!(
        codes,
        [
            "none",
            "InvalidArgument",
            "MalformedDetail",
            "MalformedDetail",
            "NotAuthorizedForSourceException",
            "InvalidArgument",
        ]
    );
    let Notice::Event(event) = setup.notices.recv().await.unwrap() else { panic!() };
    assert_eq!(answer["Entries"][0]["EventId"], event.id);
    assert_eq!(
        (event.time.as_str(), &event.resources[..]),
        ("1970-01-02T00:00:00Z", &["arn:x".to_owned()][..])
    );
    assert!(setup.notices.try_recv().is_err(), "a refused entry is no event");
}

#[tokio::test]
async fn put_events_bounds_number_size_and_types() {
    let setup = setup(|_| Ok(()));
    let padding = |bytes: usize| json!({"x": "y".repeat(bytes)});
    let fixed = entry(&padding(0))["Detail"].as_str().unwrap().len() + "archweldResult".len();
    let cases = [
        (json!({"Entries": []}), "expected 1 to 10"),
        (json!({"Entries": vec![entry(&json!({})); 11]}), "expected 1 to 10"),
        (json!({"Entries": [entry(&padding(1_048_577 - fixed))]}), "expected at most 1048576"),
        (json!({"Entries": [{"Source": 5}]}), "expected a string"),
        (json!({}), "Entries"),
    ];
    for (input, message) in cases {
        let error = setup.bus.call("PutEvents", input).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("ValidationException", 400));
        assert!(error.message.contains(message), "{error}");
    }
    let fits = json!({"Entries": [entry(&padding(1_048_576 - fixed))]});
    assert_eq!(setup.bus.call("PutEvents", fits).await.unwrap()["FailedEntryCount"], 0);
}

#[tokio::test]
async fn tells_of_its_rules_and_targets() {
    let bus = setup(|_| Ok(())).bus;
    for name in ["a-1", "a-2", "b-1"] {
        bus.create_rule(rule(name, json!({"source": ["archweld"]}))).unwrap();
    }
    let described = bus.call("DescribeRule", json!({"Name": "a-1"})).await.unwrap();
    assert_eq!(described["Arn"], "arn:aws:events:us-east-1:000000000000:rule/a-1");
    assert_eq!(described["EventPattern"], r#"{"source":["archweld"]}"#);
    let first = bus.call("ListRules", json!({"NamePrefix": "a", "Limit": 1})).await.unwrap();
    assert_eq!(first["Rules"][0]["Name"], "a-1");
    let second = bus
        .call("ListRules", json!({"NamePrefix": "a", "Limit": 1, "NextToken": first["NextToken"]}))
        .await
        .unwrap();
    assert_eq!((&second["Rules"][0]["Name"], &second["NextToken"]), (&json!("a-2"), &Value::Null));
    let targets = bus.call("ListTargetsByRule", json!({"Rule": "b-1"})).await.unwrap();
    assert_eq!(targets["Targets"][0]["Arn"], "arn:target");
    for (operation, input, code) in [
        ("DescribeRule", json!({"Name": "none"}), "ResourceNotFoundException"),
        (
            "ListTargetsByRule",
            json!({"Rule": "a-1", "EventBusName": "x"}),
            "ResourceNotFoundException",
        ),
        (
            "TestEventPattern",
            json!({"EventPattern": "{\"a\":1}", "Event": "{}"}),
            "InvalidEventPatternException",
        ),
        ("PutPermission", json!({}), "UnknownOperationException"),
    ] {
        assert_eq!(bus.call(operation, input).await.unwrap_err().code, code);
    }
    let tested = bus
        .call("TestEventPattern", json!({"EventPattern": "{\"a\":[1]}", "Event": "{\"a\":1}"}))
        .await;
    assert_eq!(tested.unwrap()["Result"], true);
}

#[tokio::test]
async fn refuses_rules_that_the_service_would_refuse() {
    let bus = setup(|_| Ok(())).bus;
    let good = rule("all", json!({"source": ["archweld"]}));
    let named = |name: &str| Rule { name: name.into(), ..good.clone() };
    assert!(matches!(bus.create_rule(named("a b")), Err(RuleError::Name { .. })));
    assert!(matches!(bus.create_rule(named(&"a".repeat(65))), Err(RuleError::Name { .. })));
    let aimed =
        |ids: &[&str]| Rule { targets: ids.iter().map(|id| target(id)).collect(), ..good.clone() };
    assert!(matches!(bus.create_rule(aimed(&["a", "a"])), Err(RuleError::DuplicateTarget { .. })));
    assert!(matches!(
        bus.create_rule(aimed(&["a", "b", "c", "d", "e", "f"])),
        Err(RuleError::Targets { count: 6, .. })
    ));
    let mut hasty = good;
    hasty.targets[0].retry.age_max = Duration::from_secs(59);
    assert!(matches!(bus.create_rule(hasty), Err(RuleError::Retry { .. })));
}
