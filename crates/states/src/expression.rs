//! JSONata expressions, and templates: JSON with expressions in it.
//!
//! Expressions are parsed once, when the definition is loaded. Evaluation stays inside
//! [`Evaluation`], because the values of `jsonata-core` cannot cross threads.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html>

mod functions;
mod syntax;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jsonata_core::ast::AstNode;
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorOptions};
use jsonata_core::parser;
use jsonata_core::value::JValue;
use serde_json::{Map, Number, Value};

use syntax::Reads;
pub(crate) use syntax::StatesFields;

use crate::payload::Payload;

/// The workflow variables that a state can see.
pub(crate) type Variables = BTreeMap<String, Arc<Payload>>;

/// No expression of a workflow needs more; one that does not end is stopped here.
const EVALUATION_MS_MAX: u64 = 1_000;
/// About 1,000 nested calls of a function that is not tail-recursive.
const EVALUATION_DEPTH_MAX: usize = 3_000;
/// More elements than a payload can hold.
const SEQUENCE_LENGTH_MAX: usize = 262_144;
/// `serde_json` reads no deeper text, so a deeper result could not be read back.
const RESULT_DEPTH_MAX: usize = 120;

/// A JSONata expression.
pub struct Expression {
    source: String,
    ast: AstNode,
    reads: Reads,
}

impl Expression {
    /// Parses what stands between `{%` and `%}`. `allowed` is what `$states` has in this place.
    pub(crate) fn parse(source: &str, allowed: StatesFields) -> Result<Self, String> {
        let source = source.trim();
        let ast = parser::parse(source).map_err(|error| error.to_string())?;
        let reads = syntax::check(&ast, allowed)?;
        Ok(Self { source: source.to_owned(), ast, reads })
    }

    /// The expression's text, without its braces.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{% {} %}}", self.source)
    }
}

/// JSON in which strings of the form `{% … %}` are expressions.
#[derive(Debug)]
pub enum Template {
    /// JSON without any expression.
    Literal(Value),
    /// A single expression.
    Expression(Expression),
    /// An array with an expression somewhere.
    Array(Vec<Template>),
    /// An object with an expression somewhere.
    Object(Vec<(String, Template)>),
}

impl Template {
    /// An array, literal where all of it is.
    pub(crate) fn array(elements: Vec<Self>) -> Self {
        if elements.iter().all(|element| matches!(element, Self::Literal(_))) {
            Self::Literal(elements.into_iter().filter_map(Self::into_literal).collect())
        } else {
            Self::Array(elements)
        }
    }

    /// An object, literal where all of it is.
    pub(crate) fn object(entries: Vec<(String, Self)>) -> Self {
        if entries.iter().all(|(_, value)| matches!(value, Self::Literal(_))) {
            let literals = entries.into_iter();
            Self::Literal(
                literals.filter_map(|(key, value)| Some((key, value.into_literal()?))).collect(),
            )
        } else {
            Self::Object(entries)
        }
    }

    fn into_literal(self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// Every expression of the template.
    pub fn expressions(&self) -> Vec<&Expression> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a Expression>) {
        match self {
            Self::Literal(_) => {}
            Self::Expression(expression) => found.push(expression),
            Self::Array(elements) => elements.iter().for_each(|element| element.collect(found)),
            Self::Object(entries) => entries.iter().for_each(|(_, value)| value.collect(found)),
        }
    }
}

/// Why an expression gave no result.
#[derive(Debug)]
pub(crate) struct EvaluationError {
    /// The field, such as `Output/result`.
    pub(crate) location: String,
    /// A sentence, as AWS words it.
    pub(crate) message: String,
}

impl EvaluationError {
    /// An expression of `field` gave a value of the wrong type.
    pub(crate) fn wrong_type(
        expression: &Expression,
        field: &str,
        expected: &str,
        value: &Value,
    ) -> Self {
        Self {
            location: field.to_owned(),
            message: format!(
                "The JSONata expression '{}' specified for the field '{field}' returned an \
                 unexpected result type. Expected '{expected}', but was '{}' for value: {value}",
                expression.source,
                type_name(value),
            ),
        }
    }
}

/// A type as error messages name it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What expressions can see.
pub(crate) struct Scope<'a> {
    pub(crate) input: &'a Value,
    pub(crate) result: Option<&'a Value>,
    pub(crate) error_output: Option<&'a Value>,
    pub(crate) context: &'a dyn Fn() -> Value,
    pub(crate) variables: &'a Variables,
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
}

/// One or more evaluations over the same scope.
pub(crate) struct Evaluation {
    evaluator: Evaluator,
}

impl Evaluation {
    /// Makes visible what `expressions` read, and nothing else: converting values is what an
    /// evaluation costs.
    pub(crate) fn new(scope: &Scope<'_>, expressions: &[&Expression]) -> Self {
        let mut context = Context::new();
        let mut reads = StatesFields::default();
        for expression in expressions {
            reads = reads.with(expression.reads.states);
            for name in &expression.reads.variables {
                if let Some(value) = scope.variables.get(name) {
                    context.bind(name.clone(), to_jsonata(&value.value));
                }
            }
        }
        let mut states = Vec::new();
        if reads.input {
            states.push(("input".to_owned(), to_jsonata(scope.input)));
        }
        if let Some(result) = scope.result.filter(|_| reads.result) {
            states.push(("result".to_owned(), to_jsonata(result)));
        }
        if let Some(error_output) = scope.error_output.filter(|_| reads.error_output) {
            states.push(("errorOutput".to_owned(), to_jsonata(error_output)));
        }
        if reads.context {
            states.push(("context".to_owned(), to_jsonata(&(scope.context)())));
        }
        context.bind("states".to_owned(), JValue::object(states.into_iter().collect()));
        let options = EvaluatorOptions {
            timeout_ms: Some(EVALUATION_MS_MAX),
            max_stack_depth: Some(EVALUATION_DEPTH_MAX),
            max_sequence_length: Some(SEQUENCE_LENGTH_MAX),
            cancel: None,
        };
        let mut evaluator = Evaluator::with_options(context, options);
        functions::register(&mut evaluator, scope.now, scope.seed);
        Self { evaluator }
    }

    /// The value of a template that stands at `field`.
    pub(crate) fn template(
        &mut self,
        template: &Template,
        field: &str,
    ) -> Result<Value, EvaluationError> {
        match template {
            Template::Literal(value) => Ok(value.clone()),
            Template::Expression(expression) => self.expression(expression, field),
            Template::Array(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, element)| self.template(element, &format!("{field}[{index}]")))
                .collect(),
            Template::Object(entries) => entries
                .iter()
                .map(|(key, value)| {
                    Ok((key.clone(), self.template(value, &format!("{field}/{key}"))?))
                })
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
        }
    }

    /// The value of an expression that stands at `field`.
    pub(crate) fn expression(
        &mut self,
        expression: &Expression,
        field: &str,
    ) -> Result<Value, EvaluationError> {
        let failed = |what: String| EvaluationError {
            location: field.to_owned(),
            message: format!(
                "The JSONata expression '{}' specified for the field '{field}' {what}",
                expression.source
            ),
        };
        let value =
            self.evaluator.evaluate(&expression.ast, &JValue::Undefined).map_err(|error| {
                failed(format!("threw an error during evaluation. {}", error.message()))
            })?;
        if value.is_undefined() {
            return Err(failed("returned nothing (undefined).".to_owned()));
        }
        from_jsonata(&value, RESULT_DEPTH_MAX)
            .map_err(|what| failed(format!("threw an error during evaluation. {what}")))
    }
}

fn to_jsonata(value: &Value) -> JValue {
    match value {
        Value::Null => JValue::Null,
        Value::Bool(boolean) => JValue::Bool(*boolean),
        // JSONata knows doubles only, so integers beyond 2^53 are rounded, as on AWS.
        Value::Number(number) => JValue::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => JValue::string(text.as_str()),
        Value::Array(elements) => JValue::array(elements.iter().map(to_jsonata).collect()),
        Value::Object(entries) => JValue::object(
            entries.iter().map(|(key, value)| (key.clone(), to_jsonata(value))).collect(),
        ),
    }
}

/// A result as JSON. Numbers that are whole print without a fraction; what JSON cannot hold
/// (infinity, functions) is an error.
fn from_jsonata(value: &JValue, depth: usize) -> Result<Value, &'static str> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("The result is nested too deeply");
    };
    Ok(match value {
        // An array may hold undefined; JSON has null for it.
        JValue::Null | JValue::Undefined => Value::Null,
        JValue::Bool(boolean) => Value::Bool(*boolean),
        JValue::Number(number) => Value::Number(to_json_number(*number)?),
        JValue::String(text) => Value::String(text.to_string()),
        JValue::Array(elements) => Value::Array(
            elements
                .iter()
                .map(|element| from_jsonata(element, depth))
                .collect::<Result<_, _>>()?,
        ),
        JValue::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| Ok((key.clone(), from_jsonata(value, depth)?)))
                .collect::<Result<_, &'static str>>()?,
        ),
        JValue::Lambda(_) | JValue::Builtin { .. } => return Err("A function is not a JSON value"),
        JValue::Regex { .. } => return Err("A regular expression is not a JSON value"),
    })
}

fn to_json_number(number: f64) -> Result<Number, &'static str> {
    /// Every whole number below is exact as a double and as an `i64`.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return Ok(Number::from(number as i64));
    }
    Number::from_f64(number).ok_or("D1001: Number out of range")
}

#[cfg(test)]
mod tests;
