//! Conversations with a Xenstore: who says what, and what comes back, as text that reads like the
//! protocol.
//!
//! [`script`] knows the language and executes nothing. [`runner`] holds a conversation in a
//! [`World`](world::World), such as the one in memory of the store's own tests.

extern crate alloc;

pub mod runner;
pub mod script;
pub mod world;
