//! From all faults of a world to the few that break it.

use std::collections::BTreeSet;

use crate::{Alterations, Fault, FaultPlan, Injection, WorldError, simulate};

/// How many worlds it tries at most.
const TRIES_MAX: u32 = 1_000;

/// A smallest set of these faults, with which the world of that seed still breaks the invariant: it
/// holds without any one of them (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
/// Input", 2002), of whole kinds first. `progress` is told how many faults are left.
///
/// # Errors
/// When no world can be opened.
pub fn shrink(
    seed: u64,
    injections: &[Injection],
    invariant: u8,
    alterations: &Alterations,
    progress: &dyn Fn(usize),
) -> Result<Vec<Injection>, WorldError> {
    let breaks = |injections: &[Injection]| -> Result<bool, WorldError> {
        let plan = FaultPlan::Exactly(injections.iter().copied().collect());
        let outcome = simulate(seed, &plan, alterations, false)?;
        Ok(outcome.violation.is_some_and(|violation| violation.invariant == invariant))
    };
    let all: BTreeSet<Injection> = injections.iter().copied().collect();
    let mut left: Vec<Injection> = all.into_iter().collect();
    if !breaks(&left)? {
        return Ok(left);
    }
    if breaks(&[])? {
        return Ok(Vec::new());
    }
    let mut tried = 2;
    // Most kinds have nothing to do with it.
    for kind in Fault::ALL {
        let without: Vec<Injection> = left.iter().copied().filter(|it| it.fault != *kind).collect();
        if without.len() < left.len() {
            progress(left.len());
            tried += 1;
            if breaks(&without)? {
                left = without;
            }
        }
    }
    let mut parts = 2;
    while left.len() >= 2 && tried < TRIES_MAX {
        progress(left.len());
        let size = left.len().div_ceil(parts);
        let mut smaller = None;
        for start in (0..left.len()).step_by(size) {
            let end = (start + size).min(left.len());
            let without: Vec<Injection> =
                left[..start].iter().chain(&left[end..]).copied().collect();
            tried += 1;
            if breaks(&without)? {
                smaller = Some(without);
                break;
            }
        }
        match smaller {
            Some(smaller) => {
                left = smaller;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(left.len()),
        }
    }
    Ok(left)
}
