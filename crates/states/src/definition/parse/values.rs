//! Reading values that may hold expressions or paths.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::super::error::Problem;
use super::super::fields::{Fields, Place, integer, string};
use super::super::{Condition, Produce, Quantity};
use super::NAME_CHARS_MAX;
use crate::expression::{Expression, StatesFields, Template};
use crate::reference_path::{PathTemplate, ReferencePath};

/// What a string is.
enum Text<'t> {
    Literal,
    /// An expression, of which this is the source.
    Expression(&'t str),
    /// It only begins or only ends as an expression, which AWS refuses, too.
    Half,
}

fn classify(text: &str) -> Text<'_> {
    match (text.strip_prefix("{%"), text.ends_with("%}")) {
        (Some(rest), true) => rest.strip_suffix("%}").map_or(Text::Half, Text::Expression),
        (None, false) => Text::Literal,
        _ => Text::Half,
    }
}

fn report_half(place: &Place<'_>) {
    let problem = "it must begin with {% and end with %}, nothing before or after";
    place.report(Problem::Expression(problem.to_owned()));
}

/// A value that has to be an expression.
pub(super) fn expression(
    place: &Place<'_>,
    value: &Value,
    allowed: StatesFields,
) -> Option<Expression> {
    match value.as_str().map(classify) {
        Some(Text::Expression(source)) => parse_expression(place, source, allowed),
        Some(Text::Half) => {
            report_half(place);
            None
        }
        Some(Text::Literal) | None => {
            place.unexpected("a JSONata expression, {% … %}", value);
            None
        }
    }
}

fn parse_expression(place: &Place<'_>, source: &str, allowed: StatesFields) -> Option<Expression> {
    Expression::parse(source, allowed)
        .map_err(|problem| place.report(Problem::Expression(problem)))
        .ok()
}

pub(super) fn template(
    fields: &mut Fields<'_>,
    name: &str,
    allowed: StatesFields,
) -> Option<Template> {
    let (place, value) = fields.take(name)?;
    parse_template(&place, value, allowed)
}

pub(super) fn parse_template(
    place: &Place<'_>,
    value: Value,
    allowed: StatesFields,
) -> Option<Template> {
    match value {
        Value::String(text) => match classify(&text) {
            Text::Expression(source) => {
                parse_expression(place, source, allowed).map(Template::Expression)
            }
            Text::Half => {
                report_half(place);
                None
            }
            Text::Literal => Some(Template::Literal(Value::String(text))),
        },
        Value::Array(elements) => {
            let elements: Vec<_> = elements
                .into_iter()
                .enumerate()
                .map(|(index, element)| parse_template(&place.element(index), element, allowed))
                .collect();
            elements.into_iter().collect::<Option<_>>().map(Template::array)
        }
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| {
                    let template = parse_template(&place.field(&key), value, allowed);
                    template.map(|template| (key, template))
                })
                .collect();
            entries.into_iter().collect::<Option<_>>().map(Template::object)
        }
        scalar => Some(Template::Literal(scalar)),
    }
}

/// A string, or an expression where the state is in JSONata.
pub(super) fn text(fields: &mut Fields<'_>, name: &str, jsonata: bool) -> Option<Template> {
    let (place, value) = fields.take(name)?;
    let text = string(&place, value)?;
    if jsonata {
        parse_template(&place, Value::String(text), StatesFields::INPUT)
    } else {
        Some(Template::Literal(Value::String(text)))
    }
}

/// `Output` and `Assign`.
pub(super) fn produce(fields: &mut Fields<'_>, allowed: StatesFields) -> Produce {
    let output = template(fields, "Output", allowed);
    let assign = assign(fields, |place, key, value| {
        check_variable(place, key);
        Some((key.to_owned(), parse_template(place, value, allowed)?))
    });
    Produce { output, assign }
}

/// `Assign` in JSONPath, the names without their `.$`.
pub(super) fn path_assign(fields: &mut Fields<'_>) -> Vec<(String, PathTemplate)> {
    assign(fields, |place, key, value| {
        let name = key.strip_suffix(PathTemplate::PATH_SUFFIX).unwrap_or(key);
        check_variable(place, name);
        Some((name.to_owned(), path_entry(place, key, value)?))
    })
}

fn assign<T>(
    fields: &mut Fields<'_>,
    parse: impl Fn(&Place<'_>, &str, Value) -> Option<(String, T)>,
) -> Vec<(String, T)> {
    let Some((place, value)) = fields.take("Assign") else { return Vec::new() };
    let Value::Object(entries) = value else {
        place.unexpected("an object", &value);
        return Vec::new();
    };
    entries.into_iter().filter_map(|(key, value)| parse(&place.field(&key), &key, value)).collect()
}

/// <https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html>
fn check_variable(place: &Place<'_>, name: &str) {
    let is_identifier = name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_alphanumeric() || character == '_')
        && name.chars().count() <= NAME_CHARS_MAX;
    if !is_identifier || name == "states" {
        place.report(Problem::Unexpected {
            expected: "a name of letters, digits and underscores, other than \"states\"".to_owned(),
            found: format!("{name:?}"),
        });
    }
}

/// A whole number, or an expression that gives one where the state is in JSONata.
pub(super) fn quantity(
    fields: &mut Fields<'_>,
    name: &str,
    range: RangeInclusive<u32>,
    jsonata: bool,
) -> Option<Quantity> {
    let (place, value) = fields.take(name)?;
    if jsonata && value.is_string() {
        expression(&place, &value, StatesFields::INPUT).map(Quantity::Expression)
    } else {
        integer(&place, &value, range).map(Quantity::Literal)
    }
}

pub(super) fn condition(place: &Place<'_>, value: &Value) -> Option<Condition> {
    match value {
        Value::Bool(literal) => Some(Condition::Literal(*literal)),
        Value::String(_) => {
            expression(place, value, StatesFields::INPUT).map(Condition::Expression)
        }
        other => {
            place.unexpected("true, false or a JSONata expression", other);
            None
        }
    }
}

fn path(place: &Place<'_>, text: &str) -> Option<ReferencePath> {
    let path = ReferencePath::parse(text);
    if path.is_none() {
        place.report(Problem::Unsupported(format!(
            "{text:?}; a JSONPath has to be a reference path such as $.a.b[0]"
        )));
    }
    path
}

/// `ResultPath` or `OutputPath`: `$` where it is not there, `None` where it is `null`.
pub(super) fn path_field(fields: &mut Fields<'_>, name: &str) -> Option<ReferencePath> {
    match fields.take(name) {
        None => Some(ReferencePath::root()),
        Some((_, Value::Null)) => None,
        Some((place, value)) => path(&place, &string(&place, value)?),
    }
}

pub(super) fn path_template(place: &Place<'_>, value: Value) -> Option<PathTemplate> {
    match value {
        Value::Array(elements) => {
            let elements: Vec<_> = elements
                .into_iter()
                .enumerate()
                .map(|(index, element)| path_template(&place.element(index), element))
                .collect();
            elements.into_iter().collect::<Option<_>>().map(PathTemplate::Array)
        }
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| {
                    let template = path_entry(&place.field(&key), &key, value);
                    template.map(|template| (key, template))
                })
                .collect();
            entries.into_iter().collect::<Option<_>>().map(PathTemplate::Object)
        }
        scalar => Some(PathTemplate::Literal(scalar)),
    }
}

/// The value of a key, which is a path where the key ends in `.$`.
fn path_entry(place: &Place<'_>, key: &str, value: Value) -> Option<PathTemplate> {
    if key.ends_with(PathTemplate::PATH_SUFFIX) {
        path(place, &string(place, value)?).map(PathTemplate::Path)
    } else {
        path_template(place, value)
    }
}
