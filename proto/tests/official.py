"""Compare our .proto files with those of TensorFlow Serving and ONNX, and write it/official.rs: bytes that the
official Python stubs made, for the tests to decode and to encode again.

The stubs are in two wheels, which need not be installed (tensorflow's is 270 MB):

    pip install protobuf==7.36.2 grpcio-tools==1.85.1 onnx==1.23.2
    pip download --no-deps --dest wheels tensorflow-serving-api==2.21.0 tensorflow-cpu==2.21.0
    python official.py wheels
"""

import importlib
import math
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, wrappers_pb2
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO_DIR = HERE.parent / "proto"
STUBS = tempfile.mkdtemp()


def unpack(wheels):
    for wheel in Path(wheels).glob("tensorflow*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(STUBS, [name for name in archive.namelist() if name.endswith("_pb2.py")])
    sys.path.insert(0, STUBS)


def official(module):
    return importlib.import_module(module)


def compare():
    """Every message, field, enum value and call of ours must be in the official descriptors, with the same facts."""
    out = Path(STUBS) / "ours.pb"
    files = [str(path.relative_to(PROTO_DIR)) for path in sorted(PROTO_DIR.rglob("*.proto"))
             if path.parent.name != "open_inference"]  # official_open_inference.py compares that one
    assert protoc.main(["", f"-I{PROTO_DIR}", f"-I{Path(protoc.__file__).parent / '_proto'}", "--include_imports",
                        f"--descriptor_set_out={out}", *files]) == 0
    ours = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        ours.AddSerializedFile(file.SerializeToString())
    theirs, seen = descriptor_pool.Default(), []
    for name in files:
        file = ours.FindFileByName(name)
        for message in file.message_types_by_name.values():
            compare_message(message, theirs, seen)
        for enum in file.enum_types_by_name.values():
            compare_enum(enum, theirs, seen)
        for service in file.services_by_name.values():
            for call in service.methods:
                other = theirs.FindServiceByName(service.full_name).methods_by_name[call.name]
                same(call.full_name, seen, *[(c.input_type.full_name, c.output_type.full_name, c.client_streaming,
                                              c.server_streaming) for c in (call, other)])
    print(len(seen), "fields, enum values and calls agree with the official descriptors")


def compare_message(message, theirs, seen):
    other = theirs.FindMessageTypeByName(message.full_name)
    for field in message.fields:
        facts = [(f.number, f.type, f.is_repeated, f.is_repeated and f.is_packed, f.has_presence,
                  f.containing_oneof and f.containing_oneof.name, f.message_type and f.message_type.full_name,
                  f.enum_type and f.enum_type.full_name) for f in (field, other.fields_by_name[field.name])]
        same(f"{message.full_name}.{field.name}", seen, *facts)
    for nested in message.nested_types:
        compare_message(nested, theirs, seen)
    for enum in message.enum_types:
        compare_enum(enum, theirs, seen)


def compare_enum(enum, theirs, seen):
    other = theirs.FindEnumTypeByName(enum.full_name)
    for value in enum.values:
        same(f"{enum.full_name}.{value.name}", seen, value.number, other.values_by_name[value.name].number)


def same(what, seen, ours, theirs):
    assert ours == theirs, f"{what}: {ours} is officially {theirs}"
    seen.append(what)


def messages():
    predict = official("tensorflow_serving.apis.predict_pb2")
    metadata = official("tensorflow_serving.apis.get_model_metadata_pb2")
    status = official("tensorflow_serving.apis.get_model_status_pb2")
    graph = official("tensorflow.core.protobuf.meta_graph_pb2")
    tensor = official("tensorflow.core.framework.tensor_pb2").TensorProto
    shape = official("tensorflow.core.framework.tensor_shape_pb2").TensorShapeProto
    ModelSpec = official("tensorflow_serving.apis.model_pb2").ModelSpec
    sizes = lambda *dims: shape(dim=[shape.Dim(size=size) for size in dims])
    content = bytes.fromhex("3333a340 00006040 3333b33f cdcc4c3e")  # 5.1, 3.5, 1.4, 0.2
    iris = ModelSpec(name="iris", version=wrappers_pb2.Int64Value(value=1), signature_name="serving_default")
    FLOAT, DOUBLE, INT32, STRING, INT64, BOOL = 1, 2, 3, 7, 9, 10

    yield "Version not set, values as raw bytes.", "PREDICT_REQUEST", predict.PredictRequest(
        model_spec=ModelSpec(name="iris", signature_name="serving_default"),
        inputs={"input": tensor(dtype=FLOAT, tensor_shape=sizes(1, 4), tensor_content=content)})
    yield "Version 0, which is not the same as none.", "PREDICT_REQUEST_VERSION_0", predict.PredictRequest(
        model_spec=ModelSpec(name="iris", version=wrappers_pb2.Int64Value(value=0)), output_filter=["output"])
    yield "A version by its label.", "LABELLED_SPEC", ModelSpec(name="iris", version_label="stable")
    yield "Values in the typed list.", "PREDICT_RESPONSE", predict.PredictResponse(
        model_spec=iris,
        outputs={"output": tensor(dtype=FLOAT, tensor_shape=sizes(1, 3), float_val=[0.75, 0.25, math.inf])})
    yield "One output of every other type that we read.", "PREDICT_RESPONSE_TYPES", predict.PredictResponse(outputs={
        "bool": tensor(dtype=BOOL, tensor_shape=sizes(2), bool_val=[True, False]),
        "content": tensor(dtype=FLOAT, tensor_shape=sizes(2, 2), tensor_content=content),
        "double": tensor(dtype=DOUBLE, tensor_shape=sizes(1), double_val=[0.1]),
        "int32": tensor(dtype=INT32, tensor_shape=sizes(2), int_val=[-1, 300]),
        "int64": tensor(dtype=INT64, tensor_shape=sizes(1), int64_val=[-(1 << 40)]),
        "string": tensor(dtype=STRING, tensor_shape=sizes(2), string_val=[b"setosa", b"\xff"])})
    yield "Asks for the signatures.", "METADATA_REQUEST", metadata.GetModelMetadataRequest(
        model_spec=ModelSpec(name="iris"), metadata_field=["signature_def"])
    info = lambda name, *dims: graph.TensorInfo(name=name, dtype=FLOAT, tensor_shape=sizes(*dims))
    signatures = metadata.SignatureDefMap(signature_def={
        "__saved_model_init_op": graph.SignatureDef(outputs={"__saved_model_init_op": graph.TensorInfo(
            name="NoOp", tensor_shape=shape(unknown_rank=True))}),
        "serving_default": graph.SignatureDef(
            inputs={"input": info("serving_default_input:0", -1, 4)},
            outputs={"output": info("StatefulPartitionedCall:0", -1, 3)}, method_name="tensorflow/serving/predict")})
    packed = any_pb2.Any()
    packed.Pack(signatures, deterministic=True)
    yield "The two signatures of a SavedModel, in an `Any`.", "METADATA_RESPONSE", metadata.GetModelMetadataResponse(
        model_spec=ModelSpec(name="iris", version=wrappers_pb2.Int64Value(value=1)),
        metadata={"signature_def": packed})
    yield "Asks for all versions.", "STATUS_REQUEST", status.GetModelStatusRequest(model_spec=ModelSpec(name="iris"))
    state = status.ModelVersionStatus
    StatusProto = official("tensorflow_serving.apis.status_pb2").StatusProto
    yield "One version that runs, one that failed to load.", "STATUS_RESPONSE", status.GetModelStatusResponse(
        model_version_status=[state(version=2, state=state.AVAILABLE, status=StatusProto()),
                              state(version=1, state=state.END,
                                    status=StatusProto(error_code=5, error_message="no such file"))])
    yield "Fields that our .proto files leave out.", "UNKNOWN_FIELDS", predict.PredictRequest(
        model_spec=ModelSpec(name="iris"), client_id=b"me", predict_streamed_options={"request_state": 1},
        request_options={"max_cache_length": 7},
        inputs={"half": tensor(dtype=19, tensor_shape=sizes(1), half_val=[15360], version_number=3)})
    yield "A tensor in an encoding that our .proto files leave out.", "UNKNOWN_ENCODING", graph.SignatureDef(
        method_name="m", defaults={"input": tensor(dtype=FLOAT, float_val=[1.0])},
        inputs={"input": graph.TensorInfo(dtype=FLOAT, coo_sparse={"values_tensor_name": "v"})})


def write_bytes():
    lines = ["//! Messages as TensorFlow Serving's official Python stubs encode them, in hexadecimal. Written by",
             "//! `python official.py wheels`; see there for what the messages hold.", ""]
    for doc, name, message in messages():
        lines += [f"/// `{message.DESCRIPTOR.full_name}`. {doc}", f'pub(crate) const {name}: &str = "\\']
        lines += [f"    {part}\\" for part in textwrap.wrap(message.SerializeToString(deterministic=True).hex(), 100)]
        lines[-1] = lines[-1].removesuffix("\\") + '";'
        lines.append("")
    (HERE / "it" / "official.rs").write_text("\n".join(lines[:-1]) + "\n")


if __name__ == "__main__":
    unpack(sys.argv[1])
    for module in ["prediction_service_pb2", "model_service_pb2"]:
        official(f"tensorflow_serving.apis.{module}")
    official("onnx.onnx_ml_pb2")
    write_bytes()
    compare()
