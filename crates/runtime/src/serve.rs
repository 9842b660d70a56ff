//! From the Runtime API to a function's `handle`, and its errors back.

use std::{env, future::Future};

use archweld_model::{ErrorName, Named};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::level_filters::LevelFilter;

/// A payload that a function does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload: {field}: {message}")]
pub struct Malformed {
    field: String,
    message: String,
}

impl Named for Malformed {
    fn name(&self) -> ErrorName {
        ErrorName::EventMalformed
    }
}

/// Reads a payload.
///
/// # Errors
/// When a field is missing or wrong; the message names it and says what was expected.
pub fn parse<T: DeserializeOwned>(payload: Value) -> Result<T, Malformed> {
    serde_path_to_error::deserialize(payload).map_err(|error| Malformed {
        field: error.path().to_string(),
        message: error.into_inner().to_string(),
    })
}

/// Polls for invocations and hands each to `handle`, until the sandbox ends.
///
/// An error reaches the state machine under its [`Named::name`].
///
/// # Errors
/// When the Runtime API cannot be reached.
pub async fn serve<I, O, E, F>(handle: impl Fn(I) -> F) -> Result<(), lambda_runtime::Error>
where
    I: DeserializeOwned,
    O: Serialize,
    E: Named,
    F: Future<Output = Result<O, E>>,
{
    log();
    let invoke = async |event: LambdaEvent<Value>| -> Result<O, Diagnostic> {
        let input = parse(event.payload).map_err(|error| diagnose(&error))?;
        handle(input).await.map_err(|error| diagnose(&error))
    };
    let invoke = &invoke;
    lambda_runtime::run(service_fn(move |event| async move { invoke(event).await })).await
}

/// Logs as Lambda's logging controls say
/// (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>).
/// `lambda_runtime`'s own subscriber would also link a regular-expression engine.
fn log() {
    let level = env::var("AWS_LAMBDA_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .without_time();
    if env::var("AWS_LAMBDA_LOG_FORMAT").is_ok_and(|format| format == "JSON") {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_ansi(false).init();
    }
}

fn diagnose(error: &impl Named) -> Diagnostic {
    tracing::error!(error.name = %error.name(), "invocation failed: {error}");
    Diagnostic { error_type: error.name().to_string(), error_message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Payload {
        #[expect(dead_code, reason = "read through Debug only")]
        builds: Vec<u32>,
    }

    #[test]
    fn a_malformed_payload_names_the_field() {
        let error = parse::<Payload>(json!({"builds": [1, "two"]})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "payload: builds[1]: invalid type: string \"two\", expected u32"
        );
    }
}
