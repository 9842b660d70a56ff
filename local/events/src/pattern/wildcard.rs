//! Strings with `*` in them.

/// The literal pieces between wildcards: text matches when it begins with the first, ends with
/// the last and has the others in order between them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wildcard {
    pieces: Vec<String>,
}

impl Wildcard {
    /// `\*` is an asterisk and `\\` a backslash; no other escapes, and no two wildcards in a row.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut pieces = vec![String::new()];
        let mut after_wildcard = false;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let literal = match character {
                '*' if after_wildcard => return Err("expected no two wildcards in a row"),
                '*' => {
                    pieces.push(String::new());
                    after_wildcard = true;
                    continue;
                }
                '\\' => characters
                    .next()
                    .filter(|escaped| matches!(escaped, '*' | '\\'))
                    .ok_or("expected * or \\ after a backslash")?,
                literal => literal,
            };
            after_wildcard = false;
            if let Some(piece) = pieces.last_mut() {
                piece.push(literal);
            }
        }
        Ok(Self { pieces })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self.pieces.as_slice() {
            [] => false,
            [only] => text == only,
            [first, middle @ .., last] => {
                let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
                for piece in middle {
                    // The leftmost place leaves the most text for the pieces that follow.
                    let Some(at) = rest.find(piece.as_str()) else { return false };
                    rest = &rest[at + piece.len()..];
                }
                rest.ends_with(last.as_str())
            }
        }
    }
}
