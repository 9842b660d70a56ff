//! Lambda's `Invoke` as HTTP, for a server or an in-process client to mount.
//!
//! Reference: <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>

use archweld_local_api::ApiError;
use bytes::Bytes;
use http::response::Builder;
use http::{Method, Request, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::{InvocationType, Invoked, Lambda, Outcome};

impl Lambda {
    /// Answers a request of Lambda's REST protocol. Of its operations only
    /// `POST /2015-03-31/functions/{FunctionName}/invocations` is served.
    pub async fn handle_http(&self, request: Request<Bytes>) -> Response<Bytes> {
        match self.invoke_over_http(request).await {
            Ok(invoked) => success(invoked),
            Err(error) => failure(&error),
        }
    }

    async fn invoke_over_http(&self, request: Request<Bytes>) -> Result<Invoked, ApiError> {
        let (parts, payload) = request.into_parts();
        let function = parts
            .uri
            .path()
            .strip_prefix("/2015-03-31/functions/")
            .and_then(|path| path.strip_suffix("/invocations"))
            .filter(|function| parts.method == Method::POST && !function.contains('/'))
            .ok_or_else(|| {
                let operation = format!("{} {}", parts.method, parts.uri.path());
                ApiError { status: 404, ..ApiError::unknown_operation(&operation) }
            })?;
        let mut function = percent_decode_str(function).decode_utf8_lossy().into_owned();
        let qualifier =
            parts.uri.query().into_iter().flat_map(|query| query.split('&')).find_map(|pair| {
                let value = pair.strip_prefix("Qualifier=")?;
                Some(percent_decode_str(value).decode_utf8_lossy())
            });
        if let Some(qualifier) = qualifier {
            function = format!("{function}:{qualifier}");
        }
        let invocation_type = match parts.headers.get("x-amz-invocation-type") {
            None => InvocationType::RequestResponse,
            Some(value) => match value.as_bytes() {
                b"RequestResponse" => InvocationType::RequestResponse,
                b"Event" => InvocationType::Event,
                b"DryRun" => InvocationType::DryRun,
                other => {
                    return Err(ApiError::client(
                        "InvalidParameterValueException",
                        format!(
                            "Value '{}' at 'invocationType' failed to satisfy constraint: Member \
                             must satisfy enum value set: [Event, RequestResponse, DryRun]",
                            String::from_utf8_lossy(other)
                        ),
                    ));
                }
            },
        };
        self.invoke(&function, payload, invocation_type).await
    }
}

fn success(invoked: Invoked) -> Response<Bytes> {
    let Invoked { request_id, trace_id, outcome } = invoked;
    let response = Response::builder()
        .header("x-amzn-RequestId", &*request_id)
        .header("X-Amzn-Trace-Id", &*trace_id);
    let answered = |response: Builder| {
        response.status(StatusCode::OK).header("X-Amz-Executed-Version", "$LATEST")
    };
    match outcome {
        Outcome::Succeeded(payload) => finish(answered(response), payload),
        Outcome::FunctionError(payload) => {
            finish(answered(response).header("X-Amz-Function-Error", "Unhandled"), payload)
        }
        Outcome::Accepted => finish(response.status(StatusCode::ACCEPTED), Bytes::new()),
        Outcome::Checked => finish(response.status(StatusCode::NO_CONTENT), Bytes::new()),
    }
}

fn failure(error: &ApiError) -> Response<Bytes> {
    let fault = if error.status < 500 { "User" } else { "Service" };
    // The model spells the member `message` for some errors and `Message` for others.
    let body = json!({ "Type": fault, "message": error.message, "Message": error.message });
    let response =
        Response::builder().status(error.status).header("x-amzn-ErrorType", error.code.as_str());
    finish(response, body.to_string().into())
}

/// A header or status that cannot be written makes the answer an internal error.
fn finish(response: Builder, body: Bytes) -> Response<Bytes> {
    response.header(header::CONTENT_TYPE, "application/json").body(body).unwrap_or_else(|_| {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
