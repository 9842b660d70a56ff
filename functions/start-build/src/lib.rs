//! The start-build function.
