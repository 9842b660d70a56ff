//! What a target receives: the event, a part of it, a constant, or a template filled from it.
//!
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html>

use std::collections::BTreeMap;

use archweld_local_api::Event;
use serde_json::{Value, json};

/// What of an event a target receives.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Input {
    /// The event in its envelope.
    #[default]
    Whole,
    /// Always the same.
    Constant(Value),
    /// A part of the event.
    Path(JsonPath),
    /// A template with parts of the event in it.
    Transformer(Transformer),
}

/// `$`, then members (`.name`, `['name']`) and elements (`[0]`): the part of JSONPath that leads
/// to one value. Filters and wildcards are refused.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    source: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Member(String),
    Element(usize),
}

/// Why a path into an event is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?}: expected $, then .name, ['name'] or [index]")]
pub struct PathError {
    path: String,
}

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    ///
    /// On anything that does not lead to exactly one value.
    pub fn parse(source: &str) -> Result<Self, PathError> {
        let error = || PathError { path: source.to_owned() };
        let mut rest = source.strip_prefix('$').ok_or_else(error)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.is_empty() || name == "*" {
                    return Err(error());
                }
                steps.push(Step::Member(name.to_owned()));
                rest = after;
            } else {
                let (inside, after) = rest
                    .strip_prefix('[')
                    .and_then(|rest| rest.split_once(']'))
                    .ok_or_else(error)?;
                let quoted = ['\'', '"'].into_iter().find_map(|quote| {
                    inside.strip_prefix(quote).and_then(|inside| inside.strip_suffix(quote))
                });
                steps.push(match quoted {
                    Some(name) => Step::Member(name.to_owned()),
                    None => Step::Element(inside.parse().map_err(|_| error())?),
                });
                rest = after;
            }
        }
        Ok(Self { source: source.to_owned(), steps })
    }

    /// The path as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Member(name) => value.get(name),
            Step::Element(index) => value.get(index),
        })
    }
}

/// A template with `<name>` in it, and where in an event each name is found.
#[derive(Debug, Clone, PartialEq)]
pub struct Transformer {
    /// The path of each name.
    pub paths: BTreeMap<String, JsonPath>,
    /// JSON, or a quoted string, with `<name>` where a value belongs.
    pub template: String,
}

/// Who asks, for the names that every template knows.
pub(crate) struct Context<'a> {
    pub(crate) rule_name: &'a str,
    pub(crate) rule_arn: &'a str,
    pub(crate) ingestion_time: &'a str,
}

impl Input {
    /// What a target receives of an event; `None` where a template does not become JSON.
    pub(crate) fn of(&self, event: &Event, context: &Context<'_>) -> Option<Value> {
        let event = json!(event);
        match self {
            Self::Whole => Some(event),
            Self::Constant(value) => Some(value.clone()),
            // A path that leads nowhere gives what the service gives: an empty object.
            Self::Path(path) => Some(path.find(&event).cloned().unwrap_or_else(|| json!({}))),
            Self::Transformer(transformer) => transformer.fill(&event, context),
        }
    }
}

impl Transformer {
    fn fill(&self, event: &Value, context: &Context<'_>) -> Option<Value> {
        let mut filled = String::with_capacity(self.template.len());
        let mut rest = self.template.as_str();
        let mut in_string = false;
        while let Some(character) = rest.chars().next() {
            let after = &rest[character.len_utf8()..];
            match character {
                '\\' if in_string => {
                    let escaped = after.chars().next().map_or(0, char::len_utf8);
                    filled.push('\\');
                    filled.push_str(&after[..escaped]);
                    rest = &after[escaped..];
                    continue;
                }
                '"' => in_string = !in_string,
                '<' => {
                    if let Some((name, after)) = after.split_once('>')
                        && let Some(value) = self.value_of(name, event, context)
                    {
                        push_value(&mut filled, value.as_ref(), in_string);
                        rest = after;
                        continue;
                    }
                }
                _ => {}
            }
            filled.push(character);
            rest = after;
        }
        serde_json::from_str(&filled).ok()
    }

    /// The value of a name; the outer `None` for a name that is none, which stays as written, the
    /// inner for one that the event has no value for, which becomes nothing.
    fn value_of(&self, name: &str, event: &Value, context: &Context<'_>) -> Option<Option<Value>> {
        let value = match name {
            "aws.events.rule-arn" => json!(context.rule_arn),
            "aws.events.rule-name" => json!(context.rule_name),
            "aws.events.event.ingestion-time" => json!(context.ingestion_time),
            "aws.events.event" => event.clone(),
            "aws.events.event.json" => json!(event.to_string()),
            name => return self.paths.get(name).map(|path| path.find(event).cloned()),
        };
        Some(Some(value))
    }
}

/// Inside a string a value appears as text, escaped; elsewhere as JSON.
fn push_value(filled: &mut String, value: Option<&Value>, in_string: bool) {
    match value {
        None => {}
        Some(value) if !in_string => filled.push_str(&value.to_string()),
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let quoted = Value::String(text).to_string();
            filled.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        serde_json::from_value(json!({
            "version": "0", "id": "7bf7", "detail-type": "Build", "source": "archweld",
            "account": "000000000000", "time": "2026-01-02T03:04:05Z", "region": "us-east-1",
            "resources": ["arn:first", "arn:second"],
            "detail": {"status": "FAILED", "attempt": 2, "why": "a \"quoted\"\nreason"}
        }))
        .unwrap()
    }

    fn fill(template: &str, paths: &[(&str, &str)]) -> Option<Value> {
        let paths = paths
            .iter()
            .map(|(name, path)| ((*name).to_owned(), JsonPath::parse(path).unwrap()))
            .collect();
        let context = Context {
            rule_name: "finished",
            rule_arn: "arn:rule/finished",
            ingestion_time: "2026-01-02T03:04:06Z",
        };
        Input::Transformer(Transformer { paths, template: template.to_owned() })
            .of(&event(), &context)
    }

    #[test]
    fn a_template_takes_values_as_json_and_as_text() {
        let filled = fill(
            r#"{"n": <n>, "detail": <d>, "say": "try <n>: <why> of <aws.events.rule-name>"}"#,
            &[("n", "$.detail.attempt"), ("d", "$['detail'].status"), ("why", "$.detail.why")],
        );
        assert_eq!(
            filled,
            Some(
                json!({"n": 2, "detail": "FAILED", "say": "try 2: a \"quoted\"\nreason of finished"})
            )
        );
    }

    #[test]
    fn a_template_may_be_one_string() {
        let filled = fill(
            r#""<first> is <status>, \"<>\"""#,
            &[("first", "$.resources[0]"), ("status", "$.detail.status")],
        );
        assert_eq!(filled, Some(json!("arn:first is FAILED, \"<>\"")));
    }

    #[test]
    fn a_value_that_is_missing_leaves_nothing_behind() {
        assert_eq!(
            fill(r#"{"a": "<none>"}"#, &[("none", "$.detail.none")]),
            Some(json!({"a": ""}))
        );
        assert_eq!(fill(r#"{"a": <none>}"#, &[("none", "$.detail.none")]), None);
    }

    #[test]
    fn refuses_paths_that_lead_to_many_values_or_none() {
        for path in
            ["", "detail", "$.", "$..a", "$.a[*]", "$.*", "$[?(@.a)]", "$.a[", "$a", "$.a[-1]"]
        {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
