//! The target `switch`, see [`fuzz::switch`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::switch::Input| fuzz::switch::run(&input));
