//! The target `vchan`, see [`fuzz::vchan`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::vchan::Input| fuzz::vchan::run(&input));
