//! Reads the SAM template: what the local host wires up.
