//! Whatever comes in whatever order, executions stay sound.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use archweld_states::{Definition, Input, TaskId, TimerId};
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use crate::machine::{Machine, parse, start};

/// Everything at once: a Map of tasks that wait for tokens beside a nested Parallel.
static DEFINITION: LazyLock<Arc<Definition>> = LazyLock::new(|| {
    let task = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "Arguments": {"FunctionName": "f"}, "TimeoutSeconds": 60, "HeartbeatSeconds": 20,
        "Retry": [
            {"ErrorEquals": ["A"], "MaxAttempts": 2, "JitterStrategy": "FULL"},
            {"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1}
        ],
        "End": true
    });
    let mut caught = task.clone();
    caught["Catch"] = json!([{"ErrorEquals": ["B"], "Next": "Pause"}]);
    parse(&json!({
        "QueryLanguage": "JSONata", "StartAt": "Both", "TimeoutSeconds": 600,
        "States": {
            "Both": {
                "Type": "Parallel",
                "Branches": [
                    {"StartAt": "Map", "States": {"Map": {
                        "Type": "Map", "Items": "{% [1..4] %}", "MaxConcurrency": 3,
                        "ItemProcessor": {"StartAt": "Each", "States": {
                            "Each": caught,
                            "Pause": {"Type": "Wait", "Seconds": 5, "End": true}
                        }},
                        "End": true
                    }}},
                    {"StartAt": "Alone", "States": {"Alone": task}}
                ],
                "Retry": [{"ErrorEquals": ["C"], "MaxAttempts": 1}],
                "Catch": [{"ErrorEquals": ["A", "B"], "Next": "Done"}],
                "Next": "Done"
            },
            "Done": {"Type": "Succeed"}
        }
    }))
});

#[derive(Debug, Clone)]
enum Move {
    Started(u64),
    Submitted(u64),
    Succeed(u64),
    Fail(u64, &'static str),
    Heartbeat(u64),
    Timer(u64),
    FireNext,
    Stop,
    Redrive,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let id = 0_u64..40;
    let one = prop_oneof![
        4 => id.clone().prop_map(Move::Started),
        2 => id.clone().prop_map(Move::Submitted),
        6 => id.clone().prop_map(Move::Succeed),
        4 => (id.clone(), prop::sample::select(vec!["A", "B", "C", "D"]))
            .prop_map(|(id, error)| Move::Fail(id, error)),
        2 => id.clone().prop_map(Move::Heartbeat),
        2 => id.prop_map(Move::Timer),
        4 => Just(Move::FireNext),
        1 => Just(Move::Stop),
        3 => Just(Move::Redrive),
    ];
    prop::collection::vec(one, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// [`Machine`] itself checks that timers are set once, cleared only when set, and that
    /// nothing follows the last effect. Whatever became of it, an execution that is redriven succeeds
    /// once nothing goes wrong any more.
    #[test]
    fn any_order_of_inputs_keeps_an_execution_sound(moves in moves(), seed in any::<u64>()) {
        let mut start = start(json!({}));
        start.seed = seed;
        let mut machine = Machine::with(DEFINITION.clone(), start);
        for one in moves {
            let stopped = matches!(one, Move::Stop);
            match one {
                Move::Started(id) => { machine.step(Input::TaskStarted { task: TaskId(id) }); }
                Move::Submitted(id) => {
                    machine.step(Input::TaskSubmitted { task: TaskId(id), output: json!({}) });
                }
                Move::Succeed(id) => {
                    machine.tasks.retain(|task| task.task != TaskId(id));
                    machine.succeed(TaskId(id), json!(id));
                }
                Move::Fail(id, error) => {
                    machine.tasks.retain(|task| task.task != TaskId(id));
                    machine.fail(TaskId(id), error);
                }
                Move::Heartbeat(id) => { machine.step(Input::TaskHeartbeat { task: TaskId(id) }); }
                Move::Timer(id) => {
                    machine.timers.remove(&TimerId(id));
                    machine.step(Input::TimerFired { timer: TimerId(id) });
                }
                Move::FireNext if !machine.timers.is_empty() => {
                    let waited = machine.fire();
                    prop_assert!(waited >= SignedDuration::ZERO);
                }
                Move::FireNext => {}
                Move::Stop => { machine.step(Input::Stop { error: None, cause: None }); }
                Move::Redrive if machine.execution.is_redrivable() => machine.redrive(),
                Move::Redrive => prop_assert_eq!(machine.step(Input::Redrive), 0),
            }
            let open: BTreeSet<TaskId> = machine.tasks.iter().map(|task| task.task).collect();
            prop_assert_eq!(open, machine.execution.open_tasks().collect::<BTreeSet<_>>());
            prop_assert!(!stopped || machine.outcome.is_some());
            prop_assert_eq!(machine.outcome.as_ref(), machine.execution.outcome());
            if machine.outcome.is_some() {
                prop_assert!(machine.timers.is_empty() && machine.tasks.is_empty());
            }
        }
        if machine.execution.is_redrivable() {
            machine.redrive();
        }
        while machine.outcome.is_none() {
            match machine.tasks.pop() {
                Some(task) => { machine.succeed(task.task, json!(0)); }
                None => { machine.fire(); }
            }
        }
        machine.output();
        for (index, event) in machine.events.iter().enumerate() {
            prop_assert_eq!(event.id, index as u64 + 1);
            prop_assert!(event.previous_event_id < event.id);
        }
    }
}
