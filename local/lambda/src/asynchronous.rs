//! Asynchronous invocations: accepted at once, run later, and again when they fail. Where the
//! service has a folder, one that was accepted outlives the process.
//!
//! Rules: <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::lambda::{Call, Function, Service};

/// The wait after a function error: one minute, then two.
const FUNCTION_ERROR_WAITS: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(2)];

/// The first wait after a throttle or a fault of the service; it doubles up to the last.
const THROTTLE_WAIT_MIN: Duration = Duration::from_secs(1);
const THROTTLE_WAIT_MAX: Duration = Duration::from_mins(5);

/// Told of asynchronous invocations that were given up; must not block.
#[derive(Clone)]
pub struct FailureSink(Arc<dyn Fn(FailureNotice) + Send + Sync>);

impl FailureSink {
    /// A sink that calls `notice`.
    pub fn new(notice: impl Fn(FailureNotice) + Send + Sync + 'static) -> Self {
        Self(Arc::new(notice))
    }
}

impl fmt::Debug for FailureSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FailureSink")
    }
}

/// An asynchronous invocation that was given up: what an on-failure destination is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureNotice {
    /// Identifies the invocation; all its attempts had this id.
    pub request_id: Arc<str>,
    /// The ARN of the function.
    pub function_arn: Arc<str>,
    /// Why it was given up.
    pub condition: FailureCondition,
    /// How often the function ran.
    pub invocations: u32,
    /// The event.
    pub payload: Bytes,
    /// The error of the last run; none if the function never ran.
    pub error: Option<Bytes>,
}

/// Why an asynchronous invocation was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCondition {
    /// `RetriesExhausted`: it failed as often as it may.
    RetriesExhausted,
    /// `EventAgeExceeded`: it became too old before it could be run again.
    EventAgeExceeded,
}

/// An event that was accepted.
pub(crate) struct AsynchronousEvent {
    pub(crate) function: Arc<Function>,
    pub(crate) call: Call,
    pub(crate) accepted: Timestamp,
    /// How often the function failed.
    pub(crate) failures: u32,
    /// Where it is kept.
    pub(crate) number: Option<u64>,
}

/// An event as it is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) function: String,
    pub(crate) request_id: String,
    pub(crate) trace_id: String,
    pub(crate) accepted: Timestamp,
    pub(crate) failures: u32,
    pub(crate) payload: Box<RawValue>,
}

impl AsynchronousEvent {
    /// Runs it until it succeeds or is given up, or the service stops, which keeps it.
    pub(crate) async fn run(mut self, service: &Service) {
        let retries = self.function.settings.retries;
        let mut throttles = 0_u32;
        let mut last_error = None;
        loop {
            let wait = match service.attempt(&self.function, &self.call).await {
                Ok(Ok(_)) => return service.forget(self.number),
                Ok(Err(error)) => {
                    last_error = Some(error);
                    self.failures += 1;
                    if self.failures > retries.attempts_max {
                        let condition = FailureCondition::RetriesExhausted;
                        service.forget(self.number);
                        return self.give_up(condition, last_error);
                    }
                    service.keep_event(&mut self);
                    let nth = usize::try_from(self.failures).unwrap_or(usize::MAX);
                    FUNCTION_ERROR_WAITS[nth.min(FUNCTION_ERROR_WAITS.len()) - 1]
                }
                // A throttle or a fault of the service: neither counts as a run of the function.
                Err(_) => {
                    let wait = THROTTLE_WAIT_MIN.saturating_mul(1 << throttles.min(16));
                    throttles += 1;
                    wait.min(THROTTLE_WAIT_MAX)
                }
            };
            let age = service.host.now().duration_since(self.accepted).unsigned_abs();
            if age + wait > retries.age_max {
                service.forget(self.number);
                return self.give_up(FailureCondition::EventAgeExceeded, last_error);
            }
            tokio::select! {
                biased;
                () = service.stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    fn give_up(self, condition: FailureCondition, error: Option<Bytes>) {
        let invocations = self.failures;
        tracing::warn!(
            function.name = self.function.settings.name,
            request.id = &*self.call.request_id,
            ?condition,
            invocations,
            "an asynchronous invocation was given up"
        );
        if let Some(FailureSink(notice)) = &self.function.settings.on_failure {
            notice(FailureNotice {
                request_id: self.call.request_id,
                function_arn: self.function.arn.clone(),
                condition,
                invocations,
                payload: self.call.payload,
                error,
            });
        }
    }
}
