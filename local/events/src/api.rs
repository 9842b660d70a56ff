//! The AWS JSON operations: `PutEvents`, and the ones to look at rules with.
//!
//! <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_Operations.html>

use archweld_local_api::{ApiError, Event};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::bus::Inner;
use crate::{Bus, Input, Pattern, Rule, Target};

/// The most entries of one `PutEvents`.
const ENTRIES_MAX: usize = 10;

/// The most bytes of all entries of one `PutEvents`, as the guide counts them
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevent-size>).
const ENTRIES_BYTES_MAX: usize = 1_048_576;

/// The most results of a page.
const PAGE_MAX: usize = 100;

const VALIDATION: &str = "ValidationException";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEvents {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    time: Option<f64>,
    source: Option<String>,
    resources: Option<Vec<String>>,
    detail_type: Option<String>,
    detail: Option<String>,
    event_bus_name: Option<String>,
}

/// Why one entry of several is refused.
struct EntryError {
    code: &'static str,
    message: String,
}

impl EntryError {
    fn argument(message: impl Into<String>) -> Self {
        Self { code: "InvalidArgument", message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeRule {
    name: String,
    event_bus_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRules {
    name_prefix: Option<String>,
    event_bus_name: Option<String>,
    limit: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListTargetsByRule {
    rule: String,
    event_bus_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TestEventPattern {
    event_pattern: String,
    event: String,
}

impl Bus {
    /// Serves an operation of the AWS JSON protocol.
    ///
    /// # Errors
    ///
    /// As the service's model declares them for the operation.
    pub async fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        match operation {
            "PutEvents" => self.put_events(ApiError::parse_input(VALIDATION, input)?),
            "DescribeRule" => self.inner().describe_rule(ApiError::parse_input(VALIDATION, input)?),
            "ListRules" => self.inner().list_rules(ApiError::parse_input(VALIDATION, input)?),
            "ListTargetsByRule" => {
                self.inner().list_targets(ApiError::parse_input(VALIDATION, input)?)
            }
            "TestEventPattern" => test_event_pattern(&ApiError::parse_input(VALIDATION, input)?),
            _ => Err(ApiError::unknown_operation(operation)),
        }
    }

    fn put_events(&self, input: PutEvents) -> Result<Value, ApiError> {
        let entries = input.entries;
        if !(1..=ENTRIES_MAX).contains(&entries.len()) {
            return Err(ApiError::client(
                VALIDATION,
                format!("Entries: has {}, expected 1 to {ENTRIES_MAX}", entries.len()),
            ));
        }
        let bytes: usize = entries.iter().map(Entry::bytes).sum();
        if bytes > ENTRIES_BYTES_MAX {
            return Err(ApiError::client(
                VALIDATION,
                format!(
                    "Entries: have {bytes} bytes together, expected at most {ENTRIES_BYTES_MAX}"
                ),
            ));
        }
        let mut failed = 0;
        let results: Vec<Value> = entries
            .into_iter()
            .map(|entry| match self.inner().event_of(entry) {
                Ok(event) => {
                    let id = event.id.clone();
                    self.put(event);
                    json!({ "EventId": id })
                }
                Err(error) => {
                    failed += 1;
                    json!({ "ErrorCode": error.code, "ErrorMessage": error.message })
                }
            })
            .collect();
        Ok(json!({ "FailedEntryCount": failed, "Entries": results }))
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let time = if self.time.is_some() { 14 } else { 0 };
        let resources: usize = self.resources.iter().flatten().map(String::len).sum();
        time + text(&self.source) + text(&self.detail_type) + text(&self.detail) + resources
    }
}

impl Inner {
    fn event_of(&self, entry: Entry) -> Result<Event, EntryError> {
        let required = |name: &str, value: Option<String>| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                EntryError::argument(format!(
                    "Parameter {name} is not valid. Reason: {name} is a required argument."
                ))
            })
        };
        let source = required("Source", entry.source)?;
        let detail_type = required("DetailType", entry.detail_type)?;
        let detail = required("Detail", entry.detail)?;
        if source.starts_with("aws.") {
            return Err(EntryError {
                code: "NotAuthorizedForSourceException",
                message: "Not authorized for the source.".to_owned(),
            });
        }
        if let Some(bus) = entry.event_bus_name.filter(|bus| !self.is_called(bus)) {
            return Err(EntryError::argument(format!("Event bus {bus} does not exist.")));
        }
        let detail =
            serde_json::from_str(&detail).ok().filter(Value::is_object).ok_or(EntryError {
                code: "MalformedDetail",
                message: "Detail is malformed.".to_owned(),
            })?;
        let mut event =
            self.host.event(&source, &detail_type, entry.resources.unwrap_or_default(), detail);
        if let Some(seconds) = entry.time {
            let time = SignedDuration::try_from_secs_f64(seconds)
                .ok()
                .and_then(|time| Timestamp::from_duration(time).ok())
                .ok_or_else(|| EntryError::argument("Parameter Time is not valid."))?;
            event.time = Event::format_time(time);
        }
        Ok(event)
    }

    /// A bus goes by its name and by its ARN.
    fn is_called(&self, bus: &str) -> bool {
        bus == self.name || bus == self.host.arn("events", &format!("event-bus/{}", self.name))
    }

    fn check_bus(&self, bus: Option<String>) -> Result<(), ApiError> {
        match bus.filter(|bus| !self.is_called(bus)) {
            None => Ok(()),
            Some(bus) => Err(not_found(format!("Event bus {bus} does not exist."))),
        }
    }

    fn describe_rule(&self, input: DescribeRule) -> Result<Value, ApiError> {
        self.check_bus(input.event_bus_name)?;
        let rule = self.rule(&input.name).ok_or_else(|| self.no_rule(&input.name))?;
        let mut described = self.rule_summary(&rule);
        described.insert("CreatedBy".to_owned(), json!(self.host.account()));
        Ok(described.into())
    }

    fn list_rules(&self, input: ListRules) -> Result<Value, ApiError> {
        self.check_bus(input.event_bus_name)?;
        let limit = input.limit.unwrap_or(PAGE_MAX);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(ApiError::client(VALIDATION, "Limit: expected 1 to 100"));
        }
        let prefix = input.name_prefix.unwrap_or_default();
        let after = input.next_token.unwrap_or_default();
        let rules: Vec<_> = self
            .rules()
            .into_iter()
            .filter(|rule| rule.name.starts_with(&prefix) && rule.name > after)
            .take(limit + 1)
            .collect();
        let page: Vec<_> = rules.iter().take(limit).map(|rule| self.rule_summary(rule)).collect();
        let mut output = json!({ "Rules": page });
        if let (true, Some(last)) = (rules.len() > limit, rules.get(limit - 1)) {
            output["NextToken"] = json!(last.name);
        }
        Ok(output)
    }

    fn list_targets(&self, input: ListTargetsByRule) -> Result<Value, ApiError> {
        self.check_bus(input.event_bus_name)?;
        let rule = self.rule(&input.rule).ok_or_else(|| self.no_rule(&input.rule))?;
        Ok(json!({ "Targets": rule.targets.iter().map(describe_target).collect::<Vec<_>>() }))
    }

    fn rule_summary(&self, rule: &Rule) -> Map<String, Value> {
        let mut summary = Map::from_iter([
            ("Name".to_owned(), json!(rule.name)),
            ("Arn".to_owned(), json!(self.rule_arn(&rule.name))),
            ("State".to_owned(), json!(if rule.enabled { "ENABLED" } else { "DISABLED" })),
            ("EventBusName".to_owned(), json!(self.name)),
        ]);
        if let Some(pattern) = &rule.pattern {
            summary.insert("EventPattern".to_owned(), json!(pattern.source().to_string()));
        }
        summary
    }

    fn no_rule(&self, rule: &str) -> ApiError {
        not_found(format!("Rule {rule} does not exist on EventBus {}.", self.name))
    }
}

fn not_found(message: String) -> ApiError {
    ApiError::client("ResourceNotFoundException", message)
}

fn describe_target(target: &Target) -> Value {
    let mut described = json!({
        "Id": target.id,
        "Arn": target.arn,
        "RetryPolicy": {
            "MaximumRetryAttempts": target.retry.attempts_max,
            "MaximumEventAgeInSeconds": target.retry.age_max.as_secs(),
        },
    });
    match &target.input {
        Input::Whole => {}
        Input::Constant(value) => described["Input"] = json!(value.to_string()),
        Input::Path(path) => described["InputPath"] = json!(path.source()),
        Input::Transformer(transformer) => {
            let paths: Map<String, Value> = transformer
                .paths
                .iter()
                .map(|(name, path)| (name.clone(), json!(path.source())))
                .collect();
            described["InputTransformer"] =
                json!({ "InputPathsMap": paths, "InputTemplate": transformer.template });
        }
    }
    if let Some(arn) = &target.dead_letter_arn {
        described["DeadLetterConfig"] = json!({ "Arn": arn });
    }
    described
}

fn test_event_pattern(input: &TestEventPattern) -> Result<Value, ApiError> {
    let invalid = |message: String| {
        ApiError::client(
            "InvalidEventPatternException",
            format!("Event pattern is not valid. Reason: {message}"),
        )
    };
    let source =
        serde_json::from_str(&input.event_pattern).map_err(|error| invalid(error.to_string()))?;
    let pattern = Pattern::parse(&source).map_err(|error| invalid(error.to_string()))?;
    let event: Value = serde_json::from_str(&input.event)
        .map_err(|error| ApiError::client(VALIDATION, format!("Event: {error}")))?;
    Ok(json!({ "Result": pattern.matches(&event) }))
}
