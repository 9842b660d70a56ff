//! Calls of AWS services through the parts that the SDK's clients are made of: its signatures, its
//! retries, its time-outs.
//!
//! Where one operation is wanted of a service, its client in full would make a function more than a
//! megabyte larger and slower to start, and takes a minute to compile.

pub mod http;
pub mod secret;

use std::fmt;

use aws_runtime::{
    auth::{
        SigV4OperationSigningConfig,
        sigv4::{SCHEME_ID, SigV4AuthScheme},
    },
    retries::classifiers::AwsErrorCodeClassifier,
};
use aws_smithy_runtime::client::{
    identity::IdentityCache,
    orchestrator::operation::{Operation, OperationBuilder},
    retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier},
};
use aws_smithy_runtime_api::client::{
    auth::{
        AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
        static_resolver::StaticAuthSchemeOptionResolver,
    },
    orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
    result::SdkError,
    runtime_components::RuntimeComponentsBuilder,
    runtime_plugin::StaticRuntimePlugin,
};
use aws_smithy_types::{
    body::SdkBody,
    config_bag::Layer,
    error::{ErrorMetadata, metadata::ProvideErrorMetadata},
    retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_types::{SdkConfig, SigningName, region::SigningRegion};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a service answers in the place of what it was asked for.
#[derive(Debug)]
pub struct ServiceError(ErrorMetadata);

impl ServiceError {
    /// An answer with the service's code and message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(ErrorMetadata::builder().code(code).message(message).build())
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for ServiceError {}

impl ProvideErrorMetadata for ServiceError {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

/// An operation with the configuration's HTTP client, clock and retries.
pub fn operation(
    config: &SdkConfig,
    service: &'static str,
    name: &'static str,
    origin: &str,
    timeouts: TimeoutConfig,
) -> OperationBuilder {
    let mut operation = Operation::builder()
        .service_name(service)
        .operation_name(name)
        .endpoint_url(origin)
        .standard_retry(&config.retry_config().cloned().unwrap_or_else(RetryConfig::standard))
        .retry_classifier(HttpStatusCodeClassifier::default())
        .retry_classifier(TransientErrorClassifier::<ServiceError>::new())
        .retry_classifier(AwsErrorCodeClassifier::<ServiceError>::new())
        .timeout_config(timeouts);
    if let Some(client) = config.http_client() {
        operation = operation.http_client(client);
    }
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    if let Some(time) = config.time_source() {
        operation = operation.time_source(time);
    }
    operation
}

/// A service that speaks AWS's JSON protocol
/// (<https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>).
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// What it is called in signatures.
    pub name: &'static str,
    /// What its address begins with.
    pub host: &'static str,
    /// What comes before an operation's name in `X-Amz-Target`.
    pub target: &'static str,
    /// The protocol's version, `1.0` or `1.1`.
    pub version: &'static str,
}

impl Service {
    /// Calls an operation.
    pub async fn call<T: DeserializeOwned + fmt::Debug + Send + Sync + 'static>(
        self,
        config: &SdkConfig,
        operation_name: &'static str,
        input: Value,
    ) -> Result<T, SdkError<ServiceError, HttpResponse>> {
        let target = format!("{}.{operation_name}", self.target);
        let content_type = format!("application/x-amz-json-{}", self.version);
        signed(config, self.name, operation_name, &origin(config, self.host))
            .serializer(move |()| {
                let mut request = HttpRequest::new(SdkBody::from(input.to_string()));
                request.set_method("POST")?;
                request.set_uri("/")?;
                let headers = request.headers_mut();
                headers.try_insert("content-type", content_type.clone())?;
                headers.try_insert("x-amz-target", target.clone())?;
                Ok(request)
            })
            .deserializer::<T, ServiceError>(|response| {
                let body = response.body().bytes().unwrap_or_default();
                if response.status().is_success() {
                    return serde_json::from_slice(body).map_err(OrchestratorError::other);
                }
                Err(OrchestratorError::operation(refusal(body)))
            })
            .build()
            .invoke(())
            .await
    }
}

/// Where a regional service is: where the configuration says, or else AWS's own address.
pub fn origin(config: &SdkConfig, host: &str) -> String {
    if let Some(url) = config.endpoint_url() {
        return url.to_owned();
    }
    let region = config.region().map(|region| region.as_ref()).unwrap_or_default();
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{host}.{region}.{suffix}")
}

/// An operation that is signed as AWS's services want it, with the configuration's time-outs.
pub fn signed(
    config: &SdkConfig,
    service: &'static str,
    name: &'static str,
    origin: &str,
) -> OperationBuilder {
    let timeouts = config.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled);
    operation(config, service, name, origin, timeouts).runtime_plugin(signing(config, service))
}

fn signing(config: &SdkConfig, service: &'static str) -> StaticRuntimePlugin {
    let mut layer = Layer::new("signing");
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    layer.store_put(SigV4OperationSigningConfig {
        region: config.region().cloned().map(SigningRegion::from),
        name: Some(SigningName::from_static(service)),
        ..SigV4OperationSigningConfig::default()
    });
    let mut components = RuntimeComponentsBuilder::new("signing");
    components.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(
        StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]),
    )));
    components.push_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
    components
        .set_identity_cache(Some(config.identity_cache().unwrap_or_else(IdentityCache::no_cache)));
    if let Some(credentials) = config.credentials_provider() {
        components.set_identity_resolver(SCHEME_ID, credentials);
    }
    StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components)
}

/// What an error's body says; its code may come with a namespace before it.
pub fn refusal(body: &[u8]) -> ServiceError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let code = text("__type").or(text("code")).unwrap_or("unknown error");
    let code = code.rsplit('#').next().unwrap_or(code);
    let message = text("message").or(text("Message")).unwrap_or("no message");
    ServiceError::new(code, message)
}
