//! A git remote on one machine, whose pushes are told by webhooks as a provider's are.
//!
//! A [`GitServer`] serves one bare repository over git's smart HTTP protocol
//! (<https://git-scm.com/docs/http-protocol>). The protocol itself is spoken by the installed git,
//! `git upload-pack` and `git receive-pack`, as child processes without a shell. When git has taken
//! a push, each branch and tag that moved makes one [`Delivery`], in the form that GitHub sends,
//! and what the receiver answers is told on the pusher's terminal. A push stays taken when its
//! webhook fails.
//!
//! [`Provider::headers`] signs a payload as a provider would.
//!
//! Nobody is asked who they are: whoever reaches loopback may push.

mod command;
mod packet;
mod payload;
mod report;
mod repository;
mod server;
mod webhook;

pub use repository::{OpenError, RefUpdate};
pub use server::{Answer, Deliver, Delivery, GitServer, GitSettings};
pub use webhook::{Provider, signing_secret};
