#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grip::fuzzing::exchange(data));
