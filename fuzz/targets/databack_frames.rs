//! The target `databack_frames`, see [`fuzz::databack_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::databack_frames::run(data));
