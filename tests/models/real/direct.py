"""Print how many rows a second onnxruntime computes when it is called directly.

    python direct.py MODEL.onnx CASE.json ROWS SECONDS THREADS
"""

import json
import sys
from time import perf_counter

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

NUMPY = {"FP32": np.float32, "INT64": np.int64}


def main():
    model, cases, rows, seconds, threads = sys.argv[1:]
    options = SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {}
    for given in json.load(open(cases))[0]["inputs"]:
        one = np.array(given["data"], NUMPY[given["datatype"]]).reshape(given["shape"])[:1]
        inputs[given["name"]] = np.repeat(one, int(rows), axis=0)
    session.run(None, inputs)
    calls, began = 0, perf_counter()
    while perf_counter() - began < float(seconds):
        session.run(None, inputs)
        calls += 1
    print(calls * int(rows) / (perf_counter() - began))


if __name__ == "__main__":
    main()
