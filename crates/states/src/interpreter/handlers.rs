//! Errors on their way to `Retry` and `Catch`.

use std::sync::Arc;

use jiff::SignedDuration;
use rand::Rng as _;

use super::data::Given;
use super::thread::{Activity, Thread};
use super::{Execution, Failure, Progress, Then, Timer, history};
use crate::definition::{Catcher, Retrier, State, Transition};

/// A delay is computed as a float; this bounds it before it becomes a duration.
const DELAY_SECONDS_MAX: f64 = 31_622_400.0;

impl Execution {
    /// Finds a handler: a retrier first, then a catcher.
    pub(super) fn handle(&mut self, thread: &mut Thread, failure: Failure) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        let Some(handlers) = state.kind.handlers() else { return Err(failure) };
        let retrier = handlers
            .retry
            .iter()
            .zip(&mut thread.attempts)
            .find(|(retrier, _)| failure.matches(&retrier.error_equals));
        if let Some((retrier, attempts)) = retrier
            && *attempts < retrier.max_attempts
        {
            *attempts += 1;
            let delay = self.delay(retrier, *attempts);
            thread.retry_count += 1;
            thread.activity = Activity::Backoff(self.set_timer(Timer::Backoff(thread.id), delay));
            return Ok(Then::Park);
        }
        if let Some(event_type) = history::failed_type(&state.kind) {
            self.advance(thread, event_type, None);
        }
        let catcher = handlers
            .catch
            .iter()
            .enumerate()
            .find(|(_, catcher)| failure.matches(&catcher.error_equals));
        match catcher {
            Some((index, catcher)) => self.catch(thread, state, index, catcher, &failure),
            None => Err(failure),
        }
    }

    /// The delay before a retry, `attempt` counting from 1.
    fn delay(&mut self, retrier: &Retrier, attempt: u32) -> SignedDuration {
        let growth = retrier.backoff_rate.powf(f64::from(attempt - 1));
        let max = retrier.max_delay_seconds.map_or(DELAY_SECONDS_MAX, f64::from);
        let mut seconds = (f64::from(retrier.interval_seconds) * growth).min(max);
        if retrier.full_jitter {
            seconds = self.random.random_range(0.0..=seconds);
        }
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
    }

    fn catch(
        &mut self,
        thread: &mut Thread,
        state: &State,
        index: usize,
        catcher: &Catcher,
        failure: &Failure,
    ) -> Progress {
        let error_output = failure.output();
        let prefix = format!("Catch[{index}]/");
        let transition = Transition::Next(catcher.next);
        self.produce(
            thread,
            state,
            &catcher.produce,
            &prefix,
            Given::Error(&error_output),
            transition,
        )
    }
}
