//! Event patterns: parsed once, refused with the path of what is wrong, matched without failing.
//!
//! The language is that of
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html>;
//! where that page is silent this follows the open-source matcher behind the service,
//! <https://github.com/aws/event-ruler>. The service also refuses wildcard rules that it finds
//! too complex; its measure is not documented, and there is none here.

mod matcher;
mod wildcard;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use self::matcher::Matcher;

/// The most bytes that a pattern may have as compact JSON
/// (<https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html>).
pub const PATTERN_BYTES_MAX: usize = 4096;

/// The most combinations that all `$or` of a pattern may multiply to
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html#eb-filtering-complex-example-or>).
const OR_COMBINATIONS_MAX: usize = 1000;

/// The key whose array holds alternatives.
const OR: &str = "$or";

/// Names that the language keeps for itself inside `$or`.
const RESERVED_INSIDE_OR: [&str; 14] = [
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exactly",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
    "=",
    "<",
    "<=",
    ">",
    ">=",
];

/// Why a pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event pattern at {path}: {problem}")]
pub struct PatternError {
    /// Where in the pattern, such as `$.detail.state[0].prefix`.
    pub path: String,
    /// What was expected there.
    pub problem: String,
}

impl PatternError {
    fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// An event pattern that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    root: Fields,
    source: Value,
}

/// The requirements on one JSON object: all fields, and one branch of each alternative.
#[derive(Debug, Clone, Default, PartialEq)]
struct Fields {
    fields: BTreeMap<String, Field>,
    alternatives: Vec<Vec<Fields>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    /// An object below this field.
    Nested(Fields),
    /// One of these must hold for a leaf of this field.
    Leaf(Vec<Matcher>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Names the path in the pattern and what was expected there.
    pub fn parse(source: &Value) -> Result<Self, PatternError> {
        let bytes = source.to_string().len();
        if bytes > PATTERN_BYTES_MAX {
            return Err(PatternError::new(
                "$",
                format!("has {bytes} bytes, expected at most {PATTERN_BYTES_MAX}"),
            ));
        }
        let Value::Object(object) = source else {
            return Err(PatternError::new("$", "expected an object"));
        };
        let root = Fields::parse(object, "$", "", false, &mut BTreeSet::new())?;
        let combinations = root.combinations();
        if combinations > OR_COMBINATIONS_MAX {
            return Err(PatternError::new(
                "$",
                format!(
                    "$or gives {combinations} combinations, expected at most {OR_COMBINATIONS_MAX}"
                ),
            ));
        }
        Ok(Self { root, source: source.clone() })
    }

    /// Whether an event, in its envelope, is one that the pattern describes.
    pub fn matches(&self, event: &Value) -> bool {
        self.root.matches(Some(event))
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }
}

impl Fields {
    /// `at` is the path in the pattern, for errors; `field` the path in the event, of which each
    /// may be constrained once (`claimed`), because the service would let one silently replace
    /// the other.
    fn parse(
        object: &Map<String, Value>,
        at: &str,
        field: &str,
        inside_or: bool,
        claimed: &mut BTreeSet<String>,
    ) -> Result<Self, PatternError> {
        if object.is_empty() {
            return Err(PatternError::new(at, "expected at least one field"));
        }
        let mut parsed = Self::default();
        for (name, value) in object.iter().filter(|(name, _)| *name != OR) {
            let at = format!("{at}.{name}");
            if inside_or && RESERVED_INSIDE_OR.contains(&name.as_str()) {
                return Err(PatternError::new(
                    at,
                    format!("expected the name of an event's field: {name} is reserved inside $or"),
                ));
            }
            let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            let entry = match value {
                Value::Object(object) => {
                    Field::Nested(Self::parse(object, &at, &field, inside_or, claimed)?)
                }
                Value::Array(values) => {
                    if !claimed.insert(field) {
                        return Err(PatternError::new(
                            at,
                            "expected this path once: $or may not constrain it again",
                        ));
                    }
                    Field::Leaf(Matcher::parse_all(values, &at)?)
                }
                _ => return Err(PatternError::new(at, "expected an object or an array of values")),
            };
            parsed.fields.insert(name.clone(), entry);
        }
        if let Some(alternatives) = object.get(OR) {
            parsed.alternatives.push(Self::parse_or(alternatives, at, field, claimed)?);
        }
        Ok(parsed)
    }

    fn parse_or(
        alternatives: &Value,
        at: &str,
        field: &str,
        claimed: &mut BTreeSet<String>,
    ) -> Result<Vec<Self>, PatternError> {
        let at = format!("{at}.{OR}");
        let Some(alternatives) = alternatives.as_array().filter(|branches| branches.len() >= 2)
        else {
            return Err(PatternError::new(at, "expected an array of at least two objects"));
        };
        let before = claimed.clone();
        alternatives
            .iter()
            .enumerate()
            .map(|(index, branch)| {
                let at = format!("{at}[{index}]");
                let Value::Object(branch) = branch else {
                    return Err(PatternError::new(at, "expected an object"));
                };
                let mut claimed_here = before.clone();
                let fields = Self::parse(branch, &at, field, true, &mut claimed_here)?;
                claimed.append(&mut claimed_here);
                Ok(fields)
            })
            .collect()
    }

    /// How many patterns without `$or` this stands for.
    fn combinations(&self) -> usize {
        let nested = self.fields.values().map(|field| match field {
            Field::Nested(fields) => fields.combinations(),
            Field::Leaf(_) => 1,
        });
        let alternatives = self.alternatives.iter().map(|branches| {
            branches.iter().fold(0_usize, |sum, branch| sum.saturating_add(branch.combinations()))
        });
        nested.chain(alternatives).fold(1, usize::saturating_mul)
    }

    /// Fields below an array must all hold for one and the same element of it. Absence alone must
    /// hold for every element: a field that is there somewhere is not absent.
    fn matches(&self, value: Option<&Value>) -> bool {
        match value {
            Some(Value::Array(elements)) if elements.is_empty() => self.matches(None),
            Some(Value::Array(elements)) if self.wants_only_absence() => {
                elements.iter().all(|element| self.matches(Some(element)))
            }
            Some(Value::Array(elements)) => {
                elements.iter().any(|element| self.matches(Some(element)))
            }
            _ => self.matches_one(value.and_then(Value::as_object)),
        }
    }

    fn matches_one(&self, object: Option<&Map<String, Value>>) -> bool {
        let fields = self.fields.iter().all(|(name, field)| {
            let value = object.and_then(|object| object.get(name));
            match field {
                Field::Nested(fields) => fields.matches(value),
                Field::Leaf(matchers) => matches_leaf(matchers, value),
            }
        });
        fields
            && self
                .alternatives
                .iter()
                .all(|branches| branches.iter().any(|branch| branch.matches_one(object)))
    }

    fn wants_only_absence(&self) -> bool {
        self.fields.values().all(|field| match field {
            Field::Nested(fields) => fields.wants_only_absence(),
            Field::Leaf(matchers) => matchers.iter().all(|matcher| *matcher == Matcher::Absent),
        }) && self.alternatives.iter().flatten().all(Self::wants_only_absence)
    }
}

/// One leaf must satisfy one matcher; an array contributes each of its elements, an object none.
fn matches_leaf(matchers: &[Matcher], value: Option<&Value>) -> bool {
    let mut leaves = Vec::new();
    if let Some(value) = value {
        collect_leaves(value, &mut leaves);
    }
    if leaves.is_empty() {
        return matchers.contains(&Matcher::Absent);
    }
    leaves.into_iter().any(|leaf| matchers.iter().any(|matcher| matcher.matches(leaf)))
}

fn collect_leaves<'a>(value: &'a Value, leaves: &mut Vec<&'a Value>) {
    match value {
        Value::Array(elements) => {
            for element in elements {
                collect_leaves(element, leaves);
            }
        }
        Value::Object(_) => {}
        leaf => leaves.push(leaf),
    }
}

#[cfg(test)]
mod tests;
