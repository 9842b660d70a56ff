//! What can be wrong with a definition, and where.

use std::fmt;

use thiserror::Error;

/// Everything that is wrong with a definition; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(errors))]
pub struct DefinitionErrors {
    errors: Vec<DefinitionError>,
}

impl DefinitionErrors {
    pub(super) fn new(errors: Vec<DefinitionError>) -> Self {
        Self { errors }
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &DefinitionError> {
        self.errors.iter()
    }
}

fn lines(errors: &[DefinitionError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// One problem of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct DefinitionError {
    /// The state, where the problem is inside one.
    pub state: Option<String>,
    /// The field within the state, such as `Retry[0]/MaxAttempts`, or within the top level.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(state) = &self.state {
            write!(formatter, "state {state:?}: ")?;
        }
        if let Some(field) = &self.field {
            write!(formatter, "{field}: ")?;
        }
        self.problem.fmt(formatter)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is not JSON.
    #[error("not valid JSON at line {line}, column {column}: {message}")]
    Syntax {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A field that must be there is not.
    #[error("missing")]
    Missing,
    /// The field does not exist here.
    #[error("unknown field{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    UnknownField {
        /// What may have been meant, or why it is not here.
        hint: Option<&'static str>,
    },
    /// The states language has this, archweld does not.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The value is of a wrong type or out of range.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What may stand here.
        expected: String,
        /// What does.
        found: String,
    },
    /// Two fields of which one must go.
    #[error("cannot stand beside {0}")]
    Conflict(&'static str),
    /// A JSONata expression does not parse or uses what it may not.
    #[error("bad JSONata expression: {0}")]
    Expression(String),
    /// A transition to a state that is not in the same workflow.
    #[error("no state {0:?} here")]
    NoSuchState(String),
    /// No transition leads to the state.
    #[error("no transition leads to this state")]
    Unreachable,
    /// No way out of the workflow: every path loops.
    #[error("no state here ends the workflow")]
    NoEnd,
    /// The name of the state stands elsewhere in the definition, too.
    #[error("another state has the same name")]
    DuplicateState,
    /// A variable of an inner scope would hide one of an outer scope.
    #[error("the variable {0:?} is assigned in an outer scope, too")]
    ShadowedVariable(String),
}
