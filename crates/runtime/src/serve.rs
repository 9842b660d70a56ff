//! From the Runtime API to a function's `handle`, and its errors back.

use std::future::Future;

use archweld_model::{ErrorName, Named};
use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::Instrument as _;

use crate::log;

/// How much of an error the state machine is told, in characters, any of which JSON may write as
/// six. Step Functions takes 32,768, and half a JSON text is none.
const ERROR_CHARACTERS_MAX: usize = 5_000;

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
    log::init();
    let invoke = async |event: LambdaEvent<Value>| -> Result<O, Diagnostic> {
        let input = parse(event.payload).map_err(|error| diagnose(&error))?;
        handle(input).await.map_err(|error| diagnose(&error))
    };
    let invoke = &invoke;
    let invoke = move |event: LambdaEvent<Value>| {
        let span = log::invocation(&event.context);
        async move { invoke(event).await }.instrument(span)
    };
    Runtime::new(service_fn(invoke)).run().await
}

fn diagnose(error: &impl Named) -> Diagnostic {
    let error_message: String = error.to_string().chars().take(ERROR_CHARACTERS_MAX).collect();
    tracing::error!(error.name = %error.name(), error.message = error_message, "invocation failed");
    Diagnostic { error_type: error.name().to_string(), error_message }
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
    fn an_error_is_told_by_name_and_never_too_long() {
        let error = Malformed { field: "x".repeat(100_000), message: String::new() };
        let diagnostic = diagnose(&error);
        assert_eq!(diagnostic.error_type, "Event.Malformed");
        assert_eq!(diagnostic.error_message.chars().count(), ERROR_CHARACTERS_MAX);
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
