//! JSON together with its text, which history events and size limits need.

use std::sync::Arc;

use serde_json::Value;

/// The most bytes that an input, an output, a variable or the variables of one `Assign` have.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// A value and its text.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) value: Value,
    pub(crate) json: String,
}

impl Payload {
    pub(crate) fn new(value: Value) -> Arc<Self> {
        let json = value.to_string();
        Arc::new(Self { value, json })
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.json.len() > PAYLOAD_BYTES_MAX
    }
}
