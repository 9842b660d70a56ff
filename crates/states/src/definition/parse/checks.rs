//! Checks that need the whole definition.

use std::collections::BTreeSet;

use super::super::error::Problem;
use super::super::fields::Place;
use super::super::{
    DataFlow, Definition, Produce, State, StateId, StateKind, Transition, Workflow, WorkflowId,
};

/// Every state of a workflow can be reached, and the workflow can end.
pub(super) fn reachability(definition: &Definition, places: &[Place<'_>]) {
    for workflow in &definition.workflows {
        let mut reached = BTreeSet::new();
        let mut pending = vec![workflow.start_at];
        let mut ends = false;
        while let Some(id) = pending.pop() {
            if reached.insert(id) {
                let exits = Exits::of(definition.state(id));
                ends |= exits.ends;
                pending.extend(exits.next);
            }
        }
        for id in &workflow.states {
            if !reached.contains(id) {
                places[id.0].report(Problem::Unreachable);
            }
        }
        if !ends {
            places[workflow.start_at.0].report(Problem::NoEnd);
        }
    }
}

#[derive(Default)]
struct Exits {
    next: Vec<StateId>,
    ends: bool,
}

impl Exits {
    fn of(state: &State) -> Self {
        let mut exits = Self::default();
        match &state.kind {
            StateKind::Pass { transition, .. } | StateKind::Wait { transition, .. } => {
                exits.add(*transition);
            }
            StateKind::Task(task) => exits.add(task.transition),
            StateKind::Parallel(parallel) => exits.add(parallel.transition),
            StateKind::Map(map) => exits.add(map.transition),
            StateKind::Choice(choice) => {
                exits.next.extend(choice.rules.iter().map(|rule| rule.next));
                exits.next.extend(choice.default);
            }
            StateKind::Succeed | StateKind::Fail { .. } => exits.ends = true,
        }
        let catchers = state.kind.handlers().into_iter().flat_map(|handlers| &handlers.catch);
        exits.next.extend(catchers.map(|catcher| catcher.next));
        exits
    }

    fn add(&mut self, transition: Transition) {
        match transition {
            Transition::Next(id) => self.next.push(id),
            Transition::End => self.ends = true,
        }
    }
}

/// No workflow assigns a variable that a workflow around it assigns.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html>
pub(super) fn variable_scopes(definition: &Definition, top: WorkflowId, places: &[Place<'_>]) {
    let mut pending = vec![(top, BTreeSet::new())];
    while let Some((id, outer)) = pending.pop() {
        let workflow = definition.workflow(id);
        let mut visible: BTreeSet<&str> = outer.clone();
        for id in &workflow.states {
            for name in assigned(definition.state(*id)) {
                visible.insert(name);
                if outer.contains(name) {
                    let problem = Problem::ShadowedVariable(name.to_owned());
                    places[id.0].field("Assign").report(problem);
                }
            }
        }
        pending.extend(nested(definition, workflow).into_iter().map(|id| (id, visible.clone())));
    }
}

fn nested(definition: &Definition, workflow: &Workflow) -> Vec<WorkflowId> {
    let mut nested = Vec::new();
    for id in &workflow.states {
        match &definition.state(*id).kind {
            StateKind::Parallel(parallel) => nested.extend(&parallel.branches),
            StateKind::Map(map) => nested.push(map.item_processor),
            _ => {}
        }
    }
    nested
}

/// The variables that a state assigns, on whatever way out.
fn assigned(state: &State) -> Vec<&str> {
    fn names(produce: &Produce) -> impl Iterator<Item = &str> {
        produce.assign.iter().map(|(name, _)| name.as_str())
    }
    let mut assigned: Vec<&str> = match &state.data {
        DataFlow::Jsonata(produce) => names(produce).collect(),
        DataFlow::JsonPath(paths) => paths.assign.iter().map(|(name, _)| name.as_str()).collect(),
    };
    if let StateKind::Choice(choice) = &state.kind {
        assigned.extend(choice.rules.iter().flat_map(|rule| names(&rule.produce)));
    }
    let catchers = state.kind.handlers().into_iter().flat_map(|handlers| &handlers.catch);
    assigned.extend(catchers.flat_map(|catcher| names(&catcher.produce)));
    assigned
}
