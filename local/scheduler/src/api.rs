//! The operations that list schedules, and their REST protocol.
//!
//! <https://docs.aws.amazon.com/scheduler/latest/APIReference/API_Operations.html>

use std::collections::BTreeMap;

use archweld_local_api::ApiError;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Scheduler,
    service::{GROUP_DEFAULT, Schedule, lock, not_found},
};

/// How many schedules a page has unless the caller says, and at most.
const PAGE_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListSchedules {
    group_name: Option<String>,
    max_results: Option<usize>,
    name_prefix: Option<String>,
    next_token: Option<String>,
    state: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetSchedule {
    group_name: Option<String>,
    name: String,
}

impl Scheduler {
    /// Answers an operation.
    ///
    /// # Errors
    /// As the API names them.
    pub async fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        match operation {
            "ListSchedules" => {
                ApiError::parse_input("ValidationException", input).and_then(|it| self.list(it))
            }
            "GetSchedule" => {
                ApiError::parse_input("ValidationException", input).and_then(|it| self.get(&it))
            }
            other => Err(ApiError::unknown_operation(other)),
        }
    }

    /// The operation that a request of the REST protocol asks for, where there is one.
    pub fn operation(method: &Method, path: &str) -> Option<&'static str> {
        match path.strip_prefix("/schedules")? {
            _ if *method != Method::GET => None,
            "" | "/" => Some("ListSchedules"),
            name if name.starts_with('/') && !name[1..].contains('/') => Some("GetSchedule"),
            _ => None,
        }
    }

    /// Answers a request of the REST protocol.
    pub async fn handle_http(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let uri = request.uri();
        let answer = match Self::operation(request.method(), uri.path()) {
            Some(operation) => self.call(operation, input(operation, uri)).await,
            None => {
                Err(ApiError::unknown_operation(&format!("{} {}", request.method(), uri.path())))
            }
        };
        let (status, error, body) = match answer {
            Ok(output) => (200, None, output),
            Err(ApiError { code, message, status }) => {
                (status, Some(code), json!({ "Message": message }))
            }
        };
        let mut response =
            Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
        if let Some(code) = error {
            response = response.header("x-amzn-errortype", code);
        }
        response.body(body.to_string().into()).unwrap_or_else(|_| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    }

    fn list(&self, input: ListSchedules) -> Result<Value, ApiError> {
        let invalid = |message: &str| ApiError::client("ValidationException", message);
        if let Some(state) = &input.state
            && !["ENABLED", "DISABLED"].contains(&state.as_str())
        {
            return Err(invalid("State: expected ENABLED or DISABLED"));
        }
        let page = input.max_results.unwrap_or(PAGE_MAX);
        if !(1..=PAGE_MAX).contains(&page) {
            return Err(invalid("MaxResults: expected a number from 1 to 100"));
        }
        let schedules = lock(&self.service.schedules);
        let mut found = schedules.iter().filter(|(key, schedule)| {
            let settings = &schedule.settings;
            input.group_name.as_ref().is_none_or(|group| *group == settings.group)
                && input.name_prefix.as_ref().is_none_or(|prefix| settings.name.starts_with(prefix))
                && input.state.as_ref().is_none_or(|it| it == state(schedule))
                // A token is the key of the page before.
                && input.next_token.as_ref().is_none_or(|after| *key > after)
        });
        let mut summaries = Vec::new();
        let mut last = None;
        for (key, schedule) in found.by_ref().take(page) {
            let created = seconds(schedule.timetable.created);
            summaries.push(json!({
                "Arn": schedule.arn,
                "CreationDate": created,
                "GroupName": schedule.settings.group,
                "LastModificationDate": created,
                "Name": schedule.settings.name,
                "State": state(schedule),
                "Target": {"Arn": schedule.settings.target_arn},
            }));
            last = Some(key);
        }
        let mut output = json!({ "Schedules": summaries });
        if found.next().is_some() {
            output["NextToken"] = json!(last);
        }
        Ok(output)
    }

    fn get(&self, input: &GetSchedule) -> Result<Value, ApiError> {
        let group = input.group_name.as_deref().unwrap_or(GROUP_DEFAULT);
        let schedules = lock(&self.service.schedules);
        let schedule = schedules
            .get(&format!("{group}/{}", input.name))
            .ok_or_else(|| not_found(&input.name))?;
        let settings = &schedule.settings;
        let created = seconds(schedule.timetable.created);
        let mut output = json!({
            "ActionAfterCompletion": "NONE",
            "Arn": schedule.arn,
            "CreationDate": created,
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "GroupName": settings.group,
            "LastModificationDate": created,
            "Name": settings.name,
            "ScheduleExpression": settings.expression,
            "ScheduleExpressionTimezone": settings.time_zone,
            "State": state(schedule),
            "Target": {
                "Arn": settings.target_arn,
                "RoleArn": settings.role_arn,
                "RetryPolicy": {
                    "MaximumEventAgeInSeconds": settings.retries.age_max.as_secs(),
                    "MaximumRetryAttempts": settings.retries.attempts_max,
                },
            },
        });
        if let Some(window) = settings.flexible_window {
            output["FlexibleTimeWindow"] = json!({
                "Mode": "FLEXIBLE",
                "MaximumWindowInMinutes": window.as_secs() / 60,
            });
        }
        if let Some(input) = &settings.input {
            output["Target"]["Input"] = json!(input.to_string());
        }
        for (name, date) in [("StartDate", settings.start), ("EndDate", settings.end)] {
            if let Some(date) = date {
                output[name] = seconds(date);
            }
        }
        Ok(output)
    }
}

fn state(schedule: &Schedule) -> &'static str {
    if schedule.settings.enabled { "ENABLED" } else { "DISABLED" }
}

#[expect(clippy::cast_precision_loss, reason = "epoch milliseconds are exact in an f64")]
fn seconds(time: Timestamp) -> Value {
    json!(time.as_millisecond() as f64 / 1e3)
}

/// The input of an operation from a request's path and query.
fn input(operation: &str, uri: &http::Uri) -> Value {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query: BTreeMap<_, _> = query.into_owned().collect();
    let mut input = serde_json::Map::new();
    let mut insert = |field: &str, parameter: &str| {
        let Some(text) = query.get(parameter) else { return };
        // What is no number is refused by the field's name later.
        let number = text.parse::<u64>().ok().filter(|_| field == "MaxResults");
        input.insert(field.to_owned(), number.map_or_else(|| json!(text), |it| json!(it)));
    };
    if operation == "GetSchedule" {
        insert("GroupName", "groupName");
        let name = uri.path().trim_start_matches("/schedules/");
        let name = percent_decode_str(name).decode_utf8_lossy();
        input.insert("Name".to_owned(), json!(name));
    } else {
        insert("GroupName", "ScheduleGroup");
        for field in ["MaxResults", "NamePrefix", "NextToken", "State"] {
            insert(field, field);
        }
    }
    Value::Object(input)
}
