//! How data flows through a state: arguments, outputs, variables, the context object.

use std::sync::Arc;

use rand::RngCore as _;
use serde_json::{Map, Value, json};

use super::thread::{Thread, data_limit_exceeded};
use super::{Execution, Failure, Progress, Then, history};
use crate::definition::{self, DataFlow, Paths, Produce, Quantity, State, Transition};
use crate::error_name;
use crate::expression::{Evaluation, EvaluationError, Expression, Scope, Template, Variables};
use crate::payload::{PAYLOAD_BYTES_MAX, Payload};
use crate::reference_path::{PathTemplate, ReferencePath, Root};
use crate::timestamp;

/// All variables of a workflow together.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html>
const VARIABLES_BYTES_MAX: usize = 10 * 1024 * 1024;

/// What a state has to make its output from.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    /// Its input alone.
    Input,
    /// A result.
    Result(&'a Value),
    /// An error that was caught.
    Error(&'a Value),
}

impl Execution {
    // Leaving a state.

    /// Leaves a state by its own `Output` and `Assign`.
    pub(super) fn leave(
        &mut self,
        thread: &mut Thread,
        state: &State,
        given: Given<'_>,
        transition: Transition,
    ) -> Progress {
        match &state.data {
            DataFlow::Jsonata(produce) => {
                self.produce(thread, state, produce, "", given, transition)
            }
            DataFlow::JsonPath(paths) => {
                self.leave_by_paths(thread, state, paths, given, transition)
            }
        }
    }

    /// Leaves a state by the `Output` and `Assign` that stand below `prefix`.
    pub(super) fn produce(
        &mut self,
        thread: &mut Thread,
        state: &State,
        produce: &Produce,
        prefix: &str,
        given: Given<'_>,
        transition: Transition,
    ) -> Progress {
        let output = match (&produce.output, given) {
            (Some(template), _) => {
                let field = format!("{prefix}Output");
                Payload::new(self.template(thread, state, template, &field, given)?)
            }
            (None, Given::Input) => Arc::clone(&thread.input),
            (None, Given::Result(value) | Given::Error(value)) => Payload::new(value.clone()),
        };
        // All of them see the variables as they were before.
        let mut assigned = Vec::new();
        for (name, template) in &produce.assign {
            let field = format!("{prefix}Assign/{name}");
            let value = self.template(thread, state, template, &field, given)?;
            assigned.push((name.clone(), Payload::new(value)));
        }
        self.exit(thread, state, output, assigned, transition)
    }

    fn leave_by_paths(
        &mut self,
        thread: &mut Thread,
        state: &State,
        paths: &Paths,
        given: Given<'_>,
        transition: Transition,
    ) -> Progress {
        let input = Arc::clone(&thread.input);
        let result = match given {
            Given::Input => &input.value,
            Given::Result(value) | Given::Error(value) => value,
        };
        let mut assigned = Vec::new();
        for (name, template) in &paths.assign {
            let value = self.path_template(thread, state, template, result)?;
            assigned.push((name.clone(), Payload::new(value)));
        }
        let output = match &paths.result_path {
            None => input.value.clone(),
            Some(path) => path.set(input.value.clone(), result.clone()).ok_or_else(|| {
                let cause = format!("The ResultPath '{}' cannot be applied", path.source());
                Failure::new("States.ResultPathMatchFailure", thread.cause(state, &cause))
            })?,
        };
        let output = match &paths.output_path {
            None => json!({}),
            Some(path) => path.get(&output).cloned().ok_or_else(|| {
                let message = format!(
                    "Invalid path '{}' : No results for path: {}",
                    path.source(),
                    path.brackets()
                );
                Failure::new(error_name::RUNTIME, thread.cause(state, &message))
            })?,
        };
        self.exit(thread, state, Payload::new(output), assigned, transition)
    }

    fn exit(
        &mut self,
        thread: &mut Thread,
        state: &State,
        output: Arc<Payload>,
        assigned: Vec<(String, Arc<Payload>)>,
        transition: Transition,
    ) -> Progress {
        let assigned_bytes: usize = assigned.iter().map(|(_, value)| value.json.len()).sum();
        if output.is_too_large() || assigned_bytes > PAYLOAD_BYTES_MAX {
            return Err(data_limit_exceeded(&state.name));
        }
        let texts: Map<String, Value> = assigned
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.json.as_str())))
            .collect();
        if !assigned.is_empty() {
            let mut variables = Variables::clone(&thread.variables);
            variables.extend(assigned);
            let bytes: usize = variables.values().map(|value| value.json.len()).sum();
            if bytes > VARIABLES_BYTES_MAX {
                return Err(data_limit_exceeded(&state.name));
            }
            thread.variables = Arc::new(variables);
        }
        let details = history::state_exited(&state.name, &output, texts);
        self.advance(thread, history::exited_type(&state.kind), details);
        Ok(match transition {
            Transition::Next(next) => Then::Goto(next, output),
            Transition::End => Then::End(output),
        })
    }

    // JSONata.

    pub(super) fn template(
        &mut self,
        thread: &mut Thread,
        state: &State,
        template: &Template,
        field: &str,
        given: Given<'_>,
    ) -> Result<Value, Failure> {
        let evaluated = match template {
            Template::Literal(value) => return Ok(value.clone()),
            template => {
                let expressions = template.expressions();
                self.evaluation(thread, state, given, &expressions).template(template, field)
            }
        };
        evaluated.map_err(|error| self.evaluation_failed(thread, state, error))
    }

    /// The value of a template that may be absent, which stands for the state's input.
    pub(super) fn template_or_input(
        &mut self,
        thread: &mut Thread,
        state: &State,
        template: Option<&Template>,
        field: &str,
    ) -> Result<Arc<Payload>, Failure> {
        let payload = match template {
            Some(template) => {
                Payload::new(self.template(thread, state, template, field, Given::Input)?)
            }
            None => Arc::clone(&thread.input),
        };
        if payload.is_too_large() {
            return Err(data_limit_exceeded(&state.name));
        }
        Ok(payload)
    }

    /// The value of an expression where `convert` knows what to do with it.
    pub(super) fn expression<T>(
        &mut self,
        thread: &mut Thread,
        state: &State,
        expression: &Expression,
        field: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, Failure> {
        let mut evaluation = self.evaluation(thread, state, Given::Input, &[expression]);
        let evaluated = evaluation.expression(expression, field).and_then(|value| {
            convert(&value)
                .ok_or_else(|| EvaluationError::wrong_type(expression, field, expected, &value))
        });
        evaluated.map_err(|error| self.evaluation_failed(thread, state, error))
    }

    /// A string that may be absent.
    pub(super) fn text(
        &mut self,
        thread: &mut Thread,
        state: &State,
        template: Option<&Template>,
        field: &str,
    ) -> Result<Option<String>, Failure> {
        match template {
            None => Ok(None),
            Some(Template::Expression(expression)) => {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                self.expression(thread, state, expression, field, "string", text).map(Some)
            }
            Some(template) => {
                let value = self.template(thread, state, template, field, Given::Input)?;
                Ok(value.as_str().map(str::to_owned))
            }
        }
    }

    /// A whole number of at least `min`.
    pub(super) fn quantity(
        &mut self,
        thread: &mut Thread,
        state: &State,
        quantity: &Quantity,
        field: &str,
        min: u32,
    ) -> Result<u32, Failure> {
        match quantity {
            Quantity::Literal(number) => Ok(*number),
            Quantity::Expression(expression) => {
                let expected = if min == 0 { "non-negative integer" } else { "positive integer" };
                self.expression(thread, state, expression, field, expected, |value| {
                    let number = u32::try_from(value.as_u64()?).ok()?;
                    (number >= min).then_some(number)
                })
            }
        }
    }

    /// The elements that a Map state iterates over.
    pub(super) fn items(
        &mut self,
        thread: &mut Thread,
        state: &State,
        map: &definition::Map,
    ) -> Result<Vec<Value>, Failure> {
        let items = |value: &Value| value.as_array().cloned();
        match &map.items {
            Some(Template::Expression(expression)) => {
                self.expression(thread, state, expression, "Items", "array", items)
            }
            Some(template) => {
                let value = self.template(thread, state, template, "Items", Given::Input)?;
                Ok(items(&value).unwrap_or_default())
            }
            None => items(&thread.input.value).ok_or_else(|| {
                let message =
                    format!("Map state input must be an array but was: {}", thread.input.json);
                self.query_failed(thread, state, &message, None)
            }),
        }
    }

    fn evaluation(
        &mut self,
        thread: &Thread,
        state: &State,
        given: Given<'_>,
        expressions: &[&Expression],
    ) -> Evaluation {
        let seed = self.random.next_u64();
        let (result, error_output) = match given {
            Given::Input => (None, None),
            Given::Result(result) => (Some(result), None),
            Given::Error(error_output) => (None, Some(error_output)),
        };
        let scope = Scope {
            input: &thread.input.value,
            result,
            error_output,
            context: &|| self.context(thread, state),
            variables: &thread.variables,
            now: self.now,
            seed,
        };
        Evaluation::new(&scope, expressions)
    }

    fn evaluation_failed(
        &mut self,
        thread: &mut Thread,
        state: &State,
        error: EvaluationError,
    ) -> Failure {
        self.query_failed(thread, state, &error.message, Some(&error.location))
    }

    /// An expression gave nothing that the state can use.
    pub(super) fn query_failed(
        &mut self,
        thread: &mut Thread,
        state: &State,
        message: &str,
        location: Option<&str>,
    ) -> Failure {
        let error = error_name::QUERY_EVALUATION_ERROR;
        let cause = thread.cause(state, message);
        let details = history::evaluation_failed(error, &cause, location, &state.name);
        // AWS lets it follow from what the state followed from when the evaluation began.
        thread.last_event = self.record(thread.decision_event, "EvaluationFailed", details);
        Failure::new(error, cause)
    }

    /// The context object.
    ///
    /// <https://docs.aws.amazon.com/step-functions/latest/dg/input-output-contextobject.html>
    fn context(&self, thread: &Thread, state: &State) -> Value {
        let mut current =
            json!({ "EnteredTime": timestamp::format(thread.entered_at), "Name": state.name });
        if state.kind.handlers().is_some() {
            current["RetryCount"] = Value::from(thread.retry_count);
        }
        let mut execution = json!({
            "Id": self.start.execution_arn,
            "Input": self.input.value,
            "Name": self.start.execution_name,
            "RoleArn": self.start.role_arn,
            "StartTime": timestamp::format(self.started_at),
            "RedriveCount": self.redrive_count,
        });
        if let Some(redriven_at) = self.redriven_at {
            execution["RedriveTime"] = Value::from(timestamp::format(redriven_at));
        }
        let mut context = json!({
            "Execution": execution,
            "StateMachine": {
                "Id": self.start.state_machine_arn,
                "Name": self.start.state_machine_name,
            },
            "State": current,
        });
        if let Some(item) = &thread.map_item {
            context["Map"] = json!({ "Item": **item });
        }
        if let Some(token) = &thread.token {
            context["Task"] = json!({ "Token": token });
        }
        context
    }

    // JSONPath.

    /// The value of a template in which `$` is `root`.
    pub(super) fn path_template(
        &self,
        thread: &Thread,
        state: &State,
        template: &PathTemplate,
        root: &Value,
    ) -> Result<Value, Failure> {
        match template {
            PathTemplate::Literal(value) => Ok(value.clone()),
            PathTemplate::Path(path) => self.path_value(thread, state, path, "Assign", root),
            PathTemplate::Array(elements) => elements
                .iter()
                .map(|element| self.path_template(thread, state, element, root))
                .collect(),
            PathTemplate::Object(entries) => entries
                .iter()
                .map(|(key, value)| match value {
                    PathTemplate::Path(path) => {
                        let value = self.path_value(thread, state, path, key, root)?;
                        let key = key.strip_suffix(PathTemplate::PATH_SUFFIX).unwrap_or(key);
                        Ok((key.to_owned(), value))
                    }
                    value => Ok((key.clone(), self.path_template(thread, state, value, root)?)),
                })
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
        }
    }

    fn path_value(
        &self,
        thread: &Thread,
        state: &State,
        path: &ReferencePath,
        field: &str,
        root: &Value,
    ) -> Result<Value, Failure> {
        let found = match &path.root {
            Root::Input => path.get(root).cloned(),
            Root::Context => path.get(&self.context(thread, state)).cloned(),
            Root::Variable(name) => {
                thread.variables.get(name).and_then(|variable| path.get(&variable.value)).cloned()
            }
        };
        found.ok_or_else(|| {
            let message = format!(
                "The JSONPath '{}' specified for the field '{field}' could not be found in the \
                 input '{root}'",
                path.source()
            );
            Failure::new(error_name::RUNTIME, thread.cause(state, &message))
        })
    }
}
