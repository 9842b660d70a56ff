//! What every local service shares: typed API errors, the clock, identities, events, and work
//! that outlives the process.
//!
//! A service of the local cloud is a library: it takes the name of an operation and its JSON
//! input and answers JSON or an [`ApiError`]. How requests reach it (sockets, or an in-process
//! HTTP client under the real SDK) is not decided here.

mod error;
mod event;
mod host;
mod spool;

pub use error::ApiError;
pub use event::{Event, EventSink};
pub use host::Host;
pub use spool::Spool;
