//! What everything in a world shares: the faults drawn so far, the trace, and what is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use archweld_local_api::Host;
use jiff::Timestamp;

use crate::{
    checks::Model,
    faults::{FAULTS, Fault, FaultPlan, Injection, mix, unit},
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in the world's time.
    pub time: Timestamp,
    /// Who did it, or whom it befell.
    pub actor: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:<14} {}", self.time.strftime("%H:%M:%S%.3f"), self.actor, self.what)
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number in `docs/reliability.md`.
    pub invariant: u8,
    /// When it was seen, in the world's time.
    pub time: Timestamp,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.message)
    }
}

/// Runs of a world: the number of each among those that began.
pub(crate) type Runs = BTreeSet<u32>;

/// A fault that was injected, and the runs that it hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) injection: Injection,
    pub(crate) runs: Runs,
}

/// A fault that hits runs which have yet to begin.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Planned {
    /// A number from 0 to 1 that says how hard.
    pub(crate) size: f64,
    number: usize,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fault")
    }
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

struct Inner {
    host: Host,
    seed: u64,
    plan: FaultPlan,
    state: Mutex<State>,
}

pub(crate) struct State {
    /// Whether faults are injected: at the end of a world they are not.
    faults: bool,
    opportunities: [u32; FAULTS],
    pub(crate) injected: Vec<Injected>,
    /// What is on its way and nobody else knows of.
    on_the_way: u32,
    draws: u64,
    pub(crate) trace: Option<Vec<Event>>,
    /// How many calls of AWS APIs were made.
    pub(crate) calls: u64,
    pub(crate) model: Model,
    pub(crate) violation: Option<Violation>,
}

/// What a draw is for: each has numbers of its own.
const DRAWS: u64 = 1_000;
const SIZES: u64 = 2_000;

impl Shared {
    pub(crate) fn new(host: Host, seed: u64, plan: FaultPlan, traced: bool, model: Model) -> Self {
        let state = State {
            faults: true,
            opportunities: [0; FAULTS],
            injected: Vec::new(),
            on_the_way: 0,
            draws: 0,
            trace: traced.then(Vec::new),
            calls: 0,
            model,
            violation: None,
        };
        Self(Arc::new(Inner { host, seed, plan, state: Mutex::new(state) }))
    }

    pub(crate) fn host(&self) -> &Host {
        &self.0.host
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No faults from now on.
    pub(crate) fn end_faults(&self) {
        self.state().faults = false;
    }

    /// Whether a fault befalls a run, named by its execution's ARN, or what serves all that run now.
    /// If so, gives a number from 0 to 1 that says how hard.
    pub(crate) fn inject(&self, fault: Fault, execution: Option<&str>) -> Option<f64> {
        self.inject_into(fault, |model| model.runs(execution), execution)
    }

    /// The same for a fault whose runs have yet to begin: [`Shared::hit`] tells of them.
    pub(crate) fn plan(&self, fault: Fault) -> Option<Planned> {
        let size = self.inject_into(fault, |_| Runs::new(), None)?;
        Some(Planned { size, number: self.state().injected.len() - 1 })
    }

    /// Notes which runs a planned fault hit.
    pub(crate) fn hit(&self, fault: Planned, runs: impl FnOnce(&Model) -> Runs) {
        let mut state = self.state();
        let runs = runs(&state.model);
        state.injected[fault.number].runs.extend(runs);
    }

    fn inject_into(
        &self,
        fault: Fault,
        runs: impl FnOnce(&Model) -> Runs,
        execution: Option<&str>,
    ) -> Option<f64> {
        let mut state = self.state();
        if !state.faults {
            return None;
        }
        let opportunity = &mut state.opportunities[fault as usize];
        *opportunity += 1;
        let injection = Injection { fault, opportunity: *opportunity };
        if !self.0.plan.injects(self.0.seed, fault, injection.opportunity) {
            return None;
        }
        let runs = runs(&state.model);
        state.injected.push(Injected { injection, runs });
        if let Some(trace) = &mut state.trace {
            let who = execution.map(|arn| format!(" ({})", short(arn))).unwrap_or_default();
            trace.push(Event {
                time: self.0.host.now(),
                actor: "FAULT".to_owned(),
                what: format!("{injection}{who}"),
            });
        }
        let kind = SIZES + fault as u64;
        Some(unit(mix(self.0.seed, kind, injection.opportunity.into())))
    }

    /// Does something later, of which only the world knows meanwhile.
    pub(crate) fn later(&self, after: Duration, then: impl Future<Output = ()> + Send + 'static) {
        self.state().on_the_way += 1;
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            shared.state().on_the_way -= 1;
            then.await;
        });
    }

    /// Whether a run is under way, or something that may start or end one.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.state();
        state.on_the_way > 0 || state.model.running().next().is_some()
    }

    /// A number from 0 to 1 that is no fault's.
    pub(crate) fn draw(&self) -> f64 {
        let mut state = self.state();
        state.draws += 1;
        unit(mix(self.0.seed, DRAWS, state.draws))
    }

    /// A time between two, in milliseconds.
    pub(crate) fn draw_ms(&self, from: u64, to: u64) -> Duration {
        between_ms(self.draw(), from, to)
    }

    /// Adds to the trace, where one is kept.
    pub(crate) fn trace(&self, event: impl FnOnce() -> (String, String)) {
        let mut state = self.state();
        if let Some(trace) = &mut state.trace {
            let (actor, what) = event();
            trace.push(Event { time: self.0.host.now(), actor, what });
        }
    }

    /// Whether a trace is kept.
    pub(crate) fn is_traced(&self) -> bool {
        self.state().trace.is_some()
    }

    /// Looks at something with the model; what is wrong is a violation. Only the first counts: what
    /// follows may follow from it.
    pub(crate) fn check(
        &self,
        check: impl FnOnce(&mut Model, Timestamp) -> Result<(), (u8, String)>,
    ) {
        let now = self.0.host.now();
        let mut state = self.state();
        if let Err((invariant, message)) = check(&mut state.model, now)
            && state.violation.is_none()
        {
            let violation = Violation { invariant, time: now, message };
            if let Some(trace) = &mut state.trace {
                let what = violation.to_string();
                trace.push(Event { time: now, actor: "VIOLATION".to_owned(), what });
            }
            state.violation = Some(violation);
        }
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.state().violation.is_some()
    }
}

/// A time between two, in milliseconds, by a number from 0 to 1.
pub(crate) fn between_ms(number: f64, from: u64, to: u64) -> Duration {
    Duration::from_micros(((from as f64 + number * (to - from) as f64) * 1_000.0) as u64)
}

/// The last part of an ARN.
pub(crate) fn short(arn: &str) -> &str {
    arn.rsplit_once(':').map_or(arn, |(_, name)| name)
}

/// How often each kind of fault was injected, and which runs of a world each hit.
pub(crate) fn count(injected: &[Injected]) -> BTreeMap<Fault, (u64, Runs)> {
    let mut counts: BTreeMap<Fault, (u64, Runs)> = BTreeMap::new();
    for Injected { injection, runs } in injected {
        let (times, hit) = counts.entry(injection.fault).or_default();
        *times += 1;
        hit.extend(runs);
    }
    counts
}
