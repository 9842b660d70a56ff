//! CodeBuild on one machine: runs a buildspec for real and tells of it in events.
