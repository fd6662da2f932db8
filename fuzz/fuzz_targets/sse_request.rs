#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| front_sse::fuzzing::request(data));
