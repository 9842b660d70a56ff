//! Lambda start-up shared by every function.
