//! The headers of a request.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Headers by name, in lower case, whatever case the function URL hands them over in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub(crate) struct Headers(BTreeMap<String, String>);

impl From<BTreeMap<String, String>> for Headers {
    fn from(headers: BTreeMap<String, String>) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}

impl Headers {
    /// A header, by its name in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
