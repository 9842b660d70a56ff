//! The functions that Step Functions adds to JSONata, and the impure ones of JSONata itself,
//! which here follow from the interpreter's clock and seed.
//!
//! <https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html#jsonata-functions-provided-by-sfn>

use std::cell::RefCell;

use jiff::Timestamp;
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorError};
use jsonata_core::parser;
use jsonata_core::value::JValue;
use md5::Md5;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

type Answer = Result<JValue, EvaluatorError>;

/// As many elements as `$range` may return.
const RANGE_LENGTH_MAX: f64 = 1_000_000.0;

pub(super) fn register(evaluator: &mut Evaluator, now: Timestamp, seed: u64) {
    let generator = RefCell::new(None);
    let random_bytes = std::rc::Rc::new(move || {
        let mut generator = generator.borrow_mut();
        generator.get_or_insert_with(|| StdRng::seed_from_u64(seed)).next_u64()
    });
    let uuid_bytes = std::rc::Rc::clone(&random_bytes);

    let added = [
        evaluator.register_fn("parse", parse),
        evaluator.register_fn("hash", hash),
        evaluator.register_fn("partition", partition),
        evaluator.register_fn("range", range),
        evaluator.register_fn("uuid", move |_: &[JValue]| Ok(uuid(uuid_bytes(), uuid_bytes()))),
        evaluator.register_fn_override("random", move |arguments: &[JValue]| {
            random(arguments, || random_bytes())
        }),
        evaluator.register_fn_override("millis", move |_: &[JValue]| Ok(millis(now))),
        evaluator
            .register_fn_override("now", move |arguments: &[JValue]| format_now(now, arguments)),
        evaluator.register_fn_override("eval", |_: &[JValue]| {
            Err(EvaluatorError::EvaluationError("$eval is not supported".to_owned()))
        }),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "the crate knows every name overridden here");
}

fn refuse(message: impl Into<String>) -> Answer {
    Err(EvaluatorError::EvaluationError(message.into()))
}

/// An array in which one element alone stands for itself: AWS answers 1 to `$range(1, 9, 9)`.
/// Without any it stays an array, where an empty sequence of JSONata would be nothing at all.
fn sequence(elements: Vec<JValue>) -> JValue {
    if elements.is_empty() { JValue::array(elements) } else { JValue::sequence(elements) }
}

/// `$parse(text)`: JSON in a string.
fn parse(arguments: &[JValue]) -> Answer {
    match arguments {
        [JValue::Undefined] => Ok(JValue::Undefined),
        [JValue::String(text)] => match JValue::from_json_str(text) {
            Ok(value) => Ok(value),
            Err(error) => refuse(format!("$parse: not valid JSON: {error}")),
        },
        _ => refuse("$parse takes one string"),
    }
}

/// `$hash(text, algorithm)`: a hex digest.
fn hash(arguments: &[JValue]) -> Answer {
    let [JValue::String(text), JValue::String(algorithm)] = arguments else {
        return refuse("$hash takes a string and the name of an algorithm");
    };
    let digest = match &**algorithm {
        "MD5" => hex::encode(Md5::digest(text.as_bytes())),
        "SHA-1" => hex::encode(Sha1::digest(text.as_bytes())),
        "SHA-256" => hex::encode(Sha256::digest(text.as_bytes())),
        "SHA-384" => hex::encode(Sha384::digest(text.as_bytes())),
        "SHA-512" => hex::encode(Sha512::digest(text.as_bytes())),
        other => {
            return refuse(format!(
                "$hash: {other:?} is not one of MD5, SHA-1, SHA-256, SHA-384, SHA-512"
            ));
        }
    };
    Ok(JValue::from(digest))
}

/// `$partition(array, size)`: the array in chunks of `size`.
fn partition(arguments: &[JValue]) -> Answer {
    let [JValue::Array(elements), JValue::Number(size)] = arguments else {
        return refuse("$partition takes an array and a number");
    };
    let size = *size as usize;
    if size == 0 {
        return refuse("$partition: the size must be at least 1");
    }
    Ok(sequence(elements.chunks(size).map(|chunk| JValue::array(chunk.to_vec())).collect()))
}

/// `$range(first, last, step)`: the last number included where a step meets it.
fn range(arguments: &[JValue]) -> Answer {
    let [JValue::Number(first), JValue::Number(last), JValue::Number(step)] = arguments else {
        return refuse("$range takes three numbers");
    };
    let steps = (last - first) / step;
    if *step == 0.0 || !steps.is_finite() {
        return refuse("$range: the step must not be 0");
    }
    if steps < 0.0 {
        return Ok(sequence(Vec::new()));
    }
    if steps >= RANGE_LENGTH_MAX {
        return refuse(format!("$range: more than {RANGE_LENGTH_MAX} elements"));
    }
    let count = steps.floor() as u32;
    let elements =
        (0..=count).map(|index| JValue::Number(first + f64::from(index) * step)).collect();
    Ok(sequence(elements))
}

/// `$uuid()`: version 4.
fn uuid(high: u64, low: u64) -> JValue {
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    JValue::from(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

/// `$random()`, or `$random(seed)`, which gives the same number for the same seed.
fn random(arguments: &[JValue], next: impl Fn() -> u64) -> Answer {
    match arguments {
        [] => Ok(JValue::Number(unit(next()))),
        [JValue::Number(seed)] => {
            Ok(JValue::Number(unit(StdRng::seed_from_u64(seed.to_bits()).next_u64())))
        }
        _ => refuse("$random takes nothing or one number"),
    }
}

/// A number from 0 up to 1, 1 excluded: the 53 bits that a double holds exactly.
fn unit(bits: u64) -> f64 {
    let numerator = (bits >> 11) as f64;
    numerator / (1_u64 << 53) as f64
}

fn millis(now: Timestamp) -> JValue {
    JValue::from(now.as_millisecond())
}

/// `$now(picture, timezone)`: what `$fromMillis` makes of the interpreter's time.
fn format_now(now: Timestamp, arguments: &[JValue]) -> Answer {
    let mut context = Context::new();
    context.bind("millis".to_owned(), millis(now));
    for (name, index) in [("picture", 0), ("timezone", 1)] {
        let argument = arguments.get(index).cloned().unwrap_or(JValue::Undefined);
        context.bind(name.to_owned(), argument);
    }
    let ast = parser::parse("$fromMillis($millis, $picture, $timezone)")
        .map_err(|error| EvaluatorError::EvaluationError(error.to_string()))?;
    Evaluator::with_context(context).evaluate(&ast, &JValue::Undefined)
}
