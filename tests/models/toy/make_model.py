"""Write model.onnx, a toy model for the tests whose shapes and names differ from those of the iris model.

It takes `x`, float32 [N,2,3], and returns `score`, float32 [N,1]: half the sum of a row's six values, plus 1.
So a test can work out by hand what the model must answer.

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


def main():
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"], axis=1),
         helper.make_node("Gemm", ["flat", "weights", "bias"], ["score"])],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.full((6, 1), 0.5, np.float32), "weights"),
         numpy_helper.from_array(np.ones(1, np.float32), "bias")])
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(model, full_check=True)
    ONNX_FILE.write_bytes(model.SerializeToString())

    sample = np.float32([[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]])
    scores = ReferenceEvaluator(str(ONNX_FILE)).run(["score"], {"x": sample})[0]
    assert scores.tolist() == [[11.5], [1.0]], scores
    print("scores of the two sample rows:", scores.tolist())


if __name__ == "__main__":
    main()
