//! Conversations with a Xenstore: who says what, and what comes back, as text that reads like the
//! protocol.
//!
//! [`script`] knows the language and executes nothing. [`runner`] holds a conversation in a
//! [`World`](world::World): in memory for the tests of the store itself, and over the rings of a
//! Xen host by the program `converse`, which holds the same files with the image and, to keep them
//! honest, with Xen's own stores.

extern crate alloc;

pub mod runner;
pub mod script;
pub mod world;
