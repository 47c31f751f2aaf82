//! Xenstore as a function of bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
