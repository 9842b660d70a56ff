//! Patterns in which `*` stands for any characters.

/// Whether a text matches a pattern in which `*` stands for any characters, none included.
pub fn matches_wildcard(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The leftmost place for each part leaves the most room for those after it.
    for part in middle.split('*') {
        let Some(found) = text.find(part) else { return false };
        text = &text[found + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without any regard for speed.
    fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => {
                (0..=text.len()).any(|skipped| matches_by_definition(rest, &text[skipped..]))
            }
            Some((first, rest)) => {
                text.first() == Some(first) && matches_by_definition(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_definition_says(
            pattern in "[ab*]{0,6}",
            text in "[ab]{0,8}",
        ) {
            prop_assert_eq!(
                matches_wildcard(&pattern, &text),
                matches_by_definition(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
