//! Function URLs: an HTTP request becomes an event, and the function's answer an HTTP response.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>. AWS gives each function a
//! host name; here a function is told apart by whoever routes to [`Lambda::handle_url`]. Requests
//! are not signed, so that only URLs of `AuthType: NONE` can be served.

use std::collections::BTreeMap;

use archweld_local_api::ApiError;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts,
};
use serde_json::{Map, Value, json};

use crate::{InvocationType, Lambda, Outcome};

/// Media types whose bodies a function gets as text; besides these, `text/*`. All others come in
/// base64.
const TEXTUAL: [&str; 3] = ["application/json", "application/javascript", "application/xml"];

/// What the server writes itself, whatever a function says.
const OF_THE_SERVER: [HeaderName; 3] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

impl Lambda {
    /// Answers a request to the URL of a function. `path` is the request's path below that URL.
    pub async fn handle_url(
        &self,
        function: &str,
        path: &str,
        request: Request<Bytes>,
    ) -> Response<Bytes> {
        let (parts, body) = request.into_parts();
        let event = Bytes::from(self.url_event(function, path, &parts, &body).to_string());
        match self.invoke(function, event, InvocationType::RequestResponse).await {
            Ok(invoked) => match invoked.outcome {
                Outcome::Succeeded(answer) => response(&answer).unwrap_or_else(bad_gateway),
                Outcome::FunctionError(_) | Outcome::Accepted | Outcome::Checked => bad_gateway(),
            },
            Err(ApiError { message, status, .. }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                plain(status, json!({ "Message": message }).to_string())
            }
        }
    }

    /// Payload format 2.0.
    fn url_event(&self, function: &str, path: &str, parts: &Parts, body: &Bytes) -> Value {
        let host = &self.service.host;
        let now = host.now();
        let mut headers = joined(&parts.headers);
        let domain = headers.get("host").cloned().unwrap_or_else(|| "localhost".to_owned());
        let port = domain.rsplit_once(':').map_or("80", |(_, port)| port).to_owned();
        headers.insert("x-amzn-trace-id".to_owned(), self.service.trace_id().to_string());
        for (name, value) in [("for", "127.0.0.1"), ("port", port.as_str()), ("proto", "http")] {
            headers.insert(format!("x-forwarded-{name}"), value.to_owned());
        }
        let path = if path.is_empty() { "/" } else { path };
        let query = parts.uri.query().unwrap_or_default();
        let mut event = json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "requestContext": {
                "accountId": "anonymous",
                "apiId": function,
                "domainName": domain,
                "domainPrefix": domain.split(['.', ':']).next(),
                "http": {
                    "method": parts.method.as_str(),
                    "path": path,
                    "protocol": format!("{:?}", parts.version),
                    "sourceIp": "127.0.0.1",
                    "userAgent": headers.get("user-agent").map_or("", String::as_str),
                },
                "requestId": host.uuid().to_string(),
                "routeKey": "$default",
                "stage": "$default",
                "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
                "timeEpoch": now.as_millisecond(),
            },
            "isBase64Encoded": false,
        });
        if let Some(cookies) = headers.get("cookie") {
            event["cookies"] = cookies.split("; ").collect();
        }
        if !query.is_empty() {
            let mut parameters: BTreeMap<String, String> = BTreeMap::new();
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                let joined = parameters.entry(name.into_owned());
                joined
                    .and_modify(|all| *all = format!("{all},{value}"))
                    .or_insert_with(|| value.clone().into_owned());
            }
            event["queryStringParameters"] = json!(parameters);
        }
        if !body.is_empty() {
            let textual = is_textual(headers.get("content-type").map_or("", String::as_str));
            match std::str::from_utf8(body) {
                Ok(text) if textual => event["body"] = text.into(),
                _ => {
                    event["body"] = STANDARD.encode(body).into();
                    event["isBase64Encoded"] = true.into();
                }
            }
        }
        event["headers"] = json!(headers);
        event
    }
}

/// The headers by their names in lower case, those that come more than once joined by commas.
fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str().to_owned())
            .and_modify(|all| *all = format!("{all},{value}"))
            .or_insert_with(|| value.clone().into_owned());
    }
    joined
}

fn is_textual(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.starts_with("text/") || TEXTUAL.contains(&media.as_str())
}

/// A function's answer: a response where it has a `statusCode`, else the body of one. None for an
/// answer that is neither.
fn response(answer: &Bytes) -> Option<Response<Bytes>> {
    let parsed: Value = serde_json::from_slice(answer).ok()?;
    let Some(fields) = parsed.as_object().filter(|fields| fields.contains_key("statusCode")) else {
        return Some(plain(StatusCode::OK, answer.clone()));
    };
    let status = fields.get("statusCode").and_then(Value::as_u64);
    let status = StatusCode::from_u16(u16::try_from(status?).ok()?).ok()?;
    let body = match fields.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) if is_true(fields, "isBase64Encoded") => {
            STANDARD.decode(text).ok()?.into()
        }
        Some(Value::String(text)) => text.clone().into(),
        Some(_) => return None,
    };
    let mut response = plain(status, body);
    let headers = match fields.get("headers") {
        None | Some(Value::Null) => &Map::new(),
        Some(headers) => headers.as_object()?,
    };
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return None,
        };
        if !OF_THE_SERVER.contains(&name) {
            response.headers_mut().insert(name, HeaderValue::from_str(&value).ok()?);
        }
    }
    for cookie in fields.get("cookies").and_then(Value::as_array).into_iter().flatten() {
        let cookie = HeaderValue::from_str(cookie.as_str()?).ok()?;
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Some(response)
}

fn is_true(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name) == Some(&Value::Bool(true))
}

/// A failed function, or one whose answer cannot be sent: the caller learns nothing of why.
fn bad_gateway() -> Response<Bytes> {
    plain(StatusCode::BAD_GATEWAY, "Internal Server Error")
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str) -> Option<(u16, String, String)> {
        let response = response(&Bytes::copy_from_slice(answer.as_bytes()))?;
        let kind = response.headers()[header::CONTENT_TYPE].to_str().ok()?.to_owned();
        let body = String::from_utf8_lossy(response.body()).into_owned();
        Some((response.status().as_u16(), kind, body))
    }

    #[test]
    fn an_answer_without_a_status_is_the_body() {
        for answer in [r#"{"message":"hi"}"#, r#""hi""#, "null"] {
            let expected = (200, "application/json".to_owned(), answer.to_owned());
            assert_eq!(of(answer), Some(expected));
        }
    }

    #[test]
    fn an_answer_with_a_status_is_the_response() {
        let cases = [
            (r#"{"statusCode":204}"#, 204, "application/json", ""),
            (r#"{"statusCode":401,"body":"no"}"#, 401, "application/json", "no"),
            (
                r#"{"statusCode":200,"headers":{"Content-Type":"text/plain","Content-Length":"99","X":1},"body":"aGk=","isBase64Encoded":true}"#,
                200,
                "text/plain",
                "hi",
            ),
        ];
        for (answer, status, kind, body) in cases {
            assert_eq!(of(answer), Some((status, kind.to_owned(), body.to_owned())), "{answer}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_sent_is_none() {
        for answer in [
            r#"{"statusCode":"no"}"#,
            r#"{"statusCode":99999}"#,
            r#"{"statusCode":200,"body":{"a":1}}"#,
            r#"{"statusCode":200,"body":"!","isBase64Encoded":true}"#,
            r#"{"statusCode":200,"headers":{"a b":"c"}}"#,
            r#"{"statusCode":200,"headers":{"a":"b\r\nc: d"}}"#,
            r#"{"statusCode":200,"headers":[]}"#,
        ] {
            assert_eq!(of(answer), None, "{answer}");
        }
    }

    #[test]
    fn a_form_is_not_textual() {
        for textual in ["text/plain", "TEXT/html; charset=utf-8", "application/json;charset=utf-8"]
        {
            assert!(is_textual(textual), "{textual}");
        }
        for binary in
            ["", "application/x-www-form-urlencoded", "application/octet-stream", "texts/x"]
        {
            assert!(!is_textual(binary), "{binary}");
        }
    }
}
