//! Lists, a page at a time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use archweld_local_api::ApiError;

use crate::error::{invalid_token, validation};

/// What AWS gives at once where nothing is asked for.
const ITEMS_DEFAULT: usize = 100;

/// The most that AWS gives at once.
const ITEMS_MAX: usize = 1000;

/// A page: some items, and a token for the next page if there is one.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_token: Option<String>,
}

impl<T> Page<T> {
    /// The first items of a list, each with its key. The next page starts after the last key.
    pub(crate) fn of(
        mut items: impl Iterator<Item = (u64, T)>,
        items_max: Option<u64>,
    ) -> Result<Self, ApiError> {
        let items_max = match items_max.map(usize::try_from) {
            None | Some(Ok(0)) => ITEMS_DEFAULT,
            Some(Ok(items_max)) if items_max <= ITEMS_MAX => items_max,
            Some(_) => {
                return Err(validation(format!(
                    "1 validation error detected: Value at 'maxResults' failed to satisfy \
                     constraint: Member must have value less than or equal to {ITEMS_MAX}"
                )));
            }
        };
        let mut page = Vec::new();
        let mut last_key = None;
        for (key, item) in items.by_ref().take(items_max) {
            page.push(item);
            last_key = Some(key);
        }
        let next_token = match (last_key, items.next()) {
            (Some(key), Some(_)) => Some(URL_SAFE_NO_PAD.encode(key.to_string())),
            _ => None,
        };
        Ok(Self { items: page, next_token })
    }
}

/// The key that the page before ended with.
pub(crate) fn last_key(token: Option<&str>) -> Result<Option<u64>, ApiError> {
    let decode = |token: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    };
    token.map(|token| decode(token).ok_or_else(invalid_token)).transpose()
}
