//! See `seawall_tests::fuzz::recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| seawall_tests::fuzz::recovery(input));
