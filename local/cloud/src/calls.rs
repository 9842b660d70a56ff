//! The calls that came in, for people who look and for tests.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use http::StatusCode;

/// How many calls are remembered; older ones are forgotten.
pub const CALLS_MAX: usize = 10_000;

/// One call of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The service as IAM calls it, such as `codebuild`.
    pub service: &'static str,
    /// The operation, such as `StartBuild`.
    pub operation: String,
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// The function that called, where the SDK told its name.
    pub caller: Option<String>,
}

/// The newest calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<VecDeque<Call>>>);

impl Calls {
    pub(crate) fn record(&self, call: Call) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() == CALLS_MAX {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
