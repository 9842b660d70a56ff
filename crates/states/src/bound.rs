//! How long an execution can take at most.

use std::time::Duration;

use crate::definition::{
    Definition, Handlers, Quantity, Retrier, State, StateId, StateKind, Transition, WaitUntil,
    WorkflowId,
};

/// What a Task without `TimeoutSeconds` may take
/// (<https://docs.aws.amazon.com/step-functions/latest/dg/state-task.html>).
const TIMEOUT_SECONDS_DEFAULT: u64 = 99_999_999;

/// The longest way from a state to the end.
#[derive(Clone, Copy)]
enum Longest {
    Unknown,
    /// It is being looked for: who comes back to it goes in circles.
    Sought,
    /// Seconds; none where there is no bound.
    Found(Option<u64>),
}

struct Search<'a> {
    definition: &'a Definition,
    timeout_seconds: &'a dyn Fn(&State) -> Option<u32>,
    longest: Vec<Longest>,
}

impl Definition {
    /// The longest time between an execution's start and its end: every task as often as it is
    /// retried, each time until its time-out, with the longest waits in between, on the longest way
    /// through the states; or the execution's own `TimeoutSeconds`, where that is shorter. None where
    /// neither bounds it.
    ///
    /// `timeout_seconds` is asked for the numbers that are known at run time only.
    pub fn time_max(&self, timeout_seconds: &dyn Fn(&State) -> Option<u32>) -> Option<Duration> {
        let states = self.states().count();
        let mut search =
            Search { definition: self, timeout_seconds, longest: vec![Longest::Unknown; states] };
        let way = search.workflow(self.top());
        let own = self.timeout_seconds().map(u64::from);
        way.into_iter().chain(own).min().map(Duration::from_secs)
    }
}

impl Search<'_> {
    fn workflow(&mut self, id: WorkflowId) -> Option<u64> {
        self.from(self.definition.workflow(id).start_at)
    }

    fn from(&mut self, id: StateId) -> Option<u64> {
        match self.longest[id.index()] {
            Longest::Found(longest) => return longest,
            Longest::Sought => return None,
            Longest::Unknown => self.longest[id.index()] = Longest::Sought,
        }
        let state = self.definition.state(id);
        let mut after = Some(0);
        for next in nexts(&state.kind) {
            let next = self.from(next);
            after = after.zip(next).map(|(after, next): (u64, u64)| after.max(next));
        }
        let own = self.itself(state);
        let longest = own.zip(after).map(|(own, after)| own.saturating_add(after));
        self.longest[id.index()] = Longest::Found(longest);
        longest
    }

    fn itself(&mut self, state: &State) -> Option<u64> {
        let once = match &state.kind {
            StateKind::Task(task) => match &task.timeout_seconds {
                None => TIMEOUT_SECONDS_DEFAULT,
                Some(seconds) => self.seconds(state, seconds)?,
            },
            StateKind::Wait { until: WaitUntil::Seconds(seconds), .. } => {
                self.seconds(state, seconds)?
            }
            StateKind::Wait { .. } => return None,
            StateKind::Parallel(parallel) => {
                let branches = parallel.branches.iter().map(|branch| self.workflow(*branch));
                branches.collect::<Option<Vec<_>>>()?.into_iter().max().unwrap_or_default()
            }
            StateKind::Map(map) => match map.max_concurrency {
                // All elements at once.
                None | Some(Quantity::Literal(0)) => self.workflow(map.item_processor)?,
                // As long as there are elements.
                Some(_) => return None,
            },
            StateKind::Pass { .. }
            | StateKind::Choice(_)
            | StateKind::Succeed
            | StateKind::Fail { .. } => 0,
        };
        Some(state.kind.handlers().map_or(once, |handlers| retried(once, handlers)))
    }

    fn seconds(&self, state: &State, quantity: &Quantity) -> Option<u64> {
        match quantity {
            Quantity::Literal(seconds) => Some((*seconds).into()),
            Quantity::Expression(_) => (self.timeout_seconds)(state).map(u64::from),
        }
    }
}

/// As often as all retriers have it together: each counts its own errors.
fn retried(once: u64, handlers: &Handlers) -> u64 {
    let retries = handlers.retry.iter().flat_map(delays);
    retries.fold(once, |all, delay| all.saturating_add(delay).saturating_add(once))
}

/// The longest waits before each retry, in seconds.
fn delays(retrier: &Retrier) -> impl Iterator<Item = u64> + use<'_> {
    (0..retrier.max_attempts).map(|retry| {
        let backoff = retrier.backoff_rate.powi(retry.try_into().unwrap_or(i32::MAX));
        let delay = f64::from(retrier.interval_seconds) * backoff;
        let delay = retrier.max_delay_seconds.map_or(delay, |max| delay.min(max.into()));
        // A float beyond the integers becomes their end.
        delay.ceil() as u64
    })
}

/// The states that may come next.
fn nexts(kind: &StateKind) -> Vec<StateId> {
    let transition = match kind {
        StateKind::Pass { transition, .. } | StateKind::Wait { transition, .. } => {
            Some(*transition)
        }
        StateKind::Task(task) => Some(task.transition),
        StateKind::Parallel(parallel) => Some(parallel.transition),
        StateKind::Map(map) => Some(map.transition),
        StateKind::Choice(_) | StateKind::Succeed | StateKind::Fail { .. } => None,
    };
    let mut nexts = Vec::new();
    if let Some(Transition::Next(next)) = transition {
        nexts.push(next);
    }
    if let StateKind::Choice(choice) = kind {
        nexts.extend(choice.rules.iter().map(|rule| rule.next).chain(choice.default));
    }
    let caught = kind.handlers().into_iter().flat_map(|handlers| &handlers.catch);
    nexts.extend(caught.map(|catcher| catcher.next));
    nexts
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn time_max(states: Value, timeout: Option<u32>) -> Option<u64> {
        let mut definition = json!({
            "QueryLanguage": "JSONata", "StartAt": "A", "States": states,
        });
        if let Some(timeout) = timeout {
            definition["TimeoutSeconds"] = timeout.into();
        }
        let definition = Definition::parse(&definition.to_string()).unwrap();
        definition.time_max(&|_| Some(100)).map(|time| time.as_secs())
    }

    fn task(more: Value) -> Value {
        let mut task = json!({
            "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": "f"}, "TimeoutSeconds": 10,
        });
        for (field, value) in more.as_object().unwrap() {
            task[field] = value.clone();
        }
        task
    }

    #[test]
    fn retries_take_their_waits_and_their_time_outs() {
        let retry = json!([
            {"ErrorEquals": ["A"], "IntervalSeconds": 2, "MaxAttempts": 3, "BackoffRate": 2, "MaxDelaySeconds": 5},
            {"ErrorEquals": ["B"], "IntervalSeconds": 1, "MaxAttempts": 1},
        ]);
        // Five attempts of ten seconds, waits of 2, 4, 5 and 1.
        let states = json!({"A": task(json!({"Retry": retry, "End": true}))});
        assert_eq!(time_max(states.clone(), None), Some(62));
        assert_eq!(time_max(states, Some(60)), Some(60));
    }

    #[test]
    fn the_longest_way_counts_whatever_leads_there() {
        let caught = json!([{"ErrorEquals": ["States.ALL"], "Next": "B"}]);
        let states = json!({
            "A": task(json!({"Catch": caught, "Next": "C"})),
            "B": task(json!({"TimeoutSeconds": "{% $states.input.seconds %}", "End": true})),
            "C": {"Type": "Succeed"},
        });
        assert_eq!(time_max(states, None), Some(110));
    }

    #[test]
    fn who_goes_in_circles_is_bound_by_the_execution_alone() {
        let states = json!({"A": task(json!({"Next": "B"})), "B": {"Type": "Choice",
            "Choices": [{"Condition": true, "Next": "A"}], "Default": "C"},
            "C": {"Type": "Succeed"}});
        assert_eq!(time_max(states.clone(), None), None);
        assert_eq!(time_max(states, Some(60)), Some(60));
    }
}
