//! Reading the fields of an object one by one, collecting problems instead of stopping at one.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::error::{DefinitionError, Problem};

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<DefinitionError>>);

impl Problems {
    pub(super) fn into_inner(self) -> Vec<DefinitionError> {
        self.0.into_inner()
    }
}

/// A place in the definition that problems can be reported for.
#[derive(Debug, Clone)]
pub(super) struct Place<'p> {
    problems: &'p Problems,
    state: Option<String>,
    field: String,
}

impl<'p> Place<'p> {
    pub(super) fn top(problems: &'p Problems) -> Self {
        Self { problems, state: None, field: String::new() }
    }

    pub(super) fn of_state(&self, name: &str) -> Self {
        Self { problems: self.problems, state: Some(name.to_owned()), field: String::new() }
    }

    pub(super) fn field(&self, name: &str) -> Self {
        let separator = if self.field.is_empty() { "" } else { "/" };
        Self { field: format!("{}{separator}{name}", self.field), ..self.clone() }
    }

    pub(super) fn element(&self, index: usize) -> Self {
        Self { field: format!("{}[{index}]", self.field), ..self.clone() }
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.0.borrow_mut().push(DefinitionError {
            state: self.state.clone(),
            field: (!self.field.is_empty()).then(|| self.field.clone()),
            problem,
        });
    }

    pub(super) fn unexpected(&self, expected: &str, found: &Value) {
        self.report(Problem::Unexpected { expected: expected.to_owned(), found: describe(found) });
    }

    pub(super) fn state_name(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// A short form of a value for a message.
fn describe(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => {
            let text = scalar.to_string();
            match text.char_indices().nth(CHARS_MAX) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

/// The fields of one object that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields<'p> {
    pub(super) place: Place<'p>,
    fields: Map<String, Value>,
}

impl<'p> Fields<'p> {
    /// The fields of `value`, which has to be an object.
    pub(super) fn of(place: Place<'p>, value: Value) -> Option<Self> {
        match value {
            Value::Object(fields) => Some(Self { place, fields }),
            other => {
                place.unexpected("an object", &other);
                None
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<(Place<'p>, Value)> {
        // `shift_remove` keeps the order of what is left, which unknown fields are reported in.
        self.fields.shift_remove(name).map(|value| (self.place.field(name), value))
    }

    pub(super) fn require(&mut self, name: &str) -> Option<(Place<'p>, Value)> {
        let taken = self.take(name);
        if taken.is_none() {
            self.place.field(name).report(Problem::Missing);
        }
        taken
    }

    pub(super) fn string(&mut self, name: &str) -> Option<String> {
        let (place, value) = self.take(name)?;
        string(&place, value)
    }

    pub(super) fn required_string(&mut self, name: &str) -> Option<String> {
        let (place, value) = self.require(name)?;
        string(&place, value)
    }

    /// A whole number within `range`.
    pub(super) fn integer(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let (place, value) = self.take(name)?;
        integer(&place, &value, range)
    }

    pub(super) fn array(&mut self, name: &str) -> Option<Vec<(Place<'p>, Value)>> {
        let (place, value) = self.take(name)?;
        array(&place, value)
    }

    pub(super) fn required_array(&mut self, name: &str) -> Option<Vec<(Place<'p>, Value)>> {
        let (place, value) = self.require(name)?;
        array(&place, value)
    }

    /// Everything that was not read is unknown.
    pub(super) fn finish(self, hint: impl Fn(&str) -> Unread) {
        for name in self.fields.keys() {
            let problem = match hint(name) {
                Unread::Unknown(hint) => Problem::UnknownField { hint },
                Unread::Unsupported(what) => Problem::Unsupported(what.to_owned()),
            };
            self.place.field(name).report(problem);
        }
    }
}

/// Why a field was not read.
pub(super) enum Unread {
    Unknown(Option<&'static str>),
    Unsupported(&'static str),
}

pub(super) fn string(place: &Place<'_>, value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        other => {
            place.unexpected("a string", &other);
            None
        }
    }
}

fn array<'p>(place: &Place<'p>, value: Value) -> Option<Vec<(Place<'p>, Value)>> {
    match value {
        Value::Array(elements) => {
            let places = (0..elements.len()).map(|index| place.element(index));
            Some(places.zip(elements).collect())
        }
        other => {
            place.unexpected("an array", &other);
            None
        }
    }
}

pub(super) fn integer(
    place: &Place<'_>,
    value: &Value,
    range: std::ops::RangeInclusive<u32>,
) -> Option<u32> {
    let integer = value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number));
    if integer.is_none() {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        place.unexpected(&expected, value);
    }
    integer
}
