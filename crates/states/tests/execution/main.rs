//! What executions do, in the parts that the recorded cases barely touch.

mod data;
mod errors;
mod machine;
mod random;
mod side_by_side;
mod tasks;
