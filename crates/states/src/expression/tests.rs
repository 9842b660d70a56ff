use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn evaluate(source: &str, input: Value) -> Result<Value, String> {
    let expression = Expression::parse(source, StatesFields::RESULT)?;
    let variables = Variables::from([("five".to_owned(), Payload::new(json!(5)))]);
    let scope = Scope {
        input: &input,
        result: None,
        error_output: None,
        context: &|| json!({"Execution": {"Name": "name"}}),
        variables: &variables,
        now: Timestamp::UNIX_EPOCH,
        seed: 1,
    };
    Evaluation::new(&scope, &[&expression])
        .expression(&expression, "Output")
        .map_err(|error| error.message)
}

fn value(source: &str) -> Value {
    evaluate(source, json!({"a": [1, 2, 3], "b": {"c": "x"}})).unwrap()
}

fn error(source: &str) -> String {
    evaluate(source, json!({})).unwrap_err()
}

#[test]
fn sees_the_states_and_the_variables() {
    assert_eq!(value("$states.input.b.c"), json!("x"));
    assert_eq!(value("$states.input.a[1]"), json!(2));
    assert_eq!(value("$states.context.Execution.Name"), json!("name"));
    assert_eq!(value("$five + $sum($states.input.a)"), json!(11));
    assert_eq!(value("$keys($states)"), json!(["input", "context"]));
    assert_eq!(value("$states.input.a.($ * $five)"), json!([5, 10, 15]));
}

#[test]
fn whole_numbers_stay_whole() {
    let results = value("[1, 4 / 2, 0.5, 1e3, -0, 9007199254740992, 1e20]");
    assert_eq!(results.to_string(), "[1,2,0.5,1000,0,9007199254740992,1e+20]");
}

#[test]
fn what_is_no_json_is_an_error() {
    for source in ["1/0", "[1/0]", "{'a': -1/0}", "0/0", "$sum([1e308, 1e308])"] {
        assert!(error(source).ends_with("D1001: Number out of range"), "{source}");
    }
    for source in ["$sum", "function($x){$x}", "{'a': $sum}"] {
        assert!(error(source).ends_with("A function is not a JSON value"), "{source}");
    }
    assert!(error("/a/").ends_with("A regular expression is not a JSON value"));
    assert_eq!(
        error("$nothing"),
        "The JSONata expression '$nothing' specified for the field 'Output' returned nothing \
         (undefined)."
    );
}

#[test]
fn parses_json() {
    assert_eq!(value(r#"$parse('{"a": [1, null]}')"#), json!({"a": [1, null]}));
    assert_eq!(value("$parse('-0')").to_string(), "0");
    assert!(error("$parse('{')").contains("$parse: not valid JSON"));
    assert!(error("$parse(1)").contains("$parse takes one string"));
}

#[test]
fn hashes() {
    assert_eq!(value("$hash('', 'MD5')"), json!("d41d8cd98f00b204e9800998ecf8427e"));
    assert_eq!(value("$hash('abc', 'SHA-1')"), json!("a9993e364706816aba3e25717850c26c9cd0d89d"));
    assert_eq!(
        value("$hash('abc', 'SHA-256')"),
        json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
    assert_eq!(value("$length($hash('abc', 'SHA-384'))"), json!(96));
    assert_eq!(value("$length($hash('abc', 'SHA-512'))"), json!(128));
    assert!(error("$hash('abc', 'SHA-0')").contains("not one of MD5"));
}

#[test]
fn partitions() {
    assert_eq!(value("$partition([1..5], 2)"), json!([[1, 2], [3, 4], [5]]));
    assert!(error("$partition([1..5], 0)").contains("at least 1"));
}

#[test]
fn ranges_as_recorded() {
    assert_eq!(value("$range(0, 10, 3)"), json!([0, 3, 6, 9]));
    assert_eq!(value("$range(1, 9, 9)"), json!(1));
    assert_eq!(value("$range(5, 1, -2)"), json!([5, 3, 1]));
    assert_eq!(value("$range(5, 1, 2)"), json!([]));
    assert!(error("$range(0, 1, 0)").contains("must not be 0"));
    assert!(error("$range(0, 1e9, 1)").contains("more than"));
}

#[test]
fn draws_from_the_seed() {
    assert_eq!(value("[$uuid(), $random()]"), value("[$uuid(), $random()]"));
    assert_eq!(value("$uuid() = $uuid()"), json!(false));
    assert_eq!(value("$substring($uuid(), 14, 1)"), json!("4"));
    assert_eq!(value("$random(3) = $random(3)"), json!(true));
    assert_eq!(value("$random(3) = $random(4)"), json!(false));
    assert_eq!(value("($r := $random(); $r >= 0 and $r < 1)"), json!(true));
}

#[test]
fn hostile_expressions_end() {
    let begin = Instant::now();
    assert!(error("($f := function($n){$f($n + 1)}; $f(1))").contains("D1012"));
    assert!(error("($f := function($n){1 + $f($n + 1)}; $f(1))").contains("D1011"));
    assert!(error("[1..100000000]").contains("D2014"));
    let deep = "($f := function($n){$n = 0 ? 0 : {'a': $f($n - 1)}}; $f(300))";
    assert!(error(deep).ends_with("The result is nested too deeply"));
    assert_eq!(value("$match($pad('', 5000, 'a') & '!', /^(a+)+$/) = []"), json!(false));
    assert!(begin.elapsed() < Duration::from_secs(10));
    let nested = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(Expression::parse(&nested, StatesFields::INPUT).is_err());
}

#[test]
fn templates_without_expressions_are_literals() {
    let literal = Template::object(vec![
        ("a".to_owned(), Template::array(vec![Template::Literal(json!(1))])),
        ("b".to_owned(), Template::Literal(json!("x"))),
    ]);
    assert!(matches!(literal, Template::Literal(value) if value == json!({"a": [1], "b": "x"})));
}
