//! What each fuzz target does with its input, and the seeds that it begins with.
//!
//! A target panics where a promise is broken; nothing else is a finding. The world around the
//! server is that of `xenstore-core`'s own tests.

pub mod broker;
pub mod databack_frames;
pub mod frames;
#[expect(dead_code, reason = "tests of netback use more of it")]
#[path = "../../netback/tests/switch/world.rs"]
mod network;
#[path = "../../xenstore-core/tests/store/harness/outside.rs"]
mod outside;
pub mod policy;
pub mod requests;
pub mod rings;
pub mod seeds;
pub mod server;
mod steps;
pub mod switch;
pub mod tcpip;
pub mod vchan;
#[path = "../../xenstore-core/tests/store/harness/world.rs"]
mod world;
