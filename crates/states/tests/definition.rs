//! What is refused when a definition is loaded, and how the refusal reads.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic, too")]

use archweld_states::{Definition, Quantity, Resource, StateKind};
use serde_json::{Value, json};

fn problems(definition: &Value) -> Vec<String> {
    text_problems(&definition.to_string())
}

fn text_problems(text: &str) -> Vec<String> {
    match Definition::parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// A machine of one JSONata state named `S`, with the fields of `fields` over those of a Pass.
fn one(fields: Value) -> Value {
    let mut state = json!({"Type": "Pass", "End": true});
    for (key, value) in fields.as_object().unwrap() {
        if value.is_null() {
            state.as_object_mut().unwrap().remove(key);
        } else {
            state[key] = value.clone();
        }
    }
    json!({"QueryLanguage": "JSONata", "StartAt": "S", "States": {"S": state}})
}

fn task(fields: Value) -> Value {
    let mut all = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "f"}
    });
    for (key, value) in fields.as_object().unwrap() {
        all[key] = value.clone();
    }
    one(all)
}

#[track_caller]
fn refuses(definition: &Value, expected: &[&str]) {
    assert_eq!(problems(definition), expected);
}

#[test]
fn refuses_what_is_not_json_with_its_position() {
    let text = "{\n  \"StartAt\": \"S\",\n  \"States\": {,}\n}";
    assert_eq!(text_problems(text), ["not valid JSON at line 3, column 14: key must be a string"]);
}

#[test]
fn refuses_two_states_of_one_name_in_one_object() {
    let text = r#"{"StartAt": "S", "States": {"S": {}, "S": {}}}"#;
    assert_eq!(
        text_problems(text),
        ["not valid JSON at line 1, column 40: the key \"S\" stands twice"]
    );
}

#[test]
fn reports_every_problem() {
    let definition = json!({
        "QueryLanguage": "JSONata", "StartAt": "Nowhere", "Timeout": 5,
        "States": {
            "A": {"Type": "Pass", "Next": "B", "Outptu": 1},
            "B": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": true},
            "C": {"Type": "Poss", "End": true}
        }
    });
    refuses(
        &definition,
        &[
            "state \"A\": Outptu: unknown field",
            "state \"B\": Resource: not supported: the resource \"arn:aws:states:::sqs:sendMessage\"; \
             lambda:invoke, a Lambda function's ARN and events:putEvents are",
            "state \"C\": Type: expected a type of state, found \"Poss\"",
            "StartAt: no state \"Nowhere\" here",
            "Timeout: unknown field",
        ],
    );
}

#[test]
fn refuses_transitions_that_lead_nowhere() {
    refuses(&one(json!({"End": null, "Next": "T"})), &["state \"S\": Next: no state \"T\" here"]);
    refuses(&one(json!({"End": null})), &["state \"S\": Next: missing"]);
    refuses(&one(json!({"End": false})), &["state \"S\": End: expected true, found false"]);
    let mut both = one(json!({"Next": "T"}));
    both["States"]["T"] = json!({"Type": "Succeed"});
    refuses(&both, &["state \"S\": End: cannot stand beside Next"]);
}

#[test]
fn refuses_states_that_nothing_leads_to_and_workflows_that_never_end() {
    let definition = json!({
        "QueryLanguage": "JSONata", "StartAt": "A",
        "States": {
            "A": {"Type": "Pass", "Next": "B"},
            "B": {"Type": "Pass", "Next": "A"},
            "C": {"Type": "Pass", "End": true}
        }
    });
    refuses(
        &definition,
        &[
            "state \"C\": no transition leads to this state",
            "state \"A\": no state here ends the workflow",
        ],
    );
}

#[test]
fn refuses_a_name_that_stands_in_a_branch_too() {
    let branch = json!({"StartAt": "S", "States": {"S": {"Type": "Pass", "End": true}}});
    refuses(
        &one(json!({"Type": "Parallel", "Branches": [branch]})),
        &["state \"S\": another state has the same name"],
    );
}

#[test]
fn refuses_jsonpath_where_a_path_cannot_stand() {
    refuses(
        &one(json!({"InputPath": "$.a"})),
        &["state \"S\": InputPath: unknown field (it is JSONPath's, and this state is in JSONata)"],
    );
    refuses(
        &one(json!({"QueryLanguage": "JSONPath"})),
        &["state \"S\": QueryLanguage: not supported: a JSONPath state in a JSONata state machine"],
    );
    let mut path = one(json!({"InputPath": "$.a"}));
    path.as_object_mut().unwrap().remove("QueryLanguage");
    refuses(&path, &["state \"S\": InputPath: not supported: this field of JSONPath"]);
    path["States"]["S"] = json!({"Type": "Pass", "Parameters": {"a.$": "$..b"}, "End": true});
    refuses(
        &path,
        &[
            "state \"S\": Parameters/a.$: not supported: \"$..b\"; a JSONPath has to be a reference \
           path such as $.a.b[0]",
        ],
    );
    path["States"]["S"] =
        json!({"Type": "Pass", "Parameters": {"a.$": "States.UUID()"}, "End": true});
    assert_eq!(problems(&path).len(), 1);
    for kind in ["Choice", "Map", "Parallel"] {
        path["States"]["S"] = json!({"Type": kind, "End": true});
        let expected = format!(
            "state \"S\": QueryLanguage: not supported: a {kind} state in JSONPath; it needs \
             QueryLanguage \"JSONata\""
        );
        refuses(&path, &[&expected]);
    }
    path["States"]["S"] = json!({"Type": "Wait", "SecondsPath": "$.a", "Seconds": 1, "End": true});
    refuses(&path, &["state \"S\": SecondsPath: not supported: this field of JSONPath"]);
}

#[test]
fn refuses_a_distributed_map() {
    let processor = json!({
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "I", "States": {"I": {"Type": "Pass", "End": true}}
    });
    refuses(
        &one(json!({"Type": "Map", "ItemProcessor": processor, "ItemReader": {}})),
        &[
            "state \"S\": ItemProcessor/ProcessorConfig/Mode: not supported: a distributed Map",
            "state \"S\": ItemProcessor/ProcessorConfig/ExecutionType: not supported: a \
             distributed Map",
            "state \"S\": ItemReader: not supported: a distributed Map",
        ],
    );
}

#[test]
fn refuses_expressions_that_do_not_parse() {
    let found = problems(&one(json!({"Output": {"a": ["{% 1 + %}"]}})));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("state \"S\": Output/a[0]: bad JSONata expression: "),
        "{found:?}"
    );
    for half in ["{% 1", "1 %}"] {
        refuses(
            &one(json!({"Output": half})),
            &[
                "state \"S\": Output: bad JSONata expression: it must begin with {% and end with %}, \
               nothing before or after",
            ],
        );
    }
    assert_eq!(problems(&one(json!({"Output": " {% 1 %} "}))), [""; 0]);
}

#[test]
fn refuses_eval_in_any_disguise() {
    for expression in [
        "$eval('1')",
        "($e := $eval; $e('1'))",
        "$map(['1'], $eval)",
        "'1' ~> $eval",
        "{'a': [1, function($x){ $x ? $eval($x) : 0 }]}",
        "$states.input[$eval('true')].a",
        "$states.input.a^($eval('a'))",
    ] {
        refuses(
            &one(json!({"Output": format!("{{% {expression} %}}")})),
            &["state \"S\": Output: bad JSONata expression: $eval is not supported"],
        );
    }
}

#[test]
fn refuses_parts_of_states_that_are_not_there() {
    let error = |field: &str, problem: &str| {
        format!("state \"S\": {field}: bad JSONata expression: {problem}")
    };
    for (definition, expected) in [
        (
            one(json!({"Output": "{% $states.inptu.a %}"})),
            error("Output", "$states has no field \"inptu\""),
        ),
        (
            one(json!({"Output": "{% $states.result %}"})),
            error("Output", "$states.result is not available in this field"),
        ),
        (
            task(json!({"Arguments": {"FunctionName": "{% $states.result.a %}"}})),
            error("Arguments/FunctionName", "$states.result is not available in this field"),
        ),
        (
            task(json!({"Assign": {"a": "{% $states.errorOutput.Error %}"}})),
            error("Assign/a", "$states.errorOutput is not available in this field"),
        ),
    ] {
        assert_eq!(problems(&definition), [expected]);
    }
    assert_eq!(problems(&task(json!({"Output": "{% $states.result %}"}))), [""; 0]);
}

#[test]
fn refuses_variables_that_hide_others_or_are_no_names() {
    let inner = json!({"Type": "Pass", "Assign": {"a": 1, "b": 1}, "End": true});
    refuses(
        &one(json!({
            "Type": "Map", "Assign": {"a": 1},
            "ItemProcessor": {"StartAt": "I", "States": {"I": inner}}
        })),
        &["state \"I\": Assign: the variable \"a\" is assigned in an outer scope, too"],
    );
    for name in ["states", "1a", "a.b", ""] {
        let found = problems(&one(json!({"Assign": {name: 1}})));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
    }
}

#[test]
fn refuses_error_names_in_the_wrong_place() {
    refuses(
        &task(json!({"Retry": [
            {"ErrorEquals": ["States.ALL"]},
            {"ErrorEquals": ["A", "States.Timeot"], "MaxAttempt": 1}
        ]})),
        &[
            "state \"S\": Retry[0]/ErrorEquals: expected \"States.ALL\" alone and in the last \
             element, found \"States.ALL\"",
            "state \"S\": Retry[1]/ErrorEquals[1]: expected a name that the platform defines, \
             found \"States.Timeot\"",
            "state \"S\": Retry[1]/MaxAttempt: unknown field",
        ],
    );
    refuses(
        &task(json!({"Catch": [{"ErrorEquals": ["A", "States.ALL"], "Next": "S"}]})),
        &["state \"S\": Catch[0]/ErrorEquals: expected \"States.ALL\" alone and in the last \
           element, found \"States.ALL\""],
    );
    refuses(
        &task(json!({"Catch": [{"ErrorEquals": [], "Next": "T"}]})),
        &[
            "state \"S\": Catch[0]/ErrorEquals: expected at least one name, found an array",
            "state \"S\": Catch[0]/Next: no state \"T\" here",
        ],
    );
}

#[test]
fn refuses_numbers_out_of_range() {
    refuses(
        &task(json!({
            "TimeoutSeconds": 10, "HeartbeatSeconds": 10,
            "Retry": [{
                "ErrorEquals": ["A"], "IntervalSeconds": 0, "BackoffRate": 0.5,
                "MaxAttempts": -1, "MaxDelaySeconds": "9", "JitterStrategy": "SOME"
            }]
        })),
        &[
            "state \"S\": HeartbeatSeconds: expected fewer than the 10 of TimeoutSeconds, found 10",
            "state \"S\": Retry[0]/IntervalSeconds: expected a whole number from 1 to 99999999, \
             found 0",
            "state \"S\": Retry[0]/MaxAttempts: expected a whole number from 0 to 99999999, \
             found -1",
            "state \"S\": Retry[0]/BackoffRate: expected a number of at least 1.0, found 0.5",
            "state \"S\": Retry[0]/MaxDelaySeconds: expected a whole number from 1 to 31622400, \
             found \"9\"",
            "state \"S\": Retry[0]/JitterStrategy: expected \"FULL\" or \"NONE\", found \"SOME\"",
        ],
    );
}

#[test]
fn refuses_arguments_that_the_service_does_not_take() {
    refuses(
        &task(json!({"Arguments": {"Function": "f"}})),
        &[
            "state \"S\": Arguments/FunctionName: missing",
            "state \"S\": Arguments/Function: unknown field",
        ],
    );
    refuses(
        &task(json!({"Resource": "arn:aws:states:::events:putEvents", "Arguments": {}})),
        &["state \"S\": Arguments/Entries: missing"],
    );
    assert_eq!(problems(&task(json!({"Arguments": "{% $states.input %}"}))), [""; 0]);
}

#[test]
fn refuses_other_resources() {
    for resource in [
        "arn:aws:states:::lambda:invoke.sync",
        "arn:aws:states:::events:putEvents.waitForTaskToken",
        "arn:aws:states:::aws-sdk:ecr:putImage",
        "arn:aws:states:::codebuild:startBuild.sync",
        "arn:aws:states:eu-west-1:1:activity:a",
        "arn:aws:lambda:eu-west-1:1:layer:a",
        "lambda:invoke",
        "",
    ] {
        let found = problems(&task(json!({"Resource": resource})));
        assert_eq!(found.len(), 1, "{resource}: {found:?}");
        assert!(found[0].starts_with("state \"S\": Resource: not supported"), "{found:?}");
    }
}

#[test]
fn refuses_choices_and_waits_that_are_incomplete() {
    refuses(
        &one(json!({"Type": "Choice", "End": null, "Choices": [
            {"Condition": "true", "Next": "S"}, {"Variable": "$.a", "Next": "S"}
        ]})),
        &[
            "state \"S\": Choices[0]/Condition: expected a JSONata expression, {% … %}, found \
             \"true\"",
            "state \"S\": Choices[1]/Condition: missing",
            "state \"S\": Choices[1]/Variable: unknown field (it is JSONPath's, and this state \
             is in JSONata)",
        ],
    );
    refuses(&one(json!({"Type": "Wait"})), &["state \"S\": Seconds: missing"]);
    refuses(
        &one(json!({"Type": "Wait", "Seconds": 1, "Timestamp": "2026-01-01T00:00:00Z"})),
        &["state \"S\": Timestamp: cannot stand beside Seconds"],
    );
}

#[test]
fn never_panics_on_values_of_wrong_types() {
    let whole = task(json!({
        "TimeoutSeconds": 1, "Retry": [{"ErrorEquals": ["A"]}], "Assign": {"a": 1},
        "Catch": [{"ErrorEquals": ["A"], "Next": "S"}], "Comment": "c", "Output": 1
    }));
    let wrong = [json!(null), json!(true), json!(-1.5), json!("x"), json!([1]), json!({"x": 1})];
    let mut pointers = vec![String::new()];
    let mut seen = 0;
    while let Some(pointer) = pointers.pop() {
        let below: Vec<String> = match whole.pointer(&pointer).unwrap() {
            Value::Object(entries) => entries.keys().cloned().collect(),
            Value::Array(elements) => (0..elements.len()).map(|index| index.to_string()).collect(),
            _ => Vec::new(),
        };
        pointers.extend(below.iter().map(|key| format!("{pointer}/{key}")));
        for value in &wrong {
            let mut definition = whole.clone();
            *definition.pointer_mut(&pointer).unwrap() = value.clone();
            seen += 1;
            problems(&definition);
        }
    }
    assert!(seen > 100);
}

#[test]
fn tells_a_validator_what_it_needs() {
    let mut definition = task(json!({
        "TimeoutSeconds": 60, "Retry": [{"ErrorEquals": ["Build.Capacity"], "MaxAttempts": 5}],
        "Catch": [{"ErrorEquals": ["Build.Failed", "States.Timeout"], "Next": "Failed"}]
    }));
    definition["States"]["Failed"] = json!({"Type": "Fail"});
    definition["TimeoutSeconds"] = json!(3600);
    let definition = Definition::parse(&definition.to_string()).unwrap();
    assert_eq!(definition.timeout_seconds(), Some(3600));
    let names: Vec<_> = definition.states().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["S", "Failed"]);
    let errors: Vec<_> = definition.error_names().map(|(_, name)| name).collect();
    assert_eq!(errors, ["Build.Capacity", "Build.Failed", "States.Timeout"]);
    let (state, task) = definition.tasks().next().unwrap();
    assert_eq!((state.name.as_str(), &task.resource), ("S", &Resource::LambdaInvoke));
    assert!(matches!(task.timeout_seconds, Some(Quantity::Literal(60))));
    assert_eq!(task.handlers.retry[0].max_attempts, 5);
    assert!(matches!(definition.states().last().unwrap().kind, StateKind::Fail { .. }));
    assert_eq!(definition.workflow(definition.top()).states.len(), 2);
}
