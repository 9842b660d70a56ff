//! Reading `Retry` and `Catch`.
//!
//! <https://states-language.net/spec.html#errors>

use serde_json::Value;

use super::super::fields::{Fields, Place, Unread};
use super::super::{Catcher, Handlers, Retrier};
use super::values::produce;
use super::{Names, find};
use crate::error_name;
use crate::expression::StatesFields;

/// As many retries as the platform takes.
const ATTEMPTS_MAX: u32 = 99_999_999;
/// As long an interval before the first retry, and as long a longest one.
const INTERVAL_SECONDS_MAX: u32 = 99_999_999;
const DELAY_SECONDS_MAX: u32 = 31_622_400;

pub(super) fn handlers(fields: &mut Fields<'_>, jsonata: bool, names: &Names) -> Handlers {
    let retry = elements(fields, "Retry", retrier);
    let catch = elements(fields, "Catch", |fields| catcher(fields, jsonata, names));
    Handlers { retry, catch }
}

fn elements<'p, T>(
    fields: &mut Fields<'p>,
    name: &str,
    mut read: impl FnMut(&mut Fields<'p>) -> Option<T>,
) -> Vec<T> {
    let elements = fields.array(name).unwrap_or_default();
    let last = elements.len().saturating_sub(1);
    let mut parsed = Vec::new();
    for (index, (place, element)) in elements.into_iter().enumerate() {
        let Some(mut fields) = Fields::of(place, element) else { continue };
        fields.string("Comment");
        check_error_names(&fields, index == last);
        parsed.extend(read(&mut fields));
        fields.finish(|name| match name {
            "ResultPath" => Unread::Unsupported("this field of JSONPath"),
            _ => Unread::Unknown(None),
        });
    }
    parsed
}

/// `States.ALL` stands alone and last; the names that begin with `States.` are the platform's.
fn check_error_names(fields: &Fields<'_>, is_last: bool) {
    let place = fields.place.field("ErrorEquals");
    let Some(Value::Array(names)) = fields.peek("ErrorEquals") else { return };
    let has_all = names.iter().any(|name| name == error_name::ALL);
    if has_all && (names.len() > 1 || !is_last) {
        place.unexpected(
            "\"States.ALL\" alone and in the last element",
            &Value::from(error_name::ALL),
        );
    }
    for (index, value) in names.iter().enumerate() {
        if let Some(name) = value.as_str()
            && error_name::is_reserved(name)
            && !error_name::is_known(name)
        {
            place.element(index).unexpected("a name that the platform defines", value);
        }
    }
}

fn error_equals(fields: &mut Fields<'_>) -> Option<Vec<String>> {
    let place = fields.place.field("ErrorEquals");
    let names = fields.required_array("ErrorEquals")?;
    if names.is_empty() {
        place.unexpected("at least one name", &Value::Array(Vec::new()));
    }
    names.into_iter().map(|(place, name)| super::super::fields::string(&place, name)).collect()
}

fn retrier(fields: &mut Fields<'_>) -> Option<Retrier> {
    let error_equals = error_equals(fields);
    let interval_seconds = fields.integer("IntervalSeconds", 1..=INTERVAL_SECONDS_MAX).unwrap_or(1);
    let max_attempts = fields.integer("MaxAttempts", 0..=ATTEMPTS_MAX).unwrap_or(3);
    let backoff_rate = fields.take("BackoffRate").and_then(|(place, value)| {
        let rate = value.as_f64().filter(|rate| *rate >= 1.0);
        if rate.is_none() {
            place.unexpected("a number of at least 1.0", &value);
        }
        rate
    });
    let max_delay_seconds = fields.integer("MaxDelaySeconds", 1..=DELAY_SECONDS_MAX);
    if let Some(max_delay) = max_delay_seconds
        && max_delay < interval_seconds
    {
        let expected = format!("at least the {interval_seconds} of IntervalSeconds");
        fields.place.field("MaxDelaySeconds").unexpected(&expected, &Value::from(max_delay));
    }
    let full_jitter = fields.take("JitterStrategy").is_some_and(jitter);
    Some(Retrier {
        error_equals: error_equals?,
        interval_seconds,
        max_attempts,
        backoff_rate: backoff_rate.unwrap_or(2.0),
        max_delay_seconds,
        full_jitter,
    })
}

fn jitter((place, value): (Place<'_>, Value)) -> bool {
    match value.as_str() {
        Some("FULL") => true,
        Some("NONE") => false,
        _ => {
            place.unexpected("\"FULL\" or \"NONE\"", &value);
            false
        }
    }
}

fn catcher(fields: &mut Fields<'_>, jsonata: bool, names: &Names) -> Option<Catcher> {
    let error_equals = error_equals(fields);
    let produce = if jsonata { produce(fields, StatesFields::ERROR) } else { Default::default() };
    let place = fields.place.field("Next");
    let next = fields.required_string("Next").and_then(|name| find(names, &place, &name));
    Some(Catcher { error_equals: error_equals?, produce, next: next? })
}
