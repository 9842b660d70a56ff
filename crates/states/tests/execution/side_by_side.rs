//! Parallel and Map.

use archweld_states::Input;
use serde_json::{Value, json};

use crate::machine::{Machine, seconds};

fn invoke(name: &str) -> Value {
    json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": name}, "End": true
    })
}

fn workflow(name: &str, state: Value) -> Value {
    json!({"StartAt": name, "States": {name: state}})
}

fn machine(name: &str, mut state: Value) -> Value {
    if state.get("Next").is_none() {
        state["End"] = json!(true);
    }
    let mut definition = workflow(name, state);
    definition["QueryLanguage"] = json!("JSONata");
    definition
}

fn parallel(branches: Value) -> Value {
    json!({"Type": "Parallel", "Branches": branches})
}

/// A map over the input's `items` that runs a function for each.
fn map(fields: Value) -> Value {
    let mut state = json!({
        "Type": "Map",
        "Items": "{% $states.input.items %}",
        "ItemProcessor": workflow("Each", json!({
            "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": "each", "Payload": "{% $states.input %}"},
            "Output": "{% $states.result.Payload %}",
            "End": true
        }))
    });
    for (key, value) in fields.as_object().unwrap() {
        state[key] = value.clone();
    }
    machine("Map", state)
}

#[test]
fn branches_run_side_by_side_and_their_outputs_keep_their_order() {
    let branches = json!([workflow("A", invoke("a")), workflow("B", invoke("b"))]);
    let mut state = parallel(branches);
    state["Output"] = json!({"both": "{% $states.result %}"});
    let mut machine = Machine::start(machine("Both", state), json!({}));
    assert_eq!(machine.tasks.len(), 2);
    let b = machine.take("/FunctionName", "b");
    machine.succeed(b.task, json!("B"));
    let a = machine.take("/FunctionName", "a");
    machine.succeed(a.task, json!("A"));
    assert_eq!(machine.output(), &json!({"both": ["A", "B"]}));
    assert_eq!(
        machine.history(),
        [
            "0 < 1 ExecutionStarted",
            "0 < 2 ParallelStateEntered",
            "2 < 3 ParallelStateStarted",
            "3 < 4 TaskStateEntered",
            "3 < 5 TaskStateEntered",
            "4 < 6 TaskScheduled",
            "5 < 7 TaskScheduled",
            "7 < 8 TaskSucceeded",
            "8 < 9 TaskStateExited",
            "6 < 10 TaskSucceeded",
            "10 < 11 TaskStateExited",
            "11 < 12 ParallelStateSucceeded",
            "11 < 13 ParallelStateExited",
            "13 < 14 ExecutionSucceeded",
        ]
    );
}

/// AWS recorded these four, in JSONPath.
#[test]
fn histories_of_parallel_states_are_as_recorded() {
    let pass = |name| workflow(name, json!({"Type": "Pass", "End": true}));
    let four = Machine::start(
        machine("P", parallel(json!([pass("B0"), pass("B1"), pass("B2"), pass("B3")]))),
        json!({}),
    );
    assert_eq!(four.history()[12..], ["11 < 13 ParallelStateExited", "13 < 14 ExecutionSucceeded"]);
    assert_eq!(four.types()[3..7], ["PassStateEntered"; 4]);
    assert_eq!(four.types()[7..11], ["PassStateExited"; 4]);

    let mut inner = parallel(json!([pass("B")]));
    inner["End"] = json!(true);
    let nested = Machine::start(
        machine("L1", parallel(json!([workflow("L2", inner)]))),
        json!([[1, 2, 3], [4, 5, 6]]),
    );
    assert_eq!(nested.output(), &json!([[[[1, 2, 3], [4, 5, 6]]]]));
    assert_eq!(nested.history()[4], "4 < 5 ParallelStateStarted");
    assert_eq!(
        nested.history()[10..],
        ["9 < 11 ParallelStateExited", "11 < 12 ExecutionSucceeded"]
    );

    let fail = json!([workflow("B", json!({"Type": "Fail", "Error": "E"}))]);
    let failed = Machine::start(machine("P", parallel(fail.clone())), json!({}));
    assert_eq!(
        failed.history()[2..],
        [
            "2 < 3 ParallelStateStarted",
            "3 < 4 FailStateEntered",
            "4 < 5 ParallelStateFailed",
            "5 < 6 ExecutionFailed"
        ]
    );

    let mut state = parallel(fail);
    state["Retry"] = json!([{"ErrorEquals": ["E"], "MaxAttempts": 2}]);
    let mut retried = Machine::start(machine("P", state), json!({}));
    assert_eq!(retried.fire(), seconds(1));
    assert_eq!(retried.fire(), seconds(2));
    assert_eq!(
        retried.history()[2..],
        [
            "2 < 3 ParallelStateStarted",
            "3 < 4 FailStateEntered",
            "4 < 5 ParallelStateStarted",
            "5 < 6 FailStateEntered",
            "6 < 7 ParallelStateStarted",
            "7 < 8 FailStateEntered",
            "8 < 9 ParallelStateFailed",
            "9 < 10 ExecutionFailed"
        ]
    );
}

/// AWS recorded these two, in JSONPath.
#[test]
fn histories_of_failing_map_states_are_as_recorded() {
    let state = |handlers: Value| {
        let mut state = json!({
            "Type": "Map", "MaxConcurrency": 1, "Items": [1],
            "ItemProcessor":
                workflow("Item", json!({"Type": "Fail", "Error": "E", "Cause": "C"}))
        });
        for (key, value) in handlers.as_object().unwrap() {
            state[key] = value.clone();
        }
        machine("Map", state)
    };
    let retry = json!({"Retry": [
        {"ErrorEquals": ["Other"], "MaxAttempts": 1},
        {"ErrorEquals": ["E"], "MaxAttempts": 1}
    ]});
    let mut retried = Machine::start(state(retry), json!({}));
    retried.fire();
    assert_eq!(
        retried.history()[2..],
        [
            "2 < 3 MapStateStarted",
            "3 < 4 MapIterationStarted",
            "4 < 5 FailStateEntered",
            "5 < 6 MapIterationFailed",
            "5 < 7 MapStateStarted",
            "7 < 8 MapIterationStarted",
            "8 < 9 FailStateEntered",
            "9 < 10 MapIterationFailed",
            "9 < 11 MapStateFailed",
            "11 < 12 ExecutionFailed"
        ]
    );

    let mut definition = state(json!({"Catch": [{"ErrorEquals": ["E"], "Next": "Caught"}]}));
    definition["States"]["Caught"] = json!({"Type": "Pass", "End": true});
    let caught = Machine::start(definition, json!({}));
    assert_eq!(
        caught.history()[5..8],
        ["5 < 6 MapIterationFailed", "5 < 7 MapStateFailed", "7 < 8 MapStateExited"]
    );
    assert_eq!(caught.output(), &json!({"Error": "E", "Cause": "C"}));
}

#[test]
fn a_failing_branch_stops_its_siblings() {
    let long = json!({"Type": "Wait", "Seconds": 500, "End": true});
    let mut inner = parallel(json!([workflow("Deep", invoke("deep"))]));
    inner["End"] = json!(true);
    let mut state = parallel(json!([
        workflow("Sibling", invoke("sibling")),
        workflow("Failing", invoke("failing")),
        workflow("Long", long),
        workflow("Inner", inner),
    ]));
    state["Catch"] = json!([{"ErrorEquals": ["Broken"], "Next": "Caught"}]);
    let mut definition = machine("All", state);
    definition["States"]["Caught"] = json!({"Type": "Pass", "End": true});
    let mut machine = Machine::start(definition, json!({}));
    let failing = machine.take("/FunctionName", "failing");
    let sibling = machine.take("/FunctionName", "sibling");
    let deep = machine.take("/FunctionName", "deep");
    let before = machine.events.len();
    machine.fail(failing.task, "Broken");

    assert_eq!(machine.cancelled, [sibling.task, deep.task]);
    assert!(machine.timers.is_empty());
    assert_eq!(
        machine.types()[before..],
        [
            "TaskFailed",
            "TaskStateAborted",
            "WaitStateAborted",
            "TaskStateAborted",
            "ParallelStateAborted",
            "ParallelStateFailed",
            "ParallelStateExited",
            "PassStateEntered",
            "PassStateExited",
            "ExecutionSucceeded"
        ]
    );
    assert_eq!(machine.output()["Error"], "Broken");
    assert_eq!(machine.succeed(sibling.task, json!(1)), 0);
    assert_eq!(machine.succeed(deep.task, json!(1)), 0);
}

#[test]
fn an_iteration_that_catches_its_error_stops_nothing() {
    let mut definition = map(json!({}));
    let processor = &mut definition["States"]["Map"]["ItemProcessor"]["States"];
    processor["Each"]["Catch"] = json!([{"ErrorEquals": ["States.ALL"], "Next": "Failed"}]);
    processor["Failed"] = json!({"Type": "Pass", "Output": "failed", "End": true});
    let mut machine = Machine::start(definition, json!({"items": [1, 2]}));
    let second = machine.take("/Payload", 2);
    machine.fail(second.task, "Broken");
    let first = machine.take("/Payload", 1);
    machine.succeed(first.task, json!({"Payload": "fine"}));
    assert_eq!(machine.output(), &json!(["fine", "failed"]));
}

#[test]
fn a_failing_iteration_stops_the_others_and_starts_no_more() {
    let definition = map(json!({"MaxConcurrency": 2}));
    let mut machine = Machine::start(definition, json!({"items": [1, 2, 3, 4]}));
    let first = machine.take("/Payload", 1);
    let second = machine.take("/Payload", 2);
    let before = machine.events.len();
    machine.fail(second.task, "Broken");
    assert_eq!(machine.cancelled, [first.task]);
    assert!(machine.tasks.is_empty());
    assert_eq!(
        machine.types()[before..],
        [
            "TaskFailed",
            "MapIterationFailed",
            "TaskStateAborted",
            "MapIterationAborted",
            "MapStateFailed",
            "ExecutionFailed"
        ]
    );
    assert_eq!(machine.details("MapIterationAborted")["index"], 0);
    assert_eq!(machine.details("MapIterationFailed")["index"], 1);
    assert_eq!(machine.failure().0, "Broken");
}

#[test]
fn no_more_iterations_run_at_once_than_allowed() {
    let definition = map(json!({"MaxConcurrency": "{% $states.input.limit %}"}));
    let mut machine = Machine::start(definition, json!({"items": [1, 2, 3, 4, 5], "limit": 2}));
    let mut most = 0;
    for _ in 0..5 {
        most = most.max(machine.tasks.len());
        // The newest first, so that results come in out of order.
        let task = machine.tasks.pop().unwrap();
        let output = json!({"Payload": task.arguments["Payload"]});
        machine.succeed(task.task, output);
    }
    assert_eq!(most, 2);
    assert_eq!(machine.output(), &json!([1, 2, 3, 4, 5]));
}

#[test]
fn all_iterations_run_at_once_when_there_is_no_limit() {
    for limit in [json!({}), json!({"MaxConcurrency": 0})] {
        let machine = Machine::start(map(limit), json!({"items": [1, 2, 3, 4, 5]}));
        assert_eq!(machine.tasks.len(), 5);
    }
}

#[test]
fn a_map_retries_as_a_whole() {
    let definition = map(json!({"Retry": [{"ErrorEquals": ["Broken"], "IntervalSeconds": 9}]}));
    let mut machine = Machine::start(definition, json!({"items": [1, 2]}));
    let first = machine.take("/Payload", 1);
    machine.succeed(first.task, json!({"Payload": 1}));
    let second = machine.take("/Payload", 2);
    machine.fail(second.task, "Broken");
    assert!(machine.tasks.is_empty());
    assert_eq!(machine.fire(), seconds(9));
    for item in [1, 2] {
        let task = machine.take("/Payload", item);
        machine.succeed(task.task, json!({"Payload": item}));
    }
    assert_eq!(machine.output(), &json!([1, 2]));
}

#[test]
fn a_selector_that_fails_stops_what_has_started() {
    let selector = "{% $states.context.Map.Item.Value.n * 2 %}";
    let definition = map(json!({"ItemSelector": selector}));
    let items = json!({"items": [{"n": 1}, {"n": "x"}]});
    let machine = Machine::start(definition, items);
    assert_eq!(machine.failure().0, "States.QueryEvaluationError");
    assert_eq!(machine.details("EvaluationFailed")["location"], "ItemSelector");
    assert_eq!(machine.types().iter().filter(|kind| **kind == "MapStateFailed").count(), 1);
}

#[test]
fn maps_nest_and_each_sees_its_own_item() {
    let mut inner = map(json!({}))["States"]["Map"].clone();
    inner["End"] = json!(true);
    inner["Items"] = json!("{% $states.input %}");
    inner["ItemProcessor"]["States"]["Each"]["Arguments"]["Payload"] = json!(
        {"index": "{% $states.context.Map.Item.Index %}", "value": "{% $states.context.Map.Item.Value %}"}
    );
    inner["ItemProcessor"]["States"]["Each"]["Output"] = json!("{% $states.result %}");
    let outer = json!({
        "Type": "Map", "Items": [[10, 20], [30]], "ItemProcessor": workflow("Inner", inner)
    });
    let mut machine = Machine::start(machine("Outer", outer), json!({}));
    assert_eq!(machine.tasks.len(), 3);
    let path: Vec<_> = machine.execution.current_states();
    assert_eq!(path[0].name, "Outer");
    let leaf = path.iter().find(|state| state.task == Some(machine.tasks[2].task)).unwrap();
    assert_eq!(leaf.name, "Each");
    assert_eq!(leaf.path, [("Outer".to_owned(), 1), ("Inner".to_owned(), 0)]);
    for (index, value) in [(1, 20), (0, 30), (0, 10)] {
        let task = machine.take("/Payload/value", value);
        assert_eq!(task.arguments["Payload"]["index"], index);
        machine.succeed(task.task, json!(value + 1));
    }
    assert_eq!(machine.output(), &json!([[11, 21], [31]]));
}

#[test]
fn a_branch_that_ends_at_once_waits_for_the_others() {
    let branches = json!([
        workflow("Quick", json!({"Type": "Pass", "Output": 1, "End": true})),
        workflow("Slow", invoke("slow"))
    ]);
    let mut machine = Machine::start(machine("Both", parallel(branches)), json!({}));
    let task = machine.only();
    machine.step(Input::TaskStarted { task: task.task });
    machine.succeed(task.task, json!(2));
    assert_eq!(machine.output(), &json!([1, 2]));
}

#[test]
fn branches_get_the_arguments() {
    let mut state = parallel(json!([workflow("A", json!({"Type": "Pass", "End": true}))]));
    state["Arguments"] = json!({"a": "{% $states.input.b %}"});
    let machine = Machine::start(machine("P", state), json!({"b": 1}));
    assert_eq!(machine.output(), &json!([{"a": 1}]));
}
