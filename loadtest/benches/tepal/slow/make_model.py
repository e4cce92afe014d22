"""Write model.onnx, a model whose calls take as long as the benchmark wants: the work grows with the length of the input.

It takes `steps`, float32 [length], and returns `mean`, float32 [1,1]. Each step is a row of a matrix that is multiplied four
times by another one, of 512 x 512. The weights are made by the graph itself, so the file is small.

How to run it (needed only to remake the model, which is committed):

    pip install numpy==2.4.6 onnx==1.23.2
    python make_model.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ONNX_FILE = Path(__file__).resolve().parent / "model.onnx"
OPSET, IR_VERSION = 13, 8
WIDTH, LAYERS = 512, 4


def main():
    node = helper.make_node
    constants = {"column": np.int64([1]), "wide": np.int64([1, WIDTH]), "square": np.int64([WIDTH, WIDTH])}
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1], [1.0 / WIDTH])
    nodes = [node("Unsqueeze", ["steps", "column"], ["rows"]),
             node("ConstantOfShape", ["wide"], ["spread"], value=one),
             node("ConstantOfShape", ["square"], ["weights"], value=weight),
             node("MatMul", ["rows", "spread"], ["layer0"])]
    for layer in range(LAYERS):
        nodes += [node("MatMul", [f"layer{layer}", "weights"], [f"sum{layer}"]),
                  node("Relu", [f"sum{layer}"], [f"layer{layer + 1}"])]
    nodes.append(node("ReduceMean", [f"layer{LAYERS}"], ["mean"], axes=[0, 1], keepdims=1))
    graph = helper.make_graph(
        nodes, "slow",
        [helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["length"])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(model, full_check=True)
    ONNX_FILE.write_bytes(model.SerializeToString())
    mean = ReferenceEvaluator(str(ONNX_FILE)).run(None, {"steps": np.float32([2, 4])})[0]
    assert np.allclose(mean, [[3]]), mean


if __name__ == "__main__":
    main()
