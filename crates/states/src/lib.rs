//! The states language: definitions, and a pure interpreter for one execution.
//!
//! No clock, no randomness of its own, no I/O: the same inputs at the same times give the same
//! effects, so that one interpreter serves the command, the tests and the simulation.

mod execution;

pub use execution::{
    Effect, HistoryEvent, Input, Outcome, Resource, Start, Task, TaskId, TimerId,
};
