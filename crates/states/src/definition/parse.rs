//! From text to [`Definition`], collecting every problem.
//!
//! <https://states-language.net/spec.html>

mod checks;
mod handlers;
mod state;
mod values;

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::{DefinitionError, Problem};
use super::fields::{Fields, Place, Problems, Unread};
use super::{Definition, State, StateId, Workflow, WorkflowId};
use crate::json;

/// The most that the platform takes for a time in seconds.
const SECONDS_MAX: u32 = 99_999_999;
/// As long as a state's or a variable's name may be.
const NAME_CHARS_MAX: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueryLanguage {
    Jsonata,
    JsonPath,
}

pub(super) fn definition(text: &str) -> Result<Definition, Vec<DefinitionError>> {
    let problems = Problems::default();
    let definition = read(text, &problems);
    let problems = problems.into_inner();
    match definition {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(problems),
    }
}

fn read(text: &str, problems: &Problems) -> Option<Definition> {
    let place = Place::top(problems);
    let value = match json::parse(text) {
        Ok(value) => value,
        Err(error) => {
            let text = error.to_string();
            // The position is in the problem's own fields.
            let message = text.split_once(" at line ").map_or(text.as_str(), |(before, _)| before);
            place.report(Problem::Syntax {
                line: error.line(),
                column: error.column(),
                message: message.to_owned(),
            });
            return None;
        }
    };
    let mut fields = Fields::of(place, value)?;
    let mut parser = Parser {
        language: query_language(&mut fields).unwrap_or(QueryLanguage::JsonPath),
        states: Vec::new(),
        workflows: Vec::new(),
        places: Vec::new(),
    };
    let timeout_seconds = fields.integer("TimeoutSeconds", 1..=SECONDS_MAX);
    if let Some((place, version)) = fields.take("Version")
        && version != "1.0"
    {
        place.unexpected("\"1.0\"", &version);
    }
    let top = parser.workflow(&mut fields);
    fields.finish(|_| Unread::Unknown(None));

    let top = top?;
    let Parser { states, workflows, places, .. } = parser;
    let states = states.into_iter().collect::<Option<Vec<State>>>()?;
    let workflows = workflows.into_iter().collect::<Option<Vec<Workflow>>>()?;
    let definition = Definition { timeout_seconds, states, workflows };
    checks::reachability(&definition, &places);
    checks::variable_scopes(&definition, top, &places);
    Some(definition)
}

fn query_language(fields: &mut Fields<'_>) -> Option<QueryLanguage> {
    let (place, value) = fields.take("QueryLanguage")?;
    match value.as_str() {
        Some("JSONata") => Some(QueryLanguage::Jsonata),
        Some("JSONPath") => Some(QueryLanguage::JsonPath),
        _ => {
            place.unexpected("\"JSONata\" or \"JSONPath\"", &value);
            None
        }
    }
}

struct Parser<'p> {
    /// The language of states that name none.
    language: QueryLanguage,
    /// By [`StateId`]; `None` while a state is being read, and where it cannot be.
    states: Vec<Option<State>>,
    /// By [`WorkflowId`], in the same way.
    workflows: Vec<Option<Workflow>>,
    /// By [`StateId`].
    places: Vec<Place<'p>>,
}

/// The states that a transition can lead to.
type Names = BTreeMap<String, StateId>;

impl<'p> Parser<'p> {
    /// Reads `StartAt`, `States` and `Comment`.
    fn workflow(&mut self, fields: &mut Fields<'p>) -> Option<WorkflowId> {
        let id = WorkflowId(self.workflows.len());
        self.workflows.push(None);
        fields.string("Comment");
        let start_at = fields.required_string("StartAt");
        let (states_place, states) = fields.require("States")?;
        let Value::Object(states) = states else {
            states_place.unexpected("an object", &states);
            return None;
        };
        if states.is_empty() {
            states_place.unexpected("at least one state", &Value::Object(states));
            return None;
        }

        // All names come first: transitions may lead forward.
        let first = self.states.len();
        let names: Names = states
            .keys()
            .enumerate()
            .map(|(at, name)| (name.clone(), StateId(first + at)))
            .collect();
        for name in states.keys() {
            let place = fields.place.of_state(name);
            if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
                let expected = format!("a name of 1 to {NAME_CHARS_MAX} characters");
                place.unexpected(&expected, &Value::from(name.as_str()));
            }
            if self.places.iter().any(|other| other.state_name() == Some(name)) {
                place.report(Problem::DuplicateState);
            }
            self.states.push(None);
            self.places.push(place);
        }
        let ids: Vec<StateId> = (first..self.states.len()).map(StateId).collect();
        for (id, (name, value)) in ids.iter().zip(states) {
            self.states[id.0] = self.state(name, value, self.places[id.0].clone(), &names);
        }
        let start_at = find(&names, &fields.place.field("StartAt"), &start_at?)?;
        self.workflows[id.0] = Some(Workflow { start_at, states: ids });
        Some(id)
    }
}

fn find(names: &Names, place: &Place<'_>, name: &str) -> Option<StateId> {
    let id = names.get(name).copied();
    if id.is_none() {
        place.report(Problem::NoSuchState(name.to_owned()));
    }
    id
}
