//! What each fuzz target does with its input, and the seeds that it begins with.
//!
//! A target panics where a promise is broken; nothing else is a finding. The world around the
//! server is that of `xenstore-core`'s own tests.

pub mod frames;
#[path = "../../xenstore-core/tests/store/harness/outside.rs"]
mod outside;
pub mod requests;
pub mod rings;
pub mod seeds;
pub mod server;
mod steps;
#[path = "../../xenstore-core/tests/store/harness/world.rs"]
mod world;
