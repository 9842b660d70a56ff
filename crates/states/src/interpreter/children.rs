//! Branches of Parallel states and iterations of Map states.

use std::sync::Arc;

use serde_json::{Value, json};

use super::data::Given;
use super::thread::{Activity, Children, Thread, data_limit_exceeded};
use super::{Execution, Failure, Progress, Then, history};
use crate::definition::{self, Definition, State, StateKind};
use crate::execution::Effect;
use crate::payload::Payload;

impl Execution {
    pub(super) fn fork(
        &mut self,
        thread: &mut Thread,
        state: &State,
        parallel: &definition::Parallel,
        definition: &Definition,
    ) -> Progress {
        let input =
            self.template_or_input(thread, state, parallel.arguments.as_ref(), "Arguments")?;
        self.advance(thread, "ParallelStateStarted", None);
        let mut children = Children::new(parallel.branches.len());
        for (index, branch) in parallel.branches.iter().enumerate() {
            let child =
                self.spawn(definition, *branch, Arc::clone(&input), |id, start_at, input| {
                    thread.child(id, start_at, index, input, thread.last_event)
                });
            children.running.insert(index, child);
        }
        thread.activity = Activity::Children(children);
        Ok(Then::Park)
    }

    pub(super) fn iterate(
        &mut self,
        thread: &mut Thread,
        state: &State,
        map: &definition::Map,
        definition: &Definition,
    ) -> Progress {
        let items = self.items(thread, state, map)?;
        let limit = match &map.max_concurrency {
            Some(quantity) => self.quantity(thread, state, quantity, "MaxConcurrency", 0)?,
            None => 0,
        };
        for (field, expression) in &map.tolerated_failure {
            self.expression(thread, state, expression, field, "number", Value::as_f64)?;
        }
        self.advance(thread, "MapStateStarted", history::map_started(items.len()));
        let mut children = Children::new(items.len());
        children.waiting = items.into_iter();
        thread.activity = Activity::Children(children);
        let limit = if limit == 0 { usize::MAX } else { limit.try_into().unwrap_or(usize::MAX) };
        for _ in 0..limit {
            let previous = thread.last_event;
            if !self.start_iteration(thread, state, map, definition, previous)? {
                break;
            }
        }
        self.finish_children(thread, state)
    }

    /// Starts the next iteration, unless there is none.
    fn start_iteration(
        &mut self,
        thread: &mut Thread,
        state: &State,
        map: &definition::Map,
        definition: &Definition,
        previous: u64,
    ) -> Result<bool, Failure> {
        let Activity::Children(children) = &mut thread.activity else { return Ok(false) };
        let Some(item) = children.waiting.next() else { return Ok(false) };
        let index = children.results.len() - children.waiting.len() - 1;

        let outer_item = thread.map_item.take();
        thread.map_item = Some(Arc::new(json!({ "Index": index, "Value": item.clone() })));
        let input = match &map.item_selector {
            Some(selector) => self.template(thread, state, selector, "ItemSelector", Given::Input),
            None => Ok(item),
        };
        let map_item = std::mem::replace(&mut thread.map_item, outer_item);
        let input = match input.map(Payload::new) {
            Ok(input) if input.is_too_large() => Err(data_limit_exceeded(&state.name)),
            input => input,
        };
        let input = match input {
            Ok(input) => input,
            Err(failure) => {
                // The state itself failed: with its children there is no going on.
                self.abort_children(thread);
                thread.activity = Activity::Ready;
                return Err(failure);
            }
        };

        let details = history::iteration("mapIterationStartedEventDetails", &state.name, index);
        let started = self.record(previous, "MapIterationStarted", details);
        let child = self.spawn(definition, map.item_processor, input, |id, start_at, input| {
            let mut child = thread.child(id, start_at, index, input, started);
            child.map_item = map_item;
            child
        });
        if let Activity::Children(children) = &mut thread.activity {
            children.running.insert(index, child);
        }
        Ok(true)
    }

    pub(super) fn child_ended(
        &mut self,
        thread: &mut Thread,
        index: usize,
        child: &Thread,
        output: Arc<Payload>,
    ) -> Progress {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        let Activity::Children(children) = &mut thread.activity else { return Ok(Then::Park) };
        children.running.remove(&index);
        children.results[index] = Some(output);

        thread.last_event = child.last_event;
        if let StateKind::Map(map) = &state.kind {
            let details =
                history::iteration("mapIterationSucceededEventDetails", &state.name, index);
            self.advance(thread, "MapIterationSucceeded", details);
            // The next iteration follows from the end of the one before, not from its success.
            thread.decision_event = child.last_event;
            self.start_iteration(thread, state, map, &definition, child.last_event)?;
        }
        thread.decision_event = thread.last_event;
        self.finish_children(thread, state)
    }

    /// Leaves a Parallel or Map state whose children are all done.
    fn finish_children(&mut self, thread: &mut Thread, state: &State) -> Progress {
        let Activity::Children(children) = &mut thread.activity else { return Ok(Then::Park) };
        if !children.running.is_empty() {
            return Ok(Then::Park);
        }
        let results = std::mem::take(&mut children.results);
        let result: Value =
            results.into_iter().flatten().map(|output| output.value.clone()).collect();
        thread.activity = Activity::Ready;
        let (event_type, transition) = match &state.kind {
            StateKind::Parallel(parallel) => ("ParallelStateSucceeded", parallel.transition),
            StateKind::Map(map) => ("MapStateSucceeded", map.transition),
            _ => return Ok(Then::Park),
        };
        // The exit follows from the last child, not from this event.
        self.record(thread.last_event, event_type, None);
        self.leave(thread, state, Given::Result(&result), transition)
    }

    pub(super) fn child_failed(&mut self, thread: &mut Thread, index: usize, child: Thread) {
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        // What comes next follows from the end of the child, not from the iteration's failure.
        thread.last_event = child.last_event;
        thread.decision_event = child.last_event;
        if matches!(state.kind, StateKind::Map(_)) {
            let details = history::iteration("mapIterationFailedEventDetails", &state.name, index);
            self.record(child.last_event, "MapIterationFailed", details);
        }
        if let Activity::Children(children) = &mut thread.activity {
            children.running.remove(&index);
            children.stopped.insert(index, child);
        }
        self.abort_children(thread);
    }

    /// Stops whatever runs below a thread.
    fn abort_children(&mut self, thread: &mut Thread) {
        let Activity::Children(children) = &mut thread.activity else { return };
        let definition = Arc::clone(&self.definition);
        let state = definition.state(thread.state);
        for (index, child) in std::mem::take(&mut children.running) {
            let Some(mut child) = self.threads.remove(&child) else { continue };
            self.abort(&mut child);
            if matches!(state.kind, StateKind::Map(_)) {
                let details =
                    history::iteration("mapIterationAbortedEventDetails", &state.name, index);
                self.record(child.last_event, "MapIterationAborted", details);
            }
            children.stopped.insert(index, child);
        }
    }

    fn abort(&mut self, thread: &mut Thread) {
        match &thread.activity {
            // No event tells of its state.
            Activity::Between => return,
            Activity::Ready => {}
            Activity::Task(_) => {
                if let Some(task) = self.close_task(thread) {
                    self.effects.push(Effect::Cancel { task });
                }
            }
            Activity::Wait(timer) | Activity::Backoff(timer) => self.clear_timer(Some(*timer)),
            Activity::Children(_) => self.abort_children(thread),
        }
        let kind = &self.definition.state(thread.state).kind;
        if let Some(event_type) = history::aborted_type(kind) {
            self.advance(thread, event_type, None);
        }
    }
}
