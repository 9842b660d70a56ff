//! The EventBridge envelope.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An event as it travels over the bus, in the envelope that rules match and targets receive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// The version of the envelope: always `0`.
    pub version: String,
    /// A UUID of this event.
    pub id: String,
    /// What kind of event `detail` is, such as `CodeBuild Build State Change`.
    pub detail_type: String,
    /// Who says so, such as `aws.codebuild`.
    pub source: String,
    /// The account that the event happened in.
    pub account: String,
    /// When it happened, to the second.
    pub time: String,
    /// The region that it happened in.
    pub region: String,
    /// The ARNs of what it happened to.
    pub resources: Vec<String>,
    /// What happened.
    pub detail: Value,
}

impl Event {
    /// Formats a time as the envelope does: RFC 3339 in UTC, whole seconds.
    pub fn format_time(time: Timestamp) -> String {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// Where a service hands its events: never blocks, never fails.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;
