//! The bus: events in, deliveries out.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use archweld_local_api::{Event, EventSink, Host, Spool};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::input::Context;
use crate::{Rule, RuleError, Target};

/// Notices that a subscriber may lag behind before it loses the oldest.
const NOTICES_BEHIND_MAX: usize = 4096;

/// Deliveries under way or waiting for a retry; one more is given up at once.
const DELIVERIES_PENDING_MAX: usize = 10_000;

/// The first wait before a retry; each further one doubles, up to [`RETRY_WAIT_MAX`]. The service
/// documents exponential backoff with jitter and no figures: these spread 185 attempts over a day.
const RETRY_WAIT_FIRST: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(600);

/// Hands a payload to the target of this ARN.
pub type Deliver =
    Arc<dyn Fn(String, Value) -> BoxFuture<'static, Result<(), DeliveryError>> + Send + Sync>;

/// Why a target did not take a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct DeliveryError {
    /// The error's name, such as `THROTTLING`.
    pub code: String,
    /// What was wrong, for people.
    pub message: String,
    /// Whether a further attempt can help: not where the target is missing or refuses the caller.
    pub retryable: bool,
}

/// A delivery, as notices name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRef {
    /// The id of the event.
    pub event_id: String,
    /// The name of the rule that matched.
    pub rule: String,
    /// The id of the target within the rule.
    pub target_id: String,
    /// The ARN of the target.
    pub target_arn: String,
    /// Attempts made so far, this one included.
    pub attempts: u32,
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExhaustedRetry {
    /// The error cannot be mended by trying again.
    NotRetryable,
    /// The rule's number of attempts is used up.
    MaximumRetryAttempts,
    /// The event is older than the rule allows.
    MaximumEventAgeInSeconds,
    /// This bus has too many deliveries pending.
    Overload,
}

/// What happens on the bus.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An event came in; matched or not.
    Event(Arc<Event>),
    /// A target took its payload.
    Delivered(DeliveryRef),
    /// A target did not take its payload; it is tried again.
    Retrying {
        /// Which delivery.
        delivery: DeliveryRef,
        /// What the target said.
        error: DeliveryError,
        /// How long until the next attempt.
        wait: Duration,
    },
    /// A delivery was given up. On AWS it would now be in the target's dead-letter queue.
    DeadLetter {
        /// Which delivery.
        delivery: DeliveryRef,
        /// What the target said last.
        error: DeliveryError,
        /// Why no further attempt is made.
        exhausted: ExhaustedRetry,
        /// The dead-letter queue that the target names.
        queue_arn: Option<String>,
    },
}

/// One event bus; cheap to clone. Deliveries end when the last handle is gone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) host: Host,
    pub(crate) name: String,
    rules: RwLock<BTreeMap<String, Arc<Rule>>>,
    deliver: Deliver,
    spool: Option<Arc<Spool>>,
    notices: broadcast::Sender<Notice>,
    runtime: Handle,
    deliveries: TaskTracker,
    cancel: CancellationToken,
    _cancel_on_drop: DropGuard,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bus").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Bus {
    /// The name of the bus that every account has.
    pub const DEFAULT: &'static str = "default";

    /// A bus without rules, whose deliveries run on the current tokio runtime.
    pub fn new(host: Host, name: &str, deliver: Deliver) -> Self {
        Self::with(host, name, deliver, None)
    }

    /// The same, which keeps events in a folder until their targets took them:
    /// [`Bus::recover`] goes on with those that an earlier process left.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(host: Host, name: &str, deliver: Deliver, folder: &Path) -> io::Result<Self> {
        Ok(Self::with(host, name, deliver, Some(Arc::new(Spool::open(folder)?))))
    }

    fn with(host: Host, name: &str, deliver: Deliver, spool: Option<Arc<Spool>>) -> Self {
        let cancel = CancellationToken::new();
        let inner = Inner {
            host,
            name: name.to_owned(),
            rules: RwLock::default(),
            deliver,
            spool,
            notices: broadcast::Sender::new(NOTICES_BEHIND_MAX),
            runtime: Handle::current(),
            deliveries: TaskTracker::new(),
            _cancel_on_drop: cancel.clone().drop_guard(),
            cancel,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The name of this bus.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The ARN of this bus.
    pub fn arn(&self) -> String {
        self.inner.host.arn("events", &format!("event-bus/{}", self.inner.name))
    }

    /// The ARN of a rule of this bus.
    pub fn rule_arn(&self, rule: &str) -> String {
        self.inner.rule_arn(rule)
    }

    /// Creates a rule, or replaces the one of its name.
    ///
    /// # Errors
    ///
    /// On names, targets and retry policies that the service would refuse.
    pub fn create_rule(&self, rule: Rule) -> Result<(), RuleError> {
        rule.check()?;
        let mut rules = self.inner.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.insert(rule.name.clone(), Arc::new(rule));
        Ok(())
    }

    /// Takes an event and starts its deliveries. Never waits for any.
    pub fn put(&self, event: Event) {
        self.take(event, None);
    }

    /// Starts the deliveries of the events that an earlier process left; the rules must be there by
    /// now. A target that took one before may be given it again.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn recover(&self) -> io::Result<()> {
        let Some(spool) = &self.inner.spool else { return Ok(()) };
        for (number, event) in spool.pieces()? {
            self.take(event, Some(number));
        }
        Ok(())
    }

    /// `number` is that of an event which is kept already.
    fn take(&self, event: Event, number: Option<u64>) {
        let event = Arc::new(event);
        self.inner.notify(Notice::Event(Arc::clone(&event)));
        let value = json!(*event);
        let ingested = Instant::now();
        let ingestion_time = Event::format_time(self.inner.host.now());
        let matching = |rule: &Arc<Rule>| {
            rule.enabled && rule.pattern.as_ref().is_some_and(|pattern| pattern.matches(&value))
        };
        let rules: Vec<_> = self.inner.rules().into_iter().filter(matching).collect();
        let kept = self.keep(&event, number, rules.iter().map(|rule| rule.targets.len()).sum());
        for rule in rules {
            let rule_arn = self.inner.rule_arn(&rule.name);
            let context = Context {
                rule_name: &rule.name,
                rule_arn: &rule_arn,
                ingestion_time: &ingestion_time,
            };
            for target in &rule.targets {
                let delivery = Delivery {
                    reference: DeliveryRef {
                        event_id: event.id.clone(),
                        rule: rule.name.clone(),
                        target_id: target.id.clone(),
                        target_arn: target.arn.clone(),
                        attempts: 0,
                    },
                    target: target.clone(),
                    host: self.inner.host.clone(),
                    deliver: Arc::clone(&self.inner.deliver),
                    notices: self.inner.notices.clone(),
                    ingested,
                    kept: kept.clone(),
                };
                self.start(delivery, target.input.of(&event, &context));
            }
        }
    }

    /// Keeps an event until so many deliveries of it are over.
    fn keep(&self, event: &Event, number: Option<u64>, deliveries: usize) -> Option<Arc<Kept>> {
        let spool = self.inner.spool.as_ref()?;
        let number = match number {
            Some(number) => number,
            None if deliveries == 0 => return None,
            None => match spool.add(event) {
                Ok(number) => number,
                Err(error) => {
                    tracing::error!(
                        event.id,
                        %error,
                        "an event could not be written: a restart would lose it"
                    );
                    return None;
                }
            },
        };
        let kept = Kept { spool: Arc::clone(spool), number, pending: AtomicUsize::new(deliveries) };
        if deliveries == 0 {
            kept.forget();
        }
        Some(Arc::new(kept))
    }

    fn start(&self, delivery: Delivery, payload: Option<Value>) {
        let Some(payload) = payload else {
            let error = DeliveryError {
                code: "INVALID_JSON".to_owned(),
                message: "the input template filled from this event is not JSON".to_owned(),
                retryable: false,
            };
            return delivery.give_up(error, ExhaustedRetry::NotRetryable);
        };
        if self.inner.deliveries.len() >= DELIVERIES_PENDING_MAX {
            let error = DeliveryError {
                code: "OVERLOAD".to_owned(),
                message: format!("{DELIVERIES_PENDING_MAX} deliveries are pending"),
                retryable: false,
            };
            return delivery.give_up(error, ExhaustedRetry::Overload);
        }
        let cancelled = self.inner.cancel.clone().cancelled_owned();
        let task = async move {
            tokio::select! {
                biased;
                () = cancelled => {}
                () = delivery.run(payload) => {}
            }
        };
        self.inner.deliveries.spawn_on(task, &self.inner.runtime);
    }

    /// This bus as a place to hand events to.
    pub fn sink(&self) -> EventSink {
        let bus = self.clone();
        Arc::new(move |event| bus.put(event))
    }

    /// All that happens on the bus from now on. A subscriber that falls far behind loses the
    /// oldest notices and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.inner.notices.subscribe()
    }

    /// How many deliveries are under way or wait for a retry.
    pub fn deliveries_pending(&self) -> usize {
        self.inner.deliveries.len()
    }

    /// Ends all deliveries and waits until they have ended. Later events are not delivered; where
    /// there is a folder, both are kept there.
    pub async fn shutdown(&self) {
        self.inner.cancel.cancel();
        self.inner.deliveries.close();
        self.inner.deliveries.wait().await;
    }
}

impl Inner {
    pub(crate) fn rules(&self) -> Vec<Arc<Rule>> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.values().cloned().collect()
    }

    pub(crate) fn rule(&self, name: &str) -> Option<Arc<Rule>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Rules of the default bus have no bus in their ARN.
    pub(crate) fn rule_arn(&self, rule: &str) -> String {
        match self.name.as_str() {
            Bus::DEFAULT => self.host.arn("events", &format!("rule/{rule}")),
            bus => self.host.arn("events", &format!("rule/{bus}/{rule}")),
        }
    }

    fn notify(&self, notice: Notice) {
        // Without subscribers a notice is nobody's business.
        self.notices.send(notice).ok();
    }
}

/// One event on its way to one target. Holds no handle of the bus, so that a bus can go.
struct Delivery {
    reference: DeliveryRef,
    target: Target,
    host: Host,
    deliver: Deliver,
    notices: broadcast::Sender<Notice>,
    ingested: Instant,
    kept: Option<Arc<Kept>>,
}

/// An event that is kept until all its deliveries are over.
struct Kept {
    spool: Arc<Spool>,
    number: u64,
    pending: AtomicUsize,
}

impl Kept {
    /// One of the deliveries is over.
    fn settle(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.forget();
        }
    }

    fn forget(&self) {
        if let Err(error) = self.spool.remove(self.number) {
            tracing::warn!(%error, "a delivered event could not be removed: a restart delivers it again");
        }
    }
}

impl Delivery {
    async fn run(mut self, payload: Value) {
        loop {
            self.reference.attempts += 1;
            let Err(error) = (self.deliver)(self.target.arn.clone(), payload.clone()).await else {
                self.settle();
                self.notices.send(Notice::Delivered(self.reference)).ok();
                return;
            };
            if !error.retryable {
                return self.give_up(error, ExhaustedRetry::NotRetryable);
            }
            if self.reference.attempts > self.target.retry.attempts_max {
                return self.give_up(error, ExhaustedRetry::MaximumRetryAttempts);
            }
            let wait = retry_wait(self.reference.attempts, self.host.random());
            if self.ingested.elapsed() + wait > self.target.retry.age_max {
                return self.give_up(error, ExhaustedRetry::MaximumEventAgeInSeconds);
            }
            let delivery = self.reference.clone();
            self.notices.send(Notice::Retrying { delivery, error, wait }).ok();
            tokio::time::sleep(wait).await;
        }
    }

    fn settle(&self) {
        if let Some(kept) = &self.kept {
            kept.settle();
        }
    }

    fn give_up(self, error: DeliveryError, exhausted: ExhaustedRetry) {
        self.settle();
        tracing::warn!(
            event.id = self.reference.event_id,
            rule.name = self.reference.rule,
            target.arn = self.reference.target_arn,
            target.attempts = self.reference.attempts,
            error.code = error.code,
            "gave up the delivery of an event",
        );
        let queue_arn = self.target.dead_letter_arn;
        self.notices
            .send(Notice::DeadLetter { delivery: self.reference, error, exhausted, queue_arn })
            .ok();
    }
}

/// The wait after so many attempts: between half and all of the exponential step.
fn retry_wait(attempts: u32, random: u64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let step = RETRY_WAIT_FIRST.saturating_mul(1 << doublings).min(RETRY_WAIT_MAX);
    let jitter_ms = random % (step.as_millis() as u64 / 2 + 1);
    step - Duration::from_millis(jitter_ms)
}
