//! Replays what AWS recorded: the same event types, order, ids, previous events, names, inputs,
//! outputs, errors and causes.
//!
//! The cases belong to another project and are not part of this one: where their folder is
//! absent, the test says so and passes.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic, too")]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use archweld_states::{Definition, Effect, Execution, Input, Resource, Start, Task};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const EXECUTION_ARN: &str = "arn:aws:states:us-east-1:111111111111:execution:machine:name";
const CASES: usize = 63;

#[test]
fn replays_every_jsonata_case_as_aws_recorded_it() {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/states-language-cases");
    let Ok(text) = std::fs::read_to_string(folder.join("jsonata.jsonl")) else {
        println!("skipped: {} is not here", folder.display());
        return;
    };
    let mut failures = Vec::new();
    let mut cases = 0;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        cases += 1;
        for execution in case["executions"].as_array().unwrap() {
            if let Err(difference) = replay(execution) {
                failures.push(format!("{}: {difference}", case["id"]));
            }
        }
    }
    assert_eq!(cases, CASES);
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n\n"));
}

fn replay(execution: &Value) -> Result<(), String> {
    let definition = Definition::parse(&execution["definition"].to_string())
        .map_err(|errors| errors.to_string())?;
    let input = serde_json::from_str(execution["input"].as_str().unwrap_or("{}")).unwrap();
    let expected = execution["expected"].as_object().unwrap();
    let recorded = expected.values().find_map(|response| response["events"].as_array()).unwrap();

    let events = run(definition, input, recorded);
    if events.len() != recorded.len() {
        return Err(format!("{} events, recorded {}", events.len(), recorded.len()));
    }
    for (ours, theirs) in events.iter().zip(recorded) {
        compare("", ours, theirs)?;
    }
    Ok(())
}

/// Runs an execution to its end, every function returning its event.
fn run(definition: Definition, input: Value, recorded: &[Value]) -> Vec<Value> {
    let start = Start {
        execution_arn: EXECUTION_ARN.to_owned(),
        execution_name: "name".to_owned(),
        role_arn: "arn:aws:iam::111111111111:role/machine".to_owned(),
        state_machine_arn: "arn:aws:states:us-east-1:111111111111:stateMachine:machine".to_owned(),
        state_machine_name: "machine".to_owned(),
        input,
        seed: 1,
    };
    let mut execution = Execution::new(Arc::new(definition), start);
    let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut inputs = VecDeque::from([Input::Start]);
    let mut timers = Vec::new();
    let mut events = Vec::new();
    loop {
        let input = inputs.pop_front().unwrap_or_else(|| {
            timers.sort();
            let (at, timer) = timers.remove(0);
            now = at;
            Input::TimerFired { timer }
        });
        for effect in execution.step(input, now) {
            match effect {
                Effect::Record(event) => {
                    let mut shape = Map::new();
                    shape.insert("id".to_owned(), json!(event.id));
                    shape.insert("previousEventId".to_owned(), json!(event.previous_event_id));
                    shape.insert("type".to_owned(), json!(event.event_type));
                    if let Some((field, details)) = event.details {
                        shape.insert(field.to_owned(), Value::Object(details));
                    }
                    events.push(Value::Object(shape));
                }
                Effect::Schedule(task) => {
                    inputs.push_back(Input::TaskStarted { task: task.task });
                    let output = answer(&task, recorded);
                    inputs.push_back(Input::TaskSucceeded { task: task.task, output });
                }
                Effect::SetTimer { timer, at } => timers.push((at, timer)),
                Effect::ClearTimer { timer } => timers.retain(|(_, other)| *other != timer),
                Effect::Cancel { .. } => {}
                Effect::Finish(_) => return events,
            }
        }
    }
}

/// The answer of a function that returns its event. What the service wraps it in is taken from
/// the record.
fn answer(task: &Task, recorded: &[Value]) -> Value {
    match task.resource {
        Resource::LambdaFunction(_) => task.arguments.clone(),
        Resource::LambdaInvoke => {
            let details = recorded.iter().find_map(|event| event.get("taskSucceededEventDetails"));
            let mut output = details.unwrap()["output"].clone();
            output["Payload"] = task.arguments["Payload"].clone();
            output
        }
        Resource::PutEvents => unreachable!("no case uses it"),
    }
}

/// Compares what we have with what was recorded, in which redactions stand for anything and JSON
/// in strings is shown parsed.
fn compare(path: &str, ours: &Value, theirs: &Value) -> Result<(), String> {
    let differ = || Err(format!("{path}: {ours} but recorded {theirs}"));
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs.iter().filter(|(key, _)| *key != "timestamp") {
                let path = format!("{path}/{key}");
                let Some(ours) = ours.get(key) else {
                    return Err(format!("{path} is missing; recorded {value}"));
                };
                compare(&path, ours, value)?;
            }
            match ours.keys().find(|key| !theirs.contains_key(*key)) {
                Some(key) => Err(format!("{path}/{key} was not recorded")),
                None => Ok(()),
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            ours.iter().zip(theirs).enumerate().try_for_each(|(index, (ours, theirs))| {
                compare(&format!("{path}[{index}]"), ours, theirs)
            })
        }
        (Value::String(ours), Value::String(theirs)) if matches(ours, theirs) => Ok(()),
        (Value::String(text), _) => match serde_json::from_str::<Value>(text) {
            Ok(parsed) if !parsed.is_string() => compare(path, &parsed, theirs),
            _ => differ(),
        },
        _ if ours == theirs => Ok(()),
        _ => differ(),
    }
}

/// Whether a text is what was recorded, `<…>` standing for anything, as some words do.
fn matches(text: &str, recorded: &str) -> bool {
    if matches!(recorded, "date" | "snf_role_arn") {
        return true;
    }
    let recorded = recorded.replace("lambda_function_name", "<>");
    let mut literals = recorded.split('<').enumerate().map(|(index, piece)| match index {
        0 => piece,
        _ => piece.split_once('>').map_or(piece, |(_, literal)| literal),
    });
    let Some(mut rest) = literals.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let literals: Vec<&str> = literals.collect();
    let Some((last, middle)) = literals.split_last() else { return rest.is_empty() };
    for literal in middle {
        match rest.split_once(literal) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn compares_what_is_not_redacted() {
    let recorded = "arn:<partition>:lambda:<region>:1:function:lambda_function_name";
    assert!(matches("arn:aws:lambda:eu-west-1:1:function:build", recorded));
    assert!(!matches("arn:aws:lambda:eu-west-1:2:function:build", recorded));
    assert!(matches("text", "text"));
    assert!(!matches("text!", "text"));
    assert!(compare("", &json!({"id": 1, "a": "[1,2]"}), &json!({"id": 1, "a": [1, 2]})).is_ok());
    assert!(compare("", &json!({"id": 1}), &json!({"id": 2})).is_err());
    assert!(compare("", &json!({"id": 1}), &json!({})).is_err());
    assert!(compare("", &json!({}), &json!({"id": 1})).is_err());
}
