//! Lambda on one machine: functions as child processes over the Runtime API.
