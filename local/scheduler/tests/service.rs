//! Schedules under paused time: what is handed over, and when.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use archweld_local_api::{ApiError, Host};
use archweld_scheduler::{
    CreateScheduleError, Deliver, GROUP_DEFAULT, ScheduleRetries, ScheduleSettings, Scheduler,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

const TARGET: &str = "arn:aws:lambda:us-east-1:000000000000:function:trigger-run";
/// Longer than any wait of a test; under paused time it costs nothing.
const PATIENCE: Duration = Duration::from_hours(24 * 400);

/// When and what the target was given.
type Delivery = (Timestamp, Value);

struct World {
    host: Host,
    scheduler: Scheduler,
    deliveries: UnboundedReceiver<Delivery>,
}

fn host() -> Host {
    let origin = "2026-11-23T10:00:00.5Z".parse().unwrap();
    Host::seeded("000000000000", "us-east-1", origin, 7)
}

fn recording(host: Host, seen: UnboundedSender<Delivery>) -> Deliver {
    Arc::new(move |arn, payload| {
        assert_eq!(arn, TARGET);
        seen.send((host.now(), payload)).ok();
        async { Ok(()) }.boxed()
    })
}

fn world() -> World {
    let (seen, deliveries) = unbounded_channel();
    let host = host();
    let scheduler = Scheduler::open(host.clone(), None, recording(host.clone(), seen)).unwrap();
    World { host, scheduler, deliveries }
}

fn schedule(name: &str, expression: &str) -> ScheduleSettings {
    ScheduleSettings {
        name: name.to_owned(),
        group: GROUP_DEFAULT.to_owned(),
        expression: expression.to_owned(),
        time_zone: "UTC".to_owned(),
        start: None,
        end: None,
        flexible_window: None,
        enabled: true,
        target_arn: TARGET.to_owned(),
        role_arn: Some("arn:aws:iam::000000000000:role/scheduler".to_owned()),
        input: Some(json!({"slot": "<aws.scheduler.scheduled-time>"})),
        retries: ScheduleRetries { attempts_max: 2, age_max: Duration::from_hours(24) },
    }
}

impl World {
    async fn next(&mut self) -> Delivery {
        timeout(PATIENCE, self.deliveries.recv()).await.unwrap().unwrap()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_nightly_schedule_is_handed_over_every_night() {
    let mut world = world();
    let settings = ScheduleSettings {
        time_zone: "Europe/Berlin".to_owned(),
        ..schedule("nightly", "cron(0 3 * * ? *)")
    };
    world.scheduler.create_schedule(settings).unwrap();
    for night in ["2026-11-24T02:00:00Z", "2026-11-25T02:00:00Z", "2026-11-26T02:00:00Z"] {
        let (time, payload) = world.next().await;
        assert_eq!(payload, json!({"slot": night}));
        assert!(time.duration_since(at(night)) < SignedDuration::from_millis(10), "{time}");
    }
    let [info] = world.scheduler.schedules().try_into().unwrap();
    assert_eq!(info.next, Some(at("2026-11-27T02:00:00Z")));
    world.scheduler.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_flexible_window_delays_within_it_and_keeps_the_slot() {
    let mut world = world();
    let window = Duration::from_mins(30);
    let settings =
        ScheduleSettings { flexible_window: Some(window), ..schedule("s", "cron(0 * * * ? *)") };
    world.scheduler.create_schedule(settings).unwrap();
    let mut delays = Vec::new();
    for _ in 0..20 {
        let (time, payload) = world.next().await;
        let slot = at(payload["slot"].as_str().unwrap());
        assert_eq!(slot.as_second() % 3600, 0);
        delays.push(Duration::try_from(time.duration_since(slot)).unwrap());
    }
    assert!(delays.iter().all(|delay| *delay <= window), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > Duration::from_mins(5)), "{delays:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slot_fired_twice_is_handed_over_twice_with_the_same_time() {
    let mut world = world();
    let input = json!({
        "time": "<aws.scheduler.scheduled-time>",
        "id": "<aws.scheduler.execution-id>",
        "arn": ["<aws.scheduler.schedule-arn>"],
        "attempt": "n<aws.scheduler.attempt-number>",
    });
    let settings = ScheduleSettings {
        input: Some(input),
        enabled: false,
        ..schedule("nightly", "cron(0 3 * * ? *)")
    };
    world.scheduler.create_schedule(settings).unwrap();
    let slot = at("2026-11-24T03:00:00Z");
    for _ in 0..2 {
        world.scheduler.fire("nightly", slot).await.unwrap();
    }
    let (first, second) = (world.next().await.1, world.next().await.1);
    for payload in [&first, &second] {
        assert_eq!(payload["time"], "2026-11-24T03:00:00Z");
        let arn = "arn:aws:scheduler:us-east-1:000000000000:schedule/default/nightly";
        assert_eq!(payload["arn"], json!([arn]));
        assert_eq!(payload["attempt"], "n1");
    }
    assert_ne!(first["id"], second["id"]);
    let error = world.scheduler.fire("none", slot).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ResourceNotFoundException", 404));
}

#[tokio::test(start_paused = true)]
async fn without_an_input_the_target_gets_the_services_own_event() {
    let mut world = world();
    let settings = ScheduleSettings { input: None, ..schedule("s", "rate(1 hour)") };
    world.scheduler.create_schedule(settings).unwrap();
    let event = world.next().await.1;
    assert_eq!(event["detail-type"], "Scheduled Event");
    assert_eq!((&event["source"], &event["detail"]), (&json!("aws.scheduler"), &json!("{}")));
    assert_eq!(event["time"], "2026-11-23T10:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_for_a_while_is_tried_again() {
    let (seen, mut attempts) = unbounded_channel();
    let deliver: Deliver = Arc::new(move |_, payload| {
        seen.send(payload["attempt"].clone()).ok();
        let error = match payload["attempt"].as_str() {
            Some("1") => Err(ApiError::server("ServiceException", "for a while")),
            Some("2") => Ok(()),
            _ => Err(ApiError::client("ResourceNotFoundException", "for good")),
        };
        async move { error }.boxed()
    });
    let scheduler = Scheduler::open(host(), None, deliver).unwrap();
    let attempt = json!({"attempt": "<aws.scheduler.attempt-number>"});
    let settings = |name, input| ScheduleSettings {
        input: Some(input),
        enabled: false,
        ..schedule(name, "rate(1 day)")
    };
    scheduler.create_schedule(settings("mends", attempt)).unwrap();
    scheduler.create_schedule(settings("never", json!({"attempt": "x"}))).unwrap();
    scheduler.fire("mends", at("2026-11-24T03:00:00Z")).await.unwrap();
    let error = scheduler.fire("never", at("2026-11-24T03:00:00Z")).await.unwrap_err();
    assert_eq!(error.message, "for good");
    drop(scheduler);
    let mut seen = Vec::new();
    while let Some(attempt) = attempts.recv().await {
        seen.push(attempt);
    }
    assert_eq!(seen, ["1", "2", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_due_when_it_is_made_and_not_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let host = host();
    let open = || {
        let (seen, deliveries) = unbounded_channel();
        let deliver = recording(host.clone(), seen);
        let scheduler = Scheduler::open(host.clone(), Some(folder.path()), deliver).unwrap();
        scheduler.create_schedule(schedule("often", "rate(1 hour)")).unwrap();
        (scheduler, deliveries)
    };
    let (first, mut deliveries) = open();
    let slot =
        |delivery: Option<Delivery>| delivery.unwrap().1["slot"].as_str().unwrap().to_owned();
    assert_eq!(slot(deliveries.recv().await), "2026-11-23T10:00:00Z");
    first.shutdown().await;
    tokio::time::sleep(Duration::from_mins(90)).await;
    assert!(deliveries.try_recv().is_err(), "a scheduler that ended hands nothing over");

    let (second, mut deliveries) = open();
    assert_eq!(slot(deliveries.recv().await), "2026-11-23T12:00:00Z");
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_a_far_year_waits_and_one_that_is_over_does_not() {
    let mut world = world();
    world.scheduler.create_schedule(schedule("far", "at(2033-01-01T00:00:00)")).unwrap();
    world.scheduler.create_schedule(schedule("over", "at(2020-01-01T00:00:00)")).unwrap();
    let next: Vec<_> =
        world.scheduler.schedules().into_iter().map(|it| (it.settings.name, it.next)).collect();
    let far = at("2033-01-01T00:00:00Z");
    assert_eq!(next, [("far".to_owned(), Some(far)), ("over".to_owned(), None)]);
    let delivered = timeout(PATIENCE * 7, world.deliveries.recv()).await.unwrap().unwrap();
    assert!(delivered.0 >= far, "{}", world.host.now());
}

#[tokio::test]
async fn refuses_what_says_nothing_and_what_there_is() {
    let world = world();
    let refused = |settings| world.scheduler.create_schedule(settings).unwrap_err();
    assert!(matches!(
        refused(schedule("s", "cron(0 3 * * * *)")),
        CreateScheduleError::Expression(_)
    ));
    let nowhere = ScheduleSettings { time_zone: "Nowhere".into(), ..schedule("s", "rate(1 day)") };
    assert!(matches!(refused(nowhere), CreateScheduleError::Expression(_)));
    world.scheduler.create_schedule(schedule("s", "rate(1 day)")).unwrap();
    assert!(matches!(refused(schedule("s", "rate(1 day)")), CreateScheduleError::Exists(_)));
}

#[tokio::test(start_paused = true)]
async fn answers_the_rest_protocol() {
    let world = world();
    let settings = ScheduleSettings {
        flexible_window: Some(Duration::from_mins(15)),
        enabled: false,
        ..schedule("b", "cron(0 3 * * ? *)")
    };
    world.scheduler.create_schedule(settings).unwrap();
    world.scheduler.create_schedule(schedule("a", "rate(1 day)")).unwrap();
    let get = async |path: &str| {
        let request = http::Request::get(path).body(Bytes::new()).unwrap();
        let response = world.scheduler.handle_http(&request).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), body)
    };
    let (status, page) = get("/schedules?MaxResults=1").await;
    assert_eq!((status, &page["Schedules"][0]["Name"]), (200, &json!("a")));
    let token = page["NextToken"].as_str().unwrap().replace('/', "%2F");
    let (_, page) = get(&format!("/schedules?NextToken={token}")).await;
    assert_eq!(page["Schedules"][0]["Name"], "b");
    assert_eq!(page["Schedules"][0]["State"], "DISABLED");
    assert!(page.get("NextToken").is_none());
    assert_eq!(get("/schedules?State=ENABLED&NamePrefix=b").await.1, json!({"Schedules": []}));

    let (status, found) = get("/schedules/b?groupName=default").await;
    assert_eq!(status, 200);
    assert_eq!(found["ScheduleExpression"], "cron(0 3 * * ? *)");
    assert_eq!(
        found["FlexibleTimeWindow"],
        json!({"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15})
    );
    assert_eq!(found["Target"]["Arn"], TARGET);

    assert_eq!(get("/schedules/none").await.0, 404);
    assert_eq!(get("/schedules?MaxResults=no").await.0, 400);
    assert_eq!(get("/schedules?State=ON").await.0, 400);
    assert_eq!(get("/schedule-groups").await.0, 400);
}
