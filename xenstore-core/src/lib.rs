//! Xenstore as a function of bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
pub mod host;
pub mod wire;

mod children;
mod domain;
mod number;
mod operation;
mod outbox;
mod path;
mod perms;
mod quota;
mod request;
mod slab;
mod tree;
mod watch;

pub use host::{Config, ConnId, DomId, Host, UniqueId, Unreachable};
