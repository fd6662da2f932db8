#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| front_bayeux::fuzzing::session(data));
