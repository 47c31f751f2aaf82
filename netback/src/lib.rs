//! The network backend: interfaces of guests, and the switch that joins them.
//!
//! A guest's frontend and this crate share two rings a queue ([`xen_sys::ring::netif`]). What the
//! guest sends stays in its own pages until Xen copies it into the pages in which another guest
//! wants to receive; only the first bytes of each frame are read here.
//!
//! This crate knows no hypercall, no Xenstore and no clock. Its owner maps rings and attaches them
//! as a [`port`], says when there was an event, hands in a [`Copier`](place::Copier), and
//! sends the events that are due.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod device;
pub mod head;
mod held;
pub mod place;
pub mod port;
mod rate;
mod receive;
pub mod switch;
mod table;
mod violation;

pub use head::Mac;
pub use switch::Switch;
pub use violation::Violation;
