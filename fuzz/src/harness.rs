//! The host in memory and the conversations of `xenstore-core`'s tests.
#![expect(dead_code, reason = "the tests use all of it, the targets a part")]

#[path = "../../xenstore-core/tests/store/harness/script.rs"]
pub(crate) mod script;
#[path = "../../xenstore-core/tests/store/harness/world.rs"]
pub(crate) mod world;
