//! Lambda as it is: functions start cold, are killed anywhere and run twice; invocations are
//! throttled and fail.

use std::{sync::Arc, time::Duration};

use archweld_lambda::{FunctionError, InProcessHandler, Invocation as Invoked};
use archweld_local_api::ApiError;
use archweld_model::variable;
use archweld_step_functions::{Integrations, LambdaResponse};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    faults::Fault,
    state::{Shared, between_ms, short},
};

tokio::task_local! {
    /// The invocation that makes a call.
    pub(crate) static INVOCATION: Invocation;
}

/// An invocation while it runs.
#[derive(Clone)]
pub(crate) struct Invocation(Arc<Running>);

struct Running {
    actor: String,
    execution: Option<String>,
    killed: Notify,
}

impl Invocation {
    pub(crate) fn actor(&self) -> &str {
        &self.0.actor
    }

    /// The execution that it works for, by ARN.
    pub(crate) fn execution(&self) -> Option<&str> {
        self.0.execution.as_deref()
    }

    /// Ends it where it is.
    pub(crate) fn kill(&self) {
        self.0.killed.notify_one();
    }
}

/// The handler of a function, in a Lambda as it is.
pub(crate) fn wrap(shared: Shared, binary: &str, inner: InProcessHandler) -> InProcessHandler {
    let binary = binary.to_owned();
    Arc::new(move |invoked: Invoked| {
        let (shared, inner, binary) = (shared.clone(), Arc::clone(&inner), binary.clone());
        async move {
            let invocation = Invocation(Arc::new(Running {
                execution: execution(&binary, &invoked.payload),
                actor: binary.clone(),
                killed: Notify::new(),
            }));
            // Those that events invoke, and not the state machine.
            let is_asynchronous = invoked.payload.get("detail-type").is_some()
                || invoked.payload.get("scheduled_time").is_some();
            if is_asynchronous
                && let Some(size) = shared.inject(Fault::InvocationDoubled, invocation.execution())
            {
                let (doubled, inner) = (shared.clone(), Arc::clone(&inner));
                let (invocation, invoked) = (invocation.clone(), invoked.clone());
                shared.later(between_ms(size, 0, 60_000), async move {
                    drop(run(&doubled, invocation, &inner, invoked).await);
                });
            }
            run(&shared, invocation, &inner, invoked).await
        }
        .boxed()
    })
}

async fn run(
    shared: &Shared,
    invocation: Invocation,
    inner: &InProcessHandler,
    invoked: Invoked,
) -> Result<Value, FunctionError> {
    let execution = invocation.execution();
    if let Some(size) = shared.inject(Fault::LambdaCold, execution) {
        tokio::time::sleep(between_ms(size, 50, 1_500)).await;
    }
    let due = due(&invoked.payload);
    let request = invoked.request_id.clone();
    let ended = tokio::select! {
        biased;
        () = invocation.0.killed.notified() => Err(killed(&request)),
        ended = INVOCATION.scope(invocation.clone(), inner(invoked)) => ended,
    };
    let ended = match ended {
        Ok(_) if shared.inject(Fault::LambdaKilledAtEnd, execution).is_some() => {
            Err(killed(&request))
        }
        ended => ended,
    };
    shared.trace(|| {
        let what = match &ended {
            Ok(answer) => brief(answer),
            Err(error) => format!("fails: {}: {}", error.error_type, error.error_message),
        };
        (invocation.actor().to_owned(), what)
    });
    match &ended {
        Ok(_) => {
            if let Some(due) = due {
                shared.check(|model, _| model.pass_done(due));
            }
        }
        Err(error) => {
            let place = || format!("an error of {}", invocation.actor());
            shared.check(|model, _| model.look_for_secrets(place, &error.error_message));
        }
    }
    ended
}

/// When a pass of `reconcile` was due.
fn due(payload: &Value) -> Option<Timestamp> {
    if payload.get("schedule").is_some() {
        return None;
    }
    payload.get("scheduled_time")?.as_str()?.parse().ok()
}

fn killed(request: &str) -> FunctionError {
    FunctionError {
        error_type: "Runtime.ExitError".to_owned(),
        error_message: format!("RequestId: {request} Error: Runtime exited"),
    }
}

/// What an answer says in a line.
fn brief(answer: &Value) -> String {
    let text = match answer.get("digest").or_else(|| answer.get("statusCode")) {
        Some(main) => main.to_string(),
        None => answer.to_string(),
    };
    format!("answers {}", text.chars().take(160).collect::<String>())
}

/// The execution that an invocation works for, by ARN.
fn execution(binary: &str, payload: &Value) -> Option<String> {
    let of_build = |variables: &Value, name: &str, value: &str| {
        let variables = variables.as_array()?.iter();
        let mut named = variables.filter(|variable| variable[name] == variable::EXECUTION);
        named.next()?[value].as_str().map(str::to_owned)
    };
    match binary {
        "plan-build" => payload["execution"]["arn"].as_str().map(str::to_owned),
        "start-build" => of_build(&payload["build"]["environment"], "name", "value"),
        "build-events" => {
            let information = &payload["detail"]["additional-information"];
            of_build(&information["environment"]["environment-variables"], "name", "value")
        }
        "publish" => payload["plan"]["execution"].as_str().map(str::to_owned),
        "reconcile" => payload["execution"]
            .as_str()
            .or_else(|| payload["detail"]["executionArn"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}

/// What the state machine's tasks call, as it is.
pub(crate) struct Tasks {
    pub(crate) shared: Shared,
    pub(crate) inner: Arc<dyn Integrations>,
}

impl Integrations for Tasks {
    fn invoke(
        &self,
        function: String,
        payload: Value,
    ) -> BoxFuture<'static, Result<LambdaResponse, ApiError>> {
        let binary = ["plan-build", "start-build", "publish", "reconcile"];
        let binary = binary
            .into_iter()
            .find(|binary| short(&function).ends_with(binary) || payload_is_of(binary, &payload));
        let execution = binary.and_then(|binary| execution(binary, &payload));
        let execution = execution.as_deref();
        let refused = |status, code: &str| {
            let error = ApiError { status, ..ApiError::client(code, "simulated") };
            std::future::ready(Err(error)).boxed()
        };
        if self.shared.inject(Fault::LambdaThrottled, execution).is_some() {
            return refused(429, "TooManyRequestsException");
        }
        if self.shared.inject(Fault::LambdaUnavailable, execution).is_some() {
            return refused(500, "ServiceException");
        }
        self.inner.invoke(function, payload)
    }

    fn put_events(&self, input: Value) -> BoxFuture<'static, Result<Value, ApiError>> {
        if self.shared.inject(Fault::PutEventsFailed, None).is_some() {
            let error = ApiError::server("InternalException", "simulated");
            return std::future::ready(Err(error)).boxed();
        }
        self.inner.put_events(input)
    }
}

fn payload_is_of(binary: &str, payload: &Value) -> bool {
    let field = match binary {
        "plan-build" => "input",
        "start-build" => "build",
        "publish" => "plan",
        _ => "start_time",
    };
    payload.get(field).is_some()
}

/// How long nothing happens for a function that is out of time: longer than any may run.
pub(crate) const OUT_OF_TIME: Duration = Duration::from_mins(20);
