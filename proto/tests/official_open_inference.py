"""Record what the Open Inference Protocol and its servers say about the messages of ours, in it/open_inference.txt, and bytes that the
official Python stubs of Triton and MLServer made, in it/open_inference_bytes.rs. The tests compare our .proto file with both.

The stubs are in three wheels, which need not be installed. open_inference_grpc.proto is in
github.com/kserve/open-inference-protocol, specification/protocol (here: commit d49cc23).

    pip install protobuf==7.36.2 grpcio-tools==1.85.1
    pip download --no-deps --dest wheels tritonclient==2.73.0 mlserver==1.7.1 kserve==0.21.0
    python official_open_inference.py wheels open_inference_grpc.proto
"""

import ast
import re
import struct
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

IT = Path(__file__).resolve().parent / "it"
STUBS = {
    "Triton": ("tritonclient", ["tritonclient/grpc/model_config_pb2.py", "tritonclient/grpc/service_pb2.py"]),
    "MLServer": ("mlserver", ["mlserver/grpc/model_repository_pb2.py", "mlserver/grpc/dataplane_pb2.py"]),
    "KServe": ("kserve", ["kserve/protocol/grpc/grpc_predict_v2_pb2.py"]),
}
# Of the hundreds of messages of Triton's configuration.
CONFIG = ["ModelConfigRequest", "ModelConfigResponse", "ModelConfig", "ModelInput", "ModelOutput", "DataType"]


def files_of(wheels, prefix, paths):
    """The descriptors of a wheel's stubs, which begin with AddSerializedFile(b'...')."""
    (wheel,) = Path(wheels).glob(f"{prefix}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for path in paths:
            literal = re.search(r"AddSerializedFile\(\s*(b'.*')\s*\)", archive.read(path).decode()).group(1)
            yield descriptor_pb2.FileDescriptorProto.FromString(ast.literal_eval(literal))


def files_of_protocol(path):
    path = Path(path)
    with tempfile.NamedTemporaryFile() as out:
        assert protoc.main(["", f"-I{path.parent}", f"--descriptor_set_out={out.name}", path.name]) == 0
        yield from descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file


def is_recorded(name):
    base = name.split(".")[0]
    calls = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"]
    return base in CONFIG + ["InferParameter", "InferTensorContents"] or base in [
        call + kind for call in calls for kind in ["Request", "Response"]]


def facts(files):
    """`name`, and what is said of it, for each field, enum value and call."""
    for file in files:
        for message in file.message_type:
            yield from message_facts(message, message.name)
        for enum in file.enum_type:
            if is_recorded(enum.name):
                yield from ((f"{enum.name}.{value.name}", str(value.number)) for value in enum.value)
        for service in file.service:
            for call in service.method:
                types = [name.removeprefix(".inference.") for name in (call.input_type, call.output_type)]
                if is_recorded(types[0]) and not (call.client_streaming or call.server_streaming):
                    yield f"{file.package}.{service.name}/{call.name}", f"({types[0]}) returns ({types[1]})"


def message_facts(message, name):
    if not is_recorded(name):
        return
    field_type = descriptor_pb2.FieldDescriptorProto
    for field in message.field:
        kind = field_type.Type.Name(field.type).removeprefix("TYPE_").lower()
        if field.type_name:
            kind = field.type_name.removeprefix(".inference.")
        words = [str(field.number), "repeated" if field.label == field_type.LABEL_REPEATED else "single", kind]
        if field.HasField("oneof_index"):
            words.append(f"in {message.oneof_decl[field.oneof_index].name}")
        yield f"{name}.{field.name}", " ".join(words)
    for nested in message.nested_type:
        yield from message_facts(nested, f"{name}.{nested.name}")


def record(sources):
    said = {}
    for source, files in sources.items():
        for name, fact in facts(files):
            said.setdefault((name, fact), []).append(source)
    lines = [f"{name}: {fact}: {', '.join(who)}" for (name, fact), who in sorted(said.items())]
    (IT / "open_inference.txt").write_text("\n".join(lines) + "\n")
    print(len(lines), "facts")


def classes(files):
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))


def messages(triton, mlserver):
    row, half = struct.pack("<4f", 5.1, 3.5, 1.4, 0.2), struct.pack("<3f", 0.5, 0.25, 0.25)
    request = triton("ModelInferRequest")
    yield "Inputs as raw bytes, with parameters of each kind.", "REQUEST", request(
        model_name="iris", model_version="1", id="7",
        parameters={"a": {"bool_param": True}, "b": {"int64_param": -1}, "c": {"string_param": "s"},
                    "d": {"double_param": 0.5}, "e": {"uint64_param": 1}},
        inputs=[{"name": "input", "datatype": "FP32", "shape": [1, 4]},
                {"name": "text", "datatype": "BYTES", "shape": [1]}],
        outputs=[{"name": "output", "parameters": {"classification": {"int64_param": 2}}}],
        raw_input_contents=[row, b"\x02\0\0\0\xff\xfe"])
    yield "Outputs as raw bytes.", "RAW_RESPONSE", triton("ModelInferResponse")(
        model_name="iris", model_version="1", id="7",
        outputs=[{"name": "output", "datatype": "FP32", "shape": [1, 3]}], raw_output_contents=[half])
    yield "Outputs in the typed lists.", "TYPED_RESPONSE", mlserver("ModelInferResponse")(
        model_name="iris", id="7",
        outputs=[{"name": "all", "datatype": "FP32", "shape": [2], "contents": {
            "bool_contents": [True, False], "int_contents": [-1, 300], "int64_contents": [-(1 << 40)],
            "uint_contents": [7], "uint64_contents": [(1 << 64) - 1], "fp32_contents": [0.75],
            "fp64_contents": [0.1], "bytes_contents": [b"setosa", b"\xff"]}}])
    tensors = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
               "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}]}
    yield "Triton's description of a model.", "METADATA", triton("ModelMetadataResponse")(
        name="iris", versions=["1", "2"], platform="python", **tensors)
    yield "MLServer's, with parameters in field 6.", "METADATA_MLSERVER", mlserver("ModelMetadataResponse")(
        name="iris", versions=["1", "2"], platform="python", parameters={"n": {"int64_param": -7}}, **tensors)
    yield "Triton's configuration of a model, with fields that we leave out.", "CONFIG", triton("ModelConfigResponse")(
        config={"name": "iris", "platform": "p", "backend": "python", "max_batch_size": 64,
                "input": [{"name": "input", "data_type": "TYPE_FP32", "dims": [4]}],
                "output": [{"name": "output", "data_type": "TYPE_STRING", "dims": [-1], "label_filename": "f"}],
                "default_model_filename": "model.py"})


def write_bytes(triton, mlserver):
    lines = ["//! Messages as the official Python stubs of Triton and MLServer encode them, in hexadecimal. Written by",
             "//! `python official_open_inference.py`; see there for what the messages hold.", ""]
    for doc, name, message in messages(triton, mlserver):
        lines += [f"/// `{message.DESCRIPTOR.full_name}`. {doc}", f'pub(crate) const {name}: &str = "\\']
        lines += [f"    {part}\\" for part in textwrap.wrap(message.SerializeToString(deterministic=True).hex(), 100)]
        lines[-1] = lines[-1].removesuffix("\\") + '";'
        lines.append("")
    (IT / "open_inference_bytes.rs").write_text("\n".join(lines[:-1]) + "\n")


if __name__ == "__main__":
    wheels, protocol = sys.argv[1:]
    stubs = {name: list(files_of(wheels, *found)) for name, found in STUBS.items()}
    record({"protocol": list(files_of_protocol(protocol)), **stubs})
    write_bytes(classes(stubs["Triton"]), classes(stubs["MLServer"]))
