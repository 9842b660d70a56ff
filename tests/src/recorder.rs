//! What functions ask of AWS, by the action and the resources that IAM decides about.
//!
//! Of anything else than AWS, only a git server is there, whose `main` is at commit 2, and receivers of
//! results, which take what they are sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_types::SdkConfig;
use http::StatusCode;
use serde_json::Value;

use crate::commit;

/// A function asked to do something with a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The function's binary.
    pub function: String,
    /// The action as policies name it, such as `codebuild:StartBuild`.
    pub action: String,
    /// What the call was about: what its input names it by.
    pub resource: Resource,
}

/// What IAM decides about, for each action
/// (<https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The input has the ARN.
    Arn(String),
    /// A CodeBuild project, by name.
    Project(String),
    /// An ECR repository, by name.
    Repository(String),
    /// A task token stands for the state machine that gave it.
    TaskToken,
}

/// All that was asked.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<BTreeSet<Asked>>>, Arc<Mutex<Vec<Told>>>);

/// What a receiver of results was sent.
#[derive(Debug, Clone)]
pub struct Told {
    /// Where to.
    pub url: String,
    /// What authorizes the request, where something does.
    pub authorization: Option<String>,
    /// The body.
    pub body: String,
}

/// The client of one function.
#[derive(Clone)]
struct Recorded {
    function: String,
    recorder: Recorder,
    inner: SharedHttpClient,
}

#[derive(Debug)]
struct RecordedConnector {
    client: Recorded,
    inner: SharedHttpConnector,
}

impl Recorder {
    /// A configuration for a function, all whose calls are recorded here.
    pub fn of(&self, function: &str, config: &SdkConfig) -> SdkConfig {
        let inner = config.http_client().unwrap();
        let function = function.to_owned();
        let client = Recorded { function, recorder: self.clone(), inner };
        let mut builder = config.clone().into_builder();
        builder.set_http_client(Some(SharedHttpClient::new(client)));
        builder.build()
    }

    /// What was asked so far.
    pub fn asked(&self) -> BTreeSet<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What receivers were sent so far.
    pub fn told(&self) -> Vec<Told> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what a receiver of results is sent; SNS is one of AWS's.
    fn tell(&self, function: &str, request: &HttpRequest) {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap()).into_owned();
        let form: BTreeMap<_, _> = form_urlencoded::parse(body.as_bytes()).collect();
        if let Some(topic) = form.get("TopicArn") {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Asked {
                function: function.to_owned(),
                action: "sns:Publish".to_owned(),
                resource: Resource::Arn(topic.clone().into_owned()),
            });
        }
        let authorization = request.headers().get("authorization").map(str::to_owned);
        let told = Told { url: request.uri().to_owned(), authorization, body };
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    fn record(&self, function: &str, request: &HttpRequest) {
        // What is downloaded is asked for with a signed address, not with a role.
        let Some(target) = request.headers().get("x-amz-target") else { return };
        let (service, operation) = target.rsplit_once('.').unwrap();
        let input: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let text = |field: &str| input[field].as_str().unwrap_or_default().to_owned();
        let project_of = |build: &str| {
            let id = build.rsplit_once("build/").map_or(build, |(_, id)| id);
            Resource::Project(id.split(':').next().unwrap().to_owned())
        };
        let texts = |field: &str| -> Vec<String> {
            let each = input[field].as_array().into_iter().flatten();
            each.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let (service, resources) = match (service, operation) {
            ("CodeBuild_20161006", "BatchGetBuilds") => {
                ("codebuild", texts("ids").iter().map(|id| project_of(id)).collect())
            }
            ("CodeBuild_20161006", "StopBuild") => ("codebuild", vec![project_of(&text("id"))]),
            ("CodeBuild_20161006", _) => {
                ("codebuild", vec![Resource::Project(text("projectName"))])
            }
            ("AmazonEC2ContainerRegistry_V20150921", "DescribeRepositories") => {
                ("ecr", texts("repositoryNames").into_iter().map(Resource::Repository).collect())
            }
            ("AmazonEC2ContainerRegistry_V20150921", _) => {
                ("ecr", vec![Resource::Repository(text("repositoryName"))])
            }
            ("AWSStepFunctions", "SendTaskSuccess" | "SendTaskFailure") => {
                ("states", vec![Resource::TaskToken])
            }
            ("AWSStepFunctions", "DescribeExecution" | "StopExecution") => {
                ("states", vec![Resource::Arn(text("executionArn"))])
            }
            ("AWSStepFunctions", _) => ("states", vec![Resource::Arn(text("stateMachineArn"))]),
            ("secretsmanager", _) => {
                let id = text("SecretId");
                // IAM knows a secret by its ARN, whose last characters are random.
                let arn =
                    format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{id}-000000");
                let arn = if id.starts_with("arn:") { id } else { arn };
                ("secretsmanager", vec![Resource::Arn(arn)])
            }
            ("AmazonSSM", _) => {
                let arn = format!("arn:aws:ssm:us-east-1:123456789012:parameter{}", text("Name"));
                ("ssm", vec![Resource::Arn(arn)])
            }
            other => panic!("what is the resource of {other:?}?"),
        };
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.extend(resources.into_iter().map(|resource| Asked {
            function: function.to_owned(),
            action: format!("{service}:{operation}"),
            resource,
        }));
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorded({})", self.function)
    }
}

impl HttpClient for Recorded {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(RecordedConnector { client: self.clone(), inner })
    }
}

impl HttpConnector for RecordedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().contains("/info/refs?") {
            let answer = HttpResponse::new(StatusCode::OK.into(), refs().into());
            return HttpConnectorFuture::ready(Ok(answer));
        }
        let is_sns = || request.body().bytes().is_some_and(|body| body.starts_with(b"Action="));
        if request.uri().starts_with("https://") || is_sns() {
            self.client.recorder.tell(&self.client.function, &request);
            let answer = HttpResponse::new(StatusCode::CREATED.into(), "{}".into());
            return HttpConnectorFuture::ready(Ok(answer));
        }
        self.client.recorder.record(&self.client.function, &request);
        self.inner.call(request)
    }
}

/// The branches of the git server, as it advertises them
/// (<https://git-scm.com/docs/http-protocol#_smart_clients>).
fn refs() -> String {
    let frame = |line: String| format!("{:04x}{line}", line.len() + 4);
    let service = frame("# service=git-upload-pack\n".to_owned());
    let main = frame(format!("{} refs/heads/main\0\n", commit(2)));
    format!("{service}0000{main}0000")
}
