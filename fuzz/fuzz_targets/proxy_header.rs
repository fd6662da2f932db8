#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fanwire::fuzzing::proxy_header(data));
