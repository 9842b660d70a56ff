//! The build-events function.
