//! From a violation to the few faults that it takes.

use archweld_simulation::{FaultPlan, Injection, run, shrink, simulate};

use crate::defects::{Defect, alterations};

#[test]
fn a_violation_is_replayed_from_its_seed_and_its_faults_alone() {
    let alterations = alterations(Defect::ReconcileDisabled);
    let summary = run(1, 2_000, &FaultPlan::heavy(), &alterations, 1, &|_| {}).unwrap();
    let found = summary.found.first().unwrap();
    // As text, as `archweld simulate --replay` takes it.
    let written = found.injections.iter().map(Injection::to_string);
    let read = written.map(|text| text.parse::<Injection>().unwrap()).collect();
    let outcome = simulate(found.seed, &FaultPlan::Exactly(read), &alterations, false).unwrap();
    assert_eq!(outcome.violation.as_ref(), Some(&found.violation));
}

#[test]
fn the_shrinker_leaves_only_faults_that_it_takes() {
    let alterations = alterations(Defect::ReconcileDisabled);
    let summary = run(1, 2_000, &FaultPlan::heavy(), &alterations, 1, &|_| {}).unwrap();
    let found = summary.found.first().unwrap();
    let invariant = found.violation.invariant;
    let fewest = shrink(found.seed, &found.injections, invariant, &alterations, &|_| {}).unwrap();
    assert!(fewest.len() < found.injections.len() / 4, "{fewest:?} of {}", found.injections.len());
    let breaks = |injections: &[Injection]| {
        let plan = FaultPlan::Exactly(injections.iter().copied().collect());
        let outcome = simulate(found.seed, &plan, &alterations, false).unwrap();
        outcome.violation.is_some_and(|violation| violation.invariant == invariant)
    };
    assert!(breaks(&fewest));
    for left_out in 0..fewest.len() {
        let mut fewer = fewest.clone();
        fewer.remove(left_out);
        assert!(!breaks(&fewer), "{} is not needed", fewest[left_out]);
    }
}
