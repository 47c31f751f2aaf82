//! The fake host, and conversations held with the store on it.

pub(crate) mod runner;
pub(crate) mod script;
pub(crate) mod world;
