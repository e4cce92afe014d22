"""Write the two ONNX files of this folder. The fault run serves them beside the toy model of tests/models.

series/model.onnx    `steps` int64 [N,length] -> `total` int64 [N,1], the sum of a row plus 2^32 times the version, and `echo`
                     int64 [N,length], twice each step plus the version. The version is in a file of its own beside the
                     model, version.bin: eight bytes, little-endian
wide/model.onnx      `start` string [N,1], a number as text -> `ramp` float32 [N,1200], the start plus 4000 times the
                     place: a result above 8 KiB

How to run it (needed only to remake the models, which are committed):

    pip install numpy==2.4.6 onnx==1.23.2
    python make_models.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

HERE = Path(__file__).resolve().parent
OPSET, IR_VERSION = 13, 8
WIDTH, STEP = 1200, 4000


def write(name, graph, external=()):
    folder = HERE / name
    for tensor in external:
        (folder / f"{tensor.name}.bin").write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, location=f"{tensor.name}.bin")
        tensor.ClearField("raw_data")
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    return ReferenceEvaluator(onnx.load(str(path)))


def series():
    constants = [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in [
        ("version", [1]), ("scale", [1 << 32]), ("two", [2]), ("places", [1])]]
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["steps", "places"], ["sum"], keepdims=1),
         helper.make_node("Mul", ["version", "scale"], ["offset"]),
         helper.make_node("Add", ["sum", "offset"], ["total"]),
         helper.make_node("Mul", ["steps", "two"], ["doubled"]),
         helper.make_node("Add", ["doubled", "version"], ["echo"])],
        "series",
        [helper.make_tensor_value_info("steps", TensorProto.INT64, ["N", "length"])],
        [helper.make_tensor_value_info("total", TensorProto.INT64, ["N", 1]),
         helper.make_tensor_value_info("echo", TensorProto.INT64, ["N", "length"])],
        constants)
    session = write("series", graph, [tensor for tensor in graph.initializer if tensor.name == "version"])
    total, echo = session.run(None, {"steps": np.int64([[3, 4, 5], [0, 0, -2]])})
    assert total.tolist() == [[12 + (1 << 32)], [-2 + (1 << 32)]], total
    assert echo.tolist() == [[7, 9, 11], [1, 1, -3]], echo


def wide():
    graph = helper.make_graph(
        [helper.make_node("Cast", ["start"], ["number"], to=TensorProto.FLOAT),
         helper.make_node("Add", ["number", "places"], ["ramp"])],
        "wide",
        [helper.make_tensor_value_info("start", TensorProto.STRING, ["N", 1])],
        [helper.make_tensor_value_info("ramp", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(np.arange(WIDTH, dtype=np.float32) * STEP, "places")])
    ramp = write("wide", graph).run(None, {"start": np.array([["7"], ["0"]], dtype=object)})[0]
    assert ramp.shape == (2, WIDTH) and ramp[0, 0] == 7 and ramp[1, -1] == (WIDTH - 1) * STEP, ramp


if __name__ == "__main__":
    series()
    wide()
