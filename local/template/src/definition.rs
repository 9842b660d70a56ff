//! State machine definitions and what is substituted in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

/// Where a state machine's definition is.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    /// In a file.
    File(PathBuf),
    /// In the template itself.
    Inline(Value),
}

/// Why a definition cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The file cannot be read.
    #[error("read definition {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The definition asks for what the template does not give.
    #[error(
        "definition uses ${{{name}}}, expected it among the template's DefinitionSubstitutions"
    )]
    Unknown {
        /// The substitution.
        name: String,
    },
    /// The template gives what the definition does not use.
    #[error("DefinitionSubstitutions has {name}, which the definition does not use")]
    Unused {
        /// The substitution.
        name: String,
    },
}

impl Definition {
    /// The definition's text, with `${name}` replaced.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or where the definition and the substitutions do not have
    /// the same names.
    pub fn text(
        &self,
        substitutions: &BTreeMap<String, String>,
    ) -> Result<String, DefinitionError> {
        let text = match self {
            Self::Inline(value) => value.to_string(),
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|source| DefinitionError::Read { path: path.clone(), source })?,
        };
        substitute(&text, substitutions)
    }
}

fn substitute(
    text: &str,
    substitutions: &BTreeMap<String, String>,
) -> Result<String, DefinitionError> {
    let mut unused: BTreeSet<&str> = substitutions.keys().map(String::as_str).collect();
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if is_name(name) => {
                let value = substitutions
                    .get(name)
                    .ok_or_else(|| DefinitionError::Unknown { name: name.to_owned() })?;
                unused.remove(name);
                filled.push_str(value);
                rest = after;
            }
            _ => {
                filled.push_str("${");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    match unused.first() {
        None => Ok(filled),
        Some(name) => Err(DefinitionError::Unused { name: (*name).to_owned() }),
    }
}

/// Other text in `${}` belongs to the definition's own expressions.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(substitutions: &[(&str, &str)]) -> BTreeMap<String, String> {
        substitutions.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn fills_every_place_of_a_name_and_leaves_other_braces() {
        let text = r#"{"a": "${Fn}", "b": "${Fn}", "c": "{% ${'x': 1} %}", "d": "${"}"#;
        let filled = substitute(text, &given(&[("Fn", "arn:fn")])).unwrap();
        assert_eq!(filled, r#"{"a": "arn:fn", "b": "arn:fn", "c": "{% ${'x': 1} %}", "d": "${"}"#);
    }

    #[test]
    fn refuses_what_only_one_side_names() {
        let unknown = substitute("${A} ${B}", &given(&[("A", "1")])).unwrap_err();
        assert!(matches!(unknown, DefinitionError::Unknown { name } if name == "B"));
        let unused = substitute("${A}", &given(&[("A", "1"), ("B", "2")])).unwrap_err();
        assert!(matches!(unused, DefinitionError::Unused { name } if name == "B"));
    }
}
