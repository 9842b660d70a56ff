//! What executions do, in the parts that the recorded cases barely touch.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic, too")]

mod data;
mod errors;
mod machine;
mod random;
mod redrive;
mod side_by_side;
mod tasks;
