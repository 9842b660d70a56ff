//! Executions that ended without success and go on.
//!
//! What AWS recorded is in <https://github.com/radkawar/stackd>,
//! `testdata/aws/stepfunctions/redrive_execution.json`.

use archweld_states::{Input, Outcome};
use serde_json::{Value, json};

use crate::machine::{Machine, seconds};

/// A Task state that gives its function the context object, too.
fn task(name: &str, more: Value) -> Value {
    let mut state = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "Arguments": {"FunctionName": name, "Payload": {
            "input": "{% $states.input %}",
            "context": "{% $states.context %}"
        }}
    });
    for (key, value) in more.as_object().unwrap() {
        state[key] = value.clone();
    }
    if state.get("Next").is_none() {
        state["End"] = json!(true);
    }
    state
}

fn machine(states: Value) -> Value {
    let start_at = states.as_object().unwrap().keys().next().unwrap().clone();
    json!({"QueryLanguage": "JSONata", "StartAt": start_at, "States": states})
}

fn branch(name: &str, more: Value) -> Value {
    json!({"StartAt": name, "States": {name: task(name, more)}})
}

fn stop() -> Input {
    Input::Stop { error: None, cause: None }
}

/// Map over three items, one at a time.
fn map(more: Value) -> Value {
    let mut state = json!({
        "Type": "Map", "Items": ["a", "b", "c"], "MaxConcurrency": 1, "End": true,
        "ItemProcessor": branch("Item", json!({}))
    });
    for (key, value) in more.as_object().unwrap() {
        state[key] = value.clone();
    }
    machine(json!({"Map": state}))
}

/// AWS recorded these events for an activity.
#[test]
fn a_failed_task_runs_again_with_its_input_its_variables_and_all_its_retries() {
    let retry = json!([{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1}]);
    let mut execution = Machine::start(
        machine(json!({
            "Before": task("before", json!({
                "Output": "{% $states.result %}", "Assign": {"kept": "{% $states.result %}"}, "Next": "Work"
            })),
            "Work": task("work", json!({"Retry": retry, "Output": "{% [$kept, $states.result] %}"}))
        })),
        json!({}),
    );
    let before = execution.only();
    execution.succeed(before.task, json!("predecessor"));
    for redrive in 0..3 {
        for attempt in 0..2 {
            let work = execution.only();
            let payload = &work.arguments["Payload"];
            assert_eq!(work.arguments["FunctionName"], "work");
            assert_eq!(payload["input"], "predecessor");
            let context = &payload["context"];
            assert_eq!(context["State"]["RetryCount"], attempt);
            assert_eq!(context["State"]["EnteredTime"], "2026-11-23T12:00:00.000Z");
            assert_eq!(context["Execution"]["StartTime"], "2026-11-23T12:00:00.000Z");
            assert_eq!(context["Execution"]["RedriveCount"], redrive);
            assert_eq!(context["Execution"].get("RedriveTime").is_some(), redrive > 0);
            execution.fail(work.task, "Broken");
            if attempt == 0 {
                execution.fire();
            }
        }
        assert_eq!(execution.failure().0, "Broken");
        execution.now += seconds(60);
        execution.redrive();
    }
    let work = execution.only();
    let redriven = &work.arguments["Payload"]["context"]["Execution"];
    assert_eq!(redriven["RedriveTime"], "2026-11-23T12:03:03.000Z");
    execution.succeed(work.task, json!("at last"));
    assert_eq!(execution.output(), &json!(["predecessor", "at last"]));
    assert_eq!(
        execution.history()[4..],
        [
            "4 < 5 TaskStateExited",
            "5 < 6 TaskStateEntered",
            "6 < 7 TaskScheduled",
            "7 < 8 TaskFailed",
            "8 < 9 TaskScheduled",
            "9 < 10 TaskFailed",
            "10 < 11 ExecutionFailed",
            "11 < 12 ExecutionRedriven",
            "6 < 13 TaskScheduled",
            "13 < 14 TaskFailed",
            "14 < 15 TaskScheduled",
            "15 < 16 TaskFailed",
            "16 < 17 ExecutionFailed",
            "17 < 18 ExecutionRedriven",
            "6 < 19 TaskScheduled",
            "19 < 20 TaskFailed",
            "20 < 21 TaskScheduled",
            "21 < 22 TaskFailed",
            "22 < 23 ExecutionFailed",
            "23 < 24 ExecutionRedriven",
            "6 < 25 TaskScheduled",
            "25 < 26 TaskSucceeded",
            "26 < 27 TaskStateExited",
            "27 < 28 ExecutionSucceeded",
        ]
    );
}

/// AWS recorded these events for activities.
#[test]
fn branches_that_failed_or_were_stopped_run_again_and_those_that_succeeded_do_not() {
    let branches = json!([
        branch("succeeded", json!({})),
        branch("failed", json!({})),
        branch("stopped", json!({}))
    ]);
    let parallel = json!({"Type": "Parallel", "Branches": branches, "End": true});
    let mut execution = Machine::start(machine(json!({"All": parallel})), json!({}));
    let succeeded = execution.take("/FunctionName", "succeeded");
    execution.succeed(succeeded.task, json!("kept"));
    let failed = execution.take("/FunctionName", "failed");
    execution.fail(failed.task, "Broken");
    assert_eq!(execution.failure().0, "Broken");
    let before = execution.events.len();
    execution.redrive();
    assert_eq!(execution.tasks.len(), 2);
    for name in ["stopped", "failed"] {
        let task = execution.take("/FunctionName", name);
        execution.succeed(task.task, json!(name));
    }
    assert_eq!(execution.output(), &json!(["kept", "failed", "stopped"]));
    let entered = ["3 < 4 TaskStateEntered", "3 < 5 TaskStateEntered", "3 < 6 TaskStateEntered"];
    assert_eq!(execution.history()[3..6], entered);
    assert_eq!(
        execution.history()[before..],
        [
            "15 < 16 ExecutionRedriven",
            "5 < 17 TaskScheduled",
            "6 < 18 TaskScheduled",
            "18 < 19 TaskSucceeded",
            "19 < 20 TaskStateExited",
            "17 < 21 TaskSucceeded",
            "21 < 22 TaskStateExited",
            "22 < 23 ParallelStateSucceeded",
            "22 < 24 ParallelStateExited",
            "24 < 25 ExecutionSucceeded",
        ]
    );
    assert_eq!(execution.details("ExecutionRedriven")["redriveCount"], 1);
}

/// AWS recorded these events for an activity.
#[test]
fn the_iteration_that_failed_runs_again_and_then_those_that_had_not_begun() {
    let mut execution = Machine::start(map(json!({})), json!({}));
    let first = execution.only();
    execution.succeed(first.task, json!("A"));
    let second = execution.only();
    execution.fail(second.task, "Broken");
    let before = execution.events.len();
    execution.redrive();
    for (item, output) in [("b", "B"), ("c", "C")] {
        let task = execution.only();
        assert_eq!(task.arguments["Payload"]["input"], item);
        assert_eq!(task.arguments["Payload"]["context"]["Map"]["Item"]["Value"], item);
        execution.succeed(task.task, json!(output));
    }
    assert_eq!(execution.output(), &json!(["A", "B", "C"]));
    assert_eq!(execution.history()[10], "10 < 11 TaskStateEntered");
    assert_eq!(
        execution.history()[before..],
        [
            "16 < 17 ExecutionRedriven",
            "11 < 18 TaskScheduled",
            "18 < 19 TaskSucceeded",
            "19 < 20 TaskStateExited",
            "20 < 21 MapIterationSucceeded",
            "20 < 22 MapIterationStarted",
            "22 < 23 TaskStateEntered",
            "23 < 24 TaskScheduled",
            "24 < 25 TaskSucceeded",
            "25 < 26 TaskStateExited",
            "26 < 27 MapIterationSucceeded",
            "27 < 28 MapStateSucceeded",
            "27 < 29 MapStateExited",
            "29 < 30 ExecutionSucceeded",
        ]
    );
}

/// AWS recorded these events for an activity.
#[test]
fn a_stopped_execution_schedules_its_task_again_with_a_token_of_its_own() {
    let definition = machine(json!({"Work": task("work", json!({"HeartbeatSeconds": 9}))}));
    let mut execution = Machine::start(definition, json!({}));
    let first = execution.only();
    execution.step(Input::TaskStarted { task: first.task });
    execution.step(stop());
    assert!(execution.execution.current_states().is_empty());
    execution.redrive();
    let second = execution.only();
    assert_ne!(second.token, first.token);
    assert!(!execution.execution.is_open(first.task));
    assert_eq!(execution.succeed(first.task, json!("late")), 0);
    execution.step(Input::TaskStarted { task: second.task });
    execution.succeed(second.task, json!("in time"));
    assert_eq!(execution.output(), "in time");
    assert_eq!(
        execution.history()[2..],
        [
            "2 < 3 TaskScheduled",
            "3 < 4 TaskStarted",
            "0 < 5 ExecutionAborted",
            "5 < 6 ExecutionRedriven",
            "2 < 7 TaskScheduled",
            "7 < 8 TaskStarted",
            "8 < 9 TaskSucceeded",
            "9 < 10 TaskStateExited",
            "10 < 11 ExecutionSucceeded",
        ]
    );
}

#[test]
fn time_outs_start_anew_the_tasks_and_the_executions() {
    let mut definition = machine(json!({"Work": task("work", json!({"TimeoutSeconds": 60}))}));
    definition["TimeoutSeconds"] = json!(40);
    let mut execution = Machine::start(definition.clone(), json!({}));
    assert_eq!(execution.fire(), seconds(40));
    assert_eq!(execution.outcome, Some(Outcome::TimedOut));
    execution.tasks.clear();
    execution.now += seconds(1000);
    execution.redrive();
    assert_eq!(execution.fire(), seconds(40));
    assert_eq!(execution.outcome, Some(Outcome::TimedOut));
    let types = execution.types();
    assert_eq!(types[4..], ["ExecutionRedriven", "TaskScheduled", "ExecutionTimedOut"]);

    definition["TimeoutSeconds"] = json!(100);
    let mut execution = Machine::start(definition, json!({}));
    for _ in 0..2 {
        assert_eq!(execution.fire(), seconds(60));
        assert_eq!(execution.failure().0, "States.Timeout");
        execution.redrive();
    }
}

/// AWS recorded these events: the documentation's "reenters" is no event.
#[test]
fn a_fail_state_fails_again() {
    let fail = json!({"Type": "Fail", "Error": "E", "Cause": "C"});
    let mut execution = Machine::start(machine(json!({"No": fail})), json!({}));
    execution.redrive();
    assert_eq!(execution.failure(), ("E", "C"));
    assert_eq!(
        execution.history()[1..],
        [
            "0 < 2 FailStateEntered",
            "2 < 3 ExecutionFailed",
            "3 < 4 ExecutionRedriven",
            "4 < 5 ExecutionFailed"
        ]
    );
}

#[test]
fn what_succeeded_or_runs_is_not_redriven() {
    let definition = machine(json!({"Work": task("work", json!({}))}));
    let mut execution = Machine::start(definition, json!({}));
    assert!(!execution.execution.is_redrivable());
    assert_eq!(execution.step(Input::Redrive), 0);
    let work = execution.only();
    execution.succeed(work.task, json!(1));
    assert!(!execution.execution.is_redrivable());
    assert_eq!(execution.step(Input::Redrive), 0);
    assert_eq!(execution.output(), 1);
}

#[test]
fn a_wait_state_waits_again_but_not_for_what_is_past() {
    for (wait, again) in
        [(json!({"Seconds": 100}), Some(100)), (json!({"Timestamp": "2026-11-23T12:05:00Z"}), None)]
    {
        let mut state = json!({"Type": "Wait", "End": true});
        state.as_object_mut().unwrap().extend(wait.as_object().unwrap().clone());
        let mut execution = Machine::start(machine(json!({"Pause": state})), json!({}));
        execution.step(stop());
        execution.now += seconds(3600);
        execution.redrive();
        if let Some(again) = again {
            assert_eq!(execution.fire(), seconds(again));
        }
        execution.output();
        assert_eq!(
            execution.history()[2..],
            [
                "0 < 3 ExecutionAborted",
                "3 < 4 ExecutionRedriven",
                "2 < 5 WaitStateExited",
                "5 < 6 ExecutionSucceeded"
            ]
        );
    }
}

#[test]
fn a_state_that_a_sibling_kept_from_being_entered_is_entered() {
    let branches = json!([
        {"StartAt": "First", "States": {
            "First": {"Type": "Pass", "Output": "passed", "Next": "Second"},
            "Second": task("second", json!({}))
        }},
        {"StartAt": "Broken", "States": {
            "Broken": {"Type": "Pass", "Output": "{% $error('broken') %}", "End": true}
        }}
    ]);
    let parallel = json!({"Type": "Parallel", "Branches": branches, "End": true});
    let mut execution = Machine::start(machine(json!({"All": parallel})), json!({}));
    assert_eq!(execution.failure().0, "States.QueryEvaluationError");
    assert_eq!(execution.types().iter().filter(|kind| **kind == "TaskStateEntered").count(), 0);
    execution.redrive();
    assert_eq!(execution.failure().0, "States.QueryEvaluationError");
    let entered = execution.types().iter().filter(|kind| kind.ends_with("StateEntered")).count();
    // All, First and Broken; then Second.
    assert_eq!(entered, 4);
}

#[test]
fn a_map_that_failed_by_itself_runs_again_as_a_whole() {
    let large = "{% $pad('', 200000, 'x') %}";
    let processor = branch("Item", json!({"Output": large}));
    let definition =
        map(json!({"Items": ["a", "b"], "MaxConcurrency": 2, "ItemProcessor": processor}));
    let mut execution = Machine::start(definition, json!({}));
    for redrive in 0..2 {
        for item in ["a", "b"] {
            let task = execution.take("/Payload/input", item);
            execution.succeed(task.task, json!(1));
        }
        assert_eq!(execution.failure().0, "States.DataLimitExceeded", "redrive {redrive}");
        execution.redrive();
    }
    let started = execution.types().iter().filter(|kind| **kind == "MapStateStarted").count();
    assert_eq!(started, 3);
    assert_eq!(execution.tasks.len(), 2);

    let selector =
        "{% $states.context.Map.Item.Index = 1 ? $error('no') : $states.context.Map.Item.Value %}";
    let mut execution =
        Machine::start(map(json!({"ItemSelector": selector, "MaxConcurrency": 2})), json!({}));
    assert_eq!(execution.failure().0, "States.QueryEvaluationError");
    execution.redrive();
    assert_eq!(execution.failure().0, "States.QueryEvaluationError");
    let started = execution.types().iter().filter(|kind| **kind == "MapIterationStarted").count();
    assert_eq!(started, 2, "the first iteration, each time");
}

#[test]
fn nested_states_go_on_at_every_depth() {
    let mut inner = map(json!({"MaxConcurrency": 0}))["States"]["Map"].clone();
    inner["End"] = json!(true);
    let branches = json!([
        {"StartAt": "Inner", "States": {"Inner": inner}},
        branch("beside", json!({}))
    ]);
    let parallel = json!({"Type": "Parallel", "Branches": branches, "End": true});
    let mut execution = Machine::start(machine(json!({"Outer": parallel})), json!({}));
    let kept = execution.take("/Payload/input", "a");
    execution.succeed(kept.task, json!("A"));
    // Its sibling in another branch fails: the map is stopped.
    let beside = execution.take("/FunctionName", "beside");
    execution.fail(beside.task, "Broken");
    execution.redrive();
    // An iteration fails, and another one is stopped with it.
    let failing = execution.take("/Payload/input", "b");
    execution.fail(failing.task, "Broken");
    execution.redrive();
    // All are stopped at once.
    execution.step(stop());
    execution.redrive();
    assert_eq!(execution.tasks.len(), 3);
    for (pointer, of, output) in [
        ("/FunctionName", "beside", "beside"),
        ("/Payload/input", "c", "C"),
        ("/Payload/input", "b", "B"),
    ] {
        let task = execution.take(pointer, of);
        execution.succeed(task.task, json!(output));
    }
    assert_eq!(execution.output(), &json!([["A", "B", "C"], "beside"]));
}

#[test]
fn what_a_retry_or_a_handler_took_over_is_not_resumed() {
    let retry = json!([{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1}]);
    let mut execution = Machine::start(map(json!({"Retry": retry})), json!({}));
    let first = execution.only();
    execution.succeed(first.task, json!("A"));
    let second = execution.only();
    execution.fail(second.task, "Broken");
    // It is stopped before the retry.
    execution.step(stop());
    execution.redrive();
    assert_eq!(execution.only().arguments["Payload"]["input"], "a");

    let mut definition = map(json!({"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}));
    definition["States"]["Caught"] = task("caught", json!({}));
    let mut execution = Machine::start(definition, json!({}));
    let first = execution.only();
    execution.fail(first.task, "Broken");
    let caught = execution.only();
    execution.fail(caught.task, "Worse");
    execution.redrive();
    assert_eq!(execution.only().arguments["FunctionName"], "caught");
}

#[test]
fn a_history_without_room_is_not_redriven() {
    let definition = machine(json!({
        "Map": {
            "Type": "Map", "Items": "{% [1..$states.input.items] %}", "Next": "No",
            "ItemProcessor": {"StartAt": "Item", "States": {"Item": {"Type": "Pass", "End": true}}}
        },
        "No": {"Type": "Fail"}
    }));
    // Seven events, and four for each item.
    let run = |items: u64| Machine::start(definition.clone(), json!({"items": items}));
    let mut execution = run(6_247);
    assert_eq!(execution.events.len(), 24_995);
    for _ in 0..2 {
        execution.redrive();
    }
    assert_eq!(execution.events.len(), 24_999);
    assert!(!execution.execution.is_redrivable());
    assert_eq!(execution.step(Input::Redrive), 0);
    let mut execution = run(6_248);
    assert_eq!(execution.events.len(), 24_999);
    assert!(!execution.execution.is_redrivable());
    assert_eq!(execution.step(Input::Redrive), 0);
}
