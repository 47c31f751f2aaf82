//! Work for `xenstore-core`, to be counted, timed and weighed on the build host.
//!
//! A [`World`] holds a [`Server`](xenstore_core::Server) and what the image has around it, in
//! memory: [`World::turn`] moves bytes as one turn of the store's main loop does. A [`Script`] is
//! one operation as a client sends it, over and over. Nothing here measures: `cargo xtask bench`
//! has valgrind count what happens inside [`World::turn`], `benches/` times the same, and the
//! program `bench` weighs the heap, which is the image's.
#![forbid(unsafe_code)]

mod outside;
mod scripts;
mod world;

pub use outside::{DOMAINS_MAX, STORE, TOOLSTACK};
pub use scripts::{Operation, Script};
pub use world::{Client, World};

#[global_allocator]
static HEAP: xen_pvh_boot::heap::host::HostHeap = xen_pvh_boot::heap::host::HostHeap;
