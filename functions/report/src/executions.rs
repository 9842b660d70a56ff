//! What Step Functions knows of an execution.

use archweld_aws::Service;
use archweld_runtime::CallError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use aws_types::SdkConfig;
use serde::Deserialize;
use serde_json::json;

use crate::event::Status;

const STEP_FUNCTIONS: Service =
    Service { name: "states", host: "states", target: "AWSStepFunctions", version: "1.0" };

/// An execution
/// (<https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html>).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Execution {
    pub(crate) name: String,
    pub(crate) status: Status,
    /// In seconds since 1970.
    pub(crate) start_date: f64,
    /// In seconds since 1970.
    pub(crate) stop_date: Option<f64>,
    /// How often somebody had it go on after its end.
    #[serde(default)]
    pub(crate) redrive_count: u64,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
}

/// An execution by its ARN, where there still is one.
///
/// # Errors
/// When Step Functions does not answer.
pub(crate) async fn describe(
    arn: &str,
    config: &SdkConfig,
) -> Result<Option<Execution>, CallError> {
    let input = json!({"executionArn": arn});
    match STEP_FUNCTIONS.call::<Execution>(config, "DescribeExecution", input).await {
        Ok(execution) => Ok(Some(execution)),
        Err(error) if error.code() == Some("ExecutionDoesNotExist") => Ok(None),
        Err(error) => Err(CallError::new("states:DescribeExecution", &error)),
    }
}
