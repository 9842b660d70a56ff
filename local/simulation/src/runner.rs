//! Many worlds, on all cores.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Alterations, Fault, FaultPlan, Injection, Violation, WorldError, simulate, state::count,
};

/// How often each kind of fault was injected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many times.
    pub injected: u64,
    /// How many runs it hit: the run of the event, the build or the function; of what serves several
    /// runs, such as a pass of `reconcile`, all those under way.
    pub runs: u64,
    /// How many worlds in which it was injected broke an invariant.
    pub violations: u64,
}

/// A world that broke an invariant.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// The faults that were injected in it.
    pub injections: Vec<Injection>,
}

/// What came of many worlds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs that began and ended.
    pub runs: u64,
    /// Runs that published.
    pub published: u64,
    /// Calls of AWS APIs.
    pub calls: u64,
    /// Worlds.
    pub worlds: u64,
    /// By kind of fault.
    pub faults: BTreeMap<Fault, Counts>,
    /// The worlds that broke an invariant, by seed.
    pub found: Vec<Found>,
    /// How long it took.
    pub took: Duration,
    /// How many threads it took.
    pub threads: usize,
}

/// What is told meanwhile: the runs so far.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

impl Summary {
    fn add(&mut self, seed: u64, outcome: &crate::Outcome) {
        self.worlds += 1;
        self.runs += u64::from(outcome.runs);
        self.published += u64::from(outcome.published);
        self.calls += outcome.calls;
        for (fault, (injected, runs)) in count(&outcome.injected) {
            let counts = self.faults.entry(fault).or_default();
            counts.injected += injected;
            counts.runs += runs.len() as u64;
            counts.violations += u64::from(outcome.violation.is_some());
        }
        if let Some(violation) = &outcome.violation {
            let injections = outcome.injected.iter().map(|injected| injected.injection).collect();
            self.found.push(Found { seed, violation: violation.clone(), injections });
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.published += other.published;
        self.calls += other.calls;
        self.worlds += other.worlds;
        for (fault, counts) in other.faults {
            let all = self.faults.entry(fault).or_default();
            all.injected += counts.injected;
            all.runs += counts.runs;
            all.violations += counts.violations;
        }
        self.found.extend(other.found);
    }
}

/// Simulates worlds of one seed after the other, from `seed` on, until they have had that many runs;
/// each thread has a world at a time. Ends early once as many worlds as there are threads broke an
/// invariant.
///
/// # Errors
/// When no world can be opened.
pub fn run(
    seed: u64,
    runs: u64,
    plan: &FaultPlan,
    alterations: &Alterations,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Summary, WorldError> {
    let began = Instant::now();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Summary { threads, ..Summary::default() });
    let work = || -> Result<(), WorldError> {
        let mut own = Summary::default();
        while done.load(Ordering::Relaxed) < runs && !stop.load(Ordering::Relaxed) {
            let seed = seed.wrapping_add(next.fetch_add(1, Ordering::Relaxed));
            let outcome = simulate(seed, plan, alterations, false)?;
            own.add(seed, &outcome);
            let so_far = done.fetch_add(u64::from(outcome.runs), Ordering::Relaxed);
            progress(so_far + u64::from(outcome.runs));
            if outcome.violation.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
        Ok(())
    };
    let ended: Vec<Result<(), WorldError>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(WorldError::Deployment("a world panicked".to_owned())))
        });
        ended.collect()
    });
    ended.into_iter().collect::<Result<(), _>>()?;
    let mut summary = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.found.sort_by_key(|found| found.seed);
    summary.took = began.elapsed();
    Ok(summary)
}
