//! Function URLs: the event that a function gets of a request, and the response of its answer.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archweld_lambda::{
    AsynchronousRetries, FunctionError, FunctionSettings, Handler, Invocation, Lambda,
};
use archweld_local_api::Host;
use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A function that answers its event, fails where the path says so, or is never free.
fn lambda(concurrency_max: usize) -> Lambda {
    let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 1);
    let lambda = Lambda::new(host, BTreeMap::new());
    let handler = Handler::InProcess(Arc::new(|invocation: Invocation| {
        let event = invocation.payload;
        Box::pin(async move {
            if event["rawPath"] == "/fail" {
                let (error_type, error_message) = ("Secret".to_owned(), "details".to_owned());
                return Err(FunctionError { error_type, error_message });
            }
            Ok(event)
        })
    }));
    let settings = FunctionSettings {
        name: "trigger".to_owned(),
        arn: "arn:aws:lambda:us-east-1:000000000000:function:trigger".to_owned(),
        environment: BTreeMap::new(),
        timeout: Duration::from_secs(10),
        memory_mb: 128,
        concurrency_max,
        retries: AsynchronousRetries::default(),
        on_failure: None,
        handler,
    };
    lambda.create_function(settings).unwrap();
    lambda
}

async fn ask(lambda: &Lambda, path: &str, request: Request<Vec<u8>>) -> Response<Bytes> {
    lambda.handle_url("trigger", path, request.map(Bytes::from)).await
}

fn post(headers: &[(&str, &str)], body: &[u8]) -> Request<Vec<u8>> {
    let mut request =
        Request::post("/url/Trigger/webhook?a=1&b=x%20y&a=2").header("host", "localhost:4577");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_vec()).unwrap()
}

async fn event(headers: &[(&str, &str)], body: &[u8]) -> Value {
    let response = ask(&lambda(10), "/webhook", post(headers, body)).await;
    assert_eq!(response.status(), 200);
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_becomes_an_event_of_format_2() {
    let headers = [
        ("X-GitHub-Event", "push"),
        ("X-Many", "one"),
        ("X-Many", "two"),
        ("Cookie", "a=1; b=2"),
        ("User-Agent", "GitHub-Hookshot/1"),
        ("Content-Type", "application/json"),
    ];
    let mut event = event(&headers, b"{\"ref\": 1}").await;
    let headers = event["headers"].take();
    assert_eq!(
        (&headers["x-github-event"], &headers["x-many"]),
        (&json!("push"), &json!("one,two"))
    );
    assert_eq!(headers["host"], "localhost:4577");
    assert!(event["requestContext"]["requestId"].take().is_string());
    assert_eq!(
        event,
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/webhook",
            "rawQueryString": "a=1&b=x%20y&a=2",
            "queryStringParameters": {"a": "1,2", "b": "x y"},
            "cookies": ["a=1", "b=2"],
            "headers": null,
            "requestContext": {
                "accountId": "anonymous",
                "apiId": "trigger",
                "domainName": "localhost:4577",
                "domainPrefix": "localhost",
                "http": {
                    "method": "POST",
                    "path": "/webhook",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1",
                    "userAgent": "GitHub-Hookshot/1",
                },
                "requestId": null,
                "routeKey": "$default",
                "stage": "$default",
                "time": "01/Jan/1970:00:00:00 +0000",
                "timeEpoch": 0,
            },
            "body": "{\"ref\": 1}",
            "isBase64Encoded": false,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_text_comes_in_base64() {
    let cases: [(&str, &[u8]); 3] = [
        ("application/x-www-form-urlencoded", b"payload=%7B%7D"),
        ("application/octet-stream", b"\xff\x00"),
        // Text by its type alone.
        ("application/json", b"\xff"),
    ];
    for (kind, body) in cases {
        let event = event(&[("content-type", kind)], body).await;
        assert_eq!(event["isBase64Encoded"], true, "{kind}");
    }
    let event = event(&[], b"").await;
    assert_eq!((event.get("body"), &event["isBase64Encoded"]), (None, &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn a_failing_function_is_a_bad_gateway_without_details() {
    let response = ask(&lambda(10), "/fail", post(&[], b"{}")).await;
    assert_eq!(response.status(), 502);
    assert_eq!(&**response.body(), b"Internal Server Error");
}

#[tokio::test(start_paused = true)]
async fn what_lambda_refuses_has_lambdas_status() {
    assert_eq!(ask(&lambda(0), "/", post(&[], b"{}")).await.status(), 429);
    let large = vec![b'x'; 6 * 1024 * 1024];
    assert_eq!(ask(&lambda(10), "/", post(&[], &large)).await.status(), 413);
    let request = post(&[], b"").map(Bytes::from);
    assert_eq!(lambda(10).handle_url("other", "/", request).await.status(), 404);
}
