//! The domain model: platforms, digests, names, the configuration, the plan and the errors.
