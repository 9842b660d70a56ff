//! A state machine as a graph: states, what follows what, and what runs inside which.

use std::collections::BTreeMap;

use archweld_states::{
    Definition, Resource, Retrier, State, StateId, StateKind, TaskState, Transition, WorkflowId,
};
use axum::{
    Json,
    extract::{Path, State as Given},
};
use serde::Serialize;

use crate::{app::Shared, error::Error};

/// A definition, as far as it is drawn.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Graph {
    name: String,
    arn: String,
    /// The first one is the outermost.
    workflows: Vec<Workflow>,
}

/// States that transitions connect.
#[derive(Debug, PartialEq, Serialize)]
struct Workflow {
    start: String,
    states: Vec<Node>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Node {
    name: String,
    /// Such as `Task`.
    kind: &'static str,
    /// What a task runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<&'static str>,
    edges: Vec<Edge>,
    /// Whether its workflow may end after it.
    ends: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retries: Vec<Retry>,
    /// The workflows that run inside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workflows: Vec<usize>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Edge {
    to: String,
    kind: EdgeKind,
    /// The errors that a catcher is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum EdgeKind {
    Next,
    Choice,
    Default,
    Catch,
}

#[derive(Debug, PartialEq, Serialize)]
struct Retry {
    errors: Vec<String>,
    attempts: u32,
}

struct Reader<'a> {
    definition: &'a Definition,
    /// The place of each workflow in the graph.
    places: BTreeMap<WorkflowId, usize>,
    workflows: Vec<Workflow>,
}

impl Graph {
    fn of(name: &str, arn: &str, definition: &Definition) -> Self {
        let mut reader = Reader { definition, places: BTreeMap::new(), workflows: Vec::new() };
        reader.workflow(definition.top());
        Self { name: name.to_owned(), arn: arn.to_owned(), workflows: reader.workflows }
    }
}

impl Reader<'_> {
    fn workflow(&mut self, id: WorkflowId) -> usize {
        if let Some(&place) = self.places.get(&id) {
            return place;
        }
        let workflow = self.definition.workflow(id);
        let place = self.workflows.len();
        self.places.insert(id, place);
        self.workflows.push(Workflow { start: self.name(workflow.start_at), states: Vec::new() });
        let states = workflow.states.iter().map(|&state| self.node(state)).collect();
        self.workflows[place].states = states;
        place
    }

    fn name(&self, state: StateId) -> String {
        self.definition.state(state).name.clone()
    }

    fn node(&mut self, id: StateId) -> Node {
        let definition = self.definition;
        let State { name, kind, .. } = definition.state(id);
        let (mut edges, mut ends) = (Vec::new(), false);
        let mut to = |state: StateId, kind: EdgeKind, errors: &[String]| {
            let to = definition.state(state).name.clone();
            edges.push(Edge { to, kind, errors: errors.to_owned() });
        };
        let mut workflows = Vec::new();
        let transition = match kind {
            StateKind::Pass { transition, .. } | StateKind::Wait { transition, .. } => {
                Some(*transition)
            }
            StateKind::Task(task) => Some(task.transition),
            StateKind::Parallel(parallel) => {
                workflows.extend(&parallel.branches);
                Some(parallel.transition)
            }
            StateKind::Map(map) => {
                workflows.push(map.item_processor);
                Some(map.transition)
            }
            StateKind::Choice(choice) => {
                for rule in &choice.rules {
                    to(rule.next, EdgeKind::Choice, &[]);
                }
                if let Some(default) = choice.default {
                    to(default, EdgeKind::Default, &[]);
                }
                None
            }
            StateKind::Succeed | StateKind::Fail { .. } => {
                ends = true;
                None
            }
        };
        match transition {
            Some(Transition::Next(next)) => to(next, EdgeKind::Next, &[]),
            Some(Transition::End) => ends = true,
            None => {}
        }
        let handlers = kind.handlers();
        for catcher in handlers.into_iter().flat_map(|handlers| &handlers.catch) {
            to(catcher.next, EdgeKind::Catch, &catcher.error_equals);
        }
        let retries = handlers.into_iter().flat_map(|handlers| &handlers.retry);
        Node {
            name: name.clone(),
            kind: kind.name(),
            runs: match kind {
                StateKind::Task(task) => Some(runs(task)),
                _ => None,
            },
            edges,
            ends,
            retries: retries.map(Retry::from).collect(),
            workflows: workflows.into_iter().map(|id| self.workflow(id)).collect(),
        }
    }
}

impl From<&Retrier> for Retry {
    fn from(retrier: &Retrier) -> Self {
        Self { errors: retrier.error_equals.clone(), attempts: retrier.max_attempts }
    }
}

fn runs(task: &TaskState) -> &'static str {
    match (&task.resource, task.waits_for_token) {
        (Resource::PutEvents, _) => "puts an event",
        (_, true) => "function, then waits for a build",
        (_, false) => "function",
    }
}

pub(crate) async fn graph(
    Given(app): Shared,
    Path(machine): Path<String>,
) -> Result<Json<Graph>, Error> {
    let machine = app.machine(&machine).ok_or_else(|| Error::not_found("state machine"))?;
    let definition = app.states.definition(&machine.arn);
    let definition = definition.ok_or_else(|| Error::not_found("state machine"))?;
    Ok(Json(Graph::of(&machine.name, &machine.arn, &definition)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_graph_has_what_the_definition_has() {
        let text = json!({
            "QueryLanguage": "JSONata",
            "StartAt": "Each",
            "States": {
                "Each": {
                    "Type": "Map",
                    "ItemProcessor": {
                        "ProcessorConfig": {"Mode": "INLINE"},
                        "StartAt": "Do",
                        "States": {"Do": {
                            "Type": "Task",
                            "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
                            "Arguments": {"FunctionName": "f", "Payload": {"token": "{% $states.context.Task.Token %}"}},
                            "Retry": [{"ErrorEquals": ["A"], "MaxAttempts": 5}],
                            "End": true,
                        }},
                    },
                    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "No"}],
                    "Next": "Which",
                },
                "Which": {
                    "Type": "Choice",
                    "Choices": [{"Condition": "{% true %}", "Next": "Yes"}],
                    "Default": "No",
                },
                "Yes": {"Type": "Succeed"},
                "No": {"Type": "Fail"},
            },
        });
        let definition = Definition::parse(&text.to_string()).unwrap();
        let graph = serde_json::to_value(Graph::of("m", "arn", &definition)).unwrap();
        let node = |workflow: usize, name: &str| {
            let states = graph["workflows"][workflow]["states"].as_array().unwrap();
            states.iter().find(|state| state["name"] == name).unwrap().clone()
        };
        assert_eq!(graph["workflows"][0]["start"], "Each");
        assert_eq!(
            node(0, "Each"),
            json!({
                "name": "Each", "kind": "Map", "ends": false, "workflows": [1],
                "edges": [
                    {"to": "Which", "kind": "next"},
                    {"to": "No", "kind": "catch", "errors": ["States.ALL"]},
                ],
            })
        );
        assert_eq!(
            node(0, "Which")["edges"],
            json!([{"to": "Yes", "kind": "choice"}, {"to": "No", "kind": "default"}])
        );
        assert_eq!(
            node(1, "Do"),
            json!({
                "name": "Do", "kind": "Task", "runs": "function, then waits for a build",
                "edges": [], "ends": true, "retries": [{"errors": ["A"], "attempts": 5}],
            })
        );
        assert_eq!(node(0, "No")["ends"], true);
    }
}
