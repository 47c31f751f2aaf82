//! The public Xen ABI as types, and the instructions that call it.
//!
//! For a PVH guest on one vCPU, without an operating system under it. From the bottom up:
//!
//! | layer | modules |
//! | --- | --- |
//! | what Xen is, and how to call it | [`cpuid`], [`hypercall`], [`version`], [`ids`] |
//! | this domain | [`param`], [`memory`], [`shared_info`], [`sched`], [`clock`] |
//! | other domains | [`event`], [`grant`], [`domctl`] |
//! | what is said over shared pages, and in Xenstore of devices | [`page`], [`ring`], [`console`], [`xenbus`] |
//!
//! A module's operations are safe to call with any argument: frames are taken from places
//! where nothing is ([`grant::GfnWindow`], [`memory::Growth`]), and what Xen lends goes back
//! when its owner is dropped.
//!
//! With the feature `linux` there is also [`linux`]: the same grants and events for a program under a
//! Linux kernel, which has hypercalls of its own. Such a program uses [`linux`], [`ids`], [`page`] and
//! [`ring`], and nothing else of the above.
//!
//! # What is relied on
//!
//! - One vCPU, and interrupts open only while halted: nothing of ours runs concurrently.
//! - Memory below 4 GiB is identity-mapped and writable: an address is a guest-physical one.
//! - Xen does what its headers say. Its mistakes may stop us, but never for ever in a loop.
//!
//! # Shared memory
//!
//! A page that another domain can write is an output, never a memory; [`ring`] states the
//! rules and is the only place that touches one. There is no `&` or `&mut` to a shared byte
//! anywhere: words are atomics, and payload is copied out before anyone looks at it.
#![cfg_attr(not(any(test, feature = "linux")), no_std)]

extern crate alloc;

mod bitmap;
pub mod clock;
pub mod console;
pub mod cpuid;
pub mod domctl;
pub mod event;
pub mod grant;
pub mod hypercall;
pub mod ids;
#[cfg(feature = "linux")]
pub mod linux;
pub mod memory;
pub mod page;
pub mod param;
pub mod ring;
pub mod sched;
pub mod shared_info;
pub mod version;
pub mod xenbus;
