#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| front_http::fuzzing::request(data));
