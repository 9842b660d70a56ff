//! The names of errors that the platform defines, and which handlers they match.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>

/// Any error that a handler may handle.
pub(crate) const ALL: &str = "States.ALL";
pub(crate) const TASK_FAILED: &str = "States.TaskFailed";
pub(crate) const TIMEOUT: &str = "States.Timeout";
pub(crate) const HEARTBEAT_TIMEOUT: &str = "States.HeartbeatTimeout";
pub(crate) const DATA_LIMIT_EXCEEDED: &str = "States.DataLimitExceeded";
pub(crate) const RUNTIME: &str = "States.Runtime";
pub(crate) const NO_CHOICE_MATCHED: &str = "States.NoChoiceMatched";
pub(crate) const QUERY_EVALUATION_ERROR: &str = "States.QueryEvaluationError";

/// Every name of the platform.
const KNOWN: [&str; 17] = [
    ALL,
    "States.BranchFailed",
    DATA_LIMIT_EXCEEDED,
    "States.ExceedToleratedFailureThreshold",
    HEARTBEAT_TIMEOUT,
    "States.Http.Socket",
    "States.IntrinsicFailure",
    "States.ItemReaderFailed",
    NO_CHOICE_MATCHED,
    "States.ParameterPathFailure",
    "States.Permissions",
    QUERY_EVALUATION_ERROR,
    "States.ResultPathMatchFailure",
    "States.ResultWriterFailed",
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
];

/// Whether only the platform may define the name.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("States.")
}

pub(crate) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Whether `pattern`, from an `ErrorEquals`, matches an error.
///
/// A missed heartbeat carries the name `States.Timeout` in the history; `missed_heartbeat` tells
/// it from a time-out proper.
pub(crate) fn matches(pattern: &str, name: &str, missed_heartbeat: bool) -> bool {
    match pattern {
        // Those two end the execution, unless the first is named itself.
        _ if name == RUNTIME => false,
        ALL => name != DATA_LIMIT_EXCEEDED,
        TASK_FAILED => !matches!(name, TIMEOUT | DATA_LIMIT_EXCEEDED),
        HEARTBEAT_TIMEOUT => missed_heartbeat || name == HEARTBEAT_TIMEOUT,
        _ => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_heartbeat_matches_both_of_its_names() {
        for pattern in [TIMEOUT, HEARTBEAT_TIMEOUT, ALL] {
            assert!(matches(pattern, TIMEOUT, true), "{pattern}");
        }
        assert!(!matches(TASK_FAILED, TIMEOUT, true));
        assert!(!matches(HEARTBEAT_TIMEOUT, TIMEOUT, false));
    }

    #[test]
    fn task_failed_matches_everything_but_time_outs() {
        assert!(matches(TASK_FAILED, "Build.Failed", false));
        assert!(matches(TASK_FAILED, QUERY_EVALUATION_ERROR, false));
        assert!(!matches(TASK_FAILED, TIMEOUT, false));
    }

    #[test]
    fn wildcards_do_not_match_what_ends_an_execution() {
        for pattern in [ALL, TASK_FAILED] {
            assert!(!matches(pattern, DATA_LIMIT_EXCEEDED, false));
            assert!(!matches(pattern, RUNTIME, false));
        }
        assert!(matches(DATA_LIMIT_EXCEEDED, DATA_LIMIT_EXCEEDED, false));
        assert!(!matches(RUNTIME, RUNTIME, false));
    }
}
