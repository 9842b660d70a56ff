//! Errors as the page reads them: a message, and which fields are to blame.

use archweld_local_api::ApiError;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

/// Why a request is not answered.
#[derive(Debug)]
pub(crate) struct Error {
    status: StatusCode,
    message: String,
    problems: Vec<Problem>,
}

/// What is wrong with one field of an execution's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Such as `platforms[1]`; empty for the input as a whole.
    pub(crate) path: String,
    /// What is wrong and what was expected.
    pub(crate) message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [Problem],
}

impl Error {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), problems: Vec::new() }
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no such {what}"))
    }

    pub(crate) fn input(problems: Vec<Problem>) -> Self {
        let message = "the input is not valid".to_owned();
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, message, problems }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = Body { message: &self.message, problems: &self.problems };
        (self.status, Json(body)).into_response()
    }
}

pub(crate) async fn no_such_page() -> Error {
    Error::not_found("page or operation; AWS APIs are called by POST with X-Amz-Target")
}

pub(crate) async fn no_such_method() -> Error {
    Error::new(StatusCode::METHOD_NOT_ALLOWED, "this is not done with this method")
}
