//! The plan-build function.
