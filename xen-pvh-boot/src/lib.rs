//! From the PVH entry point to `main(&BootInfo) -> !`.
#![cfg_attr(not(test), no_std)]
