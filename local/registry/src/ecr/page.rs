//! ECR's way of listing in pages.

use archweld_local_api::ApiError;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::invalid_parameter;

/// What an operation that lists takes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageInput {
    max_results: Option<usize>,
    next_token: Option<String>,
}

impl PageInput {
    pub(super) fn is_empty(&self) -> bool {
        self.max_results.is_none() && self.next_token.is_none()
    }

    /// The last key of the page before this one. An operation that has much to list begins there.
    pub(super) fn after(&self) -> Result<Option<String>, ApiError> {
        self.next_token.as_ref().map(decode).transpose()
    }

    /// The items of this page, and the token of the next one. The items come in the order of
    /// their keys; a token is the last key of its page, so it stays good when items come and go.
    pub(super) fn of<T>(
        &self,
        items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        default: usize,
        max: usize,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        let count = self.max_results.unwrap_or(default);
        if !(1..=max).contains(&count) {
            return Err(invalid_parameter("maxResults", &format!("1 to {max}")));
        }
        let after = self.after()?;
        let mut items = items.filter(|item| after.as_ref().is_none_or(|after| key(item) > *after));
        let page: Vec<T> = items.by_ref().take(count).collect();
        let more = items.next().is_some();
        let next =
            page.last().filter(|_| more).map(|item| BASE64_URL_SAFE_NO_PAD.encode(key(item)));
        Ok((page, next))
    }
}

fn decode(token: &String) -> Result<String, ApiError> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| invalid_parameter("nextToken", "a token of an earlier page"))
}
