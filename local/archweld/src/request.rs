//! Requests to addresses that are no API of AWS: through the SDK's own HTTP client.

use std::time::Duration;

use aws_smithy_http_client::{
    Connector,
    tls::{Provider as Tls, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{http::HttpConnector as _, orchestrator::HttpRequest};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use http::{Method, Request};

use crate::{aws::chain, error::Error};

/// How long an answer may take, in seconds: longer than any provider waits.
const ANSWER_SECONDS_MAX: u64 = 30;

/// Status and body of the answer to a request.
///
/// # Errors
/// When it is no request, or nobody answers.
pub(crate) async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, String)],
    body: Vec<u8>,
) -> Result<(u16, Vec<u8>), Error> {
    // An address may hold a signature after its question mark.
    let shown = || url.split('?').next().unwrap_or_default().to_owned();
    let wrong = |reason: String| Error::Request { url: shown(), reason };
    let unanswered = |reason: String| Error::NoAnswer { url: shown(), reason };
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(SdkBody::from(body)).map_err(|error| wrong(error.to_string()))?;
    let request = HttpRequest::try_from(request).map_err(|error| wrong(error.to_string()))?;
    let connector = Connector::builder().tls_provider(Tls::Rustls(CryptoMode::AwsLc)).build();
    let answer = async {
        let response = connector.call(request).await.map_err(|error| unanswered(chain(&error)))?;
        let status = response.status().as_u16();
        let body = ByteStream::new(response.into_body()).collect().await;
        let body = body.map_err(|error| unanswered(chain(&error)))?;
        Ok((status, body.to_vec()))
    };
    tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), answer)
        .await
        .unwrap_or_else(|_| Err(unanswered(format!("none in {ANSWER_SECONDS_MAX} s"))))
}
