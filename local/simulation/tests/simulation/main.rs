//! The simulation itself: that it is deterministic, that it finds what is wrong, and that it finds
//! nothing where nothing is.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

mod defects;
mod replay;

use archweld_simulation::{Alterations, Fault, FaultPlan, run, simulate};

/// How many runs are simulated here; the command simulates more in `make test`. Seeds never change.
const RUNS: u64 = 400;

#[test]
fn one_seed_gives_one_trace_byte_for_byte() {
    for seed in 1..=5 {
        let trace = || {
            let outcome =
                simulate(seed, &FaultPlan::heavy(), &Alterations::default(), true).unwrap();
            let lines: Vec<String> = outcome.trace.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        let (first, second) = (trace(), trace());
        assert!(first.lines().count() > 100, "{first}");
        let differ = first.lines().zip(second.lines()).find(|(first, second)| first != second);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn seeds_differ() {
    let trace =
        |seed| simulate(seed, &FaultPlan::none(), &Alterations::default(), true).unwrap().trace;
    assert_ne!(trace(1), trace(2));
}

#[test]
fn without_faults_nothing_fails() {
    let none = Alterations::default();
    let summary = run(1, 300, &FaultPlan::none(), &none, 1, &|_| {}).unwrap();
    assert!(summary.found.is_empty(), "{:?}", summary.found);
    assert!(summary.faults.is_empty(), "{:?}", summary.faults);
    // All but those that a newer push stopped.
    assert!(summary.published * 2 > summary.runs, "{} of {}", summary.published, summary.runs);
}

#[test]
fn runs_with_heavy_faults_break_nothing() {
    let threads = std::thread::available_parallelism().unwrap().get();
    let none = Alterations::default();
    let summary = run(1, RUNS, &FaultPlan::heavy(), &none, threads, &|_| {}).unwrap();
    assert!(summary.runs >= RUNS);
    assert!(summary.found.is_empty(), "{:?}", summary.found);
    for fault in Fault::ALL {
        let injected = summary.faults.get(fault).map_or(0, |counts| counts.injected);
        assert!(injected > 0, "{fault} was never injected");
    }
}
