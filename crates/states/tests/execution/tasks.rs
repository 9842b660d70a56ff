//! Tasks: resources, tokens, time-outs, heartbeats, waits, stopping.

use archweld_states::{Input, Outcome, Resource, TaskId, TimerId};
use serde_json::{Value, json};

use crate::machine::{Machine, parse, seconds, start};

fn task(fields: Value) -> Value {
    let mut state = json!({
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "Arguments": {
            "FunctionName": "start-build",
            "Payload": {"token": "{% $states.context.Task.Token %}"}
        },
        "End": true
    });
    for (key, value) in fields.as_object().unwrap() {
        state[key] = value.clone();
    }
    json!({"QueryLanguage": "JSONata", "StartAt": "Build", "States": {"Build": state}})
}

#[test]
fn waits_for_its_token() {
    let mut machine = Machine::start(task(json!({})), json!({}));
    let task = machine.only();
    let token = task.token.clone().unwrap();
    assert_eq!(task.arguments["Payload"]["token"], token.as_str());
    assert!((600..=712).contains(&token.len()), "{}", token.len());
    assert!(token.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));

    machine.step(Input::TaskStarted { task: task.task });
    machine.step(Input::TaskSubmitted { task: task.task, output: json!({"StatusCode": 200}) });
    assert!(machine.execution.is_open(task.task));
    machine.succeed(task.task, json!({"digest": "sha256:1"}));
    assert_eq!(machine.output(), &json!({"digest": "sha256:1"}));
    assert_eq!(
        machine.history(),
        [
            "0 < 1 ExecutionStarted",
            "0 < 2 TaskStateEntered",
            "2 < 3 TaskScheduled",
            "3 < 4 TaskStarted",
            "4 < 5 TaskSubmitted",
            "5 < 6 TaskSucceeded",
            "6 < 7 TaskStateExited",
            "7 < 8 ExecutionSucceeded",
        ]
    );
    let scheduled = machine.details("TaskScheduled");
    assert_eq!(scheduled["resource"], "invoke.waitForTaskToken");
    assert_eq!(scheduled["resourceType"], "lambda");
    assert_eq!(scheduled["region"], "eu-west-1");
    assert_eq!(
        machine.details("TaskSubmitted")["output"],
        json!(json!({"StatusCode": 200}).to_string())
    );
}

#[test]
fn a_token_may_come_back_before_the_service_answers() {
    let mut machine = Machine::start(task(json!({})), json!({}));
    let task = machine.only();
    machine.step(Input::TaskStarted { task: task.task });
    machine.succeed(task.task, json!(1));
    assert_eq!(machine.output(), &json!(1));
    assert_eq!(machine.step(Input::TaskSubmitted { task: task.task, output: json!(2) }), 0);
}

#[test]
fn every_attempt_has_a_token_of_its_own() {
    let definition = task(json!({"Retry": [{"ErrorEquals": ["States.ALL"]}]}));
    let mut machine = Machine::start(definition, json!({}));
    let first = machine.only();
    machine.fail(first.task, "A");
    machine.fire();
    let second = machine.only();
    assert_ne!(first.token, second.token);
    assert_ne!(first.task, second.task);
    assert!(!machine.execution.is_open(first.task));
}

#[test]
fn two_executions_never_share_a_token() {
    let definition = parse(&task(json!({})));
    let mut other = start(json!({}));
    other.execution_arn.push_str("-2");
    let mut first = Machine::with(definition.clone(), start(json!({})));
    let mut second = Machine::with(definition, other);
    assert_ne!(first.only().token, second.only().token);
}

#[test]
fn a_time_out_cancels_the_task_and_matches_its_name() {
    let definition = task(json!({
        "TimeoutSeconds": "{% $states.input.seconds %}",
        "Catch": [
            {"ErrorEquals": ["States.TaskFailed", "States.HeartbeatTimeout"], "Next": "Wrong"},
            {"ErrorEquals": ["States.Timeout"], "Next": "Caught"}
        ]
    }));
    let mut definition = definition;
    definition["States"]["Caught"] = json!({"Type": "Pass", "End": true});
    definition["States"]["Wrong"] = json!({"Type": "Fail"});
    let mut machine = Machine::start(definition, json!({"seconds": 90}));
    let task = machine.only();
    machine.step(Input::TaskStarted { task: task.task });
    assert_eq!(machine.fire(), seconds(90));
    assert_eq!(machine.cancelled, [task.task]);
    assert_eq!(machine.output(), &json!({"Error": "States.Timeout", "Cause": ""}));
    let history = machine.history();
    assert_eq!(history[4..6], ["4 < 5 TaskTimedOut", "5 < 6 TaskStateExited"]);
    assert_eq!(machine.details("TaskScheduled")["timeoutInSeconds"], 90);
    assert_eq!(machine.details("TaskTimedOut")["error"], "States.Timeout");
    assert_eq!(machine.succeed(task.task, json!(1)), 0);
}

#[test]
fn heartbeats_push_the_time_out_back() {
    let definition = task(json!({"TimeoutSeconds": 100, "HeartbeatSeconds": 40}));
    let mut machine = Machine::start(definition, json!({}));
    let task = machine.only();
    machine.now += seconds(30);
    machine.step(Input::TaskHeartbeat { task: task.task });
    // 40 s after the heartbeat, not after the start.
    assert_eq!(machine.fire(), seconds(40));
    assert_eq!(machine.failure(), ("States.Timeout", ""));
    assert!(machine.timers.is_empty());
    assert_eq!(machine.cancelled, [task.task]);
}

#[test]
fn heartbeats_do_not_push_the_whole_time_out_back() {
    let definition = task(json!({"TimeoutSeconds": 100, "HeartbeatSeconds": 40}));
    let mut machine = Machine::start(definition, json!({}));
    let task = machine.only();
    let begin = machine.now;
    for _ in 0..3 {
        machine.now += seconds(30);
        machine.step(Input::TaskHeartbeat { task: task.task });
    }
    machine.fire();
    assert_eq!(machine.now.duration_since(begin), seconds(100));
    assert_eq!(machine.failure().0, "States.Timeout");
}

#[test]
fn a_missed_heartbeat_matches_its_own_name() {
    for name in ["States.HeartbeatTimeout", "States.Timeout"] {
        let mut definition = task(json!({
            "HeartbeatSeconds": 10,
            "Catch": [{"ErrorEquals": [name], "Next": "Caught"}]
        }));
        definition["States"]["Caught"] = json!({"Type": "Pass", "End": true});
        let mut machine = Machine::start(definition, json!({}));
        machine.fire();
        assert_eq!(machine.output()["Error"], "States.Timeout", "{name}");
        assert_eq!(machine.details("TaskScheduled")["heartbeatInSeconds"], 10);
    }
}

#[test]
fn a_time_out_has_to_be_a_positive_integer() {
    for (seconds, found) in [(json!(0), "number"), (json!(1.5), "number"), (json!("1"), "string")] {
        let definition = task(json!({"TimeoutSeconds": "{% $states.input.seconds %}"}));
        let machine = Machine::start(definition, json!({"seconds": seconds}));
        let (error, cause) = machine.failure();
        assert_eq!(error, "States.QueryEvaluationError");
        assert!(cause.contains(&format!("was '{found}' for value: {seconds}")), "{cause}");
    }
}

#[test]
fn runs_a_function_by_its_arn() {
    let arn = "arn:aws:lambda:eu-west-1:111111111111:function:work";
    let definition =
        task(json!({"Resource": arn, "Arguments": {"a": "{% $states.input.a + 1 %}"}}));
    let mut machine = Machine::start(definition, json!({"a": 1}));
    let task = machine.only();
    assert_eq!(task.resource, Resource::LambdaFunction(arn.to_owned()));
    assert_eq!((task.arguments, task.token), (json!({"a": 2}), None));
    machine.step(Input::TaskStarted { task: task.task });
    machine.fail(task.task, "Broken");
    assert_eq!(
        machine.types()[2..],
        [
            "LambdaFunctionScheduled",
            "LambdaFunctionStarted",
            "LambdaFunctionFailed",
            "ExecutionFailed"
        ]
    );
    assert_eq!(machine.details("LambdaFunctionFailed")["error"], "Broken");
}

#[test]
fn puts_events() {
    let definition = task(json!({
        "Resource": "arn:aws:states:::events:putEvents",
        "Arguments": {"Entries": [{"Detail": "{% $states.input %}"}]}
    }));
    let mut machine = Machine::start(definition, json!({"a": 1}));
    let task = machine.only();
    assert_eq!(task.resource, Resource::PutEvents);
    assert_eq!(task.arguments, json!({"Entries": [{"Detail": {"a": 1}}]}));
    assert_eq!(machine.details("TaskScheduled")["resourceType"], "events");
    assert_eq!(machine.details("TaskScheduled")["resource"], "putEvents");
}

#[test]
fn without_arguments_the_input_is_passed() {
    let mut definition = task(json!({"Resource": "arn:aws:lambda:eu-west-1:1:function:work"}));
    definition["States"]["Build"].as_object_mut().unwrap().remove("Arguments");
    let mut machine = Machine::start(definition, json!({"a": 1}));
    assert_eq!(machine.only().arguments, json!({"a": 1}));
}

fn wait(field: &str, value: Value) -> Machine {
    Machine::start(
        json!({
            "QueryLanguage": "JSONata", "StartAt": "Wait",
            "States": {"Wait": {"Type": "Wait", field: value, "End": true}}
        }),
        json!({"at": "2026-11-23T12:00:30+00:00", "seconds": 20}),
    )
}

#[test]
fn waits() {
    for (field, value, delay) in [
        ("Seconds", json!(10), 10),
        ("Seconds", json!("{% $states.input.seconds %}"), 20),
        ("Timestamp", json!("{% $states.input.at %}"), 30),
        ("Timestamp", json!("2026-11-23T12:00:40Z"), 40),
    ] {
        let mut machine = wait(field, value);
        assert_eq!(machine.types().last(), Some(&"WaitStateEntered"));
        assert_eq!(machine.fire(), seconds(delay));
        assert_eq!(machine.output()["seconds"], 20);
    }
}

#[test]
fn does_not_wait_for_what_is_past() {
    for (field, value) in [("Seconds", json!(0)), ("Timestamp", json!("2016-03-14T01:59:00Z"))] {
        let machine = wait(field, value);
        machine.output();
        assert!(machine.timers.is_empty());
    }
}

#[test]
fn a_timestamp_has_to_be_one() {
    let machine = wait("Timestamp", json!("{% 'tomorrow' %}"));
    assert_eq!(machine.failure().0, "States.QueryEvaluationError");
}

#[test]
fn an_execution_times_out_as_a_whole() {
    let mut definition = task(json!({}));
    definition["TimeoutSeconds"] = json!(60);
    let mut machine = Machine::start(definition, json!({}));
    let task = machine.only();
    assert_eq!(machine.fire(), seconds(60));
    assert_eq!(machine.outcome, Some(Outcome::TimedOut));
    assert_eq!(machine.cancelled, [task.task]);
    assert_eq!(machine.types().last(), Some(&"ExecutionTimedOut"));
}

#[test]
fn stops() {
    let mut machine = Machine::start(task(json!({"TimeoutSeconds": 60})), json!({}));
    let task = machine.only();
    let (error, cause) = (Some("Stopped".to_owned()), Some("by hand".to_owned()));
    machine.step(Input::Stop { error: error.clone(), cause: cause.clone() });
    assert_eq!(machine.outcome, Some(Outcome::Aborted { error, cause }));
    assert_eq!(machine.cancelled, [task.task]);
    assert!(machine.timers.is_empty());
    assert!(!machine.execution.is_open(task.task));
    assert_eq!(machine.details("ExecutionAborted")["error"], "Stopped");
    assert_eq!(machine.succeed(task.task, json!(1)), 0);
    assert_eq!(machine.step(Input::Stop { error: None, cause: None }), 0);
}

#[test]
fn late_and_unknown_inputs_change_nothing() {
    let definition = task(json!({
        "TimeoutSeconds": 60, "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 5}]
    }));
    let mut machine = Machine::start(definition, json!({}));
    let first = machine.only();
    let timer = *machine.timers.keys().next().unwrap();
    machine.fail(first.task, "A");
    assert_eq!(machine.step(Input::TimerFired { timer }), 0);
    assert_eq!(machine.succeed(first.task, json!(1)), 0);
    assert_eq!(machine.fail(first.task, "A"), 0);
    assert_eq!(machine.step(Input::TaskStarted { task: first.task }), 0);
    assert_eq!(machine.step(Input::TaskHeartbeat { task: first.task }), 0);
    assert_eq!(machine.succeed(TaskId(999), json!(1)), 0);
    assert_eq!(machine.step(Input::TimerFired { timer: TimerId(999) }), 0);
    assert_eq!(machine.step(Input::Start), 0);
    machine.fire();
    let second = machine.only();
    machine.succeed(second.task, json!(2));
    assert_eq!(machine.output(), &json!(2));
    assert_eq!(machine.succeed(second.task, json!(3)), 0);
}

#[test]
fn does_nothing_before_it_begins() {
    let definition = parse(&task(json!({})));
    let mut execution = archweld_states::Execution::new(definition, start(json!({})));
    let now = "2026-11-23T12:00:00Z".parse().unwrap();
    assert_eq!(execution.step(Input::Stop { error: None, cause: None }, now), []);
    assert!(!execution.is_running() && execution.outcome().is_none());
    assert!(!execution.step(Input::Start, now).is_empty());
    assert!(execution.is_running());
}

#[test]
fn executions_and_definitions_cross_threads() {
    fn crosses<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    crosses::<archweld_states::Execution>();
    is_shared::<archweld_states::Definition>();
}
