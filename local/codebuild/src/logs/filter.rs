//! Filter patterns for lines of text.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>, the part
//! on unstructured log events. Patterns for JSON, for space-delimited events and regular
//! expressions are refused.

use std::str::FromStr;

/// What a line must and must not hold.
pub(super) struct Filter {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(pattern: &str) -> Result<Self, String> {
        let mut filter = Self { all: Vec::new(), any: Vec::new(), none: Vec::new() };
        let mut rest = pattern.trim();
        if rest.starts_with(['{', '[', '%']) {
            return Err(format!(
                "filterPattern {pattern:?} is not made of terms, the only kind served here."
            ));
        }
        while !rest.is_empty() {
            let terms = match rest.chars().next() {
                Some('?') => &mut filter.any,
                Some('-') => &mut filter.none,
                _ => &mut filter.all,
            };
            let term = rest.trim_start_matches(['?', '-']);
            let (text, after) = match term.strip_prefix('"') {
                Some(quoted) => quoted
                    .split_once('"')
                    .ok_or_else(|| format!("filterPattern {pattern:?} has an open quote."))?,
                None => term.split_once(char::is_whitespace).unwrap_or((term, "")),
            };
            if text.is_empty() {
                return Err(format!("filterPattern {pattern:?} has an empty term."));
            }
            terms.push(text.to_owned());
            rest = after.trim_start();
        }
        Ok(filter)
    }
}

impl Filter {
    pub(super) fn matches(&self, line: &str) -> bool {
        self.all.iter().all(|term| line.contains(term))
            && (self.any.is_empty() || self.any.iter().any(|term| line.contains(term)))
            && !self.none.iter().any(|term| line.contains(term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_terms_as_cloudwatch_does() {
        let cases = [
            ("", "anything", true),
            ("ERROR", "an ERROR here", true),
            ("ERROR", "an error here", false),
            ("a b", "b and a", true),
            ("\"a b\"", "b and a", false),
            ("?a ?b", "only b", true),
            ("a -b", "a b", false),
            ("-\"exit status 0\"", "exit status 1", true),
        ];
        for (pattern, line, expected) in cases {
            let filter: Filter = pattern.parse().unwrap();
            assert_eq!(filter.matches(line), expected, "{pattern} on {line}");
        }
    }

    #[test]
    fn refuses_patterns_that_it_does_not_serve() {
        for pattern in ["{ $.a = 1 }", "[a, b]", "%x+%", "\"open", "\"\""] {
            assert!(pattern.parse::<Filter>().is_err(), "{pattern}");
        }
    }
}
