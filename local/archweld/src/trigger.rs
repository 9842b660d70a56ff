//! `archweld trigger`: a webhook by hand, signed as its provider signs.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use archweld_cloud::{OpenError, webhook_target};
use archweld_git::signing_secret;
use archweld_local_api::Host;
use archweld_template::{Deployment, Stack};
use http::Method;
use serde_json::{Value, json};

use crate::{
    arguments::Trigger,
    deployment::{ACCOUNT, REGION, STACK},
    error::Error,
    home,
    request::send,
};

/// Sends a webhook and prints the answer.
///
/// # Errors
/// When nothing can be sent, nobody answers, or the answer is no success.
pub(crate) async fn trigger(arguments: Trigger) -> Result<(), Error> {
    let payload = read(&arguments.payload)?;
    let given = match &arguments.secret_file {
        Some(path) => {
            let text = read(path)?;
            let secret = signing_secret(&String::from_utf8_lossy(&text)).map(str::to_owned);
            Some(secret.ok_or_else(|| Error::NoSecret(path.clone()))?)
        }
        None => None,
    };
    let (url, secret) = match (&arguments.url, given) {
        (Some(url), Some(secret)) => (url.clone(), secret),
        (_, given) => local(&arguments, given).await?,
    };
    let delivery =
        arguments.delivery.unwrap_or_else(|| Host::real(ACCOUNT, REGION).uuid().to_string());
    let headers =
        arguments.provider.headers(&arguments.event, &delivery, secret.as_bytes(), &payload);
    let (status, mut answer) = send(Method::POST, &url, &headers, payload).await?;
    answer.push(b'\n');
    io::stdout()
        .write_all(&answer)
        .map_err(|source| Error::System { what: "write to the standard output", source })?;
    if (200..300).contains(&status) { Ok(()) } else { Err(Error::Refused(status)) }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// The URL of the local cloud's function, and the secret: the given one or the cloud's own.
async fn local(arguments: &Trigger, given: Option<String>) -> Result<(String, String), Error> {
    let path = home::template(arguments.template.as_deref())?;
    let deployment = Deployment {
        stack_name: STACK.to_owned(),
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        parameters: BTreeMap::new(),
    };
    let stack = Stack::read(&path, &deployment)
        .map_err(|error| OpenError::Template { path, source: Box::new(error) })?;
    let target = webhook_target(&stack).ok_or(Error::NoWebhook)?;
    let endpoint = format!("http://localhost:{}", arguments.port);
    let secret = match given {
        Some(secret) => secret,
        None => secret(&endpoint, &target.secret).await?,
    };
    Ok((format!("{endpoint}{}", target.path), secret))
}

/// Asks the local cloud for its secret.
async fn secret(endpoint: &str, arn: &str) -> Result<String, Error> {
    let headers = [
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("x-amz-target", "secretsmanager.GetSecretValue".to_owned()),
    ];
    let input = json!({ "SecretId": arn }).to_string().into_bytes();
    let url = format!("{endpoint}/");
    let (status, answer) = send(Method::POST, &url, &headers, input).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let secret = answer["SecretString"].as_str().and_then(signing_secret);
    secret.map(str::to_owned).ok_or_else(|| {
        let reason = match answer["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!("the secret was answered {status}"),
        };
        Error::NoAnswer { url, reason }
    })
}
