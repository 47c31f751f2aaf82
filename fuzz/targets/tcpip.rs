//! The target `tcpip`, see [`fuzz::tcpip`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::tcpip::Input| fuzz::tcpip::run(&input));
