//! Xenstore as a function of bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
pub mod host;
pub mod wire;

mod announce;
mod change;
mod check;
mod children;
mod connection;
mod domain;
mod number;
mod operation;
mod outbox;
mod path;
mod perms;
mod quota;
mod reply;
mod request;
mod server;
mod slab;
mod store;
mod transaction;
mod tree;
mod watch;

pub use host::{Config, ConnId, DomId, Host, UniqueId, Unreachable};
pub use server::{Server, Stats};
