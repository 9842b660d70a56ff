//! Both services through their operations, and what is left in the folder.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use archweld_local_api::Host;
use archweld_secrets::{GenerateSecretString, OpenError, SecretContent, SecretSettings, Secrets};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:webhook-000000";

fn host() -> Host {
    Host::seeded("000000000000", "us-east-1", "2026-11-23T10:00:00Z".parse().unwrap(), 7)
}

fn settings(content: SecretContent) -> SecretSettings {
    let description = Some("Signs webhooks.".to_owned());
    let content = Some(content);
    SecretSettings { name: "webhook".to_owned(), arn: ARN.to_owned(), description, content }
}

fn text(text: &str) -> SecretSettings {
    settings(SecretContent::Text(text.to_owned()))
}

fn with(value: &str) -> Secrets {
    let secrets = Secrets::open(host(), None).unwrap();
    secrets.create_secret(text(value)).unwrap();
    secrets
}

async fn value(secrets: &Secrets, input: Value) -> Result<String, String> {
    let answer = secrets.call("GetSecretValue", input).await;
    answer.map(|it| it["SecretString"].as_str().unwrap().to_owned()).map_err(|error| error.code)
}

#[tokio::test]
async fn a_secret_is_found_by_name_and_by_arn() {
    let secrets = with("hunter2");
    let partial = ARN.strip_suffix("-000000").unwrap();
    for id in ["webhook", ARN, partial] {
        assert_eq!(value(&secrets, json!({"SecretId": id})).await.unwrap(), "hunter2");
    }
    for id in ["webhoo", "", "arn:aws:secretsmanager:us-east-1:000000000000:secret:other-000000"] {
        let error = value(&secrets, json!({"SecretId": id})).await.unwrap_err();
        assert_eq!(error, "ResourceNotFoundException");
    }
    let error = secrets.call("GetSecretValue", json!({"SecretId": 5})).await.unwrap_err();
    assert_eq!(error.code, "InvalidParameterException");
    assert!(error.message.starts_with("SecretId: "), "{error}");
    let error = secrets.call("DeleteSecret", json!({})).await.unwrap_err();
    assert_eq!(error.code, "UnknownOperationException");
}

#[tokio::test]
async fn a_secret_without_a_value_gets_one_by_hand() {
    let secrets = Secrets::open(host(), None).unwrap();
    secrets.create_secret(SecretSettings { content: None, ..text("") }).unwrap();
    let id = json!({"SecretId": ARN});
    assert_eq!(value(&secrets, id.clone()).await.unwrap_err(), "ResourceNotFoundException");
    let put = json!({"SecretId": ARN, "SecretString": "by hand"});
    secrets.call("PutSecretValue", put).await.unwrap();
    assert_eq!(value(&secrets, id).await.unwrap(), "by hand");
}

#[tokio::test]
async fn a_rotation_keeps_the_previous_value() {
    let secrets = with("first");
    let previous = json!({"SecretId": "webhook", "VersionStage": "AWSPREVIOUS"});
    assert_eq!(value(&secrets, previous.clone()).await.unwrap_err(), "ResourceNotFoundException");
    for new in ["second", "third"] {
        let put = json!({"SecretId": "webhook", "SecretString": new});
        let answer = secrets.call("PutSecretValue", put).await.unwrap();
        assert_eq!(answer["VersionStages"], json!(["AWSCURRENT"]));
    }
    assert_eq!(value(&secrets, json!({"SecretId": "webhook"})).await.unwrap(), "third");
    assert_eq!(value(&secrets, previous).await.unwrap(), "second");
    let described = secrets.call("DescribeSecret", json!({"SecretId": ARN})).await.unwrap();
    assert_eq!(described["VersionIdsToStages"].as_object().unwrap().len(), 2);
    assert_eq!(described["Description"], "Signs webhooks.");
    assert!(!described.to_string().contains("third"));
}

#[tokio::test]
async fn labels_move_as_a_rotation_moves_them() {
    let secrets = with("first");
    let current = secrets.call("GetSecretValue", json!({"SecretId": ARN})).await.unwrap();
    let current = current["VersionId"].as_str().unwrap();
    let pending = "11111111-2222-3333-4444-555555555555";
    let put = json!({
        "SecretId": ARN, "SecretString": "second", "ClientRequestToken": pending,
        "VersionStages": ["AWSPENDING"],
    });
    secrets.call("PutSecretValue", put.clone()).await.unwrap();
    secrets.call("PutSecretValue", put).await.unwrap();
    let other = json!({"SecretId": ARN, "SecretString": "x", "ClientRequestToken": pending});
    let error = secrets.call("PutSecretValue", other).await.unwrap_err();
    assert_eq!(error.code, "ResourceExistsException");
    assert_eq!(value(&secrets, json!({"SecretId": ARN})).await.unwrap(), "first");

    let finish = |from: &str| {
        json!({
            "SecretId": ARN, "VersionStage": "AWSCURRENT",
            "MoveToVersionId": pending, "RemoveFromVersionId": from,
        })
    };
    let error = secrets.call("UpdateSecretVersionStage", finish(pending)).await.unwrap_err();
    assert_eq!(error.code, "InvalidParameterException");
    secrets.call("UpdateSecretVersionStage", finish(current)).await.unwrap();
    assert_eq!(value(&secrets, json!({"SecretId": ARN})).await.unwrap(), "second");
    let previous = json!({"SecretId": ARN, "VersionStage": "AWSPREVIOUS", "VersionId": current});
    assert_eq!(value(&secrets, previous).await.unwrap(), "first");
    let wrong = json!({"SecretId": ARN, "VersionStage": "AWSCURRENT", "VersionId": current});
    assert_eq!(value(&secrets, wrong).await.unwrap_err(), "InvalidRequestException");
}

#[tokio::test]
async fn a_restart_keeps_values_in_a_file_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let generated = || settings(SecretContent::Generated(GenerateSecretString::default()));
    let first = Secrets::open(host(), Some(folder.path())).unwrap();
    first.create_secret(generated()).unwrap();
    let put = json!({"Name": "/a/b", "Value": "v", "Type": "SecureString"});
    first.call_parameters("PutParameter", put).await.unwrap();
    let made = value(&first, json!({"SecretId": ARN})).await.unwrap();
    assert_eq!(made.len(), 32);
    let file = folder.path().join("secrets.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!format!("{first:?}").contains(&made));

    let second = Secrets::open(host(), Some(folder.path())).unwrap();
    second.create_secret(generated()).unwrap();
    assert_eq!(value(&second, json!({"SecretId": ARN})).await.unwrap(), made);
    let get = json!({"Name": "/a/b", "WithDecryption": true});
    let found = second.call_parameters("GetParameter", get).await.unwrap();
    assert_eq!(found["Parameter"]["Value"], "v");

    fs::write(&file, "{\"secrets\": {\"webhook\": \"hunter2\"}}").unwrap();
    let error = Secrets::open(host(), Some(folder.path())).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_templates_text_is_taken_when_it_changes_and_not_before() {
    let secrets = with("of the template");
    let put = json!({"SecretId": ARN, "SecretString": "by hand"});
    secrets.call("PutSecretValue", put).await.unwrap();
    secrets.create_secret(text("of the template")).unwrap();
    assert_eq!(value(&secrets, json!({"SecretId": ARN})).await.unwrap(), "by hand");
    secrets.create_secret(text("of another template")).unwrap();
    assert_eq!(value(&secrets, json!({"SecretId": ARN})).await.unwrap(), "of another template");
}

#[tokio::test]
async fn a_secure_parameter_is_shown_only_where_decryption_is_asked_for() {
    let secrets = Secrets::open(host(), None).unwrap();
    let call = async |operation: &str, input: Value| {
        secrets.call_parameters(operation, input).await.map_err(|error| error.code)
    };
    let put = json!({"Name": "/archweld/secret", "Value": "hunter2", "Type": "SecureString"});
    assert_eq!(call("PutParameter", put.clone()).await.unwrap()["Version"], 1);
    assert_eq!(call("PutParameter", put).await.unwrap_err(), "ParameterAlreadyExists");
    let plain = call("GetParameter", json!({"Name": "/archweld/secret"})).await.unwrap();
    assert_eq!(plain["Parameter"]["Type"], "SecureString");
    assert_ne!(plain["Parameter"]["Value"], "hunter2");
    let over = json!({"Name": "/archweld/secret", "Value": "hunter3", "Overwrite": true});
    assert_eq!(call("PutParameter", over).await.unwrap()["Version"], 2);
    let arn = "arn:aws:ssm:us-east-1:000000000000:parameter/archweld/secret";
    for name in ["/archweld/secret", "/archweld/secret:2", arn] {
        let get = json!({"Name": name, "WithDecryption": true});
        let found = call("GetParameter", get).await.unwrap();
        assert_eq!(found["Parameter"]["Value"], "hunter3");
        assert_eq!(found["Parameter"]["ARN"], arn);
    }
    for (name, code) in
        [("/none", "ParameterNotFound"), ("/archweld/secret:1", "ParameterVersionNotFound")]
    {
        assert_eq!(call("GetParameter", json!({"Name": name})).await.unwrap_err(), code);
    }
    for wrong in [
        json!({"Name": "a b", "Value": "v", "Type": "String"}),
        json!({"Name": "a", "Value": "v", "Type": "Text"}),
        json!({"Name": "a", "Value": "v"}),
        json!({"Name": "a", "Value": "", "Type": "String"}),
    ] {
        assert_eq!(call("PutParameter", wrong).await.unwrap_err(), "ValidationException");
    }
}
