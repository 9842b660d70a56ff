//! The AWS APIs as the command calls them: of AWS, of another endpoint, or of the local cloud.
//!
//! Eleven services are called, most of them for one or two operations, so that no client of the SDK
//! is linked: credentials come from its usual chain, signatures and retries from its parts.

use std::{fmt, time::Duration};

use archweld_aws::{Service, ServiceError, origin, refusal, signed};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider as Tls, rustls_provider::CryptoMode},
};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::{
    behavior_version::BehaviorVersion,
    orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
    result::SdkError,
};
use aws_smithy_types::{
    body::SdkBody, error::metadata::ProvideErrorMetadata as _, timeout::TimeoutConfig,
};
use aws_types::{SdkConfig, region::Region};
use form_urlencoded::Serializer;
use roxmltree::Document;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long one attempt of a call may take, and the call with its retries.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
const CALL_MAX: Duration = Duration::from_secs(40);

pub(crate) const CODEBUILD: Service = json("codebuild", "codebuild", "CodeBuild_20161006");
pub(crate) const CONNECTIONS: Service = Service {
    version: "1.0",
    ..json(
        "codeconnections",
        "codeconnections",
        "com.amazonaws.codeconnections.CodeConnections_20231201",
    )
};
pub(crate) const ECR: Service = json("ecr", "api.ecr", "AmazonEC2ContainerRegistry_V20150921");
pub(crate) const LOGS: Service = json("logs", "logs", "Logs_20140328");
pub(crate) const QUOTAS: Service = json("servicequotas", "servicequotas", "ServiceQuotasV20190624");
pub(crate) const SECRETS: Service = json("secretsmanager", "secretsmanager", "secretsmanager");
pub(crate) const SQS: Service = Service { version: "1.0", ..json("sqs", "sqs", "AmazonSQS") };
pub(crate) const STATES: Service =
    Service { version: "1.0", ..json("states", "states", "AWSStepFunctions") };

const fn json(name: &'static str, host: &'static str, target: &'static str) -> Service {
    Service { name, host, target, version: "1.1" }
}

/// A service that speaks AWS's query protocol
/// (<https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryService {
    name: &'static str,
    version: &'static str,
    /// The one region that its requests are signed for, where it has one.
    region: Option<&'static str>,
}

pub(crate) const CLOUDFORMATION: QueryService =
    QueryService { name: "cloudformation", version: "2010-05-15", region: None };
pub(crate) const IAM: QueryService =
    QueryService { name: "iam", version: "2010-05-08", region: Some("us-east-1") };
pub(crate) const STS: QueryService =
    QueryService { name: "sts", version: "2011-06-15", region: None };

/// A call that was not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} failed: {reason}")]
pub(crate) struct CallError {
    operation: String,
    pub(crate) kind: CallErrorKind,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// The caller may not.
    Denied,
    /// What is asked for is not there.
    NotFound,
    /// What should be made is there.
    Exists,
    /// The service does not answer, or asks for patience.
    Unavailable,
    /// Anything else.
    Refused,
}

impl CallError {
    fn new(operation: String, error: &SdkError<ServiceError, HttpResponse>) -> Self {
        if let SdkError::ServiceError(context) = error {
            let code = context.err().code().unwrap_or("unknown error");
            let message = context.err().message().unwrap_or("no message");
            let is = |parts: &[&str]| parts.iter().any(|part| code.contains(part));
            let kind = if is(&["AccessDenied", "Unauthorized", "NotAuthorized"]) {
                CallErrorKind::Denied
            } else if is(&["DoesNotExist", "NotFound", "NonExistent"])
                || (code == "ValidationError" && message.contains("does not exist"))
            {
                CallErrorKind::NotFound
            } else if is(&["AlreadyExists"]) {
                CallErrorKind::Exists
            } else if context.raw().status().is_server_error()
                || is(&["Throttl", "TooManyRequests"])
            {
                CallErrorKind::Unavailable
            } else {
                CallErrorKind::Refused
            };
            return Self { operation, kind, reason: format!("{code}: {message}") };
        }
        let kind = match error {
            SdkError::ConstructionFailure(_) => CallErrorKind::Refused,
            _ => CallErrorKind::Unavailable,
        };
        Self { operation, kind, reason: chain(error) }
    }

    fn unreadable(operation: &str, reason: impl fmt::Display) -> Self {
        let reason = format!("the answer cannot be read: {reason}");
        Self { operation: operation.to_owned(), kind: CallErrorKind::Refused, reason }
    }
}

/// An error with everything that led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// What all calls go through.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    config: SdkConfig,
}

impl Api {
    /// Calls as a configuration says.
    pub(crate) fn new(config: SdkConfig) -> Self {
        Self { config }
    }

    /// Calls of an endpoint that takes any credentials, such as the local cloud.
    pub(crate) fn local(endpoint: &str, region: &str) -> Self {
        let credentials = Credentials::new("local", "local", None, None, "local");
        let tls = Tls::Rustls(CryptoMode::AwsLc);
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(endpoint)
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .timeout_config(timeouts())
            .http_client(Builder::new().tls_provider(tls).build_https());
        Self::new(config.build())
    }

    /// Calls with the credentials that the SDK's usual chain finds: variables, profiles with roles,
    /// single sign-on or a process, containers, instances.
    pub(crate) async fn of_chain(
        region: Option<&str>,
        profile: Option<&str>,
        endpoint: Option<&str>,
    ) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .timeout_config(timeouts())
            .identity_cache(IdentityCache::lazy().build());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self::new(loader.load().await)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// The region, if there is one.
    pub(crate) fn region(&self) -> Option<&str> {
        self.config.region().map(|region| region.as_ref())
    }

    /// Calls an operation of a service that speaks JSON.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        service: Service,
        operation: &'static str,
        input: Value,
    ) -> Result<T, CallError> {
        let name = format!("{}:{operation}", service.name);
        let answer: Value = service
            .call(&self.config, operation, input)
            .await
            .map_err(|error| CallError::new(name.clone(), &error))?;
        serde_json::from_value(answer).map_err(|error| CallError::unreadable(&name, error))
    }

    /// Calls an operation of a service that speaks the query protocol; gives the answer's XML.
    pub(crate) async fn query(
        &self,
        service: QueryService,
        operation: &'static str,
        parameters: &[(&str, &str)],
    ) -> Result<String, CallError> {
        let mut body = Serializer::new(String::new());
        body.append_pair("Action", operation).append_pair("Version", service.version);
        body.extend_pairs(parameters);
        let body = body.finish();
        let mut config = self.config.clone();
        let mut host = origin(&config, service.name);
        if let Some(region) = service.region {
            config = config.into_builder().region(Region::new(region)).build();
            if config.endpoint_url().is_none() {
                // https://docs.aws.amazon.com/general/latest/gr/iam-service.html
                host = format!("https://{}.amazonaws.com", service.name);
            }
        }
        signed(&config, service.name, operation, &host)
            .serializer(move |()| {
                let mut request = HttpRequest::new(SdkBody::from(body.clone()));
                request.set_method("POST")?;
                request.set_uri("/")?;
                request.headers_mut().insert("content-type", "application/x-www-form-urlencoded");
                Ok(request)
            })
            .deserializer::<String, ServiceError>(|response| {
                let body = response.body().bytes().unwrap_or_default();
                let body = String::from_utf8_lossy(body).into_owned();
                if response.status().is_success() {
                    return Ok(body);
                }
                Err(OrchestratorError::operation(refusal_in_xml(&body)))
            })
            .build()
            .invoke(())
            .await
            .map_err(|error| CallError::new(format!("{}:{operation}", service.name), &error))
    }

    /// Reads a resource of a service that speaks REST and JSON.
    pub(crate) async fn get(
        &self,
        service: &'static str,
        operation: &'static str,
        path: String,
    ) -> Result<Value, CallError> {
        let name = format!("{service}:{operation}");
        signed(&self.config, service, operation, &origin(&self.config, service))
            .serializer(move |()| {
                let mut request = HttpRequest::new(SdkBody::empty());
                request.set_uri(path.as_str())?;
                Ok(request)
            })
            .deserializer::<Value, ServiceError>(|response| {
                let body = response.body().bytes().unwrap_or_default();
                if response.status().is_success() {
                    return serde_json::from_slice(body).map_err(OrchestratorError::other);
                }
                let kind = response.headers().get("x-amzn-errortype");
                let code = kind.map(|kind| kind.split(':').next().unwrap_or(kind).to_owned());
                let error = refusal(body);
                Err(OrchestratorError::operation(match code {
                    Some(code) => ServiceError::new(code, error.message().unwrap_or_default()),
                    None => error,
                }))
            })
            .build()
            .invoke(())
            .await
            .map_err(|error| CallError::new(name, &error))
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_MAX)
        .operation_timeout(CALL_MAX)
        .build()
}

fn refusal_in_xml(body: &str) -> ServiceError {
    let document = Document::parse(body).ok();
    let text = |name: &str| {
        let mut nodes = document.as_ref()?.descendants();
        nodes.find(|node| node.has_tag_name(name) || node.tag_name().name() == name)?.text()
    };
    let code = text("Code").unwrap_or("unknown error");
    ServiceError::new(code, text("Message").unwrap_or("no message"))
}

/// The elements of an answer in XML, by what the query protocol makes of structures and lists.
pub(crate) mod xml {
    use roxmltree::Node;

    /// The child of that name, whatever its namespace.
    pub(crate) fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
        node.children().find(|child| child.tag_name().name() == name)
    }

    /// The text of the child of that name.
    pub(crate) fn text<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
        child(node, name)?.text().map(str::trim)
    }

    /// The members of all lists of that name below a node.
    pub(crate) fn members<'a>(
        node: Node<'a, 'a>,
        list: &'a str,
    ) -> impl Iterator<Item = Node<'a, 'a>> {
        let lists = node.descendants().filter(move |it| it.tag_name().name() == list);
        lists.flat_map(|list| list.children().filter(|it| it.tag_name().name() == "member"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_refusals_of_the_query_protocol() {
        let error = refusal_in_xml(
            r#"<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
              <Error><Type>Sender</Type><Code>ValidationError</Code>
              <Message>Stack with id x does not exist</Message></Error></ErrorResponse>"#,
        );
        assert_eq!(error.code(), Some("ValidationError"));
        assert_eq!(error.message(), Some("Stack with id x does not exist"));
        assert_eq!(refusal_in_xml("<html>").code(), Some("unknown error"));
    }

    #[test]
    fn members_of_a_list_are_found_below_any_namespace() {
        let text = r#"<R xmlns="urn:x"><S><Stacks><member><StackName>a</StackName></member>
            <member><StackName>b</StackName></member></Stacks></S></R>"#;
        let document = Document::parse(text).unwrap();
        let names = xml::members(document.root_element(), "Stacks");
        let names: Vec<_> = names.filter_map(|member| xml::text(member, "StackName")).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
