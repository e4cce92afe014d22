#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tepal_proxy::fuzzing::grpc_infer(bytes));
