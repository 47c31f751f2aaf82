//! Xenstore as a function of bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
pub mod host;
pub mod wire;

pub use host::{Config, ConnId, DomId, Host, UniqueId, Unreachable};
