//! The public Xen ABI as types, and the instructions that call it.
#![cfg_attr(not(test), no_std)]
