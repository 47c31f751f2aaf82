//! Xenstore as a function of bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod host;
pub mod wire;

mod children;
mod number;
mod path;
mod perms;
mod quota;
mod tree;

pub use host::{Config, ConnId, DomId, Host, UniqueId, Unreachable};
