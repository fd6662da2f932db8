#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    gateway_aws::fuzzing::answer(data);
    gateway_aws::fuzzing::message(data);
});
