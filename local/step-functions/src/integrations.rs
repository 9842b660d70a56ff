//! What tasks run, and how AWS's optimized integrations shape it.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html>,
//! <https://docs.aws.amazon.com/step-functions/latest/dg/connect-eventbridge.html>

use archweld_local_api::{ApiError, Host};
use archweld_states::{Input, Resource, Task};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The services that tasks call.
pub trait Integrations: Send + Sync {
    /// Lambda's `Invoke`, waiting for the response. `function` is a name or an ARN.
    fn invoke(
        &self,
        function: String,
        payload: Value,
    ) -> BoxFuture<'static, Result<LambdaResponse, ApiError>>;

    /// EventBridge's `PutEvents`, with the input and output of that operation.
    fn put_events(&self, input: Value) -> BoxFuture<'static, Result<Value, ApiError>>;
}

/// What came of a Lambda invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct LambdaResponse {
    /// Identifies the invocation.
    pub request_id: String,
    /// The X-Ray trace header.
    pub trace_id: String,
    /// The function's response, or the object with `errorType` and `errorMessage` that it
    /// failed with.
    pub result: Result<Value, Value>,
}

/// Who runs a task.
pub(crate) struct Origin<'a> {
    pub(crate) execution_arn: &'a str,
    pub(crate) state_machine_arn: &'a str,
}

/// Why a task failed.
struct Failure {
    error: String,
    cause: String,
}

/// Runs a task to what the interpreter is to be told of it.
pub(crate) async fn run(
    task: Task,
    integrations: &dyn Integrations,
    host: &Host,
    origin: Origin<'_>,
) -> Input {
    let Task { task, resource, arguments, token } = task;
    let output = match resource {
        Resource::LambdaInvoke => lambda_invoke(arguments, integrations, host).await,
        Resource::LambdaFunction(arn) => lambda_function(arn, arguments, integrations, host).await,
        Resource::PutEvents => put_events(arguments, integrations, host, origin).await,
    };
    match output {
        Ok(output) if token.is_some() => Input::TaskSubmitted { task, output },
        Ok(output) => Input::TaskSucceeded { task, output },
        Err(Failure { error, cause }) => Input::TaskFailed { task, error, cause },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InvokeArguments {
    function_name: String,
    payload: Option<Value>,
    qualifier: Option<String>,
    invocation_type: Option<String>,
}

async fn lambda_invoke(
    arguments: Value,
    integrations: &dyn Integrations,
    host: &Host,
) -> Result<Value, Failure> {
    let arguments: InvokeArguments = read_arguments(arguments)?;
    if let Some(other) = arguments.invocation_type.filter(|kind| kind != "RequestResponse") {
        return Err(Failure {
            error: "States.Runtime".to_owned(),
            cause: format!("InvocationType: expected RequestResponse, found {other}"),
        });
    }
    let function = match arguments.qualifier {
        Some(qualifier) => format!("{}:{qualifier}", arguments.function_name),
        None => arguments.function_name,
    };
    let payload = arguments.payload.unwrap_or_else(|| json!({}));
    let response = integrations.invoke(function, payload).await;
    let response = response.map_err(|error| service_error("Lambda", &error, host))?;
    let payload = response.result.map_err(function_error)?;
    let length = payload.to_string().len();
    let metadata = Metadata {
        request_id: response.request_id,
        headers: vec![
            ("X-Amz-Executed-Version", "$LATEST".to_owned()),
            ("x-amzn-Remapped-Content-Length", "0".to_owned()),
            ("Connection", "keep-alive".to_owned()),
            ("Content-Length", length.to_string()),
            ("X-Amzn-Trace-Id", response.trace_id),
            ("Content-Type", "application/json".to_owned()),
        ],
    };
    let mut output = Map::new();
    output.insert("ExecutedVersion".to_owned(), "$LATEST".into());
    output.insert("Payload".to_owned(), payload);
    metadata.add_to(&mut output, host);
    output.insert("StatusCode".to_owned(), 200.into());
    Ok(output.into())
}

async fn lambda_function(
    arn: String,
    payload: Value,
    integrations: &dyn Integrations,
    host: &Host,
) -> Result<Value, Failure> {
    let response = integrations.invoke(arn, payload).await;
    let response = response.map_err(|error| service_error("Lambda", &error, host))?;
    response.result.map_err(function_error)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEventsArguments {
    entries: Vec<Map<String, Value>>,
}

async fn put_events(
    arguments: Value,
    integrations: &dyn Integrations,
    host: &Host,
    origin: Origin<'_>,
) -> Result<Value, Failure> {
    let PutEventsArguments { mut entries } = read_arguments(arguments)?;
    for entry in &mut entries {
        // The state has JSON where the API has JSON in a string.
        if let Some(detail) = entry.get_mut("Detail").filter(|detail| !detail.is_string()) {
            *detail = detail.to_string().into();
        }
        let resources = entry.entry("Resources").or_insert_with(|| json!([]));
        if let Value::Array(resources) = resources {
            resources.push(origin.execution_arn.into());
            resources.push(origin.state_machine_arn.into());
        }
    }
    let answer = integrations.put_events(json!({ "Entries": entries })).await;
    let answer = answer.map_err(|error| service_error("EventBridge", &error, host))?;
    if answer["FailedEntryCount"].as_u64() != Some(0) {
        return Err(Failure {
            error: "EventBridge.FailedEntry".to_owned(),
            cause: answer.to_string(),
        });
    }
    let length = answer.to_string().len();
    let metadata = Metadata {
        request_id: host.uuid().to_string(),
        headers: vec![
            ("Content-Length", length.to_string()),
            ("Content-Type", "application/x-amz-json-1.1".to_owned()),
        ],
    };
    let mut output = Map::new();
    output.insert("Entries".to_owned(), answer["Entries"].clone());
    output.insert("FailedEntryCount".to_owned(), 0.into());
    metadata.add_to(&mut output, host);
    Ok(output.into())
}

/// What an AWS SDK keeps of a response, which an optimized integration hands on.
struct Metadata {
    request_id: String,
    headers: Vec<(&'static str, String)>,
}

impl Metadata {
    fn add_to(self, output: &mut Map<String, Value>, host: &Host) {
        let Self { request_id, mut headers } = self;
        headers.push(("x-amzn-RequestId", request_id.clone()));
        headers.push(("Date", host.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        let all: Map<String, Value> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), json!([value]))).collect();
        let single: Map<String, Value> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let http = json!({ "AllHttpHeaders": all, "HttpHeaders": single, "HttpStatusCode": 200 });
        output.insert("SdkHttpMetadata".to_owned(), http);
        output.insert("SdkResponseMetadata".to_owned(), json!({ "RequestId": request_id }));
    }
}

fn read_arguments<T: serde::de::DeserializeOwned>(arguments: Value) -> Result<T, Failure> {
    ApiError::parse_input("States.Runtime", arguments)
        .map_err(|ApiError { code, message, .. }| Failure { error: code, cause: message })
}

/// A function's error keeps its name; the cause is the whole payload, in a string.
fn function_error(payload: Value) -> Failure {
    match payload["errorType"].as_str() {
        Some(error) => Failure { error: error.to_owned(), cause: payload.to_string() },
        None => Failure {
            error: "Lambda.Unknown".to_owned(),
            cause: format!(
                "The cause could not be determined because Lambda did not return an error type. \
                 Returned payload: {payload}"
            ),
        },
    }
}

fn service_error(service: &str, error: &ApiError, host: &Host) -> Failure {
    let ApiError { code, message, status } = error;
    let request_id = host.uuid();
    Failure {
        error: format!("{service}.{code}"),
        cause: format!(
            "{message} (Service: {service}, Status Code: {status}, Request ID: {request_id})"
        ),
    }
}
