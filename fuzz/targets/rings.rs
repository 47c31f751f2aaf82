//! The target `rings`, see [`fuzz::rings`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::rings::Input| fuzz::rings::run(&input));
