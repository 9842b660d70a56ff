//! Variables, the context object, and what functions of the expressions give.

use serde_json::{Value, json};

use crate::machine::{EXECUTION_ARN, Machine, parse, start};

/// The output of a Pass state.
fn output(template: Value, input: Value) -> Value {
    let state = json!({"Type": "Pass", "Output": template, "End": true});
    let definition = json!({"QueryLanguage": "JSONata", "StartAt": "P", "States": {"P": state}});
    Machine::start(definition, input).output().clone()
}

#[test]
fn variables_are_read_as_they_were_and_reach_inner_scopes_only() {
    let definition = json!({
        "QueryLanguage": "JSONata", "StartAt": "Set",
        "States": {
            "Set": {"Type": "Pass", "Assign": {"a": 1}, "Next": "Swap"},
            "Swap": {
                "Type": "Pass", "Assign": {"a": 2, "old": "{% $a %}"},
                "Output": "{% $a %}", "Next": "Map"
            },
            "Map": {
                "Type": "Map", "Items": [1, 2],
                "ItemProcessor": {"StartAt": "Inner", "States": {
                    "Inner": {
                        "Type": "Pass", "Assign": {"inner": "{% $a + $old %}"}, "Next": "Read"
                    },
                    "Read": {"Type": "Pass", "Output": "{% $inner %}", "End": true}
                }},
                "Assign": {"results": "{% $states.result %}"},
                "Output": "{% $states.input %}",
                "Next": "End"
            },
            "End": {"Type": "Succeed", "Output": {
                "input": "{% $states.input %}", "results": "{% $results %}",
                "leaked": "{% $exists($inner) %}"
            }}
        }
    });
    let machine = Machine::start(definition, json!({}));
    assert_eq!(machine.output(), &json!({"input": 1, "results": [3, 3], "leaked": false}));
}

#[test]
fn the_context_object_says_where_it_is() {
    let definition = json!({
        "QueryLanguage": "JSONata", "StartAt": "Work",
        "States": {"Work": {
            "Type": "Task", "Resource": "arn:aws:lambda:eu-west-1:1:function:work",
            "Arguments": "{% $states.context %}", "End": true
        }}
    });
    let mut machine = Machine::start(definition, json!({"a": 1}));
    assert_eq!(
        machine.only().arguments,
        json!({
            "Execution": {
                "Id": EXECUTION_ARN, "Input": {"a": 1}, "Name": "name",
                "RoleArn": "arn:aws:iam::111111111111:role/machine",
                "StartTime": "2026-11-23T12:00:00.000Z", "RedriveCount": 0
            },
            "StateMachine": {
                "Id": "arn:aws:states:eu-west-1:111111111111:stateMachine:machine",
                "Name": "machine"
            },
            "State": {
                "EnteredTime": "2026-11-23T12:00:00.000Z", "Name": "Work", "RetryCount": 0
            }
        })
    );
}

#[test]
fn outputs_keep_the_order_of_their_keys_and_integers() {
    let template = json!({"z": 1, "a": "{% {'y': 2, 'b': 4 / 2} %}", "m": "{% 0.5 + 1 %}"});
    let output = output(template, json!({}));
    assert_eq!(output.to_string(), r#"{"z":1,"a":{"y":2,"b":2},"m":1.5}"#);
}

#[test]
fn time_is_the_interpreter_s() {
    let template = json!(["{% $now() %}", "{% $millis() %}", "{% $now('[Y0001]') %}"]);
    assert_eq!(
        output(template, json!({})),
        json!(["2026-11-23T12:00:00.000Z", 1_795_435_200_000_i64, "2026"])
    );
}

#[test]
fn the_same_seed_and_inputs_give_the_same_effects() {
    let definition = parse(&json!({
        "QueryLanguage": "JSONata", "StartAt": "Work",
        "States": {"Work": {
            "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
            "Arguments": {"FunctionName": "f", "Payload": {
                "token": "{% $states.context.Task.Token %}",
                "uuid": "{% $uuid() %}", "random": "{% $random() %}"
            }},
            "Retry": [{"ErrorEquals": ["States.ALL"], "JitterStrategy": "FULL"}],
            "End": true
        }}
    }));
    let run = |seed| {
        let mut start = start(json!({}));
        start.seed = seed;
        let mut machine = Machine::with(definition.clone(), start);
        let task = machine.only();
        machine.fail(task.task, "A");
        machine.fire();
        machine.effects
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn jsonpath_pass_and_task_states_stand_beside_jsonata() {
    let definition = json!({
        "StartAt": "Path",
        "States": {
            "Path": {
                "Type": "Pass", "Parameters": {"list": [{"x.$": "$.a[1]"}], "id.$": "$$.Execution.Name"},
                "ResultPath": "$.made.here", "Assign": {"v.$": "$.list", "c": 1}, "Next": "Task"
            },
            "Task": {
                "Type": "Task", "Resource": "arn:aws:lambda:eu-west-1:1:function:work",
                "Parameters": {"v.$": "$v"}, "ResultPath": null, "OutputPath": "$.made",
                "Next": "Ata"
            },
            "Ata": {"Type": "Succeed", "QueryLanguage": "JSONata", "Output": [
                "{% $states.input %}", "{% $c %}"
            ]}
        }
    });
    let mut machine = Machine::start(definition, json!({"a": [1, 2]}));
    let task = machine.only();
    assert_eq!(task.arguments, json!({"v": [{"x": 2}]}));
    machine.succeed(task.task, json!("dropped"));
    assert_eq!(machine.output(), &json!([{"here": {"list": [{"x": 2}], "id": "name"}}, 1]));
}

#[test]
fn a_path_that_names_nothing_fails_as_recorded() {
    let pass = |fields: Value| {
        let mut state = json!({"Type": "Pass", "End": true});
        for (key, value) in fields.as_object().unwrap() {
            state[key] = value.clone();
        }
        Machine::start(json!({"StartAt": "pass", "States": {"pass": state}}), json!({"a": 0}))
    };
    let before =
        "An error occurred while executing the state 'pass' (entered at the event id #2). ";
    let missing = pass(json!({"Parameters": {"value.$": "$.nothing"}}));
    let cause = "The JSONPath '$.nothing' specified for the field 'value.$' could not be found in \
                 the input '{\"a\":0}'";
    assert_eq!(missing.failure(), ("States.Runtime", format!("{before}{cause}").as_str()));
    let missing = pass(json!({"OutputPath": "$.nothing"}));
    let cause = "Invalid path '$.nothing' : No results for path: $['nothing']";
    assert_eq!(missing.failure(), ("States.Runtime", format!("{before}{cause}").as_str()));
    assert_eq!(missing.history()[2], "2 < 3 ExecutionFailed");
}
