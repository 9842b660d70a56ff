//! Templates as the local host reads them: the fixture, the real one, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use archweld_events::{Input, RetryPolicy};
use archweld_secrets::{GenerateSecretString, SecretContent};
use archweld_template::{
    DefinitionError, Deployment, FunctionUrl, Position, Stack, TagMutability, TemplateError,
};
use proptest::prelude::*;
use serde_json::json;

const FIXTURE: &str = include_str!("fixture/template.yaml");

fn deployment(parameters: &[(&str, &str)]) -> Deployment {
    Deployment {
        stack_name: "archweld".into(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        parameters: parameters
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    }
}

fn fixture(parameters: &[(&str, &str)]) -> Stack {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture");
    Stack::read(&folder.join("template.yaml"), &deployment(parameters)).unwrap()
}

fn parse(text: &str) -> Result<Stack, TemplateError> {
    Stack::parse(text, Path::new("/templates"), &deployment(&[]))
}

#[test]
fn reads_functions_with_globals_merged() {
    let stack = fixture(&[]);
    let [trigger, plain] = stack.functions.as_slice() else { panic!("{:?}", stack.functions) };
    assert_eq!(
        (trigger.name.as_str(), trigger.binary.as_str()),
        ("archweld-Trigger", "trigger-run")
    );
    assert_eq!(trigger.arn, "arn:aws:lambda:us-east-1:000000000000:function:archweld-Trigger");
    assert_eq!((trigger.timeout, trigger.memory_mb), (Duration::from_secs(10), 512));
    assert_eq!(trigger.url, Some(FunctionUrl { signed: false }));
    assert_eq!(trigger.reserved_concurrency, None);
    let expected = [
        ("BRANCHES", "main|release"),
        ("CODED", "aW1n"),
        ("DEBUG", "true"),
        ("LEVEL", "debug"),
        ("MACHINE", "arn:aws:states:us-east-1:000000000000:stateMachine:archweld-Machine"),
        ("REGISTRY", "000000000000.dkr.ecr.us-east-1.amazonaws.com"),
        ("SECRET", "arn:aws:secretsmanager:us-east-1:000000000000:secret:archweld-Made-000000"),
        ("SIZE", "BUILD_GENERAL1_SMALL"),
        ("STAGE", "dev"),
        ("SUBBED", "img-us-east-1 ${Literal} archweld-Machine"),
        ("VERSION", "1.10"),
    ];
    let expected: BTreeMap<_, _> =
        expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(trigger.environment, expected);
    assert!(trigger.code.ends_with("tests"), "{}", trigger.code.display());
    assert!(trigger.layers[0].content.ends_with("tests/fixture/config"));

    assert_eq!((plain.name.as_str(), plain.binary.as_str()), ("archweld-plain", "plain"));
    assert_eq!((plain.timeout, plain.memory_mb), (Duration::from_secs(30), 128));
    assert_eq!(plain.layers[0].logical_id, "ConfigLayer", "the global layer comes first");
    assert_eq!(plain.asynchronous_retries_max, 1);
    assert_eq!(plain.asynchronous_age_max, Duration::from_secs(120));
}

#[test]
fn parameters_decide_conditions() {
    let stack = fixture(&[("Stage", "prod"), ("Prefix", "app")]);
    let names: Vec<_> =
        stack.functions.iter().map(|function| function.logical_id.as_str()).collect();
    assert_eq!(names, ["Trigger", "Plain", "OnlyProd"]);
    assert_eq!(stack.functions[0].reserved_concurrency, Some(50));
    assert_eq!(stack.functions[0].environment["LEVEL"], "warn");
    assert_eq!(stack.builds[0].compute_type, "BUILD_GENERAL1_LARGE");
    assert_eq!(stack.builds[0].name, "app-arm64");
    assert!(stack.schedules.iter().all(|schedule| schedule.settings.enabled));
}

#[test]
fn reads_rules_of_both_kinds() {
    let stack = fixture(&[]);
    let [push, results] = stack.rules.as_slice() else { panic!("{:?}", stack.rules) };
    assert_eq!(push.rule.name, "archweld-TriggerPush");
    let pattern = push.rule.pattern.as_ref().unwrap();
    assert!(
        pattern
            .matches(&json!({"source": "aws.codecommit", "detail": {"repositoryName": "img-a"}}))
    );
    let [target] = push.rule.targets.as_slice() else { panic!() };
    assert_eq!(target.arn, stack.functions[0].arn);
    assert_eq!(target.retry, RetryPolicy { attempts_max: 3, age_max: Duration::from_secs(3600) });
    assert_eq!(
        target.dead_letter_arn.as_deref(),
        Some("arn:aws:sqs:us-east-1:000000000000:archweld-DeadLetters")
    );
    assert_eq!((results.rule.name.as_str(), results.rule.enabled), ("results", false));
    assert_eq!(results.bus, "default");
    assert!(matches!(results.rule.targets[1].input, Input::Transformer(_)));
    assert_eq!(results.rule.targets[1].arn, stack.state_machines[0].arn);
}

#[test]
fn reads_schedules_builds_and_repositories() {
    let stack = fixture(&[("Hours", "12")]);
    let [nightly, weekly] = stack.schedules.as_slice() else { panic!("{:?}", stack.schedules) };
    let (nightly, weekly) = (&nightly.settings, &weekly.settings);
    assert_eq!(
        (nightly.expression.as_str(), nightly.time_zone.as_str()),
        ("rate(12 hours)", "Europe/Berlin")
    );
    assert_eq!(nightly.flexible_window, Some(Duration::from_secs(900)));
    assert_eq!((nightly.enabled, &nightly.input), (false, &Some(json!({"kind": "schedule"}))));
    assert_eq!((nightly.group.as_str(), nightly.start), ("default", None));
    assert_eq!((weekly.flexible_window, weekly.enabled), (None, true));
    assert_eq!(weekly.target_arn, stack.state_machines[0].arn);
    assert_eq!(
        (weekly.group.as_str(), weekly.end),
        ("archweld-Group", "2030-01-01T00:00:00Z".parse().ok())
    );
    assert_eq!(weekly.input, Some(json!({"slot": "<aws.scheduler.scheduled-time>"})));

    let build = &stack.builds[0];
    assert_eq!((build.environment_type.as_str(), build.privileged), ("ARM_CONTAINER", true));
    assert_eq!((build.timeout_minutes, build.queued_timeout_minutes), (45, 480));
    assert_eq!(build.variables[0].value, "000000000000");
    assert_eq!(build.variables[1].variable_type, "PARAMETER_STORE");
    assert_eq!(build.service_role, "arn:aws:iam::000000000000:role/archweld-Role");

    assert_eq!(stack.repositories[0].name, "archweld-repository");
    assert_eq!(
        stack.repositories[0].mutability,
        Some(TagMutability::ImmutableExcept(vec!["latest*".into()]))
    );
}

#[test]
fn reads_secrets() {
    let stack = fixture(&[("WebhookSecret", "hunter2")]);
    let [given, made] = stack.secrets.as_slice() else { panic!("{:?}", stack.secrets) };
    assert_eq!(given.settings.name, "webhook");
    assert_eq!(given.settings.content, Some(SecretContent::Text("hunter2".into())));
    let arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:archweld-Made-000000";
    assert_eq!((made.logical_id.as_str(), made.settings.arn.as_str()), ("Made", arn));
    let rules = GenerateSecretString {
        length: 40,
        exclude_punctuation: true,
        ..GenerateSecretString::default()
    };
    assert_eq!(made.settings.content, Some(SecretContent::Generated(rules)));
    assert_eq!(stack.functions[0].environment["SECRET"], arn);
}

#[test]
fn substitutes_in_the_definition() {
    let mut machine = fixture(&[]).state_machines.remove(0);
    let text = machine.definition_text().unwrap();
    assert!(text.contains(
        r#""Resource": "arn:aws:lambda:us-east-1:000000000000:function:archweld-Trigger""#
    ));
    machine.substitutions.insert("Extra".into(), "x".into());
    assert!(
        matches!(machine.definition_text(), Err(DefinitionError::Unused { name }) if name == "Extra")
    );
    machine.substitutions.clear();
    assert!(
        matches!(machine.definition_text(), Err(DefinitionError::Unknown { name }) if name == "Trigger")
    );
}

#[test]
fn lists_what_it_does_not_run() {
    let not_run = fixture(&[]).not_run;
    let listed: Vec<_> =
        not_run.iter().map(|entry| (entry.logical_id.as_str(), entry.kind.as_str())).collect();
    assert_eq!(
        listed,
        [
            ("Trigger.Old", "event Schedule"),
            ("Trigger.Upload", "event S3"),
            ("Plain", "layer arn:aws:lambda:us-east-1:580247275435:layer:LambdaInsights:38"),
            ("Group", "AWS::Scheduler::ScheduleGroup"),
            ("Role", "AWS::IAM::Role"),
            ("DeadLetters", "AWS::SQS::Queue"),
        ]
    );
}

#[test]
fn secret_parameters_are_not_shown() {
    let stack = fixture(&[("WebhookSecret", "hunter2")]);
    let secret = stack.parameters.iter().find(|parameter| parameter.secret).unwrap();
    assert_eq!(secret.value, "hunter2");
    assert!(!format!("{stack:?}").contains("hunter2"));
    let text = "Parameters: {Secret: {Type: String, NoEcho: true, MinLength: 8}}\nResources: {}";
    let given = deployment(&[("Secret", "hunter2")]);
    let error = Stack::parse(text, Path::new(""), &given).unwrap_err().to_string();
    assert!(error.ends_with("expected MinLength 8, found another"), "{error}");
}

#[test]
fn refuses_wrong_parameters() {
    let cases = [
        (("Stage", "test"), "Parameters.Stage: expected one of dev, prod, found test"),
        (
            ("Prefix", "App"),
            "expected a value that matches [a-z-]+, found App: letters in lower case",
        ),
        (("Hours", "25"), "Parameters.Hours: expected MaxValue 24, found 25"),
        (("Hours", "many"), "expected a number, found many"),
        (("Nope", "x"), "parameter Nope: the template has no such parameter"),
    ];
    for (given, expected) in cases {
        let error = Stack::parse(FIXTURE, Path::new(""), &deployment(&[given])).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn names_line_column_resource_and_property() {
    let error = parse(
        "Resources:\n  Fn:\n    Type: AWS::Serverless::Function\n    Properties:\n      CodeUri: bin/\n      Environment:\n        Variables:\n          A: !GetAtt Missing.Arn\n",
    )
    .unwrap_err();
    let TemplateError::Invalid { position, path, problem } = error else { panic!("{error}") };
    assert_eq!(position, Position { line: 8, column: 14 });
    assert_eq!(path, "Resources.Fn.Properties.Environment.Variables.A");
    assert_eq!(problem, "cannot resolve GetAtt Missing.Arn: no such resource");
}

#[test]
fn refuses_what_it_cannot_resolve_where_it_matters() {
    let function = |properties: &str| {
        format!(
            "Resources:\n  Fn:\n    Type: AWS::Serverless::Function\n    Properties: {{CodeUri: bin/fn, {properties}}}\n  Bucket: {{Type: AWS::S3::Bucket}}\n"
        )
    };
    let variable = |value: &str| function(&format!("Environment: {{Variables: {{A: {value}}}}}"));
    let cases = [
        (variable("!ImportValue other"), "Fn::ImportValue: cannot resolve this function"),
        (variable("!Ref Bucket"), "cannot resolve Ref Bucket of type AWS::S3::Bucket"),
        (variable("!GetAtt Fn.Version"), "cannot resolve GetAtt Fn.Version"),
        (variable("!Ref Nothing"), "no such parameter or resource"),
        (variable("\"{{resolve:ssm:/a}}\""), "cannot resolve a dynamic reference"),
        (variable("!If [Nope, a, b]"), "expected a condition, found Nope"),
        (variable("!Select [2, [a, b]]"), "expected an index below 2, found 2"),
        (variable("!FindInMap [A, b, c]"), "Mappings has no A.b.c"),
        (variable("!Sub \"${Fn\""), "expected } after ${"),
        (variable("!Join [a]"), "expected a list of 2"),
        (variable("[a]"), "expected a string, found a list"),
        (function("Timeout: 901"), "Properties.Timeout: expected a whole number from 1 to 900"),
        (function("Runtime: python3.13"), "expected a provided runtime"),
        (function("FunctionName: !Ref Fn"), "Resources.Fn depends on itself"),
        (
            function("Events: {E: {Type: EventBridgeRule, Properties: {Pattern: {source: aws}}}}"),
            "Pattern.source: expected an object or an array",
        ),
        (function("Events: {E: {Type: ScheduleV2}}"), "expected ScheduleExpression"),
        (
            function(
                "Events: {E: {Type: ScheduleV2, Properties: {ScheduleExpression: x, StartDate: now}}}",
            ),
            "StartDate: expected a time such as",
        ),
        (
            "Resources: {S: {Type: AWS::SecretsManager::Secret, Properties: {SecretString: x, GenerateSecretString: {}}}}"
                .to_owned(),
            "expected at most one of this and SecretString",
        ),
        (
            function(
                "Events: {E: {Type: EventBridgeRule, Properties: {Pattern: {a: [1]}, Input: \"{\"}}}",
            ),
            "Input: expected JSON",
        ),
        (
            "Resources: {Fn: {Type: AWS::Serverless::Function}}".to_owned(),
            "expected Metadata.BuildProperties.Binary",
        ),
        (
            "Resources: {P: {Type: AWS::CodeBuild::Project, Properties: {Environment: {}}}}"
                .to_owned(),
            "expected Source",
        ),
        (
            "Resources: {M: {Type: AWS::Serverless::StateMachine}}".to_owned(),
            "expected either DefinitionUri or Definition",
        ),
        ("Resources: {R: {}}".to_owned(), "Resources.R: expected a Type"),
        (
            "Resources: {R: {Type: X, Condition: A}}\nConditions: {A: !Not [!Condition A]}"
                .to_owned(),
            "Conditions.A depends on itself",
        ),
        ("Description: x".to_owned(), "Resources: expected a map of resources"),
        ("a: 1\na: 2".to_owned(), "line 2, column 1: expected key a once"),
        ("a: &x 1\nb: *x".to_owned(), "no aliases"),
        ("a: [1".to_owned(), "line 2, column 1"),
        (String::new(), "found nothing"),
        ("a: 1\n---\nb: 2".to_owned(), "expected one document"),
    ];
    for (text, expected) in cases {
        let error = parse(&text).expect_err(&text).to_string();
        assert!(error.contains(expected), "{text}\n{error}");
    }
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(parse(&deep).unwrap_err().to_string().contains("at most 128 levels"));
}

#[test]
fn the_real_template_gives_what_the_workflow_needs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
    let stack = Stack::read(&path, &deployment(&[])).unwrap();
    let mut binaries: Vec<_> =
        stack.functions.iter().map(|function| function.binary.as_str()).collect();
    binaries.sort_unstable();
    for binary in ["build-events", "plan-build", "publish", "reconcile", "start-build"] {
        assert!(binaries.contains(&binary), "{binary} of {binaries:?}");
    }
    assert_eq!(stack.state_machines.len(), 1);
    let definition = stack.state_machines[0].definition_text().unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&definition).unwrap().is_object());
    assert!(stack.builds.len() >= 3 && !stack.repositories.is_empty());
    let targets: Vec<_> =
        stack.rules.iter().flat_map(|rule| &rule.rule.targets).map(|target| &target.arn).collect();
    let build_events = stack.functions.iter().find(|function| function.binary == "build-events");
    assert!(targets.contains(&&build_events.unwrap().arn));
}

proptest! {
    #[test]
    fn never_panics(position in 0..FIXTURE.len(), length in 0_usize..40, insert in "[ \\n:!\\[\\]{}$&*a\"'-]{0,6}") {
        let mut text: Vec<char> = FIXTURE.chars().collect();
        let end = (position + length).min(text.len());
        text.splice(position..end, insert.chars());
        let text: String = text.into_iter().collect();
        drop(parse(&text));
    }
}
