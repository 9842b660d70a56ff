//! The archweld command.
