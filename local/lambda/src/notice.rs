//! What happens to functions, for people who look.

use std::sync::Arc;
use std::time::Duration;

/// A subscriber that falls behind by more notices than this loses the oldest.
pub(crate) const NOTICES_KEPT_MAX: usize = 4096;

/// Something happened to an invocation. Neither payloads nor responses are told: they may hold
/// what nobody should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A function began to run.
    Began {
        /// The name of the function.
        function: Arc<str>,
        /// The invocation; a retry of an asynchronous one has the same.
        request_id: Arc<str>,
    },
    /// It ended, or did not run at all.
    Ended {
        /// The name of the function.
        function: Arc<str>,
        /// The invocation.
        request_id: Arc<str>,
        /// How long it took.
        duration: Duration,
        /// The name of the error that it ended in.
        error: Option<String>,
    },
}
