//! Requests to servers that are no AWS API, through the SDK's own HTTP client: with its connections
//! and its time-outs, and with an answer that is bounded.

use std::time::Duration;

use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::{ConnectorError, SdkError},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::{body::SdkBody, timeout::TimeoutConfig};
use aws_types::SdkConfig;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::ServiceError;

/// A request that is sent once.
#[derive(Clone)]
pub struct Post {
    /// Where to: scheme, host and path. It may be a secret.
    pub url: String,
    /// The headers, whose values may be secrets.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// What a server answered, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// When the server wants to be asked again, where it says so in seconds.
    pub retry_after: Option<Duration>,
    /// Whether a rate limit is used up, where the server says.
    pub is_rate_limited: bool,
    /// The body.
    pub body: Bytes,
}

/// Sends a request once, without following where it is redirected to. `what` names it in an error.
///
/// # Errors
/// When there is no answer within the time. An answer of any status is none.
pub async fn post(
    config: &SdkConfig,
    what: &'static str,
    post: Post,
    within: Duration,
    body_bytes_max: usize,
) -> Result<Answer, SdkError<ServiceError, HttpResponse>> {
    let Some(client) = config.http_client() else {
        return Err(SdkError::construction_failure("no HTTP client is configured"));
    };
    let Some((origin, path)) = split(&post.url) else {
        return Err(SdkError::construction_failure("the address is no URL"));
    };
    let (path, headers, body) = (path.to_owned(), post.headers, post.body);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(within);
    let mut operation = Operation::builder()
        .service_name("http")
        .operation_name(what)
        .http_client(Bounded { client, body_bytes_max })
        .endpoint_url(origin)
        .no_auth()
        .no_retry()
        .timeout_config(timeouts.operation_timeout(within).build());
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    operation
        .serializer(move |()| {
            let mut request = HttpRequest::new(SdkBody::from(body.clone()));
            request.set_method("POST")?;
            request.set_uri(path.as_str())?;
            for (name, value) in &headers {
                request.headers_mut().try_insert(*name, value.clone())?;
            }
            Ok(request)
        })
        .deserializer::<Answer, ServiceError>(|response| {
            let header = |name: &str| response.headers().get(name);
            Ok(Answer {
                status: response.status().as_u16(),
                retry_after: header("retry-after")
                    .and_then(|seconds| seconds.trim().parse().ok())
                    .map(Duration::from_secs),
                is_rate_limited: header("x-ratelimit-remaining") == Some("0"),
                body: Bytes::copy_from_slice(response.body().bytes().unwrap_or_default()),
            })
        })
        .build()
        .invoke(())
        .await
}

/// Scheme, host and port, and the rest, which begins with a slash.
pub fn split(url: &str) -> Option<(&str, &str)> {
    let begin = ["https://", "http://"].iter().find(|scheme| url.starts_with(**scheme))?.len();
    let end = begin + url.get(begin..)?.find('/')?;
    (end > begin).then(|| url.split_at(end))
}

/// An HTTP client that reads no answer beyond a bound: one that is longer becomes the status 413.
#[derive(Debug)]
pub struct Bounded {
    /// The client.
    pub client: SharedHttpClient,
    /// How long an answer's body may be, in bytes.
    pub body_bytes_max: usize,
}

#[derive(Debug)]
struct BoundedConnector {
    connector: SharedHttpConnector,
    body_bytes_max: usize,
}

impl HttpClient for Bounded {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = self.client.http_connector(settings, components);
        let body_bytes_max = self.body_bytes_max;
        SharedHttpConnector::new(BoundedConnector { connector, body_bytes_max })
    }
}

impl HttpConnector for BoundedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.connector.call(request);
        let body_bytes_max = self.body_bytes_max;
        HttpConnectorFuture::new(async move {
            let mut response = answer.await?;
            let body = std::mem::replace(response.body_mut(), SdkBody::taken());
            match Limited::new(body, body_bytes_max).collect().await {
                Ok(body) => *response.body_mut() = SdkBody::from(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => {
                    response =
                        HttpResponse::new(StatusCode::PAYLOAD_TOO_LARGE.into(), SdkBody::empty());
                }
                Err(error) => return Err(ConnectorError::io(error)),
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_origin_and_a_path() {
        assert_eq!(split("https://a.example:1/x/y"), Some(("https://a.example:1", "/x/y")));
        for bad in ["https://a.example", "ftp://a/x", "https:///x", ""] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
