//! Events, told apart by their shape before anything else of them is read.

use archweld_model::{Digest, ImageTag, RepositoryName};
use archweld_runtime::parse;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, webhook};

/// An event that may start runs.
pub(crate) enum Event {
    /// A request of the function URL's.
    Webhook(webhook::Request),
    /// A push to a CodeCommit repository.
    CodeCommit(Notice<Reference>),
    /// An image that was pushed, or anything else that became of one.
    Image(Notice<ImageAction>),
    /// A time that a schedule names.
    Schedule(Slot),
}

/// An event of EventBridge's.
#[derive(Deserialize)]
pub(crate) struct Notice<T> {
    /// The same for an event that comes twice.
    pub(crate) id: String,
    pub(crate) time: Timestamp,
    pub(crate) region: String,
    pub(crate) detail: T,
}

/// What became of a branch or tag
/// (<https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html>).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference {
    pub(crate) event: String,
    pub(crate) repository_name: String,
    pub(crate) reference_full_name: String,
    pub(crate) commit_id: Option<String>,
    pub(crate) old_commit_id: Option<String>,
    pub(crate) caller_user_arn: Option<String>,
}

/// What became of an image
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>).
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ImageAction {
    pub(crate) result: String,
    pub(crate) action_type: String,
    pub(crate) repository_name: RepositoryName,
    pub(crate) image_digest: Digest,
    pub(crate) image_tag: Option<ImageTag>,
}

/// What the template's schedules send:
/// `{"schedule": "nightly", "scheduled_time": "<aws.scheduler.scheduled-time>"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slot {
    pub(crate) schedule: String,
    pub(crate) scheduled_time: Timestamp,
}

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    /// When it is none of those above, or one of them with a field that is wrong.
    pub(crate) fn read(event: Value) -> Result<Self, Error> {
        let text = |field: &str| event.get(field).and_then(Value::as_str);
        if event.get("requestContext").is_some() {
            return Ok(Self::Webhook(parse(event)?));
        }
        if event.get("schedule").is_some() {
            return Ok(Self::Schedule(parse(event)?));
        }
        match (text("source"), text("detail-type")) {
            (Some("aws.codecommit"), Some("CodeCommit Repository State Change")) => {
                Ok(Self::CodeCommit(parse(event)?))
            }
            (Some("aws.ecr"), Some("ECR Image Action")) => Ok(Self::Image(parse(event)?)),
            _ => Err(Error::UnknownEvent),
        }
    }
}
