//! Lambda on one machine.
//!
//! A function is either a child process that speaks the real [Runtime API] (the binary that AWS
//! would run, unmodified) or a Rust function in this process, for tests and simulation. Time-outs,
//! crashes, warm reuse, concurrency limits, payload bounds and the retries of asynchronous
//! invocations are those of AWS. Versions, aliases, layers, extensions and response streaming are
//! not served.
//!
//! All waiting is on tokio's clock. An in-process function needs no socket, so it runs under
//! paused time; a child process needs real time.
//!
//! [Runtime API]: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

mod asynchronous;
mod environment;
mod function;
mod http_door;
mod instance;
mod lambda;
mod log;
mod notice;
mod runtime_api;
mod url;
mod watchdog;

pub use asynchronous::{FailureCondition, FailureNotice, FailureSink};
pub use function::{
    AsynchronousRetries, CONCURRENCY_MAX_DEFAULT, FunctionError, FunctionSettings, Handler,
    InProcessHandler, Invocation,
};
pub use lambda::{InvocationType, Invoked, Lambda, Outcome};
pub use log::{LogLine, LogStream};
pub use notice::Notice;
