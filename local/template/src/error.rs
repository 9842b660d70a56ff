//! What can be wrong with a template, and where.

use std::path::PathBuf;

/// A place in the template's text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("read template {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not YAML that CloudFormation takes.
    #[error("template {position}: {problem}")]
    Yaml {
        /// Where.
        position: Position,
        /// What was expected.
        problem: String,
    },
    /// A part of the template is not what it should be.
    #[error("template {position}: {path}: {problem}")]
    Invalid {
        /// Where in the text.
        position: Position,
        /// Where in the template, such as `Resources.Publish.Properties.Timeout`.
        path: String,
        /// What was expected.
        problem: String,
    },
    /// A value was given for a parameter that the template does not have.
    #[error("parameter {name}: the template has no such parameter")]
    UnknownParameter {
        /// The parameter.
        name: String,
    },
}

impl TemplateError {
    pub(crate) fn invalid(
        position: Position,
        path: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Invalid { position, path: path.into(), problem: problem.into() }
    }
}
