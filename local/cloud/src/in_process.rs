//! Door 2: an HTTP client inside the process, for the real SDK.
//!
//! No sockets and no threads: under paused tokio time, a whole workflow runs in one turn of the
//! executor.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use archweld_local_api::Host;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_async::{
    rt::sleep::{SharedAsyncSleep, TokioSleep},
    time::{SharedTimeSource, TimeSource},
};
use aws_smithy_runtime_api::client::{
    behavior_version::BehaviorVersion,
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
    stalled_stream_protection::StalledStreamProtectionConfig,
};
use aws_smithy_types::body::SdkBody;
use aws_types::{SdkConfig, app_name::AppName, region::Region};
use axum::body::{Body, to_bytes};
use bytes::Bytes;

use crate::door::{BODY_BYTES_MAX, Door};

/// How long an answer may be, in bytes: a hundred manifests of `BatchGetImage`, most of them small.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The client. It does not keep the cloud alive: a function of this process has a client, and the
/// cloud has the function.
#[derive(Clone)]
struct InProcess(Weak<Door>);

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let door = self.0.upgrade();
        HttpConnectorFuture::new(async move {
            let door = door
                .ok_or_else(|| ConnectorError::other("the local cloud has ended".into(), None))?;
            let request =
                request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let (parts, body) = request.into_parts();
            let body = match body.bytes() {
                Some(bytes) => Bytes::copy_from_slice(bytes),
                None => to_bytes(Body::new(body), BODY_BYTES_MAX)
                    .await
                    .map_err(|error| ConnectorError::user(error.into()))?,
            };
            let response = door.answer(http::Request::from_parts(parts, body)).await;
            let (parts, body) = response.into_parts();
            let body = to_bytes(body, ANSWER_BYTES_MAX)
                .await
                .map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(http::Response::from_parts(parts, SdkBody::from(body)))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The clock of the local cloud, as the SDK wants it: it signs requests and times retries by it.
#[derive(Debug)]
struct HostTime(Host);

impl TimeSource for HostTime {
    fn now(&self) -> SystemTime {
        let since_epoch: Duration = self.0.now().as_duration().try_into().unwrap_or_default();
        SystemTime::UNIX_EPOCH + since_epoch
    }
}

/// A configuration for any client of the SDK.
pub(crate) fn sdk_config(host: &Host, endpoint: &str, door: &Arc<Door>) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(host.region().to_owned()))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "local", "local", None, None, "local",
        )))
        // No stream stalls in a process, and watching for it is a timer a call.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .time_source(SharedTimeSource::new(HostTime(host.clone())))
        .http_client(SharedHttpClient::new(InProcess(Arc::downgrade(door))))
        .build()
}

/// The same for a function, whose calls then bear its name.
pub(crate) fn sdk_config_of(config: &SdkConfig, function: &str) -> SdkConfig {
    // A name that cannot be told is left out of the record, and nothing else.
    let mut builder = config.clone().into_builder();
    builder.set_app_name(AppName::new(function.to_owned()).ok());
    builder.build()
}
