//! Executions and state machines for people who look: typed, and without a copy.

use std::ops::ControlFlow;
use std::sync::Arc;

use archweld_states::{Definition, HistoryEvent};
use jiff::Timestamp;

use crate::record::Record;
use crate::{Status, StepFunctions};

/// An execution, as long as the service is not asked for anything else.
#[derive(Clone, Copy)]
pub struct ExecutionView<'a>(&'a Record);

impl<'a> ExecutionView<'a> {
    /// Its ARN.
    pub fn arn(self) -> &'a str {
        &self.0.arn
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        &self.0.name
    }

    /// The name of its state machine.
    pub fn state_machine(self) -> &'a str {
        &self.0.state_machine.name
    }

    /// How it stands.
    pub fn status(self) -> Status {
        self.0.status()
    }

    /// The input's text, as it was given.
    pub fn input(self) -> &'a str {
        &self.0.input
    }

    /// When it began.
    pub fn started(self) -> Timestamp {
        self.0.started
    }

    /// When it was over.
    pub fn ended(self) -> Option<Timestamp> {
        self.0.end.as_ref().map(|end| end.at)
    }

    /// The text of its output, once it has succeeded.
    pub fn output(self) -> Option<&'a str> {
        self.0.end.as_ref()?.output.as_deref()
    }

    /// The name of the error that it ended with.
    pub fn error(self) -> Option<&'a str> {
        self.0.end.as_ref()?.error.as_deref()
    }

    /// The cause of that.
    pub fn cause(self) -> Option<&'a str> {
        self.0.end.as_ref()?.cause.as_deref()
    }

    /// The events so far. Their details hold inputs whole, and with these task tokens.
    pub fn history(self) -> &'a [HistoryEvent] {
        &self.0.history
    }

    /// Every task token so far: what must not be shown.
    pub fn tokens(self) -> impl Iterator<Item = &'a str> {
        self.0.tokens.iter().map(|(token, _)| token.as_str())
    }
}

impl StepFunctions {
    /// Looks at executions, the newest first, until `visit` breaks off.
    ///
    /// `visit` must not call the service, which waits meanwhile.
    pub fn visit_executions<T>(
        &self,
        mut visit: impl FnMut(ExecutionView<'_>) -> ControlFlow<T>,
    ) -> Option<T> {
        let registry = self.service.registry();
        for record in registry.executions.values().rev() {
            if let ControlFlow::Break(found) = visit(ExecutionView(record)) {
                return Some(found);
            }
        }
        None
    }

    /// Looks at one execution, if there is one of that ARN. `look` must not call the service.
    pub fn look_at<T>(&self, arn: &str, look: impl FnOnce(ExecutionView<'_>) -> T) -> Option<T> {
        let registry = self.service.registry();
        let record = registry.executions.get(registry.numbers.get(arn)?)?;
        Some(look(ExecutionView(record)))
    }

    /// The definition of a state machine, by its ARN.
    pub fn definition(&self, state_machine_arn: &str) -> Option<Arc<Definition>> {
        let registry = self.service.registry();
        Some(registry.state_machines.get(state_machine_arn)?.definition.clone())
    }
}
