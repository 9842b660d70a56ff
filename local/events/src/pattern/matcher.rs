//! What a leaf of a pattern asks of a leaf of an event.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Number, Value};

use super::PatternError;
use super::wildcard::Wildcard;

/// Numeric matching is documented for this range only.
const NUMBER_MAX: f64 = 5.0e9;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Matcher {
    /// A string, a boolean or null, exactly.
    Equals(Value),
    Number(Number),
    Text(Text),
    Numeric(Range),
    Cidr(IpNet),
    Exists,
    Absent,
    AnythingBut(Vec<Matcher>),
}

/// A comparison that only a string can satisfy.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text {
    Prefix(String),
    PrefixIgnoreCase(String),
    Suffix(String),
    SuffixIgnoreCase(String),
    EqualsIgnoreCase(String),
    Wildcard(Wildcard),
}

/// The bounds of `numeric`; each with whether the bound itself is inside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    bottom: Option<(f64, bool)>,
    top: Option<(f64, bool)>,
}

impl Matcher {
    pub(super) fn parse_all(values: &[Value], at: &str) -> Result<Vec<Self>, PatternError> {
        if values.is_empty() {
            return Err(PatternError::new(at, "expected at least one value"));
        }
        values
            .iter()
            .enumerate()
            .map(|(index, value)| Self::parse(value, &format!("{at}[{index}]")))
            .collect()
    }

    fn parse(value: &Value, at: &str) -> Result<Self, PatternError> {
        match value {
            Value::Object(expression) => Self::parse_expression(expression, at),
            Value::Array(_) => Err(PatternError::new(
                at,
                "expected a string, a number, true, false, null or a match expression",
            )),
            Value::Number(number) => Ok(Self::Number(number.clone())),
            literal => Ok(Self::Equals(literal.clone())),
        }
    }

    fn parse_expression(expression: &Map<String, Value>, at: &str) -> Result<Self, PatternError> {
        let (name, operand) = only_entry(expression, at)?;
        let at = format!("{at}.{name}");
        match name {
            "prefix" | "suffix" => match operand {
                Value::Object(inner) => {
                    let (inner_name, inner) = only_entry(inner, &at)?;
                    let at = format!("{at}.{inner_name}");
                    if inner_name != "equals-ignore-case" {
                        return Err(PatternError::new(at, "expected equals-ignore-case"));
                    }
                    let text = string(inner, &at)?;
                    Ok(Self::Text(if name == "prefix" {
                        Text::PrefixIgnoreCase(text)
                    } else {
                        Text::SuffixIgnoreCase(text)
                    }))
                }
                operand => Text::parse(name, operand, &at).map(Self::Text),
            },
            "equals-ignore-case" | "wildcard" => Text::parse(name, operand, &at).map(Self::Text),
            "exactly" => string(operand, &at).map(|text| Self::Equals(Value::String(text))),
            "numeric" => Range::parse(operand, &at).map(Self::Numeric),
            "cidr" => string(operand, &at)?.parse().map(Self::Cidr).map_err(|_| {
                PatternError::new(
                    &at,
                    "expected an address block such as 10.0.0.0/24 or 2001:db8::/32",
                )
            }),
            "exists" => match operand {
                Value::Bool(true) => Ok(Self::Exists),
                Value::Bool(false) => Ok(Self::Absent),
                _ => Err(PatternError::new(at, "expected true or false")),
            },
            "anything-but" => Self::parse_anything_but(operand, &at),
            _ => Err(PatternError::new(
                at,
                "expected one of anything-but, cidr, equals-ignore-case, exists, numeric, prefix, \
                 suffix, wildcard",
            )),
        }
    }

    fn parse_anything_but(operand: &Value, at: &str) -> Result<Self, PatternError> {
        const EXPECTED: &str = "expected a string, a number, a list of only strings or only \
            numbers, or one of prefix, suffix, equals-ignore-case, wildcard";
        if let Value::Object(inner) = operand {
            let (name, inner) = only_entry(inner, at)?;
            let at = format!("{at}.{name}");
            if !matches!(name, "prefix" | "suffix" | "equals-ignore-case" | "wildcard") {
                return Err(PatternError::new(
                    at,
                    "expected one of prefix, suffix, equals-ignore-case, wildcard",
                ));
            }
            let refused = one_or_many(inner, &at)?
                .into_iter()
                .map(|value| {
                    // An empty prefix or suffix would refuse every string there is.
                    if matches!(name, "prefix" | "suffix") && value.as_str() == Some("") {
                        return Err(PatternError::new(&at, "expected a string that is not empty"));
                    }
                    Text::parse(name, value, &at).map(Self::Text)
                })
                .collect::<Result<_, _>>()?;
            return Ok(Self::AnythingBut(refused));
        }
        let refused = one_or_many(operand, at)?;
        let literals = refused.iter().all(|value| value.is_string())
            || refused.iter().all(|value| value.is_number());
        if !literals {
            return Err(PatternError::new(at, EXPECTED));
        }
        refused
            .into_iter()
            .map(|value| Self::parse(value, at))
            .collect::<Result<_, _>>()
            .map(Self::AnythingBut)
    }

    pub(super) fn matches(&self, leaf: &Value) -> bool {
        match self {
            Self::Equals(expected) => expected == leaf,
            Self::Number(expected) => {
                leaf.as_number().is_some_and(|number| numbers_equal(expected, number))
            }
            Self::Text(text) => leaf.as_str().is_some_and(|leaf| text.matches(leaf)),
            Self::Numeric(range) => leaf
                .as_number()
                .and_then(Number::as_f64)
                .is_some_and(|number| range.contains(number)),
            Self::Cidr(block) => leaf
                .as_str()
                .and_then(|leaf| leaf.parse::<IpAddr>().ok())
                .is_some_and(|address| block.contains(&address)),
            Self::Exists => true,
            Self::Absent => false,
            Self::AnythingBut(refused) => !refused.iter().any(|matcher| matcher.matches(leaf)),
        }
    }
}

impl Text {
    fn parse(name: &str, operand: &Value, at: &str) -> Result<Self, PatternError> {
        let text = string(operand, at)?;
        Ok(match name {
            "prefix" => Self::Prefix(text),
            "suffix" => Self::Suffix(text),
            "equals-ignore-case" => Self::EqualsIgnoreCase(text),
            _ => Self::Wildcard(
                Wildcard::parse(&text).map_err(|problem| PatternError::new(at, problem))?,
            ),
        })
    }

    fn matches(&self, leaf: &str) -> bool {
        match self {
            Self::Prefix(text) => leaf.starts_with(text),
            Self::PrefixIgnoreCase(text) => {
                starts_ignoring_case(leaf.chars(), text.chars()).is_some()
            }
            Self::Suffix(text) => leaf.ends_with(text),
            Self::SuffixIgnoreCase(text) => {
                starts_ignoring_case(leaf.chars().rev(), text.chars().rev()).is_some()
            }
            Self::EqualsIgnoreCase(text) => starts_ignoring_case(leaf.chars(), text.chars())
                .is_some_and(|mut rest| rest.next().is_none()),
            Self::Wildcard(wildcard) => wildcard.matches(leaf),
        }
    }
}

impl Range {
    fn parse(operand: &Value, at: &str) -> Result<Self, PatternError> {
        const EXPECTED: &str = "expected [operator, number] or [\">\" or \">=\", number, \"<\" or \
            \"<=\", number], an operator being one of = < <= > >=";
        let malformed = || PatternError::new(at, EXPECTED);
        let terms = operand.as_array().ok_or_else(malformed)?;
        let pair = |operator: &Value, number: &Value| {
            let operator = operator.as_str().map(str::to_owned).ok_or_else(malformed)?;
            let number = number.as_f64().ok_or_else(malformed)?;
            if number.abs() > NUMBER_MAX {
                return Err(PatternError::new(at, "expected numbers between -5.0e9 and 5.0e9"));
            }
            Ok((operator, number))
        };
        let bottom = |operator: &str| match operator {
            ">" => Some(false),
            ">=" => Some(true),
            _ => None,
        };
        let top = |operator: &str| match operator {
            "<" => Some(false),
            "<=" => Some(true),
            _ => None,
        };
        match terms.as_slice() {
            [operator, number] => {
                let (operator, number) = pair(operator, number)?;
                let range = match (operator.as_str(), bottom(&operator), top(&operator)) {
                    ("=", _, _) => Self { bottom: Some((number, true)), top: Some((number, true)) },
                    (_, Some(inside), _) => Self { bottom: Some((number, inside)), top: None },
                    (_, _, Some(inside)) => Self { bottom: None, top: Some((number, inside)) },
                    _ => return Err(malformed()),
                };
                Ok(range)
            }
            [low_operator, low, high_operator, high] => {
                let (low_operator, low) = pair(low_operator, low)?;
                let (high_operator, high) = pair(high_operator, high)?;
                if low >= high {
                    return Err(PatternError::new(
                        at,
                        "expected the lower bound below the upper bound",
                    ));
                }
                Ok(Self {
                    bottom: Some((low, bottom(&low_operator).ok_or_else(malformed)?)),
                    top: Some((high, top(&high_operator).ok_or_else(malformed)?)),
                })
            }
            _ => Err(malformed()),
        }
    }

    fn contains(&self, number: f64) -> bool {
        let above = |(bound, inside): (f64, bool)| number > bound || inside && number == bound;
        let below = |(bound, inside): (f64, bool)| number < bound || inside && number == bound;
        self.bottom.is_none_or(above) && self.top.is_none_or(below)
    }
}

/// Compares as numbers, so that `300`, `300.0` and `3.0e2` are one; integers are not rounded, so
/// that two account numbers never become equal.
fn numbers_equal(left: &Number, right: &Number) -> bool {
    match (left.is_f64(), right.is_f64()) {
        (false, false) => left == right,
        _ => left.as_f64() == right.as_f64(),
    }
}

/// Whether `text` begins with `prefix` but for case; if so, what follows.
fn starts_ignoring_case<T: Iterator<Item = char>>(
    mut text: T,
    prefix: impl Iterator<Item = char>,
) -> Option<T> {
    for expected in prefix {
        let found = text.next()?;
        if found != expected && !found.to_lowercase().eq(expected.to_lowercase()) {
            return None;
        }
    }
    Some(text)
}

fn only_entry<'a>(
    object: &'a Map<String, Value>,
    at: &str,
) -> Result<(&'a str, &'a Value), PatternError> {
    let mut entries = object.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        _ => Err(PatternError::new(at, "expected a match expression with exactly one key")),
    }
}

fn one_or_many<'a>(value: &'a Value, at: &str) -> Result<Vec<&'a Value>, PatternError> {
    match value {
        Value::Array(values) if values.is_empty() => {
            Err(PatternError::new(at, "expected at least one value"))
        }
        Value::Array(values) => Ok(values.iter().collect()),
        value => Ok(vec![value]),
    }
}

fn string(value: &Value, at: &str) -> Result<String, PatternError> {
    value.as_str().map(str::to_owned).ok_or_else(|| PatternError::new(at, "expected a string"))
}
