#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    tepal_proxy::fuzzing::traceparent(value);
    tepal_shared::fuzzing::span_context(value);
});
