//! From the typed template to the services' settings.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
};

use archweld_codebuild::{
    Environment, EnvironmentType, EnvironmentVariable, Project, Source, SourceType, VariableType,
};
use archweld_events::{Bus, Deliver, DeliveryError};
use archweld_lambda::{
    AsynchronousRetries, CONCURRENCY_MAX_DEFAULT, FunctionSettings, Handler, InvocationType,
    Lambda, Outcome,
};
use archweld_local_api::ApiError;
use archweld_registry::TagMutability;
use archweld_step_functions::{Integrations, LambdaResponse, StepFunctions};
use archweld_template::{Build, EventRule, Function, Layer, Schedule, Stack};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::OpenError;

/// Where a layer's files are on AWS.
const LAYERS: &str = "/opt/";

/// Hands events to functions, asynchronously as EventBridge does, and starts state machines.
///
/// State machines put events on the bus themselves, so the bus must not keep them alive.
pub(crate) fn deliver(lambda: Lambda, state_machines: Weak<OnceLock<StepFunctions>>) -> Deliver {
    Arc::new(move |arn, payload| {
        let (lambda, state_machines) = (lambda.clone(), state_machines.clone());
        async move {
            let delivered = start(&lambda, &state_machines, &arn, &payload).await;
            delivered.map_err(|ApiError { code, message, status }| {
                let retryable = status >= 500 || code == "TooManyRequestsException";
                DeliveryError { code, message, retryable }
            })
        }
        .boxed()
    })
}

/// The same for what is due, of which the scheduler itself knows whether to try again.
pub(crate) fn deliver_due(
    lambda: Lambda,
    state_machines: Weak<OnceLock<StepFunctions>>,
) -> archweld_scheduler::Deliver {
    Arc::new(move |arn, payload| {
        let (lambda, state_machines) = (lambda.clone(), state_machines.clone());
        async move { start(&lambda, &state_machines, &arn, &payload).await }.boxed()
    })
}

async fn start(
    lambda: &Lambda,
    state_machines: &Weak<OnceLock<StepFunctions>>,
    arn: &str,
    payload: &Value,
) -> Result<(), ApiError> {
    let payload = payload.to_string();
    if !is_state_machine(arn) {
        return lambda.invoke(arn, payload.into(), InvocationType::Event).await.map(drop);
    }
    let state_machines = state_machines.upgrade();
    match state_machines.as_deref().and_then(OnceLock::get) {
        Some(step_functions) => {
            let input = json!({ "stateMachineArn": arn, "input": payload });
            step_functions.call("StartExecution", input).await.map(drop)
        }
        None => Err(ApiError::server("ServiceException", "the local cloud is stopping")),
    }
}

fn is_state_machine(arn: &str) -> bool {
    arn.contains(":stateMachine:")
}

/// What the state machine's tasks call.
pub(crate) struct Tasks {
    pub(crate) lambda: Lambda,
    pub(crate) bus: Bus,
}

impl Integrations for Tasks {
    fn invoke(
        &self,
        function: String,
        payload: Value,
    ) -> BoxFuture<'static, Result<LambdaResponse, ApiError>> {
        let lambda = self.lambda.clone();
        async move {
            let payload = Bytes::from(payload.to_string());
            let invoked =
                lambda.invoke(&function, payload, InvocationType::RequestResponse).await?;
            let parse = |body: &Bytes| {
                serde_json::from_slice(body)
                    .map_err(|error| ApiError::server("ServiceException", error.to_string()))
            };
            let result = match &invoked.outcome {
                Outcome::Succeeded(body) => Ok(parse(body)?),
                Outcome::FunctionError(body) => Err(parse(body)?),
                Outcome::Accepted | Outcome::Checked => Ok(Value::Null),
            };
            Ok(LambdaResponse {
                request_id: invoked.request_id.to_string(),
                trace_id: invoked.trace_id.to_string(),
                result,
            })
        }
        .boxed()
    }

    fn put_events(&self, input: Value) -> BoxFuture<'static, Result<Value, ApiError>> {
        let bus = self.bus.clone();
        async move { bus.call("PutEvents", input).await }.boxed()
    }
}

/// A function with its code.
pub(crate) fn function(
    function: &Function,
    handler: Handler,
    layers: &BTreeMap<String, PathBuf>,
) -> FunctionSettings {
    let mut environment = environment(function, layers);
    // Its SDK then sends the name with each call, for the record of calls.
    environment.entry("AWS_SDK_UA_APP_ID".to_owned()).or_insert_with(|| function.name.clone());
    FunctionSettings {
        name: function.name.clone(),
        arn: function.arn.clone(),
        environment,
        timeout: function.timeout,
        memory_mb: function.memory_mb,
        concurrency_max: function
            .reserved_concurrency
            .and_then(|concurrency| usize::try_from(concurrency).ok())
            .unwrap_or(CONCURRENCY_MAX_DEFAULT),
        retries: AsynchronousRetries {
            attempts_max: function.asynchronous_retries_max,
            age_max: function.asynchronous_age_max,
        },
        on_failure: None,
        handler,
    }
}

/// The function's environment, with paths below `/opt/` pointed to the folders of its layers: the
/// last layer that has such a file, as on AWS, where later layers lie over earlier ones.
pub(crate) fn environment(
    function: &Function,
    layers: &BTreeMap<String, PathBuf>,
) -> BTreeMap<String, String> {
    let content = |layer: &Layer| layers.get(&layer.logical_id).unwrap_or(&layer.content).clone();
    let located = |value: &String| {
        let file = value.strip_prefix(LAYERS)?;
        let paths = function.layers.iter().rev().map(|layer| content(layer).join(file));
        let paths: Vec<PathBuf> = paths.collect();
        let path = paths.iter().find(|path| path.exists()).or(paths.first())?;
        Some(path.to_string_lossy().into_owned())
    };
    function
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), located(value).unwrap_or_else(|| value.clone())))
        .collect()
}

/// The names of the functions that anybody may call at a URL, by their ids in the template.
pub(crate) fn urls(stack: &Stack) -> BTreeMap<String, String> {
    let has_url = |function: &&Function| function.url.as_ref().is_some_and(|url| !url.signed);
    let functions = stack.functions.iter().filter(has_url);
    functions.map(|function| (function.logical_id.clone(), function.name.clone())).collect()
}

/// A project of CodeBuild.
pub(crate) fn project(build: &Build) -> Result<Project, OpenError> {
    let source_type: SourceType = known(build, "source type", &build.source.source_type)?;
    let source = Source {
        location: build.source.location.clone(),
        git_clone_depth: build.source.git_clone_depth,
        buildspec: build.source.buildspec.clone(),
        ..Source::none(source_type)
    };
    let kind: EnvironmentType = known(build, "environment type", &build.environment_type)?;
    let mut environment = Environment::new(kind, &build.image, &build.compute_type);
    environment.privileged_mode = build.privileged;
    environment.environment_variables = build
        .variables
        .iter()
        .map(|variable| {
            let variable_type: VariableType = known(build, "variable", variable.variable_type)?;
            let mut of_project = EnvironmentVariable::plaintext(&variable.name, &variable.value);
            of_project.variable_type = variable_type;
            Ok(of_project)
        })
        .collect::<Result<_, OpenError>>()?;
    let mut project = Project::new(&build.name, source, environment);
    project.description.clone_from(&build.description);
    project.source_version.clone_from(&build.source_version);
    project.service_role = Some(build.service_role.clone());
    project.timeout_in_minutes = build.timeout_minutes;
    project.queued_timeout_in_minutes = build.queued_timeout_minutes;
    Ok(project)
}

fn known<T: DeserializeOwned>(build: &Build, what: &str, text: &str) -> Result<T, OpenError> {
    serde_json::from_value(json!(text)).map_err(|error| OpenError::Unsupported {
        resource: build.logical_id.clone(),
        problem: format!("{what}: {error}"),
    })
}

/// A repository's rule for tags.
pub(crate) fn mutability(template: &archweld_template::TagMutability) -> TagMutability {
    use archweld_template::TagMutability as Template;
    match template {
        Template::Mutable => TagMutability::Mutable,
        Template::Immutable => TagMutability::Immutable,
        Template::MutableExcept(filters) => TagMutability::MutableWithExclusion(filters.clone()),
        Template::ImmutableExcept(filters) => {
            TagMutability::ImmutableWithExclusion(filters.clone())
        }
    }
}

/// What the services cannot do must be refused, not dropped: every rule must be of the default
/// bus, every rule and schedule must aim at functions and state machines of the template, which
/// must be standard ones.
pub(crate) fn check(stack: &Stack) -> Result<(), OpenError> {
    let unsupported = |resource: &str, problem: String| OpenError::Unsupported {
        resource: resource.to_owned(),
        problem,
    };
    if let Some(express) = stack.state_machines.iter().find(|state_machine| state_machine.express) {
        let problem = "express state machines are not served".to_owned();
        return Err(unsupported(&express.logical_id, problem));
    }
    let is_known = |arn: &str| {
        let functions = stack.functions.iter().map(|function| &function.arn);
        functions.chain(stack.state_machines.iter().map(|machine| &machine.arn)).any(|it| it == arn)
    };
    for Schedule { logical_id, settings } in &stack.schedules {
        if !is_known(&settings.target_arn) {
            let (rule, arn) = (logical_id.clone(), settings.target_arn.clone());
            return Err(OpenError::Target { rule, arn });
        }
    }
    for EventRule { logical_id, bus, rule } in &stack.rules {
        if bus != Bus::DEFAULT {
            let problem = format!("bus {bus} is not served, only {}", Bus::DEFAULT);
            return Err(unsupported(logical_id, problem));
        }
        for target in &rule.targets {
            if !is_known(&target.arn) {
                let (rule, arn) = (logical_id.clone(), target.arn.clone());
                return Err(OpenError::Target { rule, arn });
            }
        }
    }
    Ok(())
}
