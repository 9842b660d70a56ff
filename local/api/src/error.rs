//! The error of an AWS operation.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// An error as an AWS JSON protocol reports it: a name that SDKs turn into a type, and a message
/// for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The name of the error's shape, such as `ExecutionDoesNotExist`.
    pub code: String,
    /// What was wrong, for people.
    pub message: String,
    /// The HTTP status: 400 for the caller's fault, 500 and above for the service's.
    pub status: u16,
}

impl ApiError {
    /// The caller's fault (HTTP 400).
    pub fn client(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 400 }
    }

    /// The service's own fault (HTTP 500).
    pub fn server(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 500 }
    }

    /// The answer to an operation that the local cloud does not serve.
    pub fn unknown_operation(operation: &str) -> Self {
        Self::client(
            "UnknownOperationException",
            format!("archweld's local cloud does not serve {operation}"),
        )
    }

    /// Reads an operation's input. The error names the field and what was expected of it; `code`
    /// is the service's name for such an error.
    pub fn parse_input<T: DeserializeOwned>(code: &str, input: Value) -> Result<T, Self> {
        serde_path_to_error::deserialize(input).map_err(|error| {
            let path = error.path().to_string();
            let error = error.into_inner();
            // A missing or unknown field of the input itself is named by the error alone.
            match path.as_str() {
                "." => Self::client(code, error.to_string()),
                path => Self::client(code, format!("{path}: {error}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct Input {
        names: Vec<String>,
    }

    #[test]
    fn a_wrong_input_is_told_by_field() {
        let wrong = |input| ApiError::parse_input::<Input>("Wrong", input).unwrap_err().message;
        assert_eq!(
            wrong(json!({"names": ["a", 5]})),
            "names[1]: invalid type: integer `5`, expected a string"
        );
        assert_eq!(wrong(json!({})), "missing field `names`");
    }
}
