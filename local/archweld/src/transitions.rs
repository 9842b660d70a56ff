//! How many state transitions an execution took: what Step Functions is paid for.

use archweld_cloud::Cloud;
use serde_json::json;

use crate::error::Error;

/// What the events of states that are entered are called, after the kind of the state.
const ENTERED: &str = "StateEntered";

/// Counts the state transitions of an execution of the local cloud.
///
/// # Errors
/// When there is no such execution.
pub(crate) async fn transitions(cloud: &Cloud, execution: &str) -> Result<usize, Error> {
    let mut types: Vec<String> = Vec::new();
    let mut next = json!(null);
    loop {
        let request = json!({"executionArn": execution, "maxResults": 1000, "nextToken": next});
        let page = cloud.step_functions().call("GetExecutionHistory", request).await?;
        let events = page["events"].as_array().into_iter().flatten();
        types.extend(events.filter_map(|event| event["type"].as_str().map(str::to_owned)));
        next = page["nextToken"].clone();
        if next.is_null() {
            return Ok(count(&types));
        }
    }
}

/// The start, every state that is entered and every retry
/// (<https://aws.amazon.com/step-functions/pricing/>).
fn count(types: &[String]) -> usize {
    let of = |name: &str| types.iter().filter(|kind| *kind == name).count();
    let entered = types.iter().filter(|kind| kind.ends_with(ENTERED)).count();
    let retries = of("TaskScheduled").saturating_sub(of("TaskStateEntered"));
    1 + entered + retries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_each_state_and_each_retry_count() {
        let once = ["ExecutionStarted", "TaskStateEntered", "TaskScheduled", "TaskStarted"];
        let retried = ["TaskFailed", "TaskScheduled", "TaskStarted", "TaskSucceeded"];
        let rest = ["TaskStateExited", "MapStateEntered", "SucceedStateEntered"];
        let counted = |parts: &[&[&str]]| {
            let types: Vec<String> = parts.concat().iter().map(|it| (*it).to_owned()).collect();
            count(&types)
        };
        assert_eq!(counted(&[&once, &rest]), 4);
        assert_eq!(counted(&[&once, &retried, &rest]), 5);
    }
}
