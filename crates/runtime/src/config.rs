//! The SDK's configuration, from the variables that Lambda sets
//! (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>).

use std::{env, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::{
    Builder,
    tls::{self, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    behavior_version::BehaviorVersion,
    connector_metadata::ConnectorMetadata,
    http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::{SdkConfig, app_name::AppName, region::Region};

/// How long one attempt of a call may take, and the call with all its retries. A function has 30
/// seconds or more: a call that hangs ends as an error that says which call it was, not with the
/// sandbox.
const CALL_ATTEMPT_MAX: Duration = Duration::from_secs(5);
const CALL_MAX: Duration = Duration::from_secs(12);

/// A function that cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {0} is not set")]
pub struct StartError(String);

/// The value of an environment variable that the function cannot do without.
///
/// # Errors
/// When it is not set.
pub fn variable(name: &str) -> Result<String, StartError> {
    env::var(name).map_err(|_| StartError(name.to_owned()))
}

/// The configuration that every SDK client of the function is built from, before the first poll.
///
/// # Errors
/// When a variable that Lambda sets is missing.
pub fn sdk_config() -> Result<SdkConfig, StartError> {
    let credentials = Credentials::new(
        variable("AWS_ACCESS_KEY_ID")?,
        variable("AWS_SECRET_ACCESS_KEY")?,
        env::var("AWS_SESSION_TOKEN").ok(),
        None,
        "Lambda",
    );
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(variable("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(CALL_ATTEMPT_MAX)
                .operation_timeout(CALL_MAX)
                .build(),
        )
        .http_client(SharedHttpClient::new(ConnectsOnUse::new()));
    config.set_endpoint_url(env::var("AWS_ENDPOINT_URL").ok());
    // https://docs.aws.amazon.com/sdkref/latest/guide/feature-appid.html
    let app_name = env::var("AWS_SDK_UA_APP_ID").ok();
    config.set_app_name(app_name.and_then(|name| AppName::new(name).ok()));
    Ok(config.build())
}

/// The SDK's own HTTP client, which loads the root certificates at the first request instead of
/// when a client is made: several milliseconds, and at every start.
#[derive(Debug)]
struct ConnectsOnUse(SharedHttpClient);

impl ConnectsOnUse {
    fn new() -> Self {
        let provider = tls::Provider::Rustls(CryptoMode::AwsLc);
        Self(Builder::new().tls_provider(provider).build_https())
    }
}

impl HttpClient for ConnectsOnUse {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.0.http_connector(settings, components)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}
