//! Step Functions on one machine: executions, their histories and task tokens.
