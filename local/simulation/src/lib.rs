//! Door 3 of the local cloud: whole runs under virtual time and seeded faults, checked at every step.
//!
//! A *world* is one local cloud with the real template, state machine and functions. For some twenty
//! virtual minutes people push, start, stop and rerun, over which the nightly schedule fires; then
//! the world goes on until all is over. A *run* is one execution of the state machine in it, from its
//! start to its end. One seed decides everything; one thread and tokio's paused clock run it. The
//! functions are their `handle`, which reach the services through the real AWS SDK; builds are
//! simulated, and push real manifests.
//!
//! [Faults](Fault) are injected by wrappers around services and functions, never by branches in
//! them. The invariants are held against a model that learns only from outside.
//!
//! It checks archweld, not AWS: what AWS is assumed to do stands in `docs/reliability.md`.

mod builds;
mod checks;
mod events;
mod faults;
mod functions;
mod lambdas;
mod logs;
mod network;
mod runner;
mod shrink;
mod state;
mod world;

pub use faults::{Fault, FaultPlan, Injection, PlanError};
pub use functions::in_process;
pub use runner::{Counts, Found, Progress, Summary, run};
pub use shrink::shrink;
pub use state::{Event, Violation};
pub use world::{AlterHandler, Alterations, Outcome, WorldError, simulate};

/// How long an execution of the simulated deployment may take.
///
/// # Errors
/// When the deployment is wrong.
pub fn time_max() -> Result<jiff::SignedDuration, WorldError> {
    Ok(world::Fixture::get()?.time_max)
}
