//! From the git remote to the function URL: webhooks, signed and sent as a provider's are.

use std::sync::{Arc, OnceLock, Weak};

use archweld_git::{Answer, Deliver, Delivery, Provider, signing_secret};
use archweld_local_api::ApiError;
use archweld_secrets::Secrets;
use archweld_template::Stack;
use axum::{
    Router,
    body::{Body, to_bytes},
};
use futures_util::FutureExt as _;
use http::Request;
use serde_json::json;
use tower::ServiceExt as _;

use crate::door::{BODY_BYTES_MAX, FUNCTION_URLS};

/// Where webhooks go, and what signs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The path of the function's URL.
    pub path: String,
    /// The ARN of the secret.
    pub secret: String,
}

/// The function of the template that webhooks are for: the first with a URL that anybody may call
/// and a secret of the template in its environment. Of several secrets it is the one whose
/// variable has `WEBHOOK` in its name.
pub fn webhook_target(stack: &Stack) -> Option<WebhookTarget> {
    let open = stack.functions.iter().filter(|it| it.url.as_ref().is_some_and(|url| !url.signed));
    open.into_iter().find_map(|function| {
        let mut variables: Vec<_> = function.environment.iter().collect();
        variables.sort_by_key(|(name, _)| !name.contains("WEBHOOK"));
        let is_secret = |value: &str| stack.secrets.iter().any(|it| it.settings.arn == value);
        let (_, secret) = variables.into_iter().find(|(_, value)| is_secret(value))?;
        let path = format!("{FUNCTION_URLS}{}/", function.logical_id);
        Some(WebhookTarget { path, secret: secret.clone() })
    })
}

/// Signs a webhook with the secret as it is then, and sends it to the function's URL through the
/// same door as any other request.
pub(crate) fn deliver(
    stack: &Stack,
    secrets: Secrets,
    door: Arc<OnceLock<Weak<Router>>>,
) -> Deliver {
    let target = webhook_target(stack);
    Arc::new(move |delivery| {
        let (target, secrets) = (target.clone(), secrets.clone());
        let router = door.get().and_then(Weak::upgrade);
        async move {
            let target = target.ok_or("no function of the template takes webhooks")?;
            let router = router.ok_or("the local cloud is stopping")?;
            let secret = secret(&secrets, &target.secret)
                .await
                .map_err(|error| format!("the webhook is not signed: {error}"))?;
            send(&router, &target.path, &secret, delivery).await
        }
        .boxed()
    })
}

async fn secret(secrets: &Secrets, arn: &str) -> Result<String, ApiError> {
    let found = secrets.call("GetSecretValue", json!({ "SecretId": arn })).await?;
    let secret = found["SecretString"].as_str().and_then(signing_secret).map(str::to_owned);
    secret.ok_or_else(|| ApiError::client("ResourceNotFoundException", "the secret has no text"))
}

async fn send(
    router: &Router,
    path: &str,
    secret: &str,
    Delivery { event, id, body }: Delivery,
) -> Result<Answer, String> {
    let headers = Provider::GitHub.headers(event, &id, secret.as_bytes(), &body);
    let request = Request::post(path).header(http::header::HOST, "localhost");
    let request = headers.into_iter().fold(request, |it, (name, value)| it.header(name, value));
    let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
    // The router cannot fail: what goes wrong in it is an HTTP status.
    let response = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await;
    Ok(Answer { status, body: body.map_err(|error| error.to_string())? })
}
