//! Retry, Catch, Fail and the platform's own errors.

use serde_json::{Value, json};

use crate::machine::{Machine, seconds};

/// A task with handlers, then `Done`; `Caught` for catchers.
fn machine(retry: Value, catch: Value) -> Value {
    let mut states = json!({
        "Work": {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": "work"},
            "Retry": retry,
            "Catch": catch,
            "Next": "Done"
        },
        "Done": {"Type": "Succeed"}
    });
    if catch.as_array().is_some_and(|catch| !catch.is_empty()) {
        states["Caught"] = json!({"Type": "Pass", "End": true});
    }
    json!({"QueryLanguage": "JSONata", "StartAt": "Work", "States": states})
}

fn fail(machine: &mut Machine, error: &str) {
    let task = machine.only();
    machine.fail(task.task, error);
}

#[test]
fn each_interval_is_longer_by_the_rate_up_to_the_longest() {
    let retry = json!([{
        "ErrorEquals": ["Broken"], "IntervalSeconds": 2, "BackoffRate": 3, "MaxAttempts": 4,
        "MaxDelaySeconds": 20
    }]);
    let mut machine = Machine::start(machine(retry, json!([])), json!({}));
    let mut delays = Vec::new();
    for _ in 0..4 {
        fail(&mut machine, "Broken");
        delays.push(machine.fire());
    }
    assert_eq!(delays, [seconds(2), seconds(6), seconds(18), seconds(20)]);
    fail(&mut machine, "Broken");
    assert_eq!(machine.failure(), ("Broken", "because"));
}

#[test]
fn retries_three_times_from_one_second_on_by_default() {
    let retry = json!([{"ErrorEquals": ["States.ALL"]}]);
    let mut machine = Machine::start(machine(retry, json!([])), json!({}));
    let mut delays = Vec::new();
    while machine.outcome.is_none() {
        fail(&mut machine, "Broken");
        if machine.outcome.is_none() {
            delays.push(machine.fire());
        }
    }
    assert_eq!(delays, [seconds(1), seconds(2), seconds(4)]);
}

#[test]
fn jitter_draws_between_nothing_and_the_interval() {
    let retry = json!([{
        "ErrorEquals": ["States.ALL"], "IntervalSeconds": 10, "BackoffRate": 1,
        "MaxAttempts": 200, "JitterStrategy": "FULL"
    }]);
    let mut machine = Machine::start(machine(retry, json!([])), json!({}));
    let mut delays = Vec::new();
    for _ in 0..200 {
        fail(&mut machine, "Broken");
        delays.push(machine.fire());
    }
    assert!(delays.iter().all(|delay| (seconds(0)..=seconds(10)).contains(delay)));
    assert!(delays.iter().any(|delay| *delay < seconds(1)));
    assert!(delays.iter().any(|delay| *delay > seconds(9)));
}

#[test]
fn each_retrier_counts_for_itself() {
    let retry = json!([
        {"ErrorEquals": ["A"], "MaxAttempts": 1, "IntervalSeconds": 1},
        {"ErrorEquals": ["B"], "MaxAttempts": 2, "IntervalSeconds": 5}
    ]);
    let mut machine = Machine::start(machine(retry, json!([])), json!({}));
    for (error, delay) in [("B", 5), ("A", 1), ("B", 10)] {
        fail(&mut machine, error);
        assert_eq!(machine.fire(), seconds(delay), "{error}");
    }
    fail(&mut machine, "A");
    assert_eq!(machine.failure().0, "A");
}

#[test]
fn an_exhausted_retrier_does_not_give_way_to_the_next() {
    let retry = json!([
        {"ErrorEquals": ["A"], "MaxAttempts": 0},
        {"ErrorEquals": ["States.ALL"]}
    ]);
    let mut machine = Machine::start(machine(retry, json!([])), json!({}));
    fail(&mut machine, "A");
    assert_eq!(machine.failure().0, "A");
}

#[test]
fn a_state_entered_again_has_its_attempts_back() {
    let definition = json!({
        "QueryLanguage": "JSONata", "StartAt": "Work",
        "States": {
            "Work": {
                "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
                "Arguments": {"FunctionName": "{% $string($states.context.State.RetryCount) %}"},
                "Retry": [{"ErrorEquals": ["A"], "MaxAttempts": 1}],
                "Catch": [{"ErrorEquals": ["A"], "Next": "Work"}],
                "End": true
            }
        }
    });
    let mut machine = Machine::start(definition, json!({}));
    for retry_count in ["0", "1", "0", "1"] {
        let task = machine.take("/FunctionName", retry_count);
        machine.fail(task.task, "A");
        if retry_count == "0" {
            machine.fire();
        }
    }
}

#[test]
fn the_history_of_a_retry_goes_from_the_failure_to_the_next_schedule() {
    let retry = json!([{"ErrorEquals": ["A"]}]);
    let mut machine = Machine::start(machine(retry, json!([])), json!({}));
    fail(&mut machine, "A");
    machine.fire();
    assert_eq!(
        machine.history(),
        [
            "0 < 1 ExecutionStarted",
            "0 < 2 TaskStateEntered",
            "2 < 3 TaskScheduled",
            "3 < 4 TaskFailed",
            "4 < 5 TaskScheduled",
        ]
    );
}

#[test]
fn a_catcher_gets_the_error_and_may_assign() {
    let catch = json!([
        {"ErrorEquals": ["Other"], "Next": "Caught"},
        {
            "ErrorEquals": ["States.TaskFailed"],
            "Output": {"why": "{% $states.errorOutput.Cause %}", "was": "{% $states.input %}"},
            "Assign": {"failed": "{% $states.errorOutput.Error %}"},
            "Next": "Caught"
        }
    ]);
    let mut definition = machine(json!([]), catch);
    definition["States"]["Caught"]["Output"] =
        json!({"failed": "{% $failed %}", "output": "{% $states.input %}"});
    let mut machine = Machine::start(definition, json!({"a": 1}));
    fail(&mut machine, "Build.Failed");
    assert_eq!(
        machine.output(),
        &json!({"failed": "Build.Failed", "output": {"why": "because", "was": {"a": 1}}})
    );
    assert_eq!(
        machine.history()[3..6],
        ["3 < 4 TaskFailed", "4 < 5 TaskStateExited", "5 < 6 PassStateEntered"]
    );
    assert_eq!(
        machine.details("TaskStateExited")["assignedVariables"],
        json!({"failed": "\"Build.Failed\""})
    );
}

#[test]
fn a_catcher_without_output_passes_the_error_on() {
    let catch = json!([{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]);
    let mut machine = Machine::start(machine(json!([]), catch), json!({"a": 1}));
    fail(&mut machine, "A");
    assert_eq!(machine.output(), &json!({"Error": "A", "Cause": "because"}));
}

#[test]
fn an_evaluation_that_fails_can_be_caught() {
    let catch = json!([{"ErrorEquals": ["States.QueryEvaluationError"], "Next": "Caught"}]);
    let mut definition = machine(json!([]), catch);
    definition["States"]["Work"]["Arguments"]["Payload"] = json!("{% $states.input.a + 'x' %}");
    let machine = Machine::start(definition, json!({"a": 1}));
    let cause = "An error occurred while executing the state 'Work' (entered at the event id #2). \
                 The JSONata expression '$states.input.a + 'x'' specified for the field \
                 'Arguments/Payload' threw an error during evaluation. T2002: The right side of the \
                 + operator must evaluate to a number";
    assert_eq!(machine.output(), &json!({"Error": "States.QueryEvaluationError", "Cause": cause}));
    assert_eq!(
        machine.history()[1..5],
        [
            "0 < 2 TaskStateEntered",
            "0 < 3 EvaluationFailed",
            "3 < 4 TaskStateExited",
            "4 < 5 PassStateEntered"
        ]
    );
    assert_eq!(machine.details("EvaluationFailed")["location"], "Arguments/Payload");
}

#[test]
fn an_output_that_fails_follows_from_the_result() {
    let mut definition = machine(json!([]), json!([]));
    definition["States"]["Work"]["Output"] = json!("{% $nothing %}");
    let mut machine = Machine::start(definition, json!({}));
    let task = machine.only();
    machine.succeed(task.task, json!(1));
    assert_eq!(
        machine.history()[3..],
        ["3 < 4 TaskSucceeded", "4 < 5 EvaluationFailed", "5 < 6 ExecutionFailed"]
    );
}

#[test]
fn a_choice_without_a_match_fails_the_execution() {
    let machine = Machine::start(
        json!({
            "QueryLanguage": "JSONata", "StartAt": "Choose",
            "States": {
                "Choose": {
                    "Type": "Choice",
                    "Choices": [{"Condition": "{% $states.input.a = 1 %}", "Next": "One"}]
                },
                "One": {"Type": "Succeed"}
            }
        }),
        json!({"a": 2}),
    );
    assert_eq!(machine.failure().0, "States.NoChoiceMatched");
    assert_eq!(machine.history()[1..], ["0 < 2 ChoiceStateEntered", "2 < 3 ExecutionFailed"]);
}

#[test]
fn a_condition_has_to_be_a_boolean() {
    let machine = Machine::start(
        json!({
            "QueryLanguage": "JSONata", "StartAt": "Choose",
            "States": {
                "Choose": {
                    "Type": "Choice",
                    "Choices": [{"Condition": "{% $states.input.a %}", "Next": "One"}],
                    "Default": "One"
                },
                "One": {"Type": "Succeed"}
            }
        }),
        json!({"a": "yes"}),
    );
    let (error, cause) = machine.failure();
    assert_eq!(error, "States.QueryEvaluationError");
    assert!(cause.ends_with("Expected 'boolean', but was 'string' for value: \"yes\""), "{cause}");
}

#[test]
fn fails_with_an_error_made_from_the_input() {
    let machine = Machine::start(
        json!({
            "QueryLanguage": "JSONata", "StartAt": "Fail",
            "States": {"Fail": {
                "Type": "Fail", "Error": "Build.Failed",
                "Cause": "{% $states.input.platform & ' failed' %}"
            }}
        }),
        json!({"platform": "linux/arm64"}),
    );
    assert_eq!(machine.failure(), ("Build.Failed", "linux/arm64 failed"));
}

#[test]
fn a_result_beyond_256_kib_is_an_error_that_no_wildcard_catches() {
    let catch = json!([{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]);
    let mut machine = Machine::start(machine(json!([]), catch), json!({}));
    let task = machine.only();
    machine.succeed(task.task, json!("x".repeat(256 * 1024 - 1)));
    let (error, cause) = machine.failure();
    assert_eq!(error, "States.DataLimitExceeded");
    assert!(cause.contains("exceeding the maximum number of bytes"), "{cause}");
}

#[test]
fn a_result_of_256_kib_is_fine() {
    let mut machine = Machine::start(machine(json!([]), json!([])), json!({}));
    let task = machine.only();
    machine.succeed(task.task, json!("x".repeat(256 * 1024 - 2)));
    machine.output();
}

#[test]
fn an_output_beyond_256_kib_can_be_caught_by_its_name() {
    let catch = json!([{"ErrorEquals": ["States.DataLimitExceeded"], "Next": "Caught"}]);
    let mut definition = machine(json!([]), catch);
    definition["States"]["Work"]["Output"] = json!("{% $pad('', 300000, 'x') %}");
    let mut machine = Machine::start(definition, json!({}));
    let task = machine.only();
    machine.succeed(task.task, json!(1));
    assert_eq!(machine.output()["Error"], "States.DataLimitExceeded");
}

#[test]
fn a_loop_ends_when_the_history_is_full() {
    let machine = Machine::start(
        json!({
            "QueryLanguage": "JSONata", "StartAt": "A",
            "States": {
                "A": {
                    "Type": "Choice",
                    "Choices": [{"Condition": true, "Next": "B"}],
                    "Default": "End"
                },
                "B": {"Type": "Pass", "Next": "A"},
                "End": {"Type": "Succeed"}
            }
        }),
        json!({}),
    );
    assert_eq!(machine.events.len(), 25_000);
    assert_eq!(machine.events.last().unwrap().id, 25_000);
    let (error, cause) = machine.failure();
    assert_eq!(error, "States.Runtime");
    assert!(cause.contains("25000"), "{cause}");
}
