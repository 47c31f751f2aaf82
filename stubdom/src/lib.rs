//! The image but for its two roles: what every PVH domain needs before it can do its work, which
//! the test guests share, and whom the store serves, which this machine can test.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod activity;
pub mod asks;
pub mod complaints;
pub mod departures;
pub mod guests;
pub mod http;
pub mod machine;
pub mod metrics;
pub mod nodes;
pub mod options;
#[cfg(not(any(test, fuzzing)))]
pub mod own_store;
#[cfg(not(any(test, fuzzing)))]
pub mod platform;
pub mod publication;
pub mod stack;
#[cfg(test)]
mod store_in_memory;
pub mod turn;
pub mod uplinks;
pub mod vifs;
