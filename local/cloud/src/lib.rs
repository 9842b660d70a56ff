//! The local cloud: one set of services behind an HTTP door and an in-process door.
