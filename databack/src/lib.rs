//! Data channels: applications in two domains exchange data through shared rings.
//!
//! A channel is a libxenvchan ring between this domain and a guest. This crate knows the ring and
//! what is said on it; it knows no hypercall, no Xenstore and no clock. Its owner hands in memory
//! that it shares, says when there was an event, and sends the events that are due.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate self as databack;

pub mod ask;
pub mod broker;
pub mod frame;
pub mod policy;
pub mod vchan;
