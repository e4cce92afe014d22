//! Turns the .proto files into Rust. protox reads them, so no protoc is needed.

use std::error::Error;

use tonic_prost_build::Config;

const PROTO_DIR: &str = "proto";
const FILES: [&str; 5] = [
    "tensorflow_serving/prediction_service.proto",
    "tensorflow_serving/model_service.proto",
    "open_inference/open_inference.proto",
    "grpc_health/health.proto",
    "onnx/onnx.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let files = protox::compile(FILES, [PROTO_DIR])?;
    let mut config = Config::new();
    // Type names as the official libraries write them into an `Any`.
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    // Shared, not copied, when a call is sent again.
    config.bytes([".inference.ModelInferRequest.raw_input_contents"]);
    // Ordered maps, so that equal messages have equal bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds_with_config(files, config)?;
    Ok(())
}
