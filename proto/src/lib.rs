//! Wire types of the model servers that Tepal calls, with a gRPC client and server for each service, and of ONNX files. They are
//! generated from the .proto files in `proto/proto`; nothing here knows about jobs.
//!
//! | module | protobuf package | holds |
//! | --- | --- | --- |
//! | [`tensorflow`] | `tensorflow` | tensors, shapes, element types, signatures |
//! | [`tensorflow::error`] | `tensorflow.error` | TensorFlow's outcome codes |
//! | [`tensorflow::serving`] | `tensorflow.serving` | the calls of TensorFlow Serving |
//! | [`open_inference`] | `inference` | the calls of the Open Inference Protocol |
//! | [`grpc_health`] | `grpc.health.v1` | the health check of gRPC servers |
//! | [`onnx`] | `onnx` | what Tepal reads of an ONNX file |
//!
//! Maps are ordered, so equal messages have equal bytes. Fields that the .proto files leave out are skipped.

/// A message of any type, with the type's name; the metadata of a model comes in it.
pub use prost_types::Any;

/// What TensorFlow Serving speaks; modules are nested as the protobuf packages are.
#[allow(
    missing_docs,
    reason = "generated code: most enum values are documented by their official names alone"
)]
pub mod tensorflow {
    tonic::include_proto!("tensorflow");

    /// Outcome codes, as the state of a model's version carries them.
    pub mod error {
        tonic::include_proto!("tensorflow.error");
    }

    /// `PredictionService` and `ModelService`.
    pub mod serving {
        tonic::include_proto!("tensorflow.serving");
    }
}

/// `GRPCInferenceService`, which Triton, MLServer, KServe and OpenVINO Model Server have.
#[allow(
    missing_docs,
    reason = "generated code: most enum values are documented by their official names alone"
)]
pub mod open_inference {
    tonic::include_proto!("inference");
}

/// The health check of gRPC servers.
#[allow(
    missing_docs,
    reason = "generated code: most enum values are documented by their official names alone"
)]
pub mod grpc_health {
    tonic::include_proto!("grpc.health.v1");
}

/// What Tepal reads of an ONNX file.
#[allow(
    missing_docs,
    reason = "generated code: most enum values are documented by their official names alone"
)]
pub mod onnx {
    tonic::include_proto!("onnx");
}
