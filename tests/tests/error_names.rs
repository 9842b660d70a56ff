//! Every error name that the state machine matches is one that somebody raises.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{collections::BTreeSet, fs};

use archweld_model::ErrorName;
use serde_json::Value;

/// What the platform itself raises
/// (<https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>,
/// <https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html>). A function that
/// crashed or ran out of time is `Lambda.Unknown` or goes by Lambda's own name for it.
const OF_THE_PLATFORM: [&str; 10] = [
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Sandbox.Timedout",
    "States.ALL",
    "States.HeartbeatTimeout",
    "States.Timeout",
];

fn matched(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == "ErrorEquals" {
                    let list = value.as_array().unwrap().iter();
                    names.extend(list.map(|name| name.as_str().unwrap().to_owned()));
                }
                matched(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| matched(value, names)),
        _ => {}
    }
}

#[test]
fn the_state_machine_matches_only_names_that_somebody_raises() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../state-machine/multi-arch-build.asl.json");
    let definition: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    matched(&definition, &mut names);
    assert!(names.contains("Build.Infrastructure"), "{names:?}");
    for name in names {
        let raised = ErrorName::ALL.iter().any(|known| known.as_str() == name);
        assert!(raised || OF_THE_PLATFORM.contains(&&*name), "nobody raises {name}");
    }
}
