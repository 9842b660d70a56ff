//! Downloads from addresses that are no AWS API, through the SDK's own HTTP client: with its
//! connections, its time-outs and its retries.

use std::{fmt, ops::Range};

use aws_smithy_runtime::client::{
    orchestrator::operation::Operation,
    retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier},
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, OrchestratorError};
use aws_smithy_types::{
    body::SdkBody,
    error::{ErrorMetadata, metadata::ProvideErrorMetadata},
    retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_types::SdkConfig;
use bytes::Bytes;

use crate::CallError;

/// How much of an error is read, in bytes.
const BODY_BYTES_MAX: usize = 1_024;

/// An answer that is not the bytes that were asked for.
#[derive(Debug)]
struct Refused(ErrorMetadata);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Refused {}

impl ProvideErrorMetadata for Refused {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

/// Why S3 refuses: the code of its error, and nothing else of it, which may repeat the signature
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..BODY_BYTES_MAX).unwrap_or(body));
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) if code.chars().all(|c| c.is_ascii_alphanumeric()) => code.to_owned(),
        _ => "no reason given".to_owned(),
    }
}

/// The bytes of `range` of what is at `url`; fewer where it ends before. `what` names the download in
/// an error, since an address may hold a signature.
///
/// # Errors
/// When the server does not answer with bytes of that range.
pub async fn download(
    config: &SdkConfig,
    what: &'static str,
    url: &str,
    range: Range<u64>,
) -> Result<Bytes, CallError> {
    let Some(client) = config.http_client() else {
        return Err(CallError::refused(what, "no HTTP client is configured"));
    };
    let authority = url.find("://").and_then(|scheme| {
        let begin = scheme + 3;
        url.get(begin..)?.find('/').map(|length| begin + length)
    });
    let Some((origin, path)) = authority.and_then(|end| url.split_at_checked(end)) else {
        return Err(CallError::refused(what, "the address is no URL"));
    };
    let path = path.to_owned();
    let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    let length = range.end.saturating_sub(range.start);
    let mut operation = Operation::builder()
        .service_name("download")
        .operation_name(what)
        .http_client(client)
        .endpoint_url(origin)
        .no_auth()
        .standard_retry(&config.retry_config().cloned().unwrap_or_else(RetryConfig::standard))
        .retry_classifier(HttpStatusCodeClassifier::default())
        .retry_classifier(TransientErrorClassifier::<Refused>::new())
        .timeout_config(config.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled));
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    if let Some(time) = config.time_source() {
        operation = operation.time_source(time);
    }
    operation
        .serializer(move |()| {
            let mut request = HttpRequest::new(SdkBody::empty());
            request.set_uri(path.as_str())?;
            request.headers_mut().try_insert("range", bytes.clone())?;
            Ok(request)
        })
        .deserializer::<Bytes, Refused>(move |response| {
            let status = response.status().as_u16();
            let body = response.body().bytes().unwrap_or_default();
            // A server that knows no ranges sends everything.
            if status == 206 || (status == 200 && body.len() as u64 <= length) {
                return Ok(Bytes::copy_from_slice(body));
            }
            let error = ErrorMetadata::builder().code(format!("HTTP {status}"));
            Err(OrchestratorError::operation(Refused(error.message(reason(body)).build())))
        })
        .build()
        .invoke(())
        .await
        .map_err(|error| CallError::new(what, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_code_of_an_error_and_nothing_else_of_it() {
        let body = b"<Error><Code>AccessDenied</Code><StringToSign>secret</StringToSign></Error>";
        assert_eq!(reason(body), "AccessDenied");
        for body in [&b""[..], b"<Code>", b"<Code><b>x</b></Code>", &[0xff; 2_000]] {
            assert_eq!(reason(body), "no reason given");
        }
    }
}
