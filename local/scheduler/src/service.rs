//! The service: schedules, their timers, and what they hand over.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use archweld_local_api::{ApiError, Event, Host};
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{Expression, ExpressionError, Timetable, store::Store};

/// The group of a schedule that names none.
pub const GROUP_DEFAULT: &str = "default";

/// The first wait before another attempt; it doubles up to the last.
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_mins(10);

/// Hands a payload to the target of this ARN.
pub type Deliver =
    Arc<dyn Fn(String, Value) -> BoxFuture<'static, Result<(), ApiError>> + Send + Sync>;

/// A schedule to create.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleSettings {
    /// Its name.
    pub name: String,
    /// The name of its group.
    pub group: String,
    /// `at(..)`, `rate(..)` or `cron(..)`.
    pub expression: String,
    /// The IANA name of the expression's time zone.
    pub time_zone: String,
    /// Before this a recurring schedule is not due.
    pub start: Option<Timestamp>,
    /// After this a recurring schedule is not due any more.
    pub end: Option<Timestamp>,
    /// How long after its time it may be handed over.
    pub flexible_window: Option<Duration>,
    /// Whether it is in force.
    pub enabled: bool,
    /// The ARN of what is started.
    pub target_arn: String,
    /// The role that the scheduler takes for it.
    pub role_arn: Option<String>,
    /// What the target is given, with keywords such as `<aws.scheduler.scheduled-time>` in it; the
    /// service's own event where there is none.
    pub input: Option<Value>,
    /// How long a hand-over is tried.
    pub retries: ScheduleRetries,
}

/// How long a hand-over is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleRetries {
    /// Attempts after the first.
    pub attempts_max: u32,
    /// The age of a slot after which it is given up.
    pub age_max: Duration,
}

/// A schedule, for people who look.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleInfo {
    /// Its ARN.
    pub arn: String,
    /// What it was created with.
    pub settings: ScheduleSettings,
    /// Its next scheduled time; none where it is not in force or over.
    pub next: Option<Timestamp>,
}

/// Why a scheduler does not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the folder of the schedules")]
pub struct OpenError(#[from] io::Error);

/// Why a schedule is not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateScheduleError {
    /// Its expression or time zone says nothing.
    #[error("ScheduleExpression")]
    Expression(#[from] ExpressionError),
    /// There is one of that name.
    #[error("schedule {0} exists already")]
    Exists(String),
    /// The folder cannot be written.
    #[error("cannot write the folder of the schedules")]
    Store(#[from] io::Error),
}

/// EventBridge Scheduler on one machine; cheap to clone. When the last clone is gone, nothing is
/// due any more.
#[derive(Clone)]
pub struct Scheduler {
    pub(crate) service: Arc<Service>,
    _stop: Arc<DropGuard>,
}

/// What timers share with the handle.
pub(crate) struct Service {
    host: Host,
    deliver: Deliver,
    store: Mutex<Store>,
    pub(crate) schedules: Mutex<BTreeMap<String, Arc<Schedule>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

pub(crate) struct Schedule {
    pub(crate) arn: String,
    pub(crate) settings: ScheduleSettings,
    pub(crate) timetable: Timetable,
}

impl Scheduler {
    /// A scheduler without schedules. `folder` remembers when they were made.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(host: Host, folder: Option<&Path>, deliver: Deliver) -> Result<Self, OpenError> {
        let stop = CancellationToken::new();
        let service = Service {
            host,
            deliver,
            store: Mutex::new(Store::open(folder)?),
            schedules: Mutex::default(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        };
        Ok(Self { service: Arc::new(service), _stop: Arc::new(stop.drop_guard()) })
    }

    /// Adds a schedule, and waits for its times where it is in force. As on AWS, a rate without a
    /// start is due at once when it is made; not again after a restart.
    ///
    /// # Errors
    /// When the expression is wrong, the name taken or the folder cannot be written.
    pub fn create_schedule(&self, settings: ScheduleSettings) -> Result<(), CreateScheduleError> {
        let service = &self.service;
        let now = service.host.now();
        let (expression, zone) =
            (settings.expression.parse::<Expression>()?, Timetable::zone(&settings.time_zone)?);
        let key = format!("{}/{}", settings.group, settings.name);
        let mut schedules = lock(&service.schedules);
        if schedules.contains_key(&key) {
            return Err(CreateScheduleError::Exists(key));
        }
        // Scheduled times are told in whole seconds.
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let (created, is_new) = lock(&service.store).created(&key, &settings.expression, second)?;
        let (start, end) = (settings.start, settings.end);
        let schedule = Arc::new(Schedule {
            arn: service.host.arn("scheduler", &format!("schedule/{key}")),
            timetable: Timetable { expression, zone, created, start, end },
            settings,
        });
        schedules.insert(key, schedule.clone());
        if schedule.settings.enabled {
            let after = if is_new { created - SignedDuration::from_secs(1) } else { now };
            service.spawn(service.clone().keep(schedule, after));
        }
        Ok(())
    }

    /// The schedules with their next times, by group and name.
    pub fn schedules(&self) -> Vec<ScheduleInfo> {
        let now = self.service.host.now();
        lock(&self.service.schedules)
            .values()
            .map(|schedule| ScheduleInfo {
                arn: schedule.arn.clone(),
                settings: schedule.settings.clone(),
                next: schedule
                    .timetable
                    .next(now)
                    .filter(|_| schedule.settings.enabled && !self.service.stop.is_cancelled()),
            })
            .collect()
    }

    /// Hands a slot of a schedule to its target, now, in force or not; as often as it is called.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, or what the target said last.
    pub async fn fire(&self, name: &str, slot: Timestamp) -> Result<(), ApiError> {
        let found =
            lock(&self.service.schedules).values().find(|it| it.settings.name == name).cloned();
        let schedule = found.ok_or_else(|| not_found(name))?;
        self.service.hand_over(&schedule, slot).await
    }

    /// Ends all waiting. What was handed over already goes on.
    pub async fn shutdown(&self) {
        self.service.stop.cancel();
        self.service.tasks.close();
        self.service.tasks.wait().await;
    }
}

pub(crate) fn not_found(name: &str) -> ApiError {
    let message = format!("Schedule {name} does not exist.");
    ApiError { status: 404, ..ApiError::client("ResourceNotFoundException", message) }
}

impl Service {
    /// Runs a task that ends when the service stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Waits for each time of a schedule after `after`.
    async fn keep(self: Arc<Self>, schedule: Arc<Schedule>, mut after: Timestamp) {
        while let Some(slot) = schedule.timetable.next(after) {
            sleep_until(self.host.instant(slot)).await;
            self.spawn(self.clone().run(schedule.clone(), slot));
            after = slot;
        }
    }

    /// One slot: somewhere in its window.
    async fn run(self: Arc<Self>, schedule: Arc<Schedule>, slot: Timestamp) {
        if let Some(window) = schedule.settings.flexible_window {
            let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
            sleep(Duration::from_millis(self.host.random() % window)).await;
        }
        if let Err(error) = self.hand_over(&schedule, slot).await {
            tracing::warn!(
                schedule.name = schedule.settings.name,
                schedule.slot = %slot,
                error.code = error.code,
                "a slot was given up"
            );
        }
    }

    async fn hand_over(&self, schedule: &Schedule, slot: Timestamp) -> Result<(), ApiError> {
        let ScheduleRetries { attempts_max, age_max } = schedule.settings.retries;
        let (began, mut wait) = (Instant::now(), RETRY_WAIT_MIN);
        let mut attempt = 1;
        loop {
            let payload = self.payload(schedule, slot, attempt);
            tracing::debug!(
                schedule.name = schedule.settings.name,
                schedule.slot = %slot,
                attempt,
                "a schedule is due"
            );
            let Err(error) = (self.deliver)(schedule.settings.target_arn.clone(), payload).await
            else {
                return Ok(());
            };
            let retryable = error.status >= 500 || error.code == "TooManyRequestsException";
            if !retryable || attempt > attempts_max || began.elapsed() + wait > age_max {
                return Err(error);
            }
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(RETRY_WAIT_MAX);
            attempt += 1;
        }
    }

    /// What the target is given:
    /// <https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html>
    fn payload(&self, schedule: &Schedule, slot: Timestamp, attempt: u32) -> Value {
        let execution = self.host.uuid().to_string();
        let slot = Event::format_time(slot);
        let Some(input) = &schedule.settings.input else {
            return json!({
                "version": "0",
                "id": execution,
                "detail-type": "Scheduled Event",
                "source": "aws.scheduler",
                "account": self.host.account(),
                "time": slot,
                "region": self.host.region(),
                "resources": [schedule.arn],
                "detail": "{}",
            });
        };
        let attempt = attempt.to_string();
        with_keywords(
            input,
            &[
                ("<aws.scheduler.schedule-arn>", &schedule.arn),
                ("<aws.scheduler.scheduled-time>", &slot),
                ("<aws.scheduler.execution-id>", &execution),
                ("<aws.scheduler.attempt-number>", &attempt),
            ],
        )
    }
}

/// The same with keywords replaced, in names as in values.
fn with_keywords(input: &Value, keywords: &[(&str, &str)]) -> Value {
    let replace = |text: &str| {
        keywords.iter().fold(text.to_owned(), |text, (keyword, value)| text.replace(keyword, value))
    };
    match input {
        Value::String(text) => Value::String(replace(text)),
        Value::Array(items) => items.iter().map(|item| with_keywords(item, keywords)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (replace(name), with_keywords(value, keywords)))
            .collect(),
        other => other.clone(),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
