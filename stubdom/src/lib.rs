//! The parts of the image that the test guests share: the command line, and what every PVH domain
//! needs before it can do its work.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod options;
pub mod own_store;
pub mod platform;
