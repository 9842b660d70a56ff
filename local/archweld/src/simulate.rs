//! `archweld simulate`: many runs under seeded faults, and what broke.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    num::NonZero,
    thread,
};

use archweld_simulation::{Alterations, Fault, FaultPlan, Found, Injection, Summary, simulate};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{arguments::Simulate, error::Error};

/// How much of a trace is shown: what led to a violation is near its end.
const TRACE_LINES_MAX: usize = 400;

/// Simulates, and reports; a violation is replayed, traced and reduced to the faults that it takes.
///
/// # Errors
/// When an invariant does not hold, or the arguments make no plan.
pub(crate) fn run(arguments: &Simulate) -> Result<(), Error> {
    if let Some(injections) = &arguments.replay {
        return replay(arguments.seed, injections);
    }
    let plan = FaultPlan::named(&arguments.faults)?;
    let threads =
        arguments.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let bar = ProgressBar::new(arguments.runs);
    let template = "{bar:30} {human_pos} of {human_len} runs, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let none = Alterations::default();
    let progress = |runs| bar.set_position(runs);
    let summary =
        archweld_simulation::run(arguments.seed, arguments.runs, &plan, &none, threads, &progress)?;
    bar.finish_and_clear();
    print(&table(&summary, &arguments.faults))?;
    match summary.found.first() {
        None => Ok(()),
        Some(found) => explain(found),
    }
}

fn replay(seed: u64, injections: &str) -> Result<(), Error> {
    let injections = injections.split(',').filter(|injection| !injection.is_empty());
    let injections = injections.map(str::parse).collect::<Result<_, _>>()?;
    let plan = FaultPlan::Exactly(injections);
    let outcome = simulate(seed, &plan, &Alterations::default(), true)?;
    let mut text = String::new();
    for event in &outcome.trace {
        _ = writeln!(text, "{event}");
    }
    print(&text)?;
    match outcome.violation {
        None => print(&format!("{} runs, no violation\n", outcome.runs)),
        Some(violation) => Err(Error::Violation(violation.to_string())),
    }
}

/// Shows how a world broke: its trace, with as few faults as it takes.
fn explain(found: &Found) -> Result<(), Error> {
    let Found { seed, violation, injections } = found;
    let bar = ProgressBar::new_spinner();
    let progress = |left: usize| {
        bar.set_message(format!("reducing {} faults: {left} left", injections.len()));
        bar.tick();
    };
    let none = Alterations::default();
    let fewest =
        archweld_simulation::shrink(*seed, injections, violation.invariant, &none, &progress)?;
    bar.finish_and_clear();
    let plan = FaultPlan::Exactly(fewest.iter().copied().collect());
    let outcome = simulate(*seed, &plan, &none, true)?;
    let skipped = outcome.trace.len().saturating_sub(TRACE_LINES_MAX);
    let mut text = format!("\nseed {seed}: {violation}\n");
    _ = writeln!(text, "{} faults were injected, {} suffice\n", injections.len(), fewest.len());
    if skipped > 0 {
        _ = writeln!(text, "… {skipped} lines before");
    }
    for event in &outcome.trace[skipped..] {
        _ = writeln!(text, "{event}");
    }
    let names: Vec<String> = fewest.iter().map(Injection::to_string).collect();
    _ = writeln!(text, "\narchweld simulate --seed {seed} --replay '{}'", names.join(","));
    print(&text)?;
    Err(Error::Violation(violation.to_string()))
}

fn table(summary: &Summary, faults: &str) -> String {
    let Summary { runs, published, calls, worlds, took, threads, .. } = summary;
    let seconds = took.as_secs_f64();
    let per_second = *runs as f64 / seconds;
    let calls_each = *calls as f64 / *runs as f64;
    let mut text = format!(
        "{runs} runs in {worlds} worlds, {published} published, faults {faults}: {seconds:.1} s, \
         {per_second:.0} runs a second on {threads} threads, {calls_each:.1} calls of AWS APIs a \
         run\n\n",
    );
    _ = writeln!(text, "{:<28}{:>12}{:>14}{:>12}", "fault", "injected", "runs hit", "violations");
    for fault in Fault::ALL {
        let counts = summary.faults.get(fault).copied().unwrap_or_default();
        let (injected, runs, violations) = (counts.injected, counts.runs, counts.violations);
        _ = writeln!(text, "{:<28}{injected:>12}{runs:>14}{violations:>12}", fault.name());
    }
    text
}

fn print(text: &str) -> Result<(), Error> {
    let written = io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|source| Error::System { what: "write to standard output", source })
}
