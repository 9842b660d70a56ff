//! Starting, listing and describing executions.

use std::{ops::ControlFlow, time::Duration};

use crate::support::{EXECUTION, MACHINE, World, hold, invoke};
use archweld_step_functions::{CreateStateMachineError, Notice, StateMachineSettings, Status};
use serde_json::{Value, json};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn the_same_start_again_is_the_same_execution_while_it_runs() {
    let world = World::new(&hold(json!({})));
    let start = |input: &str| json!({ "stateMachineArn": MACHINE, "name": "n", "input": input });
    let first = world.ok("StartExecution", start("{\"a\":1}")).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.ok("StartExecution", start("{ \"a\": 1 }")).await, first);
    let exists =
        ("ExecutionAlreadyExists".to_owned(), format!("Execution Already Exists: '{EXECUTION}:n'"));
    assert_eq!(world.err("StartExecution", start("{\"a\":2}")).await, exists);
    world.ok("StopExecution", json!({ "executionArn": first["executionArn"] })).await;
    assert_eq!(world.err("StartExecution", start("{\"a\":1}")).await, exists);
    assert_eq!(world.services.calls("hold"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_name_and_input_has_a_uuid_and_an_empty_object() {
    let world = World::new(&invoke("echo", json!({})));
    let answer = world.ok("StartExecution", json!({ "stateMachineArn": MACHINE })).await;
    let execution = world.end(answer["executionArn"].as_str().unwrap()).await;
    assert_eq!(execution["name"].as_str().unwrap().len(), 36);
    assert_eq!(execution["input"], "{}");
}

#[tokio::test(start_paused = true)]
async fn wrong_starts_are_told_as_aws_tells_them() {
    let world = World::new(&hold(json!({})));
    let start = |more: Value| {
        let mut input = json!({ "stateMachineArn": MACHINE });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    for (input, code) in [
        (json!({ "name": "a b" }), "InvalidName"),
        (json!({ "name": "2026-11-23T19:00:00Z" }), "InvalidName"),
        (json!({ "name": "" }), "InvalidName"),
        (json!({ "name": "x".repeat(81) }), "InvalidName"),
        (json!({ "input": "{" }), "InvalidExecutionInput"),
        (json!({ "input": format!("\"{}\"", "x".repeat(262_143)) }), "ValidationException"),
        (json!({ "input": { "a": 1 } }), "ValidationException"),
        (json!({ "stateMachineArn": format!("{MACHINE}x") }), "StateMachineDoesNotExist"),
        (json!({ "stateMachineArn": format!("{EXECUTION}:n") }), "InvalidArn"),
        (json!({ "stateMachineArn": "build" }), "InvalidArn"),
        (json!({ "stateMachineArn": null }), "ValidationException"),
    ] {
        let error = world.err("StartExecution", start(input.clone())).await;
        assert_eq!(error.0, code, "{input}");
    }
    let wrong_type = world.err("StartExecution", start(json!({ "input": 5 }))).await;
    assert!(wrong_type.1.contains("input"), "{wrong_type:?}");
    let listed = world.ok("ListExecutions", json!({ "stateMachineArn": MACHINE })).await;
    assert_eq!(listed, json!({ "executions": [] }));
    world.start(&"x".repeat(80), json!({})).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_executions_and_operations_are_told() {
    let world = World::new(&hold(json!({})));
    let missing = json!({ "executionArn": format!("{EXECUTION}:n") });
    for operation in [
        "DescribeExecution",
        "GetExecutionHistory",
        "StopExecution",
        "RedriveExecution",
        "DescribeStateMachineForExecution",
    ] {
        let (code, message) = world.err(operation, missing.clone()).await;
        assert_eq!(code, "ExecutionDoesNotExist");
        assert_eq!(message, format!("Execution Does Not Exist: '{EXECUTION}:n'"));
    }
    let (code, _) = world.err("ListMapRuns", missing).await;
    assert_eq!(code, "UnknownOperationException");
    let (code, message) = world.err("DescribeExecution", json!({})).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("executionArn"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn executions_are_listed_newest_first_by_status_and_page() {
    let world = World::new(&hold(json!({})));
    for name in ["a", "b", "c", "d", "e"] {
        world.start(name, json!({})).await;
    }
    world.ok("StopExecution", json!({ "executionArn": format!("{EXECUTION}:c") })).await;
    let names = |answer: &Value| -> Vec<String> {
        let executions = answer["executions"].as_array().unwrap();
        executions.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = |more: Value| {
        let mut input = json!({ "stateMachineArn": MACHINE });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.ok("ListExecutions", input)
    };
    assert_eq!(names(&list(json!({})).await), ["e", "d", "c", "b", "a"]);
    assert_eq!(names(&list(json!({ "statusFilter": "ABORTED" })).await), ["c"]);
    assert_eq!(names(&list(json!({ "statusFilter": "SUCCEEDED" })).await), [""; 0]);
    let first = list(json!({ "statusFilter": "RUNNING", "maxResults": 2 })).await;
    assert_eq!(names(&first), ["e", "d"]);
    // One that starts between two pages does not shift them.
    world.start("f", json!({})).await;
    let second = list(json!({
        "statusFilter": "RUNNING", "maxResults": 2, "nextToken": first["nextToken"],
    }))
    .await;
    assert_eq!(names(&second), ["b", "a"]);
    assert_eq!(second.get("nextToken"), None);

    let bad = json!({ "stateMachineArn": MACHINE, "nextToken": "?" });
    assert_eq!(world.err("ListExecutions", bad).await.0, "InvalidToken");
    for wrong in [
        json!({ "maxResults": 1001 }),
        json!({ "statusFilter": "GONE" }),
        // AWS takes these two for the children of a Map Run only.
        json!({ "statusFilter": "PENDING_REDRIVE" }),
        json!({ "redriveFilter": "REDRIVEN" }),
        json!({ "maxResults": -1 }),
    ] {
        let mut input = json!({ "stateMachineArn": MACHINE });
        input.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        assert_eq!(world.err("ListExecutions", input).await.0, "ValidationException", "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_is_read_both_ways_in_pages_with_or_without_data() {
    let world = World::new(&invoke("echo", json!({})));
    let arn = world.run("n", json!({ "a": 1 })).await["executionArn"].clone();
    let mut ids = Vec::new();
    let mut input = json!({ "executionArn": arn, "maxResults": 3 });
    loop {
        let answer = world.ok("GetExecutionHistory", input.clone()).await;
        ids.extend(answer["events"].as_array().unwrap().iter().map(|event| event["id"].clone()));
        match answer.get("nextToken") {
            Some(token) => input["nextToken"] = token.clone(),
            None => break,
        }
    }
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7]);

    let input = json!({ "executionArn": arn, "reverseOrder": true, "maxResults": 1 });
    let last = world.ok("GetExecutionHistory", input.clone()).await;
    assert_eq!(last["events"][0]["type"], "ExecutionSucceeded");
    let mut input = input;
    input["nextToken"] = last["nextToken"].clone();
    assert_eq!(world.ok("GetExecutionHistory", input).await["events"][0]["id"], 6);

    let input = json!({ "executionArn": arn, "includeExecutionData": false });
    let bare = world.ok("GetExecutionHistory", input).await;
    assert!(!bare.to_string().contains("\"input\""), "{bare}");
    let input = json!({ "executionArn": arn });
    let full = world.ok("GetExecutionHistory", input).await;
    assert_eq!(full["events"][0]["executionStartedEventDetails"]["input"], "{\"a\":1}");
    assert_eq!(full["events"][0]["timestamp"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_execution_is_described_with_or_without_data() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({ "a": 1 })).await;
    let token = world.token(1).await;
    sleep(Duration::from_millis(1500)).await;
    world.ok("SendTaskSuccess", json!({ "taskToken": token, "output": "2" })).await;
    let execution = world.end(&arn).await;
    assert_eq!(
        execution,
        json!({
            "executionArn": arn, "stateMachineArn": MACHINE, "name": "n", "status": "SUCCEEDED",
            "startDate": 0.0, "stopDate": execution["stopDate"],
            "input": "{\"a\":1}", "inputDetails": { "included": true },
            "output": "2", "outputDetails": { "included": true },
            "redriveCount": 0, "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": "Execution is SUCCEEDED and cannot be redriven",
        })
    );
    assert_eq!((execution["stopDate"].as_f64().unwrap() * 10.0).round(), 15.0);
    let input = json!({ "executionArn": arn, "includedData": "METADATA_ONLY" });
    let bare = world.ok("DescribeExecution", input).await;
    assert_eq!((bare.get("input"), bare.get("output")), (None, None));
    assert_eq!(bare["inputDetails"], json!({ "included": false }));
}

#[tokio::test(start_paused = true)]
async fn a_start_and_an_end_are_events_on_the_bus() {
    let world = World::new(&hold(json!({})));
    let arn = world.start("n", json!({ "a": 1 })).await;
    let token = world.token(1).await;
    sleep(Duration::from_secs(3)).await;
    world.ok("SendTaskSuccess", json!({ "taskToken": token, "output": "2" })).await;
    let execution = world.end(&arn).await;
    let events = world.events();
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!(event.source, "aws.states");
        assert_eq!(event.detail_type, "Step Functions Execution Status Change");
        assert_eq!(event.resources, [arn.as_str()]);
    }
    let running = json!({
        "executionArn": arn, "stateMachineArn": MACHINE, "name": "n", "status": "RUNNING",
        "startDate": 0, "stopDate": null, "input": "{\"a\":1}",
        "inputDetails": { "included": true }, "output": null, "outputDetails": null,
        "stateMachineVersionArn": null, "stateMachineAliasArn": null,
        "redriveCount": 0, "redriveDate": null, "redriveStatus": "NOT_REDRIVABLE",
        "redriveStatusReason": "Execution is RUNNING and cannot be redriven",
        "error": null, "cause": null,
    });
    assert_eq!(events[0].detail, running);
    let mut succeeded = running;
    succeeded["status"] = "SUCCEEDED".into();
    let stopped = (execution["stopDate"].as_f64().unwrap() * 1000.0).round();
    assert_eq!(events[1].detail["stopDate"].as_f64(), Some(stopped));
    succeeded["stopDate"] = events[1].detail["stopDate"].clone();
    succeeded["output"] = "2".into();
    succeeded["redriveStatusReason"] = "Execution is SUCCEEDED and cannot be redriven".into();
    succeeded["outputDetails"] = json!({ "included": true });
    assert_eq!(events[1].detail, succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_event_leaves_out_what_is_too_large() {
    let world = World::new(&hold(json!({})));
    // Each quote takes two bytes once it is escaped.
    let input = json!("\"".repeat(100_000));
    world.start("n", input).await;
    let detail = world.events()[0].detail.clone();
    assert_eq!(
        (&detail["input"], &detail["inputDetails"]["included"]),
        (&json!(null), &json!(false))
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_sees_start_history_and_end() {
    let world = World::new(&invoke("echo", json!({})));
    let mut notices = world.service.subscribe();
    let arn = world.start("n", json!({})).await;
    world.end(&arn).await;
    assert_eq!(notices.try_recv().unwrap(), Notice::Started { execution_arn: arn.as_str().into() });
    let mut seen = Vec::new();
    loop {
        match notices.try_recv().unwrap() {
            Notice::History { event, .. } => seen.push(event.event_type.to_owned()),
            Notice::Ended { status, .. } => break assert_eq!(status, Status::Succeeded),
            Notice::Started { .. } => panic!("it started twice"),
        }
    }
    assert_eq!(seen, world.event_types(&arn).await);
}

#[tokio::test(start_paused = true)]
async fn state_machines_are_described_and_listed() {
    let definition = hold(json!({}));
    let world = World::new(&definition);
    let arn = world.start("n", json!({})).await;
    let described = world.ok("DescribeStateMachine", json!({ "stateMachineArn": MACHINE })).await;
    assert_eq!(described["definition"], definition.to_string());
    assert_eq!((&described["status"], &described["type"]), (&json!("ACTIVE"), &json!("STANDARD")));
    let of_execution =
        world.ok("DescribeStateMachineForExecution", json!({ "executionArn": arn })).await;
    assert_eq!(of_execution["definition"], definition.to_string());
    let listed = world.ok("ListStateMachines", json!({})).await;
    assert_eq!(
        listed,
        json!({ "stateMachines": [{
            "stateMachineArn": MACHINE, "name": "build", "type": "STANDARD", "creationDate": 0.0,
        }] })
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_definition_is_diagnosed_and_not_created() {
    let world = World::new(&hold(json!({})));
    let valid = json!({ "definition": invoke("echo", json!({})).to_string() });
    assert_eq!(
        world.ok("ValidateStateMachineDefinition", valid).await,
        json!({ "result": "OK", "diagnostics": [], "truncated": false })
    );
    let bad = invoke("echo", json!({ "TimeoutSecond": 3 })).to_string();
    let answer = world.ok("ValidateStateMachineDefinition", json!({ "definition": bad })).await;
    assert_eq!(answer["result"], "FAIL");
    let diagnostic = &answer["diagnostics"][0];
    assert_eq!(diagnostic["severity"], "ERROR");
    assert_eq!(diagnostic["location"], "/States/Work/TimeoutSecond");
    let answer = world.ok("ValidateStateMachineDefinition", json!({ "definition": "{" })).await;
    assert_eq!(answer["diagnostics"][0]["code"], "INVALID_JSON_DESCRIPTION");

    let create = |name: &str, definition: String| {
        world.service.create_state_machine(StateMachineSettings {
            name: name.to_owned(),
            definition,
            role_arn: String::new(),
        })
    };
    let refused = create("other", bad);
    assert!(matches!(refused, Err(CreateStateMachineError::Definition { .. })), "{refused:?}");
    let good = hold(json!({})).to_string();
    let name = "build".to_owned();
    assert_eq!(create("build", good.clone()), Err(CreateStateMachineError::Exists(name)));
    let name = "a b".to_owned();
    assert_eq!(create("a b", good), Err(CreateStateMachineError::Name(name)));
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_executions_as_they_are_and_starts_no_more() {
    let world = World::new(&hold(json!({ "TimeoutSeconds": 60 })));
    let arn = world.start("n", json!({})).await;
    let token = world.token(1).await;
    world.service.shutdown().await;
    sleep(Duration::from_secs(120)).await;
    let execution = world.ok("DescribeExecution", json!({ "executionArn": arn })).await;
    assert_eq!(execution["status"], "RUNNING");
    for (operation, input) in [
        ("StartExecution", json!({ "stateMachineArn": MACHINE })),
        ("SendTaskSuccess", json!({ "taskToken": token, "output": "1" })),
        ("StopExecution", json!({ "executionArn": arn })),
    ] {
        assert_eq!(world.err(operation, input).await.0, "ServiceUnavailable", "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_history() {
    async fn history() -> (Vec<Value>, Vec<String>) {
        let jitter = json!({ "Retry": [{
            "ErrorEquals": ["States.ALL"], "IntervalSeconds": 60, "JitterStrategy": "FULL",
            "MaxAttempts": 5,
        }], "TimeoutSeconds": 9 });
        let world = World::new(&hold(jitter));
        let start = world.ok("StartExecution", json!({ "stateMachineArn": MACHINE })).await;
        let arn = start["executionArn"].as_str().unwrap();
        world.end(arn).await;
        (world.history(arn).await, world.services.tokens())
    }
    let first = history().await;
    assert_eq!(first.1.len(), 6);
    assert_eq!(first, history().await);
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_sees_executions_newest_first_and_may_break_off() {
    let world = World::new(&hold(json!({})));
    for name in ["a", "b", "c"] {
        let input = json!({ "stateMachineArn": MACHINE, "name": name, "input": "{\"n\":1}" });
        world.ok("StartExecution", input).await;
    }
    sleep(Duration::from_secs(1)).await;
    let mut names = Vec::new();
    let found = world.service.visit_executions(|view| {
        names.push(view.name().to_owned());
        if view.name() == "b" {
            ControlFlow::Break(view.arn().to_owned())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!((names.join(" "), found), ("c b".to_owned(), Some(format!("{EXECUTION}:b"))));
    let arn = format!("{EXECUTION}:a");
    world.ok("StopExecution", json!({ "executionArn": arn, "error": "E", "cause": "C" })).await;
    world.service.look_at(&arn, |view| {
        assert_eq!((view.status(), view.input()), (Status::Aborted, "{\"n\":1}"));
        assert_eq!((view.error(), view.cause(), view.output()), (Some("E"), Some("C"), None));
        assert_eq!(view.ended().unwrap().duration_since(view.started()).as_secs(), 1);
        assert_eq!(view.history().last().unwrap().event_type, "ExecutionAborted");
        let tokens: Vec<_> = view.tokens().collect();
        assert!(world.services.tokens().iter().any(|token| tokens == [token.as_str()]));
    });
    assert!(world.service.look_at(EXECUTION, |_| ()).is_none());
    assert_eq!(world.service.definition(MACHINE).unwrap().states().count(), 1);
    assert!(world.service.definition(EXECUTION).is_none());
}
