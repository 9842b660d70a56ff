//! Reading one state.

use serde_json::Value;

use super::super::error::Problem;
use super::super::fields::{Fields, Place, Unread};
use super::super::{
    Choice, ChoiceRule, Condition, DataFlow, Map, Moment, Parallel, Paths, Produce, Quantity,
    State, StateKind, Task, Transition, WaitUntil,
};
use super::handlers::handlers;
use super::values::{
    condition, expression, parse_template, path_assign, path_field, path_template, produce,
    quantity, template, text,
};
use super::{Names, Parser, QueryLanguage, SECONDS_MAX, find};
use crate::execution::Resource;
use crate::expression::{StatesFields, Template};
use crate::timestamp;

impl<'p> Parser<'p> {
    pub(super) fn state(
        &mut self,
        name: String,
        value: Value,
        place: Place<'p>,
        names: &Names,
    ) -> Option<State> {
        let mut fields = Fields::of(place, value)?;
        fields.string("Comment");
        let language = self.state_language(&mut fields);
        let (type_place, type_name) = fields.require("Type")?;
        let jsonata = language == QueryLanguage::Jsonata;
        let read = match type_name.as_str() {
            Some("Pass") => pass(&mut fields, jsonata, names),
            Some("Task") => task(&mut fields, jsonata, names),
            Some("Wait") => wait(&mut fields, jsonata, names),
            Some("Succeed") => Some((plain_data(&mut fields, jsonata), StateKind::Succeed)),
            Some("Fail") => Some(fail(&mut fields, jsonata)),
            Some("Choice") if jsonata => choice(&mut fields, names),
            Some("Parallel") if jsonata => self.parallel(&mut fields, names),
            Some("Map") if jsonata => self.map(&mut fields, names),
            Some(type_name @ ("Choice" | "Parallel" | "Map")) => {
                fields.place.field("QueryLanguage").report(Problem::Unsupported(format!(
                    "a {type_name} state in JSONPath; it needs QueryLanguage \"JSONata\""
                )));
                return None;
            }
            _ => {
                type_place.unexpected("a type of state", &type_name);
                return None;
            }
        };
        fields.finish(|name| unread(name, jsonata));
        let (data, kind) = read?;
        Some(State { name, data, kind })
    }

    fn state_language(&self, fields: &mut Fields<'_>) -> QueryLanguage {
        let place = fields.place.field("QueryLanguage");
        let language = super::query_language(fields).unwrap_or(self.language);
        if self.language == QueryLanguage::Jsonata && language == QueryLanguage::JsonPath {
            let what = "a JSONPath state in a JSONata state machine";
            place.report(Problem::Unsupported(what.to_owned()));
        }
        language
    }

    fn parallel(
        &mut self,
        fields: &mut Fields<'p>,
        names: &Names,
    ) -> Option<(DataFlow, StateKind)> {
        let arguments = template(fields, "Arguments", StatesFields::INPUT);
        let data = DataFlow::Jsonata(produce(fields, StatesFields::RESULT));
        let handlers = handlers(fields, true, names);
        let transition = transition(fields, names);
        let place = fields.place.field("Branches");
        let branches = fields.required_array("Branches")?;
        if branches.is_empty() {
            place.unexpected("at least one branch", &Value::Array(Vec::new()));
        }
        let branches: Vec<_> = branches
            .into_iter()
            .map(|(place, branch)| {
                let mut fields = Fields::of(place, branch)?;
                let workflow = self.workflow(&mut fields);
                fields.finish(|_| Unread::Unknown(None));
                workflow
            })
            .collect();
        let branches = branches.into_iter().collect::<Option<_>>()?;
        let parallel = Parallel { branches, arguments, handlers, transition: transition? };
        Some((data, StateKind::Parallel(parallel)))
    }

    fn map(&mut self, fields: &mut Fields<'p>, names: &Names) -> Option<(DataFlow, StateKind)> {
        let items = fields.take("Items").and_then(|(place, value)| match value {
            Value::Array(_) => parse_template(&place, value, StatesFields::INPUT),
            Value::String(_) => {
                expression(&place, &value, StatesFields::INPUT).map(Template::Expression)
            }
            other => {
                place.unexpected("an array or a JSONata expression", &other);
                None
            }
        });
        let item_selector = template(fields, "ItemSelector", StatesFields::INPUT);
        let max_concurrency = quantity(fields, "MaxConcurrency", 0..=u32::MAX, true);
        let mut tolerated_failure = Vec::new();
        for (name, max) in
            [("ToleratedFailureCount", f64::MAX), ("ToleratedFailurePercentage", 100.0)]
        {
            let Some((place, value)) = fields.take(name) else { continue };
            match value.as_f64() {
                Some(number) if (0.0..=max).contains(&number) => {}
                Some(_) => place.unexpected("a number in range", &value),
                None => tolerated_failure.extend(
                    expression(&place, &value, StatesFields::INPUT)
                        .map(|expression| (name, expression)),
                ),
            }
        }
        let data = DataFlow::Jsonata(produce(fields, StatesFields::RESULT));
        let handlers = handlers(fields, true, names);
        let transition = transition(fields, names);
        let (place, processor) = fields.require("ItemProcessor")?;
        let mut processor = Fields::of(place, processor)?;
        if let Some((place, config)) = processor.take("ProcessorConfig") {
            processor_config(place, config);
        }
        let item_processor = self.workflow(&mut processor);
        processor.finish(|_| Unread::Unknown(None));
        let map = Map {
            item_processor: item_processor?,
            items,
            item_selector,
            max_concurrency,
            tolerated_failure,
            handlers,
            transition: transition?,
        };
        Some((data, StateKind::Map(map)))
    }
}

fn processor_config(place: Place<'_>, config: Value) {
    let Some(mut config) = Fields::of(place, config) else { return };
    if let Some((place, mode)) = config.take("Mode") {
        match mode.as_str() {
            Some("INLINE") => {}
            Some("DISTRIBUTED") => {
                place.report(Problem::Unsupported("a distributed Map".to_owned()));
            }
            _ => place.unexpected("\"INLINE\"", &mode),
        }
    }
    config.finish(|name| match name {
        "ExecutionType" => Unread::Unsupported("a distributed Map"),
        _ => Unread::Unknown(None),
    });
}

/// Why a field of a state was not read.
fn unread(name: &str, jsonata: bool) -> Unread {
    match name {
        "ItemReader" | "ItemBatcher" | "ResultWriter" | "Label" => {
            Unread::Unsupported("a distributed Map")
        }
        "Credentials" => Unread::Unsupported("a task under another role"),
        "Iterator" => Unread::Unknown(Some("it is called ItemProcessor")),
        "InputPath"
        | "Parameters"
        | "ResultSelector"
        | "ResultPath"
        | "OutputPath"
        | "Result"
        | "ItemsPath"
        | "SecondsPath"
        | "TimestampPath"
        | "TimeoutSecondsPath"
        | "HeartbeatSecondsPath"
        | "MaxConcurrencyPath"
        | "ErrorPath"
        | "CausePath"
        | "ToleratedFailureCountPath"
        | "ToleratedFailurePercentagePath" => {
            if jsonata {
                Unread::Unknown(Some("it is JSONPath's, and this state is in JSONata"))
            } else {
                Unread::Unsupported("this field of JSONPath")
            }
        }
        "Arguments" | "Output" if !jsonata => {
            Unread::Unknown(Some("it needs QueryLanguage \"JSONata\""))
        }
        _ => Unread::Unknown(None),
    }
}

/// The data flow of a state that has no result of its own.
fn plain_data(fields: &mut Fields<'_>, jsonata: bool) -> DataFlow {
    // In JSONPath such a state passes its input on; the fields that change it are refused.
    let produce = if jsonata { produce(fields, StatesFields::INPUT) } else { Produce::default() };
    DataFlow::Jsonata(produce)
}

/// The data flow of a JSONPath Pass or Task state.
fn paths(fields: &mut Fields<'_>) -> DataFlow {
    DataFlow::JsonPath(Paths {
        parameters: fields
            .take("Parameters")
            .and_then(|(place, value)| path_template(&place, value)),
        result_path: path_field(fields, "ResultPath"),
        output_path: path_field(fields, "OutputPath"),
        assign: path_assign(fields),
    })
}

fn pass(fields: &mut Fields<'_>, jsonata: bool, names: &Names) -> Option<(DataFlow, StateKind)> {
    let (data, result) = if jsonata {
        (plain_data(fields, true), None)
    } else {
        (paths(fields), fields.take("Result").map(|(_, value)| value))
    };
    let transition = transition(fields, names)?;
    Some((data, StateKind::Pass { result, transition }))
}

fn task(fields: &mut Fields<'_>, jsonata: bool, names: &Names) -> Option<(DataFlow, StateKind)> {
    let resource_place = fields.place.field("Resource");
    let resource = fields.required_string("Resource").and_then(|text| {
        let resource = resource(&text);
        if resource.is_none() {
            resource_place.report(Problem::Unsupported(format!(
                "the resource {text:?}; lambda:invoke, a Lambda function's ARN and \
                 events:putEvents are"
            )));
        }
        resource
    });
    let (data, arguments) = if jsonata {
        let arguments = template(fields, "Arguments", StatesFields::INPUT);
        (DataFlow::Jsonata(produce(fields, StatesFields::RESULT)), arguments)
    } else {
        (paths(fields), None)
    };
    if let Some((resource, _)) = &resource {
        check_arguments(fields, jsonata, resource, arguments.as_ref());
    }
    let timeout_seconds = quantity(fields, "TimeoutSeconds", 1..=SECONDS_MAX, jsonata);
    let heartbeat_seconds = quantity(fields, "HeartbeatSeconds", 1..=SECONDS_MAX, jsonata);
    if let (Some(Quantity::Literal(timeout)), Some(Quantity::Literal(heartbeat))) =
        (&timeout_seconds, &heartbeat_seconds)
        && heartbeat >= timeout
    {
        let expected = format!("fewer than the {timeout} of TimeoutSeconds");
        fields.place.field("HeartbeatSeconds").unexpected(&expected, &Value::from(*heartbeat));
    }
    let handlers = handlers(fields, jsonata, names);
    let transition = transition(fields, names);
    let (resource, waits_for_token) = resource?;
    let task = Task {
        resource,
        waits_for_token,
        arguments,
        timeout_seconds,
        heartbeat_seconds,
        handlers,
        transition: transition?,
    };
    Some((data, StateKind::Task(task)))
}

/// The integrations that are served, and whether the task waits for its token.
fn resource(text: &str) -> Option<(Resource, bool)> {
    let mut parts = text.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    if arn != "arn" || !partition.starts_with("aws") {
        return None;
    }
    let (region, account, rest) = (parts.next()?, parts.next()?, parts.next()?);
    match (service, region, account, rest) {
        ("states", "", "", "lambda:invoke") => Some((Resource::LambdaInvoke, false)),
        ("states", "", "", "lambda:invoke.waitForTaskToken") => {
            Some((Resource::LambdaInvoke, true))
        }
        ("states", "", "", "events:putEvents") => Some((Resource::PutEvents, false)),
        ("lambda", region, account, function)
            if !region.is_empty()
                && !account.is_empty()
                && function.strip_prefix("function:").is_some_and(|name| !name.is_empty()) =>
        {
            Some((Resource::LambdaFunction(text.to_owned()), false))
        }
        _ => None,
    }
}

/// What an integration's API takes, as far as it can be seen without evaluating anything.
fn check_arguments(
    fields: &Fields<'_>,
    jsonata: bool,
    resource: &Resource,
    arguments: Option<&Template>,
) {
    let (required, optional): (_, &[&str]) = match resource {
        Resource::LambdaInvoke => (
            "FunctionName",
            &["ClientContext", "InvocationType", "LogType", "Payload", "Qualifier"],
        ),
        Resource::PutEvents => ("Entries", &["EndpointId"]),
        Resource::LambdaFunction(_) => return,
    };
    if !jsonata {
        return;
    }
    let place = fields.place.field("Arguments");
    let keys: Vec<&str> = match arguments {
        Some(Template::Object(entries)) => entries.iter().map(|(key, _)| key.as_str()).collect(),
        Some(Template::Literal(Value::Object(object))) => {
            object.keys().map(String::as_str).collect()
        }
        Some(Template::Expression(_)) | None => return,
        Some(Template::Literal(other)) => {
            place.unexpected("an object or a JSONata expression", other);
            return;
        }
        Some(Template::Array(_)) => {
            place.unexpected("an object or a JSONata expression", &Value::Array(Vec::new()));
            return;
        }
    };
    if !keys.contains(&required) {
        place.field(required).report(Problem::Missing);
    }
    for key in keys {
        if key != required && !optional.contains(&key) {
            place.field(key).report(Problem::UnknownField { hint: None });
        }
    }
}

fn wait(fields: &mut Fields<'_>, jsonata: bool, names: &Names) -> Option<(DataFlow, StateKind)> {
    let data = plain_data(fields, jsonata);
    let transition = transition(fields, names);
    let has_timestamp = fields.has("Timestamp");
    let until = if fields.has("Seconds") {
        if has_timestamp {
            fields.take("Timestamp");
            fields.place.field("Timestamp").report(Problem::Conflict("Seconds"));
        }
        WaitUntil::Seconds(quantity(fields, "Seconds", 0..=SECONDS_MAX, jsonata)?)
    } else if has_timestamp {
        let (place, value) = fields.take("Timestamp")?;
        let literal = value.as_str().and_then(timestamp::parse);
        let moment = match literal {
            Some(timestamp) => Moment::Literal(timestamp),
            None if jsonata => Moment::Expression(expression(&place, &value, StatesFields::INPUT)?),
            None => {
                place.unexpected("an RFC 3339 timestamp", &value);
                return None;
            }
        };
        WaitUntil::Timestamp(moment)
    } else {
        fields.place.field("Seconds").report(Problem::Missing);
        return None;
    };
    Some((data, StateKind::Wait { until, transition: transition? }))
}

fn fail(fields: &mut Fields<'_>, jsonata: bool) -> (DataFlow, StateKind) {
    let error = text(fields, "Error", jsonata);
    let cause = text(fields, "Cause", jsonata);
    (DataFlow::Jsonata(Produce::default()), StateKind::Fail { error, cause })
}

fn choice(fields: &mut Fields<'_>, names: &Names) -> Option<(DataFlow, StateKind)> {
    let data = plain_data(fields, true);
    let default_place = fields.place.field("Default");
    let default = fields.string("Default");
    let default = default.and_then(|name| find(names, &default_place, &name));
    let place = fields.place.field("Choices");
    let choices = fields.required_array("Choices")?;
    if choices.is_empty() {
        place.unexpected("at least one rule", &Value::Array(Vec::new()));
    }
    let rules: Vec<_> = choices
        .into_iter()
        .map(|(place, rule)| {
            let mut fields = Fields::of(place, rule)?;
            fields.string("Comment");
            let condition: Option<Condition> =
                fields.require("Condition").and_then(|(place, value)| condition(&place, &value));
            let produce = produce(&mut fields, StatesFields::INPUT);
            let next_place = fields.place.field("Next");
            let next = fields.required_string("Next");
            let next = next.and_then(|name| find(names, &next_place, &name));
            fields.finish(|name| match name {
                "Variable" | "And" | "Or" | "Not" => {
                    Unread::Unknown(Some("it is JSONPath's, and this state is in JSONata"))
                }
                _ => Unread::Unknown(None),
            });
            Some(ChoiceRule { condition: condition?, produce, next: next? })
        })
        .collect();
    let rules = rules.into_iter().collect::<Option<_>>()?;
    Some((data, StateKind::Choice(Choice { rules, default })))
}

fn transition(fields: &mut Fields<'_>, names: &Names) -> Option<Transition> {
    let end = fields.take("End");
    if !fields.has("Next") {
        return match end {
            Some((_, Value::Bool(true))) => Some(Transition::End),
            Some((place, other)) => {
                place.unexpected("true", &other);
                None
            }
            None => {
                fields.place.field("Next").report(Problem::Missing);
                None
            }
        };
    }
    if let Some((place, _)) = end {
        place.report(Problem::Conflict("Next"));
    }
    let place = fields.place.field("Next");
    let name = fields.string("Next")?;
    find(names, &place, &name).map(Transition::Next)
}
